//! The reader on images of mkfs.erofs: what it says must be what the packed folder holds.
#![allow(clippy::unwrap_used)] // a test fails by it

mod support;

use ashlar_formats::erofs::read::{self, EntryKind, Part, ReadError, Reader};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;
use support::{noise, prose, run};

/// A folder with what a root file system holds.
fn folder(root: &Path) {
    let add = |name: &str, bytes: &[u8]| {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    };
    for length in [0, 1, 100, 4000, 4031, 4032, 4095, 4096, 4097, 8191, 12_288, 70_000, 300_001, 3_000_000] {
        add(&format!("prose/{length}"), &prose(length, length as u32));
        add(&format!("noise/{length}"), &noise(length, length as u64));
    }
    let mixed =
        [prose(150_000, 1), noise(90_000, 2), vec![0; 700_000], prose(50_000, 1), noise(4097, 3)].concat();
    add("mixed", &mixed);
    add("mixed-again", &[&mixed[..], b"more"].concat());
    add("zeros", &vec![0; 5_000_000]);
    for number in 0..600 {
        add(&format!("many/{}{number}", "n".repeat(number % 90)), format!("{number}").as_bytes());
    }
    add(&format!("deep/{}/x", ["d"; 40].join("/")), b"deep");
    // mkfs.erofs 1.5 fails with a name of 255 bytes.
    add(&"L".repeat(254), b"long name");
    fs::write(root.join(std::ffi::OsStr::from_bytes(b"no-utf8-\xff\xfe")), b"odd").unwrap();
    fs::hard_link(root.join("mixed"), root.join("prose/link")).unwrap();
    std::os::unix::fs::symlink("../etc/target", root.join("link")).unwrap();
    std::os::unix::fs::symlink("x".repeat(4000), root.join("long-link")).unwrap();
    run(Command::new("mkfifo").arg(root.join("pipe")), "coreutils").unwrap();
    drop(std::os::unix::net::UnixListener::bind(root.join("socket")).unwrap());
    if rustix::process::geteuid().is_root() {
        for (name, kind, major, minor) in [("null", "c", "1", "3"), ("disk", "b", "259", "70000")] {
            run(Command::new("mknod").arg(root.join(name)).args([kind, major, minor]), "coreutils").unwrap();
        }
        std::os::unix::fs::lchown(root.join("zeros"), Some(100_000), Some(70_000)).unwrap();
    }
    fs::set_permissions(root.join("mixed"), fs::Permissions::from_mode(0o4755)).unwrap();
    for (name, attributes) in
        [("prose/100", 1), ("prose/4096", 3), ("noise/70000", 40), ("many", 2), ("zeros", 2)]
    {
        for number in 0..attributes {
            let value = vec![b'v'; 1 + number * 50];
            let flags = rustix::fs::XattrFlags::empty();
            // Some file systems have none; the comparison is with what is there.
            let _ = rustix::fs::setxattr(root.join(name), format!("user.a{number}"), &value, flags);
        }
    }
}

fn attributes(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut names = vec![0; 65_536];
    let Ok(length) = rustix::fs::llistxattr(path, &mut names[..]) else { return BTreeMap::new() };
    let get = |name: &[u8]| {
        let mut value = vec![0; 65_536];
        let length = rustix::fs::lgetxattr(path, std::ffi::OsStr::from_bytes(name), &mut value[..]).unwrap();
        value.truncate(length);
        (name.to_vec(), value)
    };
    names[..length].split(|&byte| byte == 0).filter(|name| !name.is_empty()).map(get).collect()
}

