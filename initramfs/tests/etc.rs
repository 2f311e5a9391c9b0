//! `/etc` in memory, on a real kernel.

#![allow(clippy::unwrap_used)]

mod common;

use ashlar_init::etc::{Entry, Etc};
use common::{inside, sh};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

fn files(entries: &[(&str, Entry)]) -> BTreeMap<String, Entry> {
    entries.iter().map(|(path, entry)| ((*path).to_owned(), entry.clone())).collect()
}

#[test]
fn nobody_but_init_can_write() {
    if !inside("nobody_but_init_can_write") {
        return;
    }
    let folder = "/run/test";
    sh(
        "mount -t tmpfs tmp /run && mkdir -p /run/test/etc/ssl && cd /run/test/etc && echo own > kept && echo image > hostname \
        && ln -s ../usr/lib/os-release os-release && echo zone > localtime && echo pem > ssl/certificates",
    );
    let target = Path::new(folder).join("etc");
    let staging = Path::new(folder).join("staging");
    let first = files(&[
        ("hostname", Entry::File("one\n".into())),
        ("ashlar/proxy.env", Entry::Secret("a=b\n".into())),
        ("resolv.conf", Entry::Link("/run/ashlar/resolv.conf")),
        ("localtime", Entry::LinkUnlessThere("/usr/share/zoneinfo/Etc/UTC")),
    ]);
    let mut etc = Etc::make(&target, &staging, first.clone()).unwrap();
    let read = |name: &str| fs::read_to_string(target.join(name)).unwrap();
    assert_eq!(
        (read("kept"), read("hostname"), read("ssl/certificates")),
        ("own\n".into(), "one\n".into(), "pem\n".into())
    );
    assert_eq!(read("localtime"), "zone\n", "the image's own stays");
    assert_eq!(fs::read_link(target.join("resolv.conf")).unwrap(), Path::new("/run/ashlar/resolv.conf"));
    assert_eq!(fs::read_link(target.join("os-release")).unwrap(), Path::new("../usr/lib/os-release"));
    assert_eq!(sh("stat -c %a /run/test/etc/ashlar/proxy.env").trim(), "600");
    assert!(!staging.exists());
    let options = sh("findmnt -n -o OPTIONS /run/test/etc");
    for option in ["ro", "nosuid", "nodev", "noexec"] {
        assert!(options.trim().split(',').any(|one| one == option), "{options}");
    }
    for name in ["kept", "new", "hostname"] {
        let error = fs::write(target.join(name), "x").unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ReadOnlyFilesystem, "{name}");
    }

    let mut second = first.clone();
    second.insert("hostname".into(), Entry::File("two\n".into()));
    // Somebody has the old one open or mounted elsewhere: it stays as it was for him.
    let mut old = fs::File::open(target.join("hostname")).unwrap();
    assert_eq!(etc.replace(second.clone()).unwrap(), ["hostname"]);
    assert_eq!(read("hostname"), "two\n");
    let mut text = String::new();
    std::io::Read::read_to_string(&mut old, &mut text).unwrap();
    assert_eq!(text, "one\n");
    assert_eq!(etc.replace(second).unwrap(), Vec::<String>::new());
    assert!(fs::write(target.join("kept"), "x").is_err());
    assert!(
        !fs::read_dir(&target).unwrap().any(|entry| entry
            .unwrap()
            .file_name()
            .to_string_lossy()
            .contains(".new"))
    );
}
