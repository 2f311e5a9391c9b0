//! Fetching, the cache, and composing a tree.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use ashlar_debian::{Error, Locked, Network, NoProgress, Package, compose, fetch};
use ashlar_tree::{Kind, Metadata, Tree};
use common::{Archive, Deb, Entry, Notes, cache, names};
use std::path::{Path, PathBuf};

fn app() -> Deb {
    Deb::new(
        "app",
        "1.0-1",
        "Depends: lib\nDescription: an app\n",
        &[
            Entry::Directory("./", 0o755),
            Entry::Directory("./usr/", 0o755),
            Entry::Directory("./usr/bin/", 0o751),
            Entry::File("./usr/bin/app", "the app"),
            Entry::HardLink("./usr/bin/other", "./usr/bin/app"),
            Entry::Symlink("./usr/bin/link", "app"),
        ],
    )
}

fn lib() -> Deb {
    Deb::new(
        "lib",
        "2.0",
        "",
        &[Entry::Directory("./usr/bin/", 0o700), Entry::File("./usr/lib/lib.so", "library")],
    )
}

fn get(archive: &Archive, locked: &[Locked], cache: &ashlar_debian::Cache) -> Result<Vec<Package>, Error> {
    fetch(locked, Some(&archive.mirror()), cache, Network::Online, &NoProgress)
}

fn content(tree: &Tree, path: &str) -> String {
    let (_, node) = tree.get_followed(path.as_bytes()).unwrap_or_else(|| panic!("no {path}"));
    match &node.kind {
        Kind::File(content) => String::from_utf8(content.read().unwrap()).unwrap(),
        other => panic!("{path}: {other:?}"),
    }
}

fn tree() -> Tree {
    Tree::new(Metadata::root(0o755, 0))
}

#[test]
fn packages_come_out_as_they_went_in() {
    let archive = Archive::new(&[app(), lib()]);
    let (folder, cache) = cache();
    let locked = archive.locked(&cache, &["app"]);
    let notes = Notes::default();
    let packages = fetch(&locked, Some(&archive.mirror()), &cache, Network::Online, &notes).unwrap();
    assert_eq!(*notes.bytes.lock().unwrap(), locked.iter().map(|l| l.size).sum::<u64>());
    assert_eq!(packages.iter().map(|p| p.locked.clone()).collect::<Vec<_>>(), locked);
    assert_eq!(
        packages[0].control(),
        "Package: app\nVersion: 1.0-1\nArchitecture: amd64\nDepends: lib\nDescription: an app\n"
    );
    let mut tree = tree();
    compose(&packages, &mut tree).unwrap();
    for path in ["/usr/bin/app", "/usr/bin/other", "/usr/bin/link"] {
        assert_eq!(content(&tree, path), "the app");
    }
    assert_eq!(content(&tree, "/usr/lib/lib.so"), "library");
    assert!(
        matches!(&tree.get(b"/usr/bin/other").unwrap().kind, Kind::HardLink(to) if to == b"/usr/bin/app")
    );
    // The first package that brings a directory decides.
    assert_eq!(tree.get(b"/usr/bin").unwrap().metadata.mode, 0o751);
    assert_eq!(tree.get(b"/usr/bin/app").unwrap().metadata.mtime, 1_700_000_000);
    assert!(names(&folder.path().join("tmp")).is_empty());

    // Without the network, without a mirror, and without the package files: the unpacked ones are enough.
    std::fs::remove_dir_all(folder.path().join("debs")).unwrap();
    let again = fetch(&locked, None, &cache, Network::Offline, &NoProgress).unwrap();
    let mut other = self::tree();
    compose(&again, &mut other).unwrap();
    assert_eq!(tree, other);
}

#[test]
fn what_is_not_cached_needs_a_mirror_and_the_network() {
    let archive = Archive::new(&[lib()]);
    let (_folder, cache) = cache();
    let locked = archive.locked(&cache, &["lib"]);
    let error = fetch(&locked, Some(&archive.mirror()), &cache, Network::Offline, &NoProgress).unwrap_err();
    assert_eq!(
        error.to_string(),
        "package lib 2.0 is not in the cache and `--offline` forbids to fetch it; build once without `--offline`"
    );
    let error = fetch(&locked, None, &cache, Network::Online, &NoProgress).unwrap_err();
    assert!(error.to_string().contains("name one with `--mirror URL`"), "{error}");
}

