//! One thing is changed in one of two equal releases, and the verdict names exactly that.
#![allow(clippy::unwrap_used)] // a test fails by it

mod common;

use ashlar_compare::same::compare_ukis;
use ashlar_compare::{ReleaseFolder, Verdict, same};
use ashlar_formats::erofs::Compression;
use ashlar_tree::Node;
use common::{Parts, find, meta, patch, program, write};
use std::path::Path;

fn pair(dir: &Path, change: impl FnOnce(&mut Parts)) -> (ReleaseFolder, ReleaseFolder) {
    let mut parts = Parts::default();
    let a = write(&dir.join("a"), &parts);
    change(&mut parts);
    (a, write(&dir.join("b"), &parts))
}

/// Lines that are no consequence of others.
fn causes(verdict: &Verdict) -> Vec<String> {
    let causes = verdict.differences.iter().filter(|d| !d.follows);
    causes.map(|d| format!("{}: {}", d.artifact, d.text)).collect()
}

/// Changes bytes of the second of two equal releases.
fn patched(file: &str, needle: &[u8], skip: u64, bytes: &[u8]) -> (u64, Verdict) {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = pair(dir.path(), |_| {});
    let at = find(&b, file, needle) + skip;
    let b = patch(&b, file, at, bytes);
    (at, same(&a, &b).unwrap())
}

#[test]
fn equal_releases_are_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = pair(dir.path(), |_| {});
    let verdict = same(&a, &b).unwrap();
    assert!(verdict.same && verdict.differences.is_empty(), "{}", verdict.text(true));
    assert_eq!(verdict.text(false), "same bytes\n");
}

#[test]
fn a_byte_of_a_file_in_the_root() {
    let program = program();
    let (at, verdict) = patched("root.erofs", &program[4096..4160], 10, b"\xff\xff");
    let wanted = format!("root.erofs: usr/bin/crun differs at byte 4106 of 80000 (root.erofs byte {at})");
    assert_eq!(causes(&verdict), [wanted]);
    assert_eq!((verdict.differences[0].offset, verdict.differences[0].byte), (Some(4106), Some(at)));
    assert!(!verdict.same);
    // A tail that lies behind its inode.
    let (at, verdict) = patched("root.erofs", b"a tail of the inode", 2, b"T");
    assert_eq!(
        causes(&verdict),
        [format!("root.erofs: usr/bin/small differs at byte 2 of 19 (root.erofs byte {at})")]
    );
}

#[test]
fn a_byte_of_a_compressed_file() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = pair(dir.path(), |parts| {
        let mut text = b"the same words again and again, ".repeat(3000);
        parts.compression = Compression::Lz4;
        parts.root.insert(b"/usr/share/text", Node::file(meta(0o644), text.clone())).unwrap();
        drop(write(&dir.path().join("c"), parts));
        text[70_000] = b'X';
        parts.root.insert(b"/usr/share/text", Node::file(meta(0o644), text)).unwrap();
    });
    drop(a);
    let a = ReleaseFolder::open(&dir.path().join("c")).unwrap();
    let verdict = same(&a, &b).unwrap();
    let lines = causes(&verdict);
    assert_eq!(lines.len(), 1, "{}", verdict.text(true));
    let beginning = "root.erofs: usr/share/text differs at byte 70000 of 96000 (in a compressed cluster, root.erofs byte ";
    assert!(lines[0].starts_with(beginning), "{lines:?}");
}

#[test]
fn fields_of_the_root() {
    // The UUID of the superblock is 48 bytes into it. Its checksum no longer fits, which the reader says.
    let (_, verdict) = patched("root.erofs", &[3; 16], 0, b"\x04");
    let lines = causes(&verdict);
    assert!(lines[0].starts_with("root.erofs: superblock: UUID is 03030303"), "{lines:?}");

    let dir = tempfile::tempdir().unwrap();
    let (a, b) = pair(dir.path(), |parts| {
        parts.root.get_mut(b"/usr/bin/crun").unwrap().metadata.mode = 0o4755;
        parts.root.get_mut(b"/usr/lib/list").unwrap().metadata.uid = 5;
    });
    let verdict = same(&a, &b).unwrap();
    let lines = causes(&verdict);
    assert_eq!(lines.len(), 2, "{}", verdict.text(true));
    assert!(
        lines[0].starts_with("root.erofs: usr/bin/crun: mode is 0755 and 4755 (root.erofs byte "),
        "{lines:?}"
    );
    assert!(
        lines[1].starts_with("root.erofs: usr/lib/list: owner is 0:0 and 5:0 (root.erofs byte "),
        "{lines:?}"
    );
    assert!(verdict.text(false).contains("follows from that:"), "{}", verdict.text(false));
    let following: Vec<&str> =
        verdict.differences.iter().filter(|d| d.follows).map(|d| d.artifact.as_str()).collect();
    for artifact in ["root.verity", "uki.efi", "esp.img", "disk.raw", "release.json"] {
        assert!(following.contains(&artifact), "{artifact}: {}", verdict.text(true));
    }
}

