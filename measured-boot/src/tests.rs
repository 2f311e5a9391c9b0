//! Tests on a PE file made here, judged by sbsign where it is installed.

use crate::authenticode;
use crate::pe::{Pe, PeError};
use std::process::Command;

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

/// An EFI program with two sections that returns at once.
fn program() -> Vec<u8> {
    let mut b = vec![0; 0x800];
    put(&mut b, 0, b"MZ");
    put(&mut b, 0x3c, &0x40u32.to_le_bytes());
    put(&mut b, 0x40, b"PE\0\0");
    put(&mut b, 0x44, &0x8664u16.to_le_bytes());
    put(&mut b, 0x46, &2u16.to_le_bytes());
    put(&mut b, 0x54, &240u16.to_le_bytes());
    put(&mut b, 0x56, &0x22u16.to_le_bytes());
    let o = 0x58;
    put(&mut b, o, &0x20bu16.to_le_bytes());
    put(&mut b, o + 16, &0x1000u32.to_le_bytes());
    put(&mut b, o + 20, &0x1000u32.to_le_bytes());
    put(&mut b, o + 32, &0x1000u32.to_le_bytes());
    put(&mut b, o + 36, &0x200u32.to_le_bytes());
    put(&mut b, o + 56, &0x3000u32.to_le_bytes());
    put(&mut b, o + 60, &0x400u32.to_le_bytes());
    put(&mut b, o + 68, &10u16.to_le_bytes());
    put(&mut b, o + 108, &16u32.to_le_bytes());
    for (i, (name, address, raw, flags)) in
        [(b".text\0\0\0", 0x1000u32, 0x400u32, 0x6000_0020u32), (b".data\0\0\0", 0x2000, 0x600, 0xc000_0040)]
            .into_iter()
            .enumerate()
    {
        let s = o + 240 + i * 40;
        put(&mut b, s, name);
        put(&mut b, s + 8, &0x180u32.to_le_bytes());
        put(&mut b, s + 12, &address.to_le_bytes());
        put(&mut b, s + 16, &0x200u32.to_le_bytes());
        put(&mut b, s + 20, &raw.to_le_bytes());
        put(&mut b, s + 36, &flags.to_le_bytes());
    }
    b[0x400] = 0xc3;
    b[0x700] = 7;
    b
}

#[test]
fn sections_are_read_and_overlaps_refused() {
    let bytes = program();
    let pe = Pe::parse(&bytes).unwrap();
    let text = pe.section(".text").unwrap();
    assert_eq!((text.virtual_size, text.raw.clone()), (0x180, 0x400..0x600));
    assert_eq!(pe.content(text).unwrap().len(), 0x180);
    let mut bad = bytes;
    put(&mut bad, 0x58 + 240 + 40 + 12, &0x1100u32.to_le_bytes());
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
    put(&mut same, 0x58 + 64, &[1, 2, 3, 4]);
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
