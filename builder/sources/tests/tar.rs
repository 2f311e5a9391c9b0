//! Tar archives: those of GNU tar and the compressors, and those that nobody should make.
#![allow(clippy::unwrap_used)] // a test fails by it

mod common;

use ashlar_image::digest::Digest;
use ashlar_sources::{Error, Keep, Source, TarOptions, tar, tar_tree, tree_digest};
use ashlar_tree::Kind;
use common::{archive, cache, entry, file, folder, gzip, hard_link, ok, pax, symlink, zstd};
use std::path::{Path, PathBuf};
use std::process::Command;

fn read(path: &Path, cache: &ashlar_cache::Cache) -> Source {
    tar(path, &TarOptions::default(), cache).unwrap()
}

#[test]
fn what_gnu_tar_and_the_compressors_write() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    let long = "a-long-name-".repeat(15);
    let deep = root.join("one/two").join(&long).join(&long);
    std::fs::create_dir_all(&deep).unwrap();
    std::fs::write(deep.join("file"), vec![b'x'; 70_000]).unwrap();
    std::fs::hard_link(deep.join("file"), root.join("hard")).unwrap();
    std::os::unix::fs::symlink(&long, root.join("link")).unwrap();
    let (_folder, cache) = cache();
    let mut digests = Vec::new();
    for format in ["gnu", "pax", "oldgnu"] {
        let plain = dir.path().join(format!("{format}.tar"));
        let format = format!("--format={format}");
        let arguments = ["--create", &format, "--numeric-owner", "--owner=70000", "--group=0", "--sort=name"];
        let mut command = Command::new("tar");
        command.args(arguments).args(["--mtime=@1700000000", "--directory"]).arg(&root);
        if !ok(command.arg("--file").arg(&plain).arg("."), "tar") {
            return;
        }
        digests.push(tree_digest(&read(&plain, &cache).tree).unwrap());
        for (program, package) in [("gzip", "gzip"), ("xz", "xz-utils"), ("zstd", "zstd")] {
            if !ok(Command::new(program).args(["-k", "-f", "-q"]).arg(&plain), package) {
                continue;
            }
            let suffix = if program == "gzip" {
                "gz"
            } else if program == "zstd" {
                "zst"
            } else {
                "xz"
            };
            let packed = PathBuf::from(format!("{}.{suffix}", plain.display()));
            digests.push(tree_digest(&read(&packed, &cache).tree).unwrap());
        }
        // Two members one after the other are one file (RFC 1952, section 2.2).
        let bytes = std::fs::read(&plain).unwrap();
        let (head, tail) = bytes.split_at(5000);
        let two = dir.path().join("two.gz");
        std::fs::write(&two, [gzip(head), gzip(tail)].concat()).unwrap();
        digests.push(tree_digest(&read(&two, &cache).tree).unwrap());
    }
    digests.dedup();
    assert_eq!(digests.len(), 1);
    let tree = read(&dir.path().join("gnu.tar"), &cache).tree;
    // The first name in the tree's order has the content.
    let Kind::File(content) = &tree.get(b"/hard").unwrap().kind else { panic!() };
    assert_eq!(content.read().unwrap(), vec![b'x'; 70_000]);
    assert_eq!(tree.get(b"/hard").unwrap().metadata.uid, 70_000);
    let linked = tree.get(format!("/one/two/{long}/{long}/file").as_bytes()).unwrap();
    assert_eq!(linked.kind, Kind::HardLink(b"/hard".to_vec()));
    assert_eq!(tree.get(b"/link").unwrap().kind, Kind::Symlink(long.into_bytes()));
}

#[test]
fn sparse_archives_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let sparse = std::fs::File::create(dir.path().join("holes")).unwrap();
    sparse.set_len(8 << 20).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, b"x", 4 << 20).unwrap();
    let (_folder, cache) = cache();
    for format in ["--format=gnu", "--format=pax"] {
        let path = dir.path().join("sparse.tar");
        let mut command = Command::new("tar");
        command.args(["--create", "--sparse", format, "--directory"]).arg(dir.path());
        if !ok(command.arg("--file").arg(&path).arg("holes"), "tar") {
            return;
        }
        let error = tar(&path, &TarOptions::default(), &cache).unwrap_err().to_string();
        assert!(error.contains("sparse.tar`") && error.contains("sparse files"), "{error}");
    }
}