#[test]
fn a_wrong_package_file_is_named_and_not_kept() {
    let archive = Archive::new(&[lib()]);
    let (folder, cache) = cache();
    let locked = archive.locked(&cache, &["lib"]);
    let refused = |change: fn(&mut Vec<u8>), wanted: String| {
        archive.publish(&[lib()]);
        archive.change(&lib().path(), change);
        let error = get(&archive, &locked, &cache).unwrap_err().to_string();
        assert!(error.starts_with("package lib 2.0 from file://") && error.contains(&wanted), "{error}");
        for name in ["debs", "unpacked", "tmp"] {
            assert!(names(&folder.path().join(name)).is_empty(), "{name}");
        }
    };
    let size = locked[0].size;
    refused(|bytes| bytes[200] ^= 1, format!("expected SHA-256 {}, got ", locked[0].sha256));
    refused(|bytes| bytes.truncate(100), format!("expected {size} bytes, got 100 bytes"));
    refused(|bytes| bytes.push(0), format!("expected {size} bytes, got more"));
    std::fs::remove_file(archive.root().join(lib().path())).unwrap();
    let error = get(&archive, &locked, &cache).unwrap_err();
    assert!(matches!(&error, Error::Mirror { path, .. } if *path == locked[0].path), "{error}");
    archive.publish(&[lib()]);
    assert!(get(&archive, &locked, &cache).is_ok());
}

#[test]
fn a_package_that_cannot_be_unpacked_is_named() {
    let mut broken = lib();
    broken.bytes.truncate(130);
    let archive = Archive::new(&[broken]);
    let (folder, cache) = cache();
    let locked = archive.locked(&cache, &["lib"]);
    let error = get(&archive, &locked, &cache).unwrap_err().to_string();
    assert!(error.starts_with("package lib 2.0 cannot be unpacked: "), "{error}");
    assert!(names(&folder.path().join("unpacked")).is_empty());

    let climbing = [Entry::File("./usr/x", "x")];
    let mut deb = Deb::new("lib", "2.0", "", &climbing);
    let mut data = common::tar(&climbing);
    data[..9].copy_from_slice(b"../../x\0\0");
    let mut header = tar::Header::from_byte_slice(&data[..512]).clone();
    header.set_cksum();
    data[..512].copy_from_slice(header.as_bytes());
    let good = common::xz(&common::tar(&climbing));
    let at = deb.bytes.windows(good.len()).position(|w| w == good).unwrap();
    deb.bytes.truncate(at - 60);
    let bad = common::xz(&data);
    deb.bytes.extend(format!("{:<48}{:<10}`\n", "data.tar.xz", bad.len()).into_bytes());
    deb.bytes.extend(bad);
    archive.publish(&[deb]);
    let locked = archive.locked(&cache, &["lib"]);
    let error = get(&archive, &locked, &cache).unwrap_err().to_string();
    assert_eq!(error, "package lib 2.0 cannot be unpacked: `../../x`: the path leads out of the root");
}

/// The files of the cache that a package is made of.
fn files(folder: &Path, package: &Locked) -> [PathBuf; 3] {
    ["unpacked/{}.tar", "unpacked/{}.control", "debs/{}.deb"]
        .map(|name| folder.join(name.replace("{}", &package.sha256)))
}

