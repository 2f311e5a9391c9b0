//! A whole small root with everything in it: what is made does not depend on the order of packages, and a
//! second run changes nothing.

#![allow(clippy::unwrap_used)] // a test fails by it

mod common;

use ashlar_configure::{Options, Scripts, Step, configure};
use common::{add_host, merged, put, target, text};
use std::collections::BTreeMap;
use std::path::Path;

#[test]
fn one_run_makes_all_and_a_second_one_changes_nothing() {
    let mut tree = merged();
    let library = Path::new("/usr/lib/x86_64-linux-gnu/libc.so.6");
    let has_library = library.exists();
    if has_library {
        add_host(&mut tree, library, "/usr/lib/x86_64-linux-gnu/libc.so.6");
    } else {
        eprintln!("this machine is not Debian's amd64: no cache of libraries is looked at");
    }
    for (path, content) in [
        ("/usr/share/base-passwd/passwd.master", "root:*:0:0:root:/root:/bin/bash\n"),
        ("/usr/share/base-passwd/group.master", "root:*:0:\nmail:*:8:\nutmp:*:43:\n"),
        ("/usr/share/base-files/motd", "hello\n"),
        ("/usr/share/zoneinfo/Etc/UTC", "TZif"),
        ("/usr/bin/mawk", "x"),
        ("/usr/bin/launch", "x"),
        ("/usr/lib/sysusers.d/bus.conf", "u bus - \"Bus\"\n"),
    ] {
        put(&mut tree, path, content);
    }
    let scripts = [
        ("bus", "#!/bin/sh\ndpkg-statoverride --update --add root bus 4754 /usr/bin/launch\n"),
        ("mawk", "#!/bin/sh\nupdate-alternatives --install /usr/bin/awk awk /usr/bin/mawk 5\n"),
        (
            "postfix",
            "#!/bin/sh\naddgroup --system postdrop\nadduser --system --group postfix\n. /usr/share/debconf/confmodule\n",
        ),
    ];
    let mut packages: Vec<Scripts<'_>> = scripts
        .iter()
        .map(|(package, script)| Scripts {
            package,
            version: "1",
            files: BTreeMap::from([("postinst", *script)]),
        })
        .collect();
    let options = Options {
        time: 1_700_000_000,
        keep_package_database: Some(vec!["Package: b\nVersion: 1", "Package: a\nVersion: 2"]),
        ..Options::default()
    };
    let mut reversed = tree.clone();
    let report = configure(&mut tree, &packages, &options).unwrap();
    packages.reverse();
    assert_eq!(configure(&mut reversed, &packages, &options).unwrap(), report);
    assert_eq!(tree, reversed);

    let steps: Vec<Step> = report.done.iter().map(|done| done.step).collect();
    for step in [Step::Accounts, Step::StatOverride, Step::Alternative, Step::BaseFile, Step::PackageDatabase]
    {
        assert!(steps.contains(&step), "{step:?} in {report:#?}");
    }
    assert_eq!(steps.contains(&Step::LibraryCache), has_library);
    assert_eq!(target(&tree, "/etc/alternatives/awk").unwrap(), "/usr/bin/mawk");
    assert_eq!(text(&tree, "/var/lib/dpkg/statoverride"), "root bus 4754 /usr/bin/launch\n");
    assert!(text(&tree, "/var/lib/dpkg/status").starts_with("Package: a\nStatus: install ok installed\n"));
    tree.walk(|path, node| {
        assert!(matches!(node.metadata.mtime, 0 | 1_700_000_000), "{}", String::from_utf8_lossy(path));
    });

    let before = tree.clone();
    let again = configure(&mut tree, &packages, &options).unwrap();
    assert_eq!(tree, before);
    assert_eq!(again.packages, report.packages);
}
