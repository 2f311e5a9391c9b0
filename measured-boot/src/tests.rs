//! Tests on a PE file made here, judged by sbsign where it is installed.

use crate::authenticode;
use crate::pe::{Pe, PeError};
use crate::testing::{OPTIONAL, program, put};
use std::process::Command;

#[test]
fn sections_are_read_and_overlaps_refused() {
    let bytes = program();
    let pe = Pe::parse(&bytes).unwrap();
    let text = pe.section(".text").unwrap();
    assert_eq!((text.virtual_size, text.raw.clone()), (0x180, 0x400..0x600));
    assert_eq!(pe.content(text).unwrap().len(), 0x180);
    let mut bad = bytes;
    put(&mut bad, OPTIONAL + 240 + 40 + 12, &0x1100u32.to_le_bytes());
    assert_eq!(Pe::parse(&bad).unwrap_err(), PeError::Overlap(".text".into(), ".data".into()));
}

#[test]
fn every_truncation_and_every_changed_header_byte_is_survived() {
    let bytes = program();
    for length in 0..bytes.len() {
        let _ = authenticode::digest(&bytes[..length]);
    }
    for at in 0..0x400 {
        for value in [0, 1, 0x7f, 0xff] {
            let mut changed = bytes.clone();
            changed[at] = value;
            let _ = authenticode::digest(&changed);
            if let Ok(pe) = Pe::parse(&changed) {
                pe.sections.iter().for_each(|section| drop(pe.content(section)));
            }
        }
    }
}

#[test]
fn the_digest_covers_sections_and_not_checksum_or_signature() {
    let bytes = program();
    let digest = authenticode::digest(&bytes).unwrap();
    let mut same = bytes.clone();
    put(&mut same, OPTIONAL + 64, &[1, 2, 3, 4]);
    assert_eq!(authenticode::digest(&same).unwrap(), digest);
    let mut other = bytes;
    other[0x700] = 8;
    assert_ne!(authenticode::digest(&other).unwrap(), digest);
}

/// sbsign puts the hash that it computed into the signature: ours must be found there.
#[test]
fn sbsign_computes_the_same_digest_and_checksum() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let openssl = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=test", "-days", "2", "-keyout"])
        .arg(path("key"))
        .arg("-out")
        .arg(path("cert"))
        .output();
    std::fs::write(path("in"), program()).unwrap();
    let sbsign = Command::new("sbsign")
        .arg("--key")
        .arg(path("key"))
        .arg("--cert")
        .arg(path("cert"))
        .arg("--output")
        .arg(path("out"))
        .arg(path("in"))
        .output();
    let (Ok(openssl), Ok(sbsign)) = (openssl, sbsign) else {
        eprintln!("skipped: openssl and sbsign are needed (packages openssl, sbsigntool)");
        return;
    };
    assert!(openssl.status.success() && sbsign.status.success(), "{sbsign:?}");
    let signed = std::fs::read(path("out")).unwrap();
    let pe = Pe::parse(&signed).unwrap();
    assert!(!pe.certificates.is_empty());
    let digest = authenticode::digest(&signed).unwrap().0;
    let table = &signed[pe.certificates.clone()];
    assert!(table.windows(32).any(|window| window == digest), "sbsign signed another digest");
    let stored: [u8; 4] = signed[pe.checksum_offset..pe.checksum_offset + 4].try_into().unwrap();
    assert_eq!(u32::from_le_bytes(stored), pe.checksum());
}