/// An archive on the disk.
fn put(dir: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

#[test]
fn it_is_unpacked_once_and_the_cache_is_not_believed() {
    let dir = tempfile::tempdir().unwrap();
    let (cache_dir, cache) = cache();
    let plain = archive(&[file("a", &"content ".repeat(1000)), file("b", "b")]);
    let path = put(dir.path(), "a.tar.zst", &zstd(&plain));
    let first = read(&path, &cache);
    let blob = cache.blob_path(&Digest::of(&plain).to_string());
    let before = std::fs::metadata(&blob).unwrap().modified().unwrap();
    let second = read(&path, &cache);
    assert_eq!((first.digest, &first.tree), (second.digest, &second.tree));
    assert_eq!(std::fs::metadata(&blob).unwrap().modified().unwrap(), before);

    let mut bytes = std::fs::read(&blob).unwrap();
    bytes[600] ^= 1;
    std::fs::write(&blob, bytes).unwrap();
    let third = read(&path, &cache);
    assert_eq!(third.digest, first.digest);
    assert!(
        third.notes[0].starts_with("unpacked again: ") && third.notes[0].contains("damaged"),
        "{:?}",
        third.notes
    );
    assert_eq!(std::fs::read(&blob).unwrap(), plain);

    // What says which tar is in which file is damaged, or leads to nothing.
    for entry in std::fs::read_dir(cache_dir.path().join("blobs")).unwrap() {
        let index = entry.unwrap().path();
        if index.extension().is_some() {
            for text in ["", "no digest", &"0".repeat(64), &"x".repeat(64)] {
                std::fs::write(&index, text).unwrap();
                assert_eq!(read(&path, &cache).digest, first.digest);
            }
        }
    }
    // The same content in another place, packed in another way, is the same source.
    let (_other, other) = common::cache();
    assert_eq!(read(&put(dir.path(), "b.tgz", &gzip(&plain)), &other).digest, first.digest);
}

#[test]
fn digests_and_limits_hold() {
    let dir = tempfile::tempdir().unwrap();
    let (_folder, cache) = cache();
    let packed = gzip(&archive(&[file("a", &"x".repeat(1 << 20))]));
    let path = put(dir.path(), "a.tgz", &packed);
    let with = |sha256, max_unpacked| TarOptions { sha256, max_unpacked, ..TarOptions::default() };
    let error = tar(&path, &with(Some(Digest::of("other")), 1 << 30), &cache).unwrap_err();
    assert!(matches!(&error, Error::Digest { name, .. } if name.contains("a.tgz")), "{error}");
    let error = tar(&path, &with(None, 1 << 20), &cache).unwrap_err();
    assert!(error.to_string().contains("is larger than 1048576 bytes, which is the limit"), "{error}");
    tar(&path, &with(Some(Digest::of(&packed)), 2 << 20), &cache).unwrap();
}

#[test]
fn damaged_and_strange_files_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (_folder, cache) = cache();
    let plain = archive(&[file("a", &"text ".repeat(9999))]);
    let error = |bytes: &[u8]| {
        tar(&put(dir.path(), "x", bytes), &TarOptions::default(), &cache).unwrap_err().to_string()
    };
    for packed in [gzip(&plain), zstd(&plain)] {
        for cut in [10, packed.len() / 2, packed.len() - 1] {
            let text = error(&packed[..cut]);
            assert!(
                text.contains("cannot be unpacked") || text.contains("the archive ends"),
                "{cut}: {text}"
            );
        }
    }
    assert!(error(b"").contains("without an end mark"));
    assert!(error(b"BZh9").contains("bzip2"));
    assert!(error(b"PK\x03\x04").contains("zip archive"));
    assert!(error(&[b'x'; 1024]).contains("is damaged"));
    assert!(error(&plain[..plain.len() - 1024]).contains("without an end mark"));
}

/// What becomes of an archive of these entries.
fn tree(entries: &[Vec<u8>]) -> Result<ashlar_tree::Tree, String> {
    tar_tree(&[&archive(entries)], false, &Keep::default())
}

#[test]
fn nothing_leaves_the_tree() {
    let error = |entries: &[Vec<u8>]| tree(entries).unwrap_err();
    assert_eq!(error(&[file("../x", "")]), "`../x`: the path leads out of the root");
    assert_eq!(error(&[file("a/../../x", "")]), "`a/../../x`: the path leads out of the root");
    assert_eq!(error(&[file("/etc/passwd", "")]), "`/etc/passwd`: the path is absolute");
    assert_eq!(error(&[hard_link("x", "../../etc/shadow")]), "`x`: the path leads out of the root");
    // Links out of the root lead to the root.
    let got = tree(&[
        symlink("out", "../../../.."),
        file("out/etc/passwd", "x"),
        symlink("abs", "/"),
        file("abs/y", ""),
    ]);
    let got = got.unwrap();
    assert!(got.get(b"/etc/passwd").is_some() && got.get(b"/y").is_some());
    let error = error(&[symlink("a", "b"), symlink("b", "a"), file("a/x", "")]);
    assert!(error.contains("too many levels"), "{error}");
}