/// Compares everything; gives the number of compressed ranges.
fn compare(image: &Path, root: &Path, what: &str) -> usize {
    let file = File::open(image).unwrap();
    let size = file.metadata().unwrap().len();
    let reader = Reader::open(&file, size).unwrap();
    let entries = reader.entries().unwrap();
    assert_eq!(entries[0].path, b"/");
    assert!(entries.len() > 600);
    let mut inodes: BTreeMap<u64, u64> = BTreeMap::new();
    let mut listed: BTreeMap<&[u8], u32> = BTreeMap::new();
    for entry in &entries {
        let relative = entry.path.strip_prefix(b"/").unwrap();
        let path = root.join(std::ffi::OsStr::from_bytes(relative));
        let say = format!("{what}: {}", String::from_utf8_lossy(&entry.path));
        let found = fs::symlink_metadata(&path).unwrap();
        assert_eq!(
            (found.mode() & 0o7777, found.uid(), found.gid()),
            (entry.mode, entry.uid, entry.gid),
            "{say}"
        );
        assert_eq!(found.mtime(), entry.mtime, "{say}");
        assert_eq!(attributes(&path), entry.xattrs, "{say}");
        let parent = relative.iter().rposition(|&byte| byte == b'/').map_or(&b""[..], |at| &relative[..at]);
        *listed.entry(parent).or_default() += u32::from(!relative.is_empty());
        match &entry.kind {
            EntryKind::Directory => assert!(found.is_dir(), "{say}"),
            EntryKind::Symlink(target) => {
                assert_eq!(fs::read_link(&path).unwrap().as_os_str().as_bytes(), target, "{say}");
            }
            EntryKind::File => {
                assert_eq!(*inodes.entry(found.ino()).or_insert(entry.nid), entry.nid, "{say}");
                assert_eq!(found.nlink(), u64::from(entry.nlink), "{say}");
                let expected = fs::read(&path).unwrap();
                let mut got = Vec::new();
                let read = reader.open_entry(entry).unwrap().read_to_end(&mut got);
                read.unwrap_or_else(|error| panic!("{say}: {error}"));
                assert_eq!(got.len(), expected.len(), "{say}");
                assert!(got == expected, "{say}: other content");
                // Any place, without what came before.
                for at in [1, expected.len() / 3, expected.len() / 2 + 1, expected.len().saturating_sub(1)] {
                    let mut part = [0; 5000];
                    let length = reader.read(entry, at as u64, &mut part).unwrap();
                    let end = (at + 5000).min(expected.len());
                    assert!(part[..length] == expected[at.min(end)..end], "{say}: otherwise at {at}");
                }
            }
            EntryKind::CharDevice { major, minor } => {
                assert!(found.file_type().is_char_device(), "{say}");
                assert_eq!(found.rdev(), rustix::fs::makedev(*major, *minor), "{say}");
            }
            EntryKind::BlockDevice { major, minor } => {
                assert!(found.file_type().is_block_device(), "{say}");
                assert_eq!(found.rdev(), rustix::fs::makedev(*major, *minor), "{say}");
            }
            EntryKind::Fifo => assert!(found.file_type().is_fifo(), "{say}"),
            EntryKind::Socket => assert!(found.file_type().is_socket(), "{say}"),
        }
    }
    assert_eq!(listed[&b"many"[..]], 600, "{what}");
    let owners = reader.owners(&entries).unwrap();
    let bytes = fs::read(image).unwrap();
    let mut compressed = 0;
    let content: BTreeMap<&[u8], _> = entries.iter().map(|entry| (entry.path.as_slice(), entry)).collect();
    for at in (0..size).step_by(4096) {
        match owners.locate(at) {
            Some(read::Owner {
                path: Some(path),
                part: Part::Data { offset, length, compressed: false },
            }) => {
                let mut part = vec![0; length.min(64) as usize];
                let length = reader.read(content[path.as_slice()], offset, &mut part).unwrap();
                assert!(bytes[at as usize..at as usize + length] == part[..length], "{what}: {at}");
            }
            Some(read::Owner { part: Part::Data { compressed: true, .. }, .. }) => compressed += 1,
            _ => {}
        }
    }
    assert_eq!(owners.locate(1030).unwrap().part, Part::Superblock);
    compressed
}

#[test]
fn images_of_mkfs_erofs_read_as_the_folder_they_were_made_from() {
    let dir = tempfile::tempdir().unwrap();
    let (root, image) = (dir.path().join("root"), dir.path().join("image"));
    folder(&root);
    let variants: [(&[&str], bool); 14] = [
        (&[], false),
        (&["-x1"], false),
        (&["-Eforce-inode-extended"], false),
        (&["-Enoinline_data"], false),
        (&["--chunksize=4096"], false),
        (&["--chunksize=16384", "-Eforce-chunk-indexes"], false),
        (&["-zlz4"], true),
        (&["-zlz4hc", "-x1", "-Eforce-inode-extended"], true),
        (&["-zlz4hc", "-C65536"], true),
        (&["-zlz4", "-Elegacy-compress"], true),
        (&["-zlz4hc", "-Eztailpacking"], true),
        (&["-zlz4hc", "-C16384", "-Efragments,ztailpacking"], true),
        (&["-zlz4", "-Eall-fragments"], true),
        (&["-zlz4", "-C8192", "-Ededupe"], true),
    ];
    for (arguments, compressed) in variants {
        let _ = fs::remove_file(&image);
        let Some(made) = run(Command::new("mkfs.erofs").args(arguments).args([&image, &root]), "erofs-utils")
        else {
            return;
        };
        assert!(made.status.success(), "{arguments:?}: {made:?}");
        let found = compare(&image, &root, &format!("{arguments:?}"));
        assert_eq!(found != 0, compressed, "{arguments:?}: {found} compressed blocks");
        damage(&fs::read(&image).unwrap(), 24);
    }
}

/// Changes bytes and cuts the end off; the reader may say what it wants, and returns.
fn damage(image: &[u8], rounds: usize) {
    let mut bad = image.to_vec();
    for round in 0..rounds {
        let mut undo = Vec::new();
        for spot in noise(16, round as u64 + 1).chunks(2) {
            // Most of what is parsed lies in the first blocks, or behind the data.
            let at = (usize::from(spot[0]) << 8 | usize::from(spot[1])) % image.len();
            let at = if round % 2 == 0 { at } else { image.len() - 1 - at };
            undo.push((at, bad[at]));
            bad[at] ^= 1 << (round % 8);
        }
        // The sum of the superblock would hide all the rest.
        let compat = bad[1032];
        bad[1032] &= !1;
        let _ = read::walk(&bad);
        bad[1032] = compat;
        for (at, byte) in undo.into_iter().rev() {
            bad[at] = byte;
        }
    }
    for length in (0..image.len()).step_by(image.len() / 8 + 1) {
        let _ = read::walk(&image[..length]);
    }
}

#[test]
fn what_is_no_image_is_said_to_be_none() {
    assert!(matches!(Reader::open(vec![0; 8192], 8192), Err(ReadError::NotErofs)));
    assert!(matches!(Reader::open(vec![0; 100], 100), Err(ReadError::NotErofs)));
    // A file that is shorter than it is said to be.
    assert!(matches!(Reader::open(vec![0; 100], 8192), Err(ReadError::Io { .. })));
}
