//! Against dpkg: versions, and packages that dpkg-deb has built.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use ashlar_debian::{Locked, Network, NoProgress, compare_versions, fetch};
use ashlar_tree::{Kind, Metadata, Node, Tree};
use common::{cache, run, sha256};
use std::cmp::Ordering;
use std::fmt::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

#[test]
fn versions_are_ordered_as_dpkg_orders_them() {
    let versions = [
        "0",
        "0~",
        "0~~",
        "1",
        "1.0",
        "1.00",
        "1.0-0",
        "1.0-1",
        "1.0-1~bpo13+1",
        "1.0-1+b1",
        "1.0-10",
        "1.0a",
        "1.0+x",
        "1:0.1",
        "2:0",
        "1.0.1-0",
        "1.10",
        "1.9",
        "5.10~rc1-1",
        "5.10-1",
        "2024a-0+deb12u1",
        "9999999999999999999999",
    ];
    if run("dpkg", &["--version"]).is_none() {
        return;
    }
    for a in versions {
        for b in versions {
            let operator = match compare_versions(a, b) {
                Ordering::Less => "lt",
                Ordering::Equal => "eq",
                Ordering::Greater => "gt",
            };
            run("dpkg", &["--compare-versions", a, operator, b]);
        }
    }
}

/// What `dpkg-deb --contents` prints of a node, without owner and time.
fn line(path: &str, node: &Node, tree: &Tree) -> String {
    let (letter, size, link) = match &node.kind {
        Kind::Directory(_) => ('d', 0, String::new()),
        Kind::File(content) => ('-', content.len(), String::new()),
        Kind::Symlink(target) => ('l', 0, format!(" -> {}", String::from_utf8_lossy(target))),
        Kind::HardLink(target) => ('h', 0, format!(" link to .{}", String::from_utf8_lossy(target))),
        other => panic!("{other:?}"),
    };
    let mode = match &node.kind {
        Kind::HardLink(target) => tree.get(target).unwrap().metadata.mode,
        _ => node.metadata.mode,
    };
    let mut bits = String::new();
    for shift in [6, 3, 0] {
        let special = [(6, 0o4000, 's'), (3, 0o2000, 's'), (0, 0o1000, 't')]
            .into_iter()
            .find(|(at, bit, _)| *at == shift && mode & bit != 0);
        let x = mode >> shift & 1 != 0;
        bits.push(if mode >> shift & 4 != 0 { 'r' } else { '-' });
        bits.push(if mode >> shift & 2 != 0 { 'w' } else { '-' });
        bits.push(match (special, x) {
            (Some((_, _, letter)), true) => letter,
            (Some((_, _, letter)), false) => letter.to_ascii_uppercase(),
            (None, true) => 'x',
            (None, false) => '-',
        });
    }
    let slash = if matches!(node.kind, Kind::Directory(_)) && path != "/" { "/" } else { "" };
    format!("{letter}{bits} {size} .{path}{slash}{link}")
}

/// Unpacks a package file with this crate and compares listing and contents with dpkg-deb's.
fn same_as_dpkg(deb: &Path) {
    let bytes = std::fs::read(deb).unwrap();
    let mirror = deb.parent().unwrap();
    let locked = Locked {
        name: "judged".into(),
        version: "1".into(),
        architecture: "all".into(),
        sha256: sha256(&bytes),
        size: bytes.len() as u64,
        path: deb.file_name().unwrap().to_str().unwrap().into(),
        ..Locked::default()
    };
    let (folder, cache) = cache();
    let mirror = format!("file://{}", mirror.display());
    let packages =
        fetch(std::slice::from_ref(&locked), Some(&mirror), &cache, Network::Online, &NoProgress).unwrap();

    let deb = deb.to_str().unwrap();
    let tar = run("dpkg-deb", &["--fsys-tarfile", deb]).unwrap();
    let ours = std::fs::read(folder.path().join(format!("unpacked/{}.tar", locked.sha256))).unwrap();
    assert!(tar == ours, "the unpacked archive of {deb} differs");
    let field = String::from_utf8(run("dpkg-deb", &["--field", deb]).unwrap()).unwrap();
    assert_eq!(field.trim_end(), packages[0].control().trim_end());

    let mut tree = Tree::new(Metadata::root(0o755, 0));
    packages[0].add_to(&mut tree).unwrap();
    let listing = String::from_utf8(run("dpkg-deb", &["--contents", deb]).unwrap()).unwrap();
    let mut theirs: Vec<String> = listing
        .lines()
        .map(|line| {
            // Mode, owner, size, date, time, and the rest.
            let mut rest = line;
            let mut words = Vec::new();
            for _ in 0..5 {
                let (word, after) = rest.trim_start().split_once(' ').unwrap();
                words.push(word);
                rest = after;
            }
            assert_eq!(words[1], "root/root", "{line}");
            format!("{} {} {rest}", words[0], words[2])
        })
        .collect();
    let mut ours = Vec::new();
    tree.walk(|path, node| ours.push(line(std::str::from_utf8(path).unwrap(), node, &tree)));
    theirs.sort();
    ours.sort();
    let mut differences = String::new();
    for line in theirs.iter().filter(|l| !ours.contains(l)) {
        writeln!(differences, "only dpkg: {line}").unwrap();
    }
    for line in ours.iter().filter(|l| !theirs.contains(l)) {
        writeln!(differences, "only here: {line}").unwrap();
    }
    assert!(differences.is_empty() && !ours.is_empty(), "{deb}:\n{differences}");
}

