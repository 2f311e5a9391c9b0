//! The verity tree against veritysetup: the same bytes, and accepted.
#![allow(clippy::unwrap_used)] // a test fails by it

use ashlar_formats::verity::{self, VerityError};
use std::fs::File;
use std::process::Command;

const UUID: &str = "01234567-89ab-4cde-8f01-23456789abcd";

fn data(path: &std::path::Path, blocks: usize) -> File {
    let bytes: Vec<u8> =
        (0..blocks * 1024).flat_map(|i| (i as u32).wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    std::fs::write(path, bytes).unwrap();
    File::open(path).unwrap()
}

#[test]
fn the_tree_is_veritysetups_for_every_shape() {
    if Command::new("veritysetup").arg("--version").output().is_err() {
        eprintln!("skipped: veritysetup is needed (package cryptsetup-bin)");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (data_path, ours_path, theirs_path) =
        (dir.path().join("data"), dir.path().join("ours"), dir.path().join("theirs"));
    let uuid: [u8; 16] = hex::decode(UUID.replace('-', "")).unwrap().try_into().unwrap();
    let salt = [0x5a; 32];
    // One level, a full and an overfull one, more than one chunk, three levels.
    for blocks in [2, 128, 129, 257, 16_384, 16_385] {
        let file = data(&data_path, blocks);
        let mut ours = Vec::new();
        let root = verity::write(&file, blocks as u64 * 4096, salt, uuid, &mut ours).unwrap();
        std::fs::write(&ours_path, &ours).unwrap();
        let _ = std::fs::remove_file(&theirs_path);
        let made = Command::new("veritysetup")
            .arg("format")
            .arg(format!("--salt={}", hex::encode(salt)))
            .arg(format!("--uuid={UUID}"))
            .args([&data_path, &theirs_path])
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
        assert!(ours == std::fs::read(&theirs_path).unwrap(), "{blocks} blocks: the trees differ");
        assert_eq!(ours.len() as u64, ashlar_image::verity::size(blocks as u64));
        let checked = Command::new("veritysetup")
            .arg("verify")
            .args([&data_path, &ours_path])
            .arg(root.root_hash.to_string())
            .output()
            .unwrap();
        assert!(checked.status.success(), "{blocks} blocks: {checked:?}");
    }
}

#[test]
fn data_that_is_no_whole_number_of_blocks_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = data(&dir.path().join("data"), 1);
    for length in [0, 4095, 4097] {
        let result = verity::write(&file, length, [0; 32], [0; 16], &mut Vec::new());
        assert!(matches!(result, Err(VerityError::Length(l)) if l == length));
    }
    let short = verity::write(&file, 8192, [0; 32], [0; 16], &mut Vec::new());
    assert!(matches!(short, Err(VerityError::Io(..))));
}
