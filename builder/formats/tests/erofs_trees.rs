//! Random trees in erofs, with each compression: our reader, fsck.erofs and the kernel find what was written.
#![allow(clippy::unwrap_used)] // a test fails by it

mod support;

use ashlar_formats::erofs::read::{self, EntryKind, Reader};
use ashlar_formats::erofs::{Compression, Options, Plan};
use ashlar_formats::verity::{self, Hashing};
use ashlar_tree::{Kind, Tree};
use proptest::test_runner::TestRunner;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::process::Command;
use support::mount::Mount;
use support::run;
use support::trees::{Compared, Holds, TIME, build, compare, config, specs};

fn variants() -> [Options; 8] {
    let options = |compression, cluster_size| Options {
        uuid: [7; 16],
        volume_name: "random".into(),
        build_time: TIME,
        compression,
        cluster_size,
        ..Options::default()
    };
    [
        options(Compression::None, 4096),
        options(Compression::Lz4, 4096),
        options(Compression::Lz4, 65_536),
        options(Compression::Lz4hc { level: 9 }, 16_384),
        options(Compression::Lz4hc { level: 3 }, 1 << 20),
        options(Compression::Zstd { level: 3 }, 4096),
        options(Compression::Zstd { level: 1 }, 131_072),
        options(Compression::Zstd { level: 6 }, 1 << 20),
    ]
}

/// Writes the image, and checks that its hashes are known without reading it.
fn write(tree: &Tree, options: Options, image: &Path) {
    let plan = Plan::new(tree, options).unwrap();
    let mut out = Hashing::new(File::create(image).unwrap(), [9; 32]);
    plan.write(&mut out).unwrap();
    let (_, hashes) = out.finish().unwrap();
    assert_eq!(hashes.length, plan.size());
    let bytes = fs::read(image).unwrap();
    assert_eq!(bytes.len() as u64, plan.size());
    assert_eq!(&hashes.sha256.0, ring::digest::digest(&ring::digest::SHA256, &bytes).as_ref());
    let (mut one, mut other) = (Vec::new(), Vec::new());
    let file = File::open(image).unwrap();
    let expected = verity::write(&file, plan.size(), [9; 32], [1; 16], &mut one).unwrap();
    assert_eq!(hashes.leaves.write([1; 16], &mut other).unwrap(), expected);
    assert!(one == other);
}

/// What our reader says is what the tree says.
fn read_back(tree: &Tree, image: &Path, what: &str) {
    let file = File::open(image).unwrap();
    let reader = Reader::open(&file, file.metadata().unwrap().len()).unwrap();
    let entries = reader.entries().unwrap();
    let mut expected = Vec::new();
    tree.walk(|path, node| expected.push((path.to_vec(), node)));
    assert_eq!(entries.len(), expected.len(), "{what}");
    let nids: BTreeMap<&[u8], u64> = entries.iter().map(|entry| (entry.path.as_slice(), entry.nid)).collect();
    let mut links: BTreeMap<u64, u32> = BTreeMap::new();
    for entry in &entries {
        *links.entry(entry.nid).or_default() += 1;
    }
    for (entry, (path, node)) in entries.iter().zip(&expected) {
        let say = format!("{what}: `{}`", String::from_utf8_lossy(path));
        assert_eq!(&entry.path, path, "{say}");
        let real = match &node.kind {
            Kind::HardLink(target) => {
                assert_eq!(entry.nid, nids[target.as_slice()], "{say}");
                tree.get(target).unwrap()
            }
            _ => node,
        };
        let metadata = &real.metadata;
        assert_eq!((entry.mode, entry.uid, entry.gid), (metadata.mode, metadata.uid, metadata.gid), "{say}");
        assert_eq!((entry.mtime, &entry.xattrs), (metadata.mtime, &metadata.xattrs), "{say}");
        match (&real.kind, &entry.kind) {
            (Kind::Directory(_), EntryKind::Directory)
            | (Kind::Fifo, EntryKind::Fifo)
            | (Kind::Socket, EntryKind::Socket) => {}
            (Kind::Symlink(target), EntryKind::Symlink(found)) => assert_eq!(target, found, "{say}"),
            (Kind::CharDevice { major: a, minor: b }, EntryKind::CharDevice { major, minor })
            | (Kind::BlockDevice { major: a, minor: b }, EntryKind::BlockDevice { major, minor }) => {
                assert_eq!((a, b), (major, minor), "{say}");
            }
            (Kind::File(content), EntryKind::File) => {
                assert_eq!(entry.nlink, links[&entry.nid], "{say}");
                let mut found = Vec::new();
                reader.open_entry(entry).unwrap().read_to_end(&mut found).unwrap();
                assert!(found == content.read().unwrap(), "{say}: other content");
            }
            (expected, found) => panic!("{say}: {found:?} instead of {expected:?}"),
        }
    }
}