#[test]
fn entries_that_come_again() {
    let got = tree(&[file("a", "1"), file("a", "2"), folder("d"), file("d/x", ""), folder("d")]).unwrap();
    assert!(matches!(&got.get(b"/a").unwrap().kind, Kind::File(content) if content.len() == 1));
    assert!(got.get(b"/d/x").is_some());
    for clash in [
        [folder("x"), file("x", "")],
        [file("x", ""), folder("x")],
        [symlink("x", "y"), folder("x")],
        [file("x/y", ""), symlink("x", "y")],
    ] {
        let error = tree(&clash).unwrap_err();
        assert!(error.contains("as a directory and as something else"), "{error}");
    }
    let error = tree(&[file("x", ""), file("x/y", "")]).unwrap_err();
    assert!(error.contains("is a file, not a directory"), "{error}");
    assert!(tree(&[file(".", "")]).is_err() && tree(&[symlink("./", "x")]).is_err());
}

#[test]
fn hard_links_have_something_to_link_to() {
    let error = |entries: &[Vec<u8>]| tree(entries).unwrap_err();
    assert_eq!(
        error(&[hard_link("a", "none")]),
        "`a`: it is a hard link to `none`, which is not there before it"
    );
    assert!(error(&[hard_link("a", "b"), file("b", "")]).contains("not there before it"));
    assert!(error(&[hard_link("a", "a")]).contains("not there before it"));
    assert!(error(&[folder("d"), hard_link("a", "d")]).contains("hard link to the directory `d`"));
    // Of links and through links; the content stays when the first name goes to another file.
    let got = tree(&[
        folder("d"),
        file("d/x", "old"),
        symlink("s", "d"),
        hard_link("b", "s/x"),
        hard_link("c", "b"),
        file("d/x", "newer"),
        hard_link("e", "s"),
    ])
    .unwrap();
    let len = |path: &str| match &got.get(path.as_bytes()).unwrap().kind {
        Kind::File(content) => content.len(),
        other => panic!("{path}: {other:?}"),
    };
    assert_eq!((len("/b"), len("/d/x")), (3, 5));
    assert_eq!(got.get(b"/c").unwrap().kind, Kind::HardLink(b"/b".to_vec()));
    assert_eq!(got.get(b"/e").unwrap().kind, Kind::Symlink(b"d".to_vec()));
}

#[test]
fn names_and_values_have_bounds() {
    let error = |entries: &[Vec<u8>]| tree(entries).unwrap_err();
    assert!(error(&[file(&"n".repeat(256), "")]).contains("not a path that can be stored"));
    assert!(error(&[file(&"a/".repeat(3000), "x")]).contains("cannot have this name"));
    assert!(error(&[folder(&"a/".repeat(3000))]).contains("longer than 4095"));
    assert!(error(&[folder(&"a/".repeat(300))]).contains("deeper than 255"));
    // Also when it is a link that leads deep.
    let deep = "a/".repeat(200);
    assert!(
        error(&[folder(&deep), symlink("l", &deep), folder(&format!("l/{deep}"))])
            .contains("deeper than 255")
    );
    assert!(error(&[symlink("l", &"a/".repeat(3000))]).contains("longer than 4095"));
    assert!(error(&[entry(b'3', "dev", "", b"")]).contains("it is a device"));
}

#[test]
fn extended_attributes_are_chosen_and_bounded() {
    let with = |name: &str, value: &[u8]| vec![pax(&format!("SCHILY.xattr.{name}"), value), file("a", "")];
    let keep = Keep { xattrs: vec!["user.*".into(), "trusted.x".into()], ..Keep::default() };
    for (name, kept) in [
        ("security.capability", true),
        ("user.a", true),
        ("trusted.x", true),
        ("trusted.xy", false),
        ("security.selinux", false),
    ] {
        let tree = tar_tree(&[&archive(&with(name, b"v\0\n"))], false, &keep).unwrap();
        let xattrs = &tree.get(b"/a").unwrap().metadata.xattrs;
        assert_eq!(xattrs.get(name.as_bytes()).map(Vec::as_slice), kept.then_some(&b"v\0\n"[..]), "{name}");
    }
    let error = |entries: &[Vec<u8>]| tar_tree(&[&archive(entries)], false, &keep).unwrap_err();
    assert!(error(&with("user.a", &vec![0; 65_537])).contains("more than 65536 bytes"));
    assert!(error(&with("", b"x")).contains("a name that cannot be"));
    assert!(error(&with("user.a\0b", b"x")).contains("a name that cannot be"));
    assert!(error(&with(&format!("user.{}", "n".repeat(300)), b"x")).contains("a name that cannot be"));
    // Each further name takes 512 bytes of the archive and all of the attributes.
    let mut many = with("user.a", &vec![0; 65_000]);
    many.extend((0..1100).map(|number| hard_link(&format!("b{number}"), "a")));
    assert!(error(&many).contains("bytes of extended attributes lead to it"));
}
