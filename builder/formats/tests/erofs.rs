//! The erofs writer against fsck.erofs: accepted, and extracted to what the tree says.
#![allow(clippy::unwrap_used)] // a test fails by it

use ashlar_formats::erofs::{ErofsError, Options, Plan};
use ashlar_tree::{Content, Kind, Metadata, Node, Tree};
use std::fs::File;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

const TIME: i64 = 1_700_000_000;

fn options() -> Options {
    Options { uuid: [3; 16], volume_name: "root-test".into(), build_time: TIME, ..Options::default() }
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i * 7 + i / 251) as u8).collect()
}

/// One of everything, with sizes around the block size and directories of one and of several blocks.
fn tree(folder: &Path) -> Tree {
    let meta = |mode| Metadata::root(mode, TIME);
    let mut tree = Tree::new(meta(0o755));
    for size in [0, 1, 31, 4031, 4032, 4063, 4064, 4065, 4095, 4096, 4097, 8192, 70_000] {
        tree.insert(format!("/sizes/{size}").as_bytes(), Node::file(meta(0o644), pattern(size))).unwrap();
    }
    std::fs::write(folder.join("source"), pattern(100_000)).unwrap();
    let path = Arc::new(folder.join("source"));
    let range = Content::Range { path, offset: 999, len: 50_001 };
    tree.insert(b"/range", Node { metadata: meta(0o755), kind: Kind::File(range) }).unwrap();
    for i in 0..900 {
        tree.insert(format!("/many/file with a long name {i}").as_bytes(), Node::file(meta(0o600), *b"x"))
            .unwrap();
    }
    for name in ["!below the dot", "-", "..dots"] {
        tree.insert(format!("/odd/{name}").as_bytes(), Node::file(meta(0o600), *b"odd")).unwrap();
    }
    tree.insert(b"/link", Node::symlink(meta(0o777), "sizes/4097")).unwrap();
    tree.insert(b"/long-link", Node::symlink(meta(0o777), vec![b'l'; 4090])).unwrap();
    for name in [b"/hard-a".as_slice(), b"/odd/hard-b"] {
        let kind = Kind::HardLink(b"/sizes/70000".to_vec());
        tree.insert(name, Node { metadata: meta(0o644), kind }).unwrap();
    }
    let big = Metadata { uid: 100_000, gid: 70_000, mtime: TIME - 5, mode: 0o4755, ..Metadata::default() };
    tree.insert(b"/owned", Node::file(big, *b"owned")).unwrap();
    for (name, kind) in [
        (b"/null".as_slice(), Kind::CharDevice { major: 1, minor: 3 }),
        (b"/disk", Kind::BlockDevice { major: 259, minor: 70_000 }),
        (b"/pipe", Kind::Fifo),
    ] {
        tree.insert(name, Node { metadata: meta(0o620), kind }).unwrap();
    }
    let mut ping = meta(0o755);
    ping.xattrs
        .insert(b"security.capability".to_vec(), b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0".to_vec());
    ping.xattrs.insert(b"user.note".to_vec(), b"seen".to_vec());
    tree.insert(b"/ping", Node::file(ping, pattern(5000))).unwrap();
    tree
}

fn image(tree: &Tree, path: &Path) -> Vec<u8> {
    let plan = Plan::new(tree, options()).unwrap();
    plan.write(&File::create(path).unwrap()).unwrap();
    let bytes = std::fs::read(path).unwrap();
    assert_eq!(bytes.len() as u64, plan.size());
    bytes
}

fn fsck(arguments: &[&str], image: &Path) -> Option<()> {
    let output = Command::new("fsck.erofs").args(arguments).arg(image).output();
    let Ok(output) = output else {
        eprintln!("skipped: fsck.erofs is needed (package erofs-utils)");
        return None;
    };
    assert!(output.status.success(), "{output:?}");
    Some(())
}

#[test]
fn fsck_extracts_what_the_tree_says() {
    let dir = tempfile::tempdir().unwrap();
    let tree = tree(dir.path());
    let (file, out) = (dir.path().join("image"), dir.path().join("out"));
    image(&tree, &file);
    let extract = format!("--extract={}", out.display());
    if fsck(&[&extract], &file).is_none() {
        return;
    }
    let root = std::fs::metadata(&out).unwrap().uid() == 0;
    tree.walk(|path, node| {
        let name = String::from_utf8_lossy(path).into_owned();
        let real = match &node.kind {
            Kind::HardLink(target) => tree.get(target).unwrap(),
            _ => node,
        };
        let at = out.join(name.trim_start_matches('/'));
        if !root && matches!(node.kind, Kind::CharDevice { .. } | Kind::BlockDevice { .. }) {
            return;
        }
        let found = std::fs::symlink_metadata(&at).unwrap_or_else(|e| panic!("{name}: {e}"));
        match &real.kind {
            Kind::File(content) => assert!(std::fs::read(&at).unwrap() == content.read().unwrap(), "{name}"),
            Kind::Symlink(target) => {
                assert_eq!(std::fs::read_link(&at).unwrap().as_os_str().as_encoded_bytes(), target, "{name}");
            }
            Kind::Directory(entries) => {
                assert_eq!(std::fs::read_dir(&at).unwrap().count(), entries.len(), "{name}");
            }
            Kind::Fifo => assert!(found.file_type().is_fifo()),
            _ => assert_eq!(
                found.rdev(),
                if name == "/null" { 0x103 } else { 0x1110_0000_u64 | (259 << 8) | 0x70 },
                "{name}"
            ),
        }
        if root && !matches!(real.kind, Kind::Symlink(_)) {
            let metadata = &real.metadata;
            assert_eq!((found.uid(), found.gid()), (metadata.uid, metadata.gid), "{name}");
            // fsck.erofs changes the owner last, by which the kernel takes the setuid bit away.
            assert_eq!(found.mode() & 0o1777, metadata.mode & 0o1777, "{name}");
        }
    });
}

#[test]
fn dump_erofs_sees_links_and_the_checksum_holds() {
    let dir = tempfile::tempdir().unwrap();
    let tree = tree(dir.path());
    let file = dir.path().join("image");
    image(&tree, &file);
    if fsck(&[], &file).is_none() {
        return;
    }
    let show = |path: &str| {
        let output = Command::new("dump.erofs").arg(format!("--path={path}")).arg(&file).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(show("/sizes/70000").contains("Links: 3"), "{}", show("/sizes/70000"));
    // `.`, its name and no directory below.
    assert!(show("/many").contains("Links: 2"), "{}", show("/many"));
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[1024 + 70] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let output = Command::new("fsck.erofs").arg(&file).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr) + String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("checksum"), "a changed superblock went unnoticed: {said}");
}

#[test]
fn the_same_tree_gives_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let tree = tree(dir.path());
    assert!(image(&tree, &dir.path().join("a")) == image(&tree, &dir.path().join("b")));
}

#[test]
fn files_above_4_gib_are_planned_and_a_short_source_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = Arc::new(dir.path().join("short"));
    std::fs::write(path.as_path(), pattern(100)).unwrap();
    let metadata = Metadata::root(0o644, TIME);
    let mut tree = Tree::new(metadata.clone());
    let kind = Kind::File(Content::Range { path, offset: 0, len: (5 << 30) + 1 });
    tree.insert(b"/large", Node { metadata, kind }).unwrap();
    let plan = Plan::new(&tree, options()).unwrap();
    assert!(plan.size() > 5 << 30);
    let out = tempfile::tempfile().unwrap();
    assert!(matches!(plan.write(&out), Err(ErofsError::Read { path, .. }) if path == "/large"));
}