#[test]
fn files_that_are_new_or_longer_or_in_another_order() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = pair(dir.path(), |parts| {
        parts.root.insert(b"/usr/bin/new", Node::file(meta(0o755), *b"new")).unwrap();
        parts.root.insert(b"/usr/lib/list", Node::file(meta(0o644), *b"two\none\nthree\n")).unwrap();
        parts
            .root
            .insert(b"/usr/lib/os-release", Node::file(meta(0o644), *b"ID=test\nBUILT=12:30:02\n"))
            .unwrap();
    });
    let verdict = same(&a, &b).unwrap();
    let lines = causes(&verdict);
    assert_eq!(lines.len(), 3, "{}", verdict.text(true));
    assert_eq!(lines[0], "root.erofs: usr/bin/new is only in the second release");
    assert!(lines[1].starts_with("root.erofs: usr/lib/list differs at byte 0 of 14"), "{lines:?}");
    assert!(lines[2].starts_with("root.erofs: usr/lib/os-release differs at byte 21 of 23"), "{lines:?}");
    assert_eq!(verdict.hints.len(), 2, "{:?}", verdict.hints);
    assert!(
        verdict.hints[0].starts_with("usr/lib/list: the same lines in another order"),
        "{:?}",
        verdict.hints
    );
    assert!(
        verdict.hints[1].starts_with("usr/lib/os-release: the bytes look like a time"),
        "{:?}",
        verdict.hints
    );
}

#[test]
fn the_uki_by_its_sections() {
    let (at, verdict) = patched("uki.efi", b"kernel of some", 4, b"X");
    assert_eq!(causes(&verdict), [format!("uki.efi: .linux differs at byte 4 of 2000 (uki.efi byte {at})")]);
    let (_, verdict) = patched("uki.efi", b"VERSION=1", 8, b"2");
    let lines = causes(&verdict);
    assert!(
        lines[0].contains(".osrel differs at byte 16 of 18")
            && lines[0].ends_with("`VERSION=1` and `VERSION=2`"),
        "{lines:?}"
    );
    let (_, verdict) = patched("uki.efi", b"panic=30", 6, b"31");
    assert_eq!(causes(&verdict), ["uki.efi: .cmdline: `panic=30` in the first is `panic=31` in the second"]);
    let (_, verdict) = patched("uki.efi", b"signature", 3, b"X");
    let lines = causes(&verdict);
    assert!(
        lines[0].contains("certificate table) differs at byte 3 of 16: what is signed is the same"),
        "{lines:?}"
    );
    // The COFF header's time.
    let (_, verdict) = patched("uki.efi", b"PE\0\0", 8, b"\x01");
    assert_eq!(causes(&verdict), ["uki.efi: PE header: time stamp differs (byte 72)"]);
    assert_eq!(verdict.hints.len(), 1);
    // Behind a section's content.
    let (at, verdict) = patched("uki.efi", b"VERSION=1\n\0", 11, b"\x01");
    assert_eq!(causes(&verdict), [format!("uki.efi: padding behind .osrel differs (byte {at})")]);
    let (_, verdict) = patched("uki.efi", b"MZ", 0, b"X");
    assert!(causes(&verdict)[0].contains("differs at byte 0; it cannot be read"), "{:?}", causes(&verdict));
}

#[test]
fn the_initramfs_file_by_file() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = pair(dir.path(), |parts| {
        let mut changed = program();
        changed[777] ^= 1;
        parts.initramfs.insert(b"/init", Node::file(meta(0o755), changed)).unwrap();
        parts.initramfs.get_mut(b"/usr/lib/ashlar/modules/erofs.ko").unwrap().metadata.mtime += 1;
        parts.initramfs.insert(b"/zz", Node::symlink(meta(0o777), "init")).unwrap();
    });
    let verdict = same(&a, &b).unwrap();
    let lines = causes(&verdict);
    assert_eq!(lines.len(), 3, "{}", verdict.text(true));
    assert!(lines[0].starts_with("uki.efi: .initrd: init differs at byte 777 of 80000 (byte "), "{lines:?}");
    assert!(lines[1].starts_with("uki.efi: .initrd: usr/lib/ashlar/modules/erofs.ko: mtime is"), "{lines:?}");
    assert_eq!(lines[2], "uki.efi: .initrd: zz is only in the second release");
    assert!(verdict.hints.iter().any(|hint| hint.contains("a time differs")), "{:?}", verdict.hints);
}

