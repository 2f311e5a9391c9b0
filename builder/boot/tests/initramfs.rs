//! The initramfs, unpacked by zstd and GNU cpio.
#![allow(clippy::unwrap_used)] // a test fails by it

mod common;

use ashlar_boot::initramfs::{self, InitramfsError};
use ashlar_boot::modules::Module;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::{Command, Stdio};

fn modules() -> Vec<Module> {
    ["dm-mod", "erofs"]
        .iter()
        .map(|name| Module {
            name: name.replace('-', "_"),
            file_name: format!("{name}.ko"),
            bytes: name.repeat(10_000).into_bytes().into(),
        })
        .collect()
}

#[test]
fn zstd_and_cpio_unpack_what_init_expects() {
    let dir = tempfile::tempdir().unwrap();
    let packed = dir.path().join("initramfs.zst");
    std::fs::write(&packed, initramfs::build(b"#!init", &modules(), 1_700_000_000).unwrap()).unwrap();
    let plain = dir.path().join("initramfs");
    let Some(output) = common::run(
        "zstd",
        &["--decompress", "--quiet", "-o"],
        &[plain.to_str().unwrap(), packed.to_str().unwrap()],
    ) else {
        return;
    };
    assert!(output.status.success(), "{output:?}");
    let unpacked = dir.path().join("root");
    std::fs::create_dir(&unpacked).unwrap();
    // An ordinary user may not make devices, so the console is left out here and looked at in the listing.
    let cpio = Command::new("cpio")
        .args(["--extract", "--make-directories", "--preserve-modification-time", "--quiet"])
        .args(["--nonmatching", "dev/console"])
        .current_dir(&unpacked)
        .stdin(std::fs::File::open(&plain).unwrap())
        .stderr(Stdio::piped())
        .output();
    let Ok(output) = cpio else {
        eprintln!("skipped: cpio is needed (package cpio)");
        return;
    };
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    let init = std::fs::metadata(unpacked.join("init")).unwrap();
    assert_eq!((init.permissions().mode() & 0o7777, init.mtime()), (0o755, 1_700_000_000));
    for directory in ["dev", "proc", "run", "sys", "sysroot"] {
        assert!(unpacked.join(directory).is_dir(), "{directory}");
    }
    let folder = unpacked.join("usr/lib/ashlar/modules");
    assert_eq!(std::fs::read_to_string(folder.join("order")).unwrap(), "dm-mod.ko\nerofs.ko\n");
    for module in modules() {
        assert_eq!(std::fs::read(folder.join(&module.file_name)).unwrap(), module.bytes.as_ref());
    }
    let listing = Command::new("cpio")
        .args(["--list", "--verbose", "--quiet"])
        .stdin(std::fs::File::open(&plain).unwrap())
        .output()
        .unwrap();
    let listing = String::from_utf8_lossy(&listing.stdout).into_owned();
    let console = listing.lines().find(|line| line.ends_with("dev/console")).unwrap();
    let words: Vec<&str> = console.split_ascii_whitespace().collect();
    assert_eq!((words[0], words[4], words[5]), ("crw-------", "5,", "1"), "{console}");
}

#[test]
fn it_is_one_frame_of_the_same_bytes_that_the_kernel_can_hold() {
    let build = || initramfs::build(b"#!init", &modules(), 7).unwrap();
    let bytes = build();
    assert!(bytes == build());
    assert_eq!(zstd::zstd_safe::find_frame_compressed_size(&bytes).unwrap(), bytes.len());
    let length = zstd::zstd_safe::get_frame_content_size(&bytes).unwrap().unwrap();
    assert_eq!(length, zstd::decode_all(bytes.as_slice()).unwrap().len() as u64);
    // The kernel refuses windows above 128 MiB; a reader that allows 8 MiB must do.
    let mut reader = zstd::Decoder::new(bytes.as_slice()).unwrap();
    reader.window_log_max(23).unwrap();
    std::io::copy(&mut reader, &mut std::io::sink()).unwrap();
}

#[test]
fn an_empty_init_is_refused() {
    assert!(matches!(initramfs::build(b"", &modules(), 0), Err(InitramfsError::NoInit)));
}