fn damage(path: &Path, at: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn a_changed_byte_in_the_cache_is_named_and_repaired() {
    let archive = Archive::new(&[lib()]);
    let (folder, cache) = cache();
    let locked = archive.locked(&cache, &["lib"]);
    get(&archive, &locked, &cache).unwrap();
    let [data, control, deb] = files(folder.path(), &locked[0]);
    let good = std::fs::read(&data).unwrap();
    let no_mirror = |notes: &Notes| fetch(&locked, None, &cache, Network::Offline, notes);

    // In contents, headers, padding and the end mark; and in the check values.
    let places =
        [(&data, 512), (&data, 1024 + 1), (&data, 1024 + 500), (&data, good.len() - 1), (&control, 70)];
    for (path, at) in places {
        damage(path, at);
        let notes = Notes::default();
        no_mirror(&notes).unwrap();
        let notes = notes.notes.into_inner().unwrap();
        let wanted = format!("`{}` in the cache was damaged (lib 2.0)", path.display());
        assert!(matches!(&notes[..], [note] if note.starts_with(&wanted)), "{notes:?}");
        assert!(notes[0].ends_with("repaired from the package file in the cache"), "{notes:?}");
        assert_eq!(std::fs::read(&data).unwrap(), good);
    }

    // Cut short, with the package file damaged too: only the mirror helps.
    std::fs::write(&data, &good[..good.len() - 512]).unwrap();
    damage(&deb, 100);
    let error = no_mirror(&Notes::default()).unwrap_err().to_string();
    assert!(error.starts_with(&format!("`{}` in the cache is damaged (lib 2.0)", deb.display())), "{error}");
    let notes = Notes::default();
    fetch(&locked, Some(&archive.mirror()), &cache, Network::Online, &notes).unwrap();
    assert_eq!(notes.notes.into_inner().unwrap().len(), 2);
    assert_eq!(std::fs::read(&data).unwrap(), good);
    assert!(no_mirror(&Notes::default()).is_ok());
}

#[test]
fn the_text_of_maintainer_scripts_is_kept_and_verified() {
    let deb = || {
        Deb::with_scripts(
            "app",
            "1.0-1",
            "",
            &[Entry::File("./usr/x", "x")],
            &[
                Entry::File("./postinst", "#!/bin/sh\nset -e\n\nldconfig\n"),
                Entry::File("./conffiles", ""),
                Entry::File("./triggers", "interest-noawait /usr/lib\n"),
            ],
        )
    };
    let archive = Archive::new(&[deb()]);
    let (folder, cache) = cache();
    let locked = archive.locked(&cache, &["app"]);
    let fresh = get(&archive, &locked, &cache).unwrap();
    let kept = fetch(&locked, None, &cache, Network::Offline, &NoProgress).unwrap();
    for package in [&fresh[0], &kept[0]] {
        assert_eq!(package.control_file("postinst"), Some("#!/bin/sh\nset -e\n\nldconfig\n"));
        assert_eq!(package.control_file("conffiles"), Some(""));
        assert_eq!(package.control_file("prerm"), None);
        assert_eq!(package.control_file("control"), Some(package.control()));
        let names: Vec<&str> = package.control_files().map(|(name, _)| name).collect();
        assert_eq!(names, ["conffiles", "control", "postinst", "triggers"]);
    }
    // A script that was changed in the cache is not read but made anew.
    let [_, sidecar, _] = files(folder.path(), &locked[0]);
    let text = std::fs::read_to_string(&sidecar).unwrap();
    std::fs::write(&sidecar, text.replace("ldconfig", "ldconfiG")).unwrap();
    let notes = Notes::default();
    let repaired = fetch(&locked, None, &cache, Network::Offline, &notes).unwrap();
    assert_eq!(repaired[0].control_file("postinst"), fresh[0].control_file("postinst"));
    assert!(notes.notes.into_inner().unwrap()[0].contains(&sidecar.display().to_string()));
    assert_eq!(std::fs::read_to_string(&sidecar).unwrap(), text);
    // What an older version has kept is done again without a word.
    let rest = format!("Data-SHA256: {}\nData-Size: 1\n\nPackage: old\n", "0".repeat(64));
    std::fs::write(&sidecar, format!("{}\n{rest}", common::sha256(rest.as_bytes()))).unwrap();
    let notes = Notes::default();
    let again = fetch(&locked, None, &cache, Network::Offline, &notes).unwrap();
    assert_eq!(again[0].control(), fresh[0].control());
    assert!(notes.notes.into_inner().unwrap().is_empty());
    assert_eq!(std::fs::read_to_string(&sidecar).unwrap(), text);
}

#[test]
fn two_builds_may_use_one_cache_at_once() {
    let debs = || vec![app(), lib()];
    let archive = Archive::new(&debs());
    for _ in 0..10 {
        let (folder, cache) = cache();
        let locked = archive.locked(&cache, &["app"]);
        let build = || {
            let cache = ashlar_debian::Cache::open(folder.path()).unwrap();
            let mut tree = tree();
            compose(&get(&archive, &locked, &cache).unwrap(), &mut tree).unwrap();
            (content(&tree, "/usr/bin/app"), tree)
        };
        std::thread::scope(|scope| {
            let builds = [scope.spawn(build), scope.spawn(build), scope.spawn(build)];
            let [a, b, c] = builds.map(|build| build.join().unwrap());
            assert!(a == b && b == c);
        });
        assert_eq!(names(&folder.path().join("unpacked")).len(), 4);
        assert!(names(&folder.path().join("tmp")).is_empty());
    }
}

#[test]
fn entries_of_a_lock_file_are_checked() {
    let archive = Archive::new(&[lib()]);
    let (_folder, cache) = cache();
    let good = archive.locked(&cache, &["lib"]).remove(0);
    let changes: [fn(&mut Locked); 4] = [
        |l| l.sha256 = "../../../etc/passwd".into(),
        |l| l.path = "../lib.deb".into(),
        |l| l.name = "../lib".into(),
        |l| l.size = u64::MAX,
    ];
    for change in changes {
        let mut locked = good.clone();
        change(&mut locked);
        let error = get(&archive, &[locked], &cache).unwrap_err();
        assert!(matches!(error, Error::BadEntry { .. }), "{error}");
    }
}

/// Composes packages `a` and `b` with these fields and files.
fn together(a: (&'static str, &[Entry]), b: (&'static str, &[Entry])) -> Result<Tree, String> {
    let archive = Archive::new(&[Deb::new("a", "1", a.0, a.1), Deb::new("b", "2", b.0, b.1)]);
    let (_folder, cache) = cache();
    let packages = get(&archive, &archive.locked(&cache, &["a", "b"]), &cache).unwrap();
    let mut tree = tree();
    compose(&packages, &mut tree).map_err(|error| error.to_string())?;
    // The cache goes away now.
    let mut copies = Vec::new();
    tree.walk(|path, node| {
        if let Kind::File(content) = &node.kind {
            copies.push((path.to_vec(), content.read().unwrap()));
        }
    });
    for (path, bytes) in copies {
        tree.get_mut(&path).unwrap().kind = Kind::File(ashlar_tree::Content::Inline(bytes.into()));
    }
    Ok(tree)
}

#[test]
fn two_packages_never_overwrite_each_other_silently() {
    let one: &[Entry] = &[Entry::File("./etc/x", "one")];
    let two: &[Entry] = &[Entry::File("./etc/x", "two")];
    let refused = "packages a 1 and b 2 both bring `/etc/x`; exclude one of them";
    assert_eq!(together(("", one), ("", two)).unwrap_err(), refused);
    assert_eq!(together(("", one), ("Replaces: a (<< 1)\n", two)).unwrap_err(), refused);
    assert_eq!(together(("", one), ("", &[Entry::Symlink("./etc/x", "y")])).unwrap_err(), refused);
    assert_eq!(content(&together(("", one), ("", one)).unwrap(), "/etc/x"), "one");
    assert_eq!(content(&together(("", one), ("Replaces: a (<< 2)\n", two)).unwrap(), "/etc/x"), "two");
    assert_eq!(content(&together(("Replaces: b\n", one), ("", two)).unwrap(), "/etc/x"), "one");
    assert_eq!(content(&together(("Replaces: b\n", one), ("Replaces: a\n", two)).unwrap(), "/etc/x"), "two");
    // The same place by another way, and the other names of a file.
    let link: &[Entry] = &[Entry::Symlink("./lib", "usr/lib"), Entry::File("./usr/lib/x", "one")];
    assert_eq!(
        together(("", &[Entry::File("./lib/x", "two")]), ("", link)).unwrap_err(),
        "packages a 1 and b 2 both bring `/usr/lib/x`; exclude one of them"
    );
    let linked: &[Entry] = &[Entry::File("./etc/x", "one"), Entry::HardLink("./etc/y", "./etc/x")];
    assert_eq!(together(("", linked), ("Replaces: a\n", two)).unwrap_err(), refused);
    let clash = together(("", one), ("", &[Entry::Directory("./etc/x/", 0o755)])).unwrap_err();
    assert_eq!(clash, "a file of package b 2 cannot be placed: `/etc/x` is both a file and a directory");
}

#[test]
fn merged_usr_holds_in_either_order() {
    let links: &[Entry] = &[
        Entry::Directory("./usr/", 0o755),
        Entry::Directory("./usr/lib/", 0o755),
        Entry::Symlink("./lib", "usr/lib"),
    ];
    let files: &[Entry] = &[Entry::Directory("./lib/", 0o755), Entry::File("./lib/x.so", "x")];
    for (a, b) in [(links, files), (files, links)] {
        let tree = together(("", a), ("", b)).unwrap();
        assert_eq!(content(&tree, "/usr/lib/x.so"), "x");
        assert!(matches!(tree.get(b"/lib").unwrap().kind, Kind::Symlink(_)));
    }
}

#[test]
fn hard_links_need_their_target_in_the_same_package() {
    let dangling = together(("", &[Entry::HardLink("./a", "./gone")]), ("", &[])).unwrap_err();
    assert_eq!(dangling, "package a 1: `a` is a hard link to `gone`, which is not there");
    let foreign =
        together(("", &[Entry::File("./x", "x")]), ("", &[Entry::HardLink("./y", "./x")])).unwrap_err();
    assert_eq!(foreign, "package b 2: `y` is a hard link to `x`, which is not there");
    let own =
        together(("", &[Entry::File("./x", "x"), Entry::HardLink("./x", "./x")]), ("", &[])).unwrap_err();
    assert!(own.contains("`x` is a hard link to `x`"), "{own}");
    let chain: &[Entry] =
        &[Entry::File("./x", "x"), Entry::HardLink("./y", "./x"), Entry::HardLink("./z", "./y")];
    let tree = together(("", chain), ("", &[])).unwrap();
    assert!(matches!(&tree.get(b"/z").unwrap().kind, Kind::HardLink(to) if to == b"/x"));
}