#[test]
fn a_package_of_dpkg_deb_unpacks_as_dpkg_unpacks_it() {
    if run("dpkg-deb", &["--version"]).is_none() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    let deep = "usr/share/".to_owned() + &"a-long-name-of-a-folder/".repeat(8);
    for folder in ["DEBIAN", "usr/bin", "etc", &deep] {
        std::fs::create_dir_all(root.join(folder)).unwrap();
    }
    std::fs::write(
        root.join("DEBIAN/control"),
        "Package: judged\nVersion: 1\nArchitecture: all\nMaintainer: x <x@example.org>\nDescription: x\n",
    )
    .unwrap();
    let mode = |path: &str, mode: u32| {
        std::fs::set_permissions(root.join(path), std::fs::Permissions::from_mode(mode)).unwrap();
    };
    std::fs::write(root.join("usr/bin/tool"), vec![7; 100_000]).unwrap();
    std::fs::hard_link(root.join("usr/bin/tool"), root.join("usr/bin/zool")).unwrap();
    std::fs::write(root.join("etc/empty"), "").unwrap();
    std::fs::write(root.join(&deep).join("file with blanks and \u{fc}"), "x").unwrap();
    std::os::unix::fs::symlink("tool", root.join("usr/bin/link")).unwrap();
    std::os::unix::fs::symlink("/very/long/".repeat(15), root.join("usr/long")).unwrap();
    mode("usr/bin/tool", 0o4755);
    mode("etc/empty", 0o640);
    mode("etc", 0o2750);
    for folder in ["", "usr", "usr/bin", "DEBIAN"] {
        mode(folder, 0o755);
    }
    let scripts = [("postinst", "#!/bin/sh\nldconfig\n"), ("conffiles", "/etc/empty\n")];
    for (name, text) in scripts {
        std::fs::write(root.join("DEBIAN").join(name), text).unwrap();
    }
    mode("DEBIAN/postinst", 0o755);
    for packing in ["xz", "gzip", "none", "zstd"] {
        let deb = dir.path().join(format!("{packing}.deb"));
        let kind = format!("-Z{packing}");
        let (root, out) = (root.to_str().unwrap(), deb.to_str().unwrap());
        run("dpkg-deb", &["--root-owner-group", &kind, "--build", root, out]).unwrap();
        same_as_dpkg(&deb);
        for (name, text) in scripts {
            let theirs = run("dpkg-deb", &["--info", out, name]).unwrap();
            assert_eq!((&theirs[..], &control_file(&deb, name)[..]), (text.as_bytes(), text), "{name}");
        }
    }
}

/// A file of the control archive as this crate reads it.
fn control_file(deb: &Path, name: &str) -> String {
    let mut file = std::fs::File::open(deb).unwrap();
    let read = ashlar_debian::Deb::read(&mut file).unwrap();
    read.control_files(&mut file).unwrap().remove(name).unwrap().unwrap()
}

/// dpkg-deb does not make these any more, but reads them.
#[test]
fn a_package_packed_with_bzip2_unpacks_as_dpkg_unpacks_it() {
    if ["dpkg-deb", "ar", "bzip2"].iter().any(|tool| run(tool, &["--version"]).is_none()) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let root = dir.path().join("root");
    std::fs::create_dir_all(root.join("DEBIAN")).unwrap();
    std::fs::write(
        root.join("DEBIAN/control"),
        "Package: judged\nVersion: 1\nArchitecture: all\nMaintainer: x <x@example.org>\nDescription: x\n",
    )
    .unwrap();
    std::fs::write(root.join("file"), "some text ".repeat(300_000)).unwrap();
    for path in [&root, &root.join("DEBIAN")] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let deb = path("x.deb");
    run("dpkg-deb", &["--root-owner-group", "-Zgzip", "--build", root.to_str().unwrap(), &deb]).unwrap();
    std::fs::write(path("data.tar"), run("dpkg-deb", &["--fsys-tarfile", &deb]).unwrap()).unwrap();
    run("bzip2", &[&path("data.tar")]).unwrap();
    run("ar", &["d", &deb, "data.tar.gz"]).unwrap();
    run("ar", &["q", &deb, &path("data.tar.bz2")]).unwrap();
    same_as_dpkg(Path::new(&deb));
}

#[test]
fn real_packages_unpack_as_dpkg_unpacks_them() {
    let folder = std::env::var("ASHLAR_TEST_DEBS").unwrap_or_else(|_| "/var/cache/apt/archives".into());
    let debs: Vec<_> = std::fs::read_dir(&folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .collect();
    if debs.is_empty() || run("dpkg-deb", &["--version"]).is_none() {
        return println!(
            "skipped: no package files in {folder} (ASHLAR_TEST_DEBS names another folder), or no dpkg-deb"
        );
    }
    for deb in debs {
        same_as_dpkg(&deb);
    }
}
