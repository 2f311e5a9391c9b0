//! The seeds that the example of this name writes are what their readers take; the signed index is one of gpg's.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use ashlar_debian::{Deb, Release, read_entries, verify_in_release};
use common::run;
use std::io::{BufReader, Cursor};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// The example, which lies beside the test programs.
fn seeds() -> Option<PathBuf> {
    let program = std::env::current_exe().unwrap();
    let path = program.parent()?.parent()?.join("examples/seeds");
    path.exists().then_some(path)
}

fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let read = |name: String| (name.clone(), std::fs::read(folder.join(name)).unwrap());
    common::names(folder).into_iter().map(read).collect()
}

#[test]
fn seeds_are_valid() {
    let Some(program) = seeds() else {
        return println!("skipped: the example `seeds` was not built (`cargo test --examples` builds it)");
    };
    let folder = tempfile::tempdir().unwrap();
    run(program.to_str().unwrap(), &[folder.path().to_str().unwrap()]).unwrap();

    for (name, bytes) in files(&folder.path().join("deb")) {
        let mut file = Cursor::new(&bytes);
        let deb = Deb::read(&mut file).unwrap_or_else(|why| panic!("{name}: {why}"));
        let control = deb.control_files(&mut file).unwrap();
        assert_eq!(control.keys().collect::<Vec<_>>(), ["control", "postinst", "triggers"], "{name}");
        let mut data = BufReader::new(deb.data(&mut file).unwrap());
        assert!(read_entries(&mut data).unwrap().len() > 10, "{name}");
    }
    for (name, bytes) in files(&folder.path().join("tar")) {
        let entries = read_entries(&mut Cursor::new(&bytes)).unwrap_or_else(|why| panic!("{name}: {why}"));
        assert!(entries.len() > 3, "{name}");
    }
    let release = std::fs::read_to_string(folder.path().join("debian_index/release")).unwrap();
    assert!(Release::parse(&release).unwrap().but_automatic_upgrades);
    for kind in ["ed25519", "rsa2048"] {
        let read = |name: &str| std::fs::read(folder.path().join("in_release").join(name)).ok();
        let Some(signed) = read(kind) else {
            println!("skipped: gpg has made no signature with {kind}");
            continue;
        };
        for key in [format!("{kind}-key"), format!("{kind}-armoured-key")] {
            let text = verify_in_release(&signed, &[read(&key).unwrap()], SystemTime::now()).unwrap();
            assert_eq!(text.trim_end(), release.trim_end(), "{key}");
        }
        let other = if kind == "ed25519" { "rsa2048-key" } else { "ed25519-key" };
        assert!(verify_in_release(&signed, &[read(other).unwrap()], SystemTime::now()).is_err());
    }
}
