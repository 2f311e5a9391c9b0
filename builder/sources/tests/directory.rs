//! Directories of the build host, judged by GNU tar.
#![allow(clippy::unwrap_used)] // a test fails by it

mod common;

use ashlar_image::digest::Digest;
use ashlar_sources::{Devices, Error, Keep, Options, Owner, TarOptions, Time, directory, tar, tree_digest};
use ashlar_tree::{Content, Kind};
use common::{cache, is_root, ok};
use rustix::fs::{CWD, FileType, Mode, XattrFlags, mknodat, setxattr};
use std::collections::BTreeMap;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

fn write(path: &Path, bytes: impl AsRef<[u8]>) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, bytes).unwrap();
}

/// A bit of everything. Whether extended attributes of users can be set is up to the file system.
fn fill(root: &Path) -> bool {
    write(&root.join("a/small"), "small");
    write(&root.join("a/large"), vec![b'l'; 50_000]);
    write(&root.join("a/empty"), "");
    write(&root.join("b/with spaces and ümläut"), "x");
    std::fs::set_permissions(root.join("a/small"), PermissionsExt::from_mode(0o4751)).unwrap();
    std::fs::set_permissions(root.join("b"), PermissionsExt::from_mode(0o1777)).unwrap();
    std::fs::hard_link(root.join("a/large"), root.join("b/second name")).unwrap();
    symlink("../nowhere", root.join("b/dangling")).unwrap();
    symlink("/etc/passwd", root.join("absolute")).unwrap();
    symlink("a", root.join("to-directory")).unwrap();
    mknodat(CWD, root.join("pipe"), FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    let sparse = std::fs::File::create(root.join("sparse")).unwrap();
    sparse.set_len(3 << 20).unwrap();
    sparse.write_all_at(b"in the middle", 1 << 20).unwrap();
    drop(std::os::unix::net::UnixListener::bind(root.join("socket")).unwrap());
    let supported = setxattr(root.join("a/small"), "user.colour", b"blue\0", XattrFlags::empty());
    if supported.is_err() {
        println!("skipped: the file system has no extended attributes of users");
    }
    supported.is_ok()
}

#[test]
fn gnu_tar_sees_the_same_tree() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root");
    std::fs::create_dir(&root).unwrap();
    let xattrs = fill(&root);
    let keep = Keep { xattrs: vec!["user.*".into()], ..Keep::default() };
    let options = Options { owner: Owner::Keep, keep: keep.clone(), ..Options::default() };
    let source = directory(&root, &options).unwrap();
    assert_eq!(source.notes, ["left out sockets: /socket"]);
    assert_eq!(source.tree.get(b"/a/small").unwrap().metadata.xattrs.is_empty(), !xattrs);

    let file = folder.path().join("judge.tar");
    let mut command = Command::new("tar");
    command.args(["--create", "--format=pax", "--numeric-owner", "--xattrs", "--sort=name", "--file"]);
    if !ok(command.arg(&file).arg("--directory").arg(&root).arg("."), "tar") {
        return;
    }
    let (_folder, cache) = cache();
    let judged = tar(&file, &TarOptions { keep, ..TarOptions::default() }, &cache).unwrap();
    assert_eq!(paths(&judged.tree), paths(&source.tree));
    assert_eq!(tree_digest(&judged.tree).unwrap(), source.digest);
}

fn paths(tree: &ashlar_tree::Tree) -> Vec<String> {
    let mut paths = Vec::new();
    tree.walk(|path, node| {
        let what = match &node.kind {
            Kind::HardLink(to) => format!("-> {}", String::from_utf8_lossy(to)),
            Kind::File(content) => content.len().to_string(),
            _ => String::new(),
        };
        paths.push(format!("{} {:?} {what}", String::from_utf8_lossy(path), node.metadata));
    });
    paths
}

#[test]
fn contents_are_in_memory_or_ranges() {
    let folder = tempfile::tempdir().unwrap();
    fill(folder.path());
    let tree = directory(folder.path(), &Options::default()).unwrap().tree;
    let content = |path: &str| match &tree.get(path.as_bytes()).unwrap().kind {
        Kind::File(content) => content.clone(),
        other => panic!("{other:?}"),
    };
    assert!(matches!(content("/a/small"), Content::Inline(_)));
    assert!(matches!(content("/a/large"), Content::Range { len: 50_000, .. }));
    assert_eq!(content("/sparse").read().unwrap()[1 << 20..][..13], *b"in the middle");
    assert!(matches!(&tree.get(b"/b/second name").unwrap().kind, Kind::HardLink(to) if to == b"/a/large"));
    let meta = &tree.get(b"/a/small").unwrap().metadata;
    assert_eq!((meta.mode, meta.uid, meta.gid), (0o4751, 0, 0));
}

#[test]
fn the_order_of_creation_does_not_matter() {
    let options = Options { time: Time::All(7), ..Options::default() };
    let digest = |names: &[&str]| {
        let folder = tempfile::tempdir().unwrap();
        for name in names {
            write(&folder.path().join(name), name);
        }
        std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
        directory(folder.path(), &options).unwrap().digest
    };
    assert_eq!(digest(&["a", "b/c", "b/d", "e"]), digest(&["e", "b/d", "b/c", "a"]));
    assert_ne!(digest(&["a", "b/c"]), digest(&["a", "b/d"]));
}