#[test]
fn an_initramfs_that_is_only_packed_in_another_way() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = pair(dir.path(), |parts| parts.level = 19);
    let verdict = same(&a, &b).unwrap();
    let wanted = "uki.efi: .initrd: the same archive, packed in another way (another zstd or level)";
    assert_eq!(causes(&verdict), [wanted], "{}", verdict.text(true));
}

#[test]
fn the_partitions_the_disk_and_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = pair(dir.path(), |parts| parts.serial = 8);
    let verdict = same(&a, &b).unwrap();
    assert_eq!(causes(&verdict), ["esp.img: boot sector: serial number differs at byte 67"]);
    let (at, verdict) = patched("root.verity", &[9; 32], 32 + 4096, b"\x01");
    let wanted = format!(
        "root.verity: hash tree differs at byte {at}, though the root is the same: one of the trees is damaged"
    );
    assert_eq!(causes(&verdict), [wanted]);
    let (_, verdict) = patched("root.verity", &[9; 32], 0, b"\x01");
    assert_eq!(causes(&verdict), ["root.verity: superblock: salt differs (byte 80)"]);
    let (at, verdict) = patched("disk.raw", b"kernel of some", 0, b"X");
    let offset = at - (1 << 20);
    assert_eq!(
        causes(&verdict),
        [format!("disk.raw: partition esp-a differs at byte {offset} (byte {at} of the disk)")]
    );
    let (at, verdict) = patched("disk.raw", b"EFI PART", 0, b"X");
    assert_eq!(causes(&verdict), [format!("disk.raw: partition table differs at byte {at}")]);
    let (at, verdict) = patched("secure-boot/db.crt", b"cate", 0, b"X");
    assert_eq!(causes(&verdict), [format!("secure-boot/db.crt: differs at byte {at}")]);
    // The ESP alone: it is no longer the UKI beside it.
    let (_, verdict) = patched("esp.img", b"kernel of some", 4, b"X");
    let lines = causes(&verdict);
    assert!(
        lines[0].starts_with("esp.img: EFI/BOOT/BOOTX64.EFI: .linux differs at byte 4 of 2000"),
        "{lines:?}"
    );
}

#[test]
fn values_of_release_json() {
    let (_, verdict) = patched("release.json", b"\"security_version\": 1", 20, b"2");
    assert_eq!(causes(&verdict), ["release.json: /security_version is 1 and 2"]);
    let (_, verdict) = patched("release.json", b"\"kernel\": ", 9, b"\n");
    assert!(
        causes(&verdict)[0].contains("the same values, written in another way"),
        "{:?}",
        causes(&verdict)
    );
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = pair(dir.path(), |_| {});
    std::fs::write(b.path().join("extra"), "x").unwrap();
    std::fs::remove_file(b.path().join("disk.raw")).unwrap();
    let lines = causes(&same(&a, &b).unwrap());
    assert_eq!(lines, ["disk.raw: is only in the first release", "extra: is only in the second release"]);
}

#[test]
fn any_damage_is_survived_and_seen() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = pair(dir.path(), |_| {});
    for (file, step) in [("root.erofs", 611), ("uki.efi", 4099), ("esp.img", 70_001), ("root.verity", 509)] {
        let path = b.path().join(file);
        let good = std::fs::read(&path).unwrap();
        // Metadata lies at the beginning of each file.
        for at in (0..good.len().min(8192)).step_by(step).chain((0..good.len()).step_by(step * 40)) {
            let mut bad = good.clone();
            bad[at] ^= 0x5a;
            std::fs::write(&path, &bad).unwrap();
            let verdict = same(&a, &b).unwrap();
            assert!(!verdict.same && verdict.differences.iter().any(|d| d.artifact == file), "{file} {at}");
        }
        for length in [0, 100, 1100, good.len() / 2] {
            std::fs::write(&path, &good[..length]).unwrap();
            let verdict = same(&a, &b).unwrap();
            assert!(verdict.differences.iter().any(|d| d.artifact == file), "{file} of {length} bytes");
        }
        std::fs::write(&path, &good).unwrap();
    }
}

#[test]
fn any_two_images_are_compared() {
    let dir = tempfile::tempdir().unwrap();
    let (a, _) = pair(dir.path(), |_| {});
    let good = std::fs::read(a.path().join("uki.efi")).unwrap();
    assert!(compare_ukis("uki.efi", &good, &good).is_empty());
    for length in (0..0x400).chain([0x600, good.len() - 1]) {
        assert!(!compare_ukis("uki.efi", &good, &good[..length]).is_empty(), "{length}");
    }
    for at in 0..0x400 {
        let mut bad = good.clone();
        bad[at] ^= 0xff;
        assert!(!compare_ukis("uki.efi", &bad, &good).is_empty(), "{at}");
    }
}