fn fsck(tree: &Tree, image: &Path, folder: &Path, what: &str) {
    let out = folder.join("extracted");
    let _ = fs::remove_dir_all(&out);
    let extract = format!("--extract={}", out.display());
    let Some(output) = run(Command::new("fsck.erofs").arg(extract).arg(image), "erofs-utils") else { return };
    assert!(output.status.success(), "{what}: {output:?}");
    let root = rustix::process::geteuid().is_root();
    // It changes the owner last, by which the kernel takes the set-ID bits away; it restores no attributes, and names
    // of one file become files of their own.
    let mut tree = tree.clone();
    unlink(&mut tree);
    let compared = Compared {
        mode: if root { 0o1777 } else { 0 },
        owner: root,
        time: false,
        other_times: false,
        xattrs: false,
        devices: root,
    };
    compare(&tree, &out, compared, what);
}

/// Makes hard links files of their own.
fn unlink(tree: &mut Tree) {
    let mut links = Vec::new();
    tree.walk(|path, node| {
        if let Kind::HardLink(target) = &node.kind {
            links.push((path.to_vec(), target.clone()));
        }
    });
    for (path, target) in links {
        let node = tree.get(&target).unwrap().clone();
        *tree.get_mut(&path).unwrap() = node;
    }
}

#[test]
fn random_trees_are_read_back_by_all() {
    let strategy = specs(Holds { xattrs: true, sockets: true });
    let result = TestRunner::new(config(8)).run(&strategy, |specs| {
        let dir = tempfile::tempdir().unwrap();
        let tree = build(&specs, dir.path());
        let image = dir.path().join("image");
        for options in variants() {
            let what = format!("{:?} {}", options.compression, options.cluster_size);
            let zstd = matches!(options.compression, Compression::Zstd { .. });
            write(&tree, options, &image);
            read_back(&tree, &image, &what);
            // erofs-utils before 1.8 do not know zstd; there the kernel judges.
            if !zstd {
                fsck(&tree, &image, dir.path(), &what);
            }
            if let Some(mount) = Mount::new(&image, dir.path()) {
                let all = Compared {
                    mode: 0o7777,
                    owner: true,
                    time: true,
                    other_times: true,
                    xattrs: true,
                    devices: true,
                };
                compare(&tree, mount.path(), all, &what);
            }
        }
        Ok(())
    });
    result.unwrap_or_else(|failure| panic!("{failure}"));
}

#[test]
fn damaged_images_are_survived() {
    let strategy = specs(Holds { xattrs: true, sockets: true });
    let result = TestRunner::new(config(3)).run(&strategy, |specs| {
        let dir = tempfile::tempdir().unwrap();
        let tree = build(&specs, dir.path());
        let image = dir.path().join("image");
        for options in variants().into_iter().step_by(2) {
            write(&tree, options, &image);
            let mut bytes = fs::read(&image).unwrap();
            read::walk(&bytes).unwrap();
            // Without the sum, which would hide all else; then wherever there is something.
            bytes[1032] &= !1;
            let places: Vec<usize> = (1036..bytes.len().min(65_536)).filter(|&at| bytes[at] != 0).collect();
            for at in places.iter().step_by(places.len() / 40 + 1) {
                let old = bytes[*at];
                bytes[*at] = !old;
                let _ = read::walk(&bytes);
                bytes[*at] = old;
            }
            for length in (0..bytes.len()).step_by(bytes.len() / 10 + 1) {
                let _ = read::walk(&bytes[..length]);
            }
        }
        Ok(())
    });
    result.unwrap_or_else(|failure| panic!("{failure}"));
}
