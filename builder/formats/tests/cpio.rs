//! The cpio archive against GNU cpio.
#![allow(clippy::unwrap_used)] // a test fails by it

use ashlar_formats::cpio::{self, CpioError};
use ashlar_tree::{Kind, Metadata, Node, Tree};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};

fn tree() -> Tree {
    let meta = |mode| Metadata::root(mode, 1_000_000_000);
    let mut tree = Tree::new(meta(0o755));
    tree.insert(b"/init", Node::file(meta(0o755), *b"run me")).unwrap();
    tree.insert(b"/usr/lib/odd", Node::file(meta(0o644), *b"12345")).unwrap();
    tree.insert(b"/lib", Node::symlink(meta(0o777), "usr/lib")).unwrap();
    let link = Node { metadata: meta(0o755), kind: Kind::HardLink(b"/init".to_vec()) };
    tree.insert(b"/sbin/init", link).unwrap();
    tree
}

fn archive(tree: &Tree) -> Vec<u8> {
    let mut bytes = Vec::new();
    cpio::write(tree, &mut bytes).unwrap();
    bytes
}

#[test]
fn gnu_cpio_unpacks_what_was_packed() {
    let dir = tempfile::tempdir().unwrap();
    let child = Command::new("cpio")
        .args(["--extract", "--make-directories", "--preserve-modification-time", "--quiet"])
        .current_dir(dir.path())
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut child) = child else {
        eprintln!("skipped: cpio is needed (package cpio)");
        return;
    };
    child.stdin.take().unwrap().write_all(&archive(&tree())).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    let at = |name: &str| dir.path().join(name);
    assert_eq!(std::fs::read(at("lib/odd")).unwrap(), b"12345");
    assert_eq!(std::fs::read(at("sbin/init")).unwrap(), b"run me");
    let (init, link) = (std::fs::metadata(at("init")).unwrap(), std::fs::metadata(at("sbin/init")).unwrap());
    assert_eq!((init.ino(), init.nlink(), init.mtime()), (link.ino(), 2, 1_000_000_000));
    assert_eq!(init.mode() & 0o7777, 0o755);
}

#[test]
fn the_same_tree_gives_the_same_bytes_and_nothing_is_dropped() {
    assert_eq!(archive(&tree()), archive(&tree()));
    let mut odd = tree();
    let node = odd.get_mut(b"/init").unwrap();
    node.metadata.xattrs.insert(b"user.a".to_vec(), b"b".to_vec());
    let error = cpio::write(&odd, &mut Vec::new()).unwrap_err();
    assert!(matches!(&error, CpioError::Unfit { path, .. } if path == "init"), "{error}");
}
