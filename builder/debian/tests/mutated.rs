//! Readers of outside bytes on input that was damaged at random places: they may refuse it, never panic, and never take
//! memory or time without bounds. `PROPTEST_CASES` sets another number of cases.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use ashlar_debian::{Deb, Release, parse_relations, read_entries, stanzas};
use common::{Entry, tar};
use proptest::prelude::*;
use std::io::{Cursor, Read};
use std::sync::LazyLock;

static TAR: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let long = format!("./usr/{}/x", "long-name".repeat(20));
    tar(&[
        Entry::Directory("./", 0o755),
        Entry::Directory("./usr/", 0o755),
        Entry::File("./usr/a", &"content ".repeat(200)),
        Entry::File(&long, "x"),
        Entry::Symlink("./usr/link", &"target/".repeat(30)),
        Entry::HardLink("./usr/hard", "./usr/a"),
    ])
});

static CONTROL: LazyLock<Vec<u8>> = LazyLock::new(|| {
    tar(&[
        Entry::File("./control", "Package: a\n"),
        Entry::File("./postinst", "#!/bin/sh\n"),
        Entry::Symlink("./x", "y"),
    ])
});

static DEB: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let scripts = [Entry::File("./postinst", "#!/bin/sh\n"), Entry::File("./md5sums", "x")];
    common::Deb::with_scripts("a", "1", "Depends: b\n", &[Entry::File("./usr/a", "x")], &scripts).bytes
});

const RELEASE: &str = "Suite: stable\nCodename: trixie\nDate: Sat, 21 Nov 2026 09:15:44 UTC\n\
    Valid-Until: Sat, 28 Nov 2026 09:15:44 UTC\nNotAutomatic: yes\nArchitectures: all amd64\nComponents: main\nSHA256:\n \
    abcdabcd00112233445566778899aabbccddeeff00112233445566778899aabb 12 main/binary-amd64/Packages.xz\n";
const PACKAGES: &str = "Package: a\nVersion: 1:2-3\nArchitecture: amd64\nDepends: b (>= 1) | c [amd64], d:any <!x>\n\
    Description: x\n more\n\nPackage: b\nProvides: c (= 1)\n\n";

/// Makes the checksums of the headers right again, so that damage behind them is reached.
fn with_checksums(mut archive: Vec<u8>) -> Vec<u8> {
    for block in archive.chunks_exact_mut(512).filter(|block| &block[257..262] == b"ustar") {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
    archive
}

/// A package file of two archives that are not packed.
fn plain_deb(control: &[u8], data: &[u8]) -> Vec<u8> {
    let mut deb = b"!<arch>\n".to_vec();
    for (name, bytes) in [("debian-binary", &b"2.0\n"[..]), ("control.tar", control), ("data.tar", data)] {
        deb.extend(
            format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n", 0, 0, 0, 100_644, bytes.len()).bytes(),
        );
        deb.extend_from_slice(bytes);
        deb.resize(deb.len().next_multiple_of(2), b'\n');
    }
    deb
}

/// Places with new bytes, a place to cut at, and a piece to be written somewhere else.
type Damage = (Vec<(usize, u8)>, Option<usize>, Option<(usize, usize, usize)>);

fn damage() -> impl Strategy<Value = Damage> {
    (
        prop::collection::vec((any::<usize>(), any::<u8>()), 0..8),
        prop::option::weighted(0.3, any::<usize>()),
        prop::option::weighted(0.3, (any::<usize>(), 0_usize..600, any::<usize>())),
    )
}

fn damaged(good: &[u8], (changes, cut, copy): &Damage) -> Vec<u8> {
    let mut bytes = good.to_vec();
    for (at, byte) in changes {
        let at = at % bytes.len();
        bytes[at] = *byte;
    }
    if let Some((from, length, to)) = copy {
        let from = from % bytes.len();
        let piece = bytes[from..(from + length).min(bytes.len())].to_vec();
        let to = to % bytes.len();
        bytes.splice(to..to, piece);
    }
    if let Some(cut) = cut {
        bytes.truncate(cut % bytes.len());
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_damaged_tar_is_read_or_refused(damage in damage(), repair in any::<bool>()) {
        let bytes = damaged(&TAR, &damage);
        let bytes = if repair { with_checksums(bytes) } else { bytes };
        if let Ok(entries) = read_entries(&mut Cursor::new(&bytes)) {
            for entry in entries {
                let parts = entry.path.split(|byte| *byte == b'/');
                prop_assert!(entry.path.is_empty() || parts.clone().all(|part| !matches!(part, b"" | b"." | b"..")));
                if let ashlar_debian::EntryKind::File { offset, len } = entry.kind {
                    prop_assert!(offset.checked_add(len).is_some_and(|end| end <= bytes.len() as u64));
                }
            }
        }
    }

    #[test]
    fn a_damaged_deb_is_read_or_refused(damage in damage(), inside in any::<bool>()) {
        let bytes = if inside {
            plain_deb(&with_checksums(damaged(&CONTROL, &damage)), &TAR)
        } else {
            damaged(&DEB, &damage)
        };
        let mut file = Cursor::new(&bytes);
        if let Ok(deb) = Deb::read(&mut file) {
            if let Ok(files) = deb.control_files(&mut file) {
                prop_assert!(files.keys().all(|name| !name.contains(['/', '\n', ' '])));
            }
            if let Ok(data) = deb.data(&mut file) {
                let _ = read_entries(&mut std::io::BufReader::new(data.take(1 << 20)));
            }
        }
    }

    #[test]
    fn damaged_control_data_is_read_or_refused(damage in damage()) {
        let _ = Release::parse(&String::from_utf8_lossy(&damaged(RELEASE.as_bytes(), &damage)));
        for stanza in stanzas(&String::from_utf8_lossy(&damaged(PACKAGES.as_bytes(), &damage))) {
            for (name, value) in stanza.fields() {
                prop_assert!(!name.is_empty());
                let _ = parse_relations(value, "amd64");
            }
        }
    }
}

#[test]
fn undamaged_input_is_read() {
    assert_eq!(read_entries(&mut Cursor::new(&*TAR)).unwrap().len(), 6);
    let mut file = Cursor::new(&*DEB);
    let deb = Deb::read(&mut file).unwrap();
    assert_eq!(deb.control_files(&mut file).unwrap().len(), 3);
    let mut file = Cursor::new(plain_deb(&CONTROL, &TAR));
    let deb = Deb::read(&mut file).unwrap();
    assert_eq!(deb.control_files(&mut file).unwrap().len(), 2);
    assert_eq!(read_entries(&mut Cursor::new(with_checksums(TAR.clone()))).unwrap().len(), 6);
    assert!(Release::parse(RELEASE).unwrap().not_automatic);
}
