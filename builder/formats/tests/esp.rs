//! The EFI system partition against fsck.fat and mtools.
#![allow(clippy::unwrap_used)] // a test fails by it

use ashlar_formats::esp::{self, EspError, EspOptions};
use std::fs::File;
use std::path::Path;
use std::process::{Command, Output};

fn options(size: u64) -> EspOptions {
    EspOptions { size, serial: 0x1234_abcd, label: "ASHLAR".into(), time: 1_700_000_000 }
}

fn uki(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i / 4096 * 31 + i) as u8).collect()
}

/// A whole partition: the prefix, then zeros.
fn partition(path: &Path, uki: &[u8], size: u64) -> u64 {
    let file = File::create(path).unwrap();
    let length = esp::write(uki, &options(size), &file).unwrap();
    assert_eq!(file.metadata().unwrap().len(), length);
    file.set_len(size).unwrap();
    length
}

fn tool(program: &str, arguments: &[&str]) -> Option<Output> {
    let output = Command::new(program).args(arguments).env("TZ", "UTC").output().ok();
    if output.is_none() {
        eprintln!("skipped: {program} is needed (packages dosfstools and mtools)");
    }
    output
}

#[test]
fn fsck_and_mtools_accept_it_at_both_cluster_sizes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("esp");
    let image = path.display().to_string();
    for (size, length) in [(34 << 20, 9 << 20), (64 << 20, 40_000_001), (512 << 20, 70_000_003)] {
        let uki = uki(length);
        partition(&path, &uki, size);
        let Some(output) = tool("fsck.fat", &["-n", &image]) else { return };
        assert!(output.status.success(), "{size}: {output:?}");
        // fsck.fat lets an unknown number of free clusters pass with a remark; there is none.
        assert!(!String::from_utf8_lossy(&output.stdout).contains("summary"), "{size}: {output:?}");
        let Some(output) = tool("mtype", &["-i", &image, "::EFI/BOOT/BOOTX64.EFI"]) else { return };
        assert!(output.status.success() && output.stdout == uki, "{size}: the UKI reads back otherwise");
        let Some(output) = tool("mdir", &["-i", &image, "::EFI/BOOT"]) else { return };
        let listing = String::from_utf8_lossy(&output.stdout);
        assert!(listing.contains("1234-ABCD") && listing.contains("2023-11-14"), "{listing}");
        assert!(listing.contains("ASHLAR"), "{listing}");
        assert_eq!(esp::read_uki(&mut File::open(&path).unwrap()).unwrap(), uki);
    }
}

#[test]
fn the_same_uki_gives_the_same_bytes_and_little_more_than_itself() {
    let dir = tempfile::tempdir().unwrap();
    let uki = uki(5 << 20);
    let (one, two) = (dir.path().join("1"), dir.path().join("2"));
    let length = partition(&one, &uki, 512 << 20);
    partition(&two, &uki, 512 << 20);
    let read = |path: &Path| std::fs::read(path).unwrap();
    assert!(read(&one) == read(&two));
    assert!(length < (5 << 20) + (2 << 20), "{length}");
}

#[test]
fn what_does_not_fit_is_refused_with_the_size_that_would() {
    let uki = uki(40 << 20);
    let mut out = Vec::new();
    let Err(EspError::TooSmall { needed, .. }) = esp::write(&uki, &options(34 << 20), &mut out) else {
        panic!("it was written")
    };
    assert!(out.is_empty());
    assert_eq!(needed, esp::required(40 << 20));
    esp::write(&uki, &options(needed), &mut out).unwrap();
    assert!(matches!(esp::write(b"", &options(1 << 20), &mut out), Err(EspError::TooSmall { .. })));
}

#[test]
fn a_label_that_others_would_not_read_is_refused() {
    for label in ["TWELVE-CHARS", "small", "A/B", "\u{e4}"] {
        let options = EspOptions { label: label.into(), ..options(34 << 20) };
        let mut out = Vec::new();
        assert!(matches!(esp::write(b"x", &options, &mut out), Err(EspError::Options(..))), "{label}");
        assert!(out.is_empty());
    }
}

#[test]
fn damaged_file_systems_are_survived() {
    let mut good = Vec::new();
    esp::write(&uki(100_000), &options(34 << 20), &mut good).unwrap();
    for at in (0..512).chain((512..good.len()).step_by(997)) {
        let mut bad = good.clone();
        bad[at] ^= 0xff;
        let _ = esp::read_uki(&mut std::io::Cursor::new(bad));
    }
    for length in (0..good.len()).step_by(4099) {
        let _ = esp::read_uki(&mut std::io::Cursor::new(&good[..length]));
    }
}