#[test]
fn every_change_changes_the_digest_and_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    fill(root);
    let options = Options::default();
    let mut seen: Vec<Digest> = Vec::new();
    let mut step = |change: &dyn Fn()| {
        let before = directory(root, &options).unwrap();
        before.check_unchanged().unwrap();
        // Times have the grain of the kernel's clock tick.
        std::thread::sleep(std::time::Duration::from_millis(20));
        change();
        assert!(matches!(before.check_unchanged(), Err(Error::Changed(_))));
        let after = directory(root, &options).unwrap().digest;
        assert!(after != before.digest && !seen.contains(&after));
        seen.push(after);
    };
    step(&|| std::fs::write(root.join("a/small"), "SMALL").unwrap());
    step(&|| {
        let file = std::fs::File::options().write(true).open(root.join("a/large")).unwrap();
        let modified = file.metadata().unwrap().modified().unwrap();
        file.write_all_at(b"L", 40_000).unwrap();
        // Whoever sets the time back is noticed too.
        file.set_modified(modified).unwrap();
    });
    step(&|| std::fs::set_permissions(root.join("a"), PermissionsExt::from_mode(0o700)).unwrap());
    step(&|| write(&root.join("a/added"), "x"));
    step(&|| std::fs::remove_file(root.join("absolute")).unwrap());
    step(&|| {
        std::fs::remove_file(root.join("b/dangling")).unwrap();
        symlink("../elsewhere", root.join("b/dangling")).unwrap();
    });
}

#[test]
fn owners_and_times_are_as_told() {
    let folder = tempfile::tempdir().unwrap();
    write(&folder.path().join("file"), "x");
    let host = std::fs::metadata(folder.path().join("file")).unwrap();
    let of = |owner, time| {
        let source = directory(folder.path(), &Options { owner, time, ..Options::default() })?;
        let meta = source.tree.get(b"/file").unwrap().metadata.clone();
        Ok::<_, Error>((meta.uid, meta.gid, meta.mtime))
    };
    assert_eq!(of(Owner::Keep, Time::Keep).unwrap(), (host.uid(), host.gid(), host.mtime()));
    assert_eq!(of(Owner::Root, Time::AtMost(9)).unwrap(), (0, 0, 9));
    let map = |from| Owner::Map {
        users: BTreeMap::from([(from, 1000)]),
        groups: BTreeMap::from([(host.gid(), 1001)]),
    };
    assert_eq!(of(map(host.uid()), Time::All(5)).unwrap(), (1000, 1001, 5));
    let error = of(map(host.uid() + 1), Time::Keep).unwrap_err().to_string();
    assert!(error.contains(&format!("belongs to user {}", host.uid())), "{error}");
}

#[test]
fn patterns_leave_out() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["a.pyc", "src/b.pyc", "src/.git/config", "doc/x", "src/doc/y", "keep/z"] {
        write(&folder.path().join(name), "x");
    }
    let exclude = ["*.pyc", ".git/", "/doc", "src/*/y"].map(str::to_owned).to_vec();
    let tree = directory(folder.path(), &Options { exclude, ..Options::default() }).unwrap().tree;
    let mut paths = Vec::new();
    tree.walk(|path, _| paths.push(String::from_utf8_lossy(path).into_owned()));
    assert_eq!(paths, ["/", "/keep", "/keep/z", "/src", "/src/doc"]);
    let bad = Options { exclude: vec!["a[".into()], ..Options::default() };
    let error = directory(folder.path(), &bad).unwrap_err().to_string();
    assert!(error.contains("the pattern `a[` cannot be used"), "{error}");
}

#[test]
fn what_cannot_be_taken_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let error = |path: &Path| directory(path, &Options::default()).unwrap_err().to_string();
    assert!(error(&folder.path().join("none")).contains("cannot open the directory"));
    write(&folder.path().join("file"), "x");
    assert!(error(&folder.path().join("file")).contains("is no directory"));
    let deep = folder.path().join(["d"; 300].join("/"));
    std::fs::create_dir_all(&deep).unwrap();
    assert!(error(folder.path()).contains("deeper than 255"), "{}", error(folder.path()));
}

#[test]
fn devices_and_capabilities_when_root_makes_them() {
    if !is_root() {
        println!("skipped: only root can make devices and file capabilities");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let device = rustix::fs::makedev(1, 3);
    let path = folder.path().join("null");
    if mknodat(CWD, &path, FileType::CharacterDevice, Mode::from_raw_mode(0o666), device).is_err() {
        println!("skipped: devices cannot be made here");
        return;
    }
    let error = directory(folder.path(), &Options::default()).unwrap_err().to_string();
    assert!(error.contains("null` is a device; exclude it, or allow devices"), "{error}");
    let with = |devices| Options { keep: Keep { devices, ..Keep::default() }, ..Options::default() };
    let skipped = directory(folder.path(), &with(Devices::Skip)).unwrap();
    assert_eq!(skipped.notes, ["left out devices: /null"]);
    let tree = directory(folder.path(), &with(Devices::Take)).unwrap().tree;
    assert_eq!(tree.get(b"/null").unwrap().kind, Kind::CharDevice { major: 1, minor: 3 });

    std::fs::remove_file(path).unwrap();
    write(&folder.path().join("ping"), "x");
    // cap_net_raw+ep, revision 2.
    let value = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    if setxattr(folder.path().join("ping"), "security.capability", &value, XattrFlags::empty()).is_err() {
        println!("skipped: file capabilities cannot be set here");
        return;
    }
    let tree = directory(folder.path(), &Options::default()).unwrap().tree;
    assert_eq!(tree.get(b"/ping").unwrap().metadata.xattrs[&b"security.capability"[..]], value);
}
