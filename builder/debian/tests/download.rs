//! Downloads that break off, from an HTTP server of the test's own.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use ashlar_debian::{Cache, Error, Locked, Network, Package, fetch};
use common::{Archive, Deb, Entry, Notes, Server, cache, names};

/// Two megabytes that do not pack.
fn noise() -> String {
    let mut state = 1_u64;
    let mut text = String::new();
    while text.len() < 2 << 20 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        text.push_str(&common::sha256(&state.to_le_bytes()));
    }
    text
}

fn archive() -> Archive {
    Archive::new(&[Deb::new("big", "1", "", &[Entry::File("./usr/big", &noise())])])
}

struct Setup {
    archive: Archive,
    server: Server,
    folder: tempfile::TempDir,
    cache: Cache,
    locked: Vec<Locked>,
}

impl Setup {
    fn new() -> Self {
        let archive = archive();
        let server = Server::start(archive.root());
        let (folder, cache) = cache();
        let locked = archive.locked(&cache, &["big"]);
        Self { archive, server, folder, cache, locked }
    }

    fn get(&self, notes: &Notes) -> Result<Vec<Package>, Error> {
        fetch(&self.locked, Some(&self.server.url), &self.cache, Network::Online, notes)
    }

    fn partial(&self) -> std::path::PathBuf {
        self.folder.path().join(format!("tmp/partial-{}", self.locked[0].sha256))
    }
}

#[test]
fn a_connection_that_breaks_off_is_gone_on_with() {
    let setup = Setup::new();
    setup.server.cut(&[1000, 300_000]);
    let notes = Notes::default();
    setup.get(&notes).unwrap();
    let ranges = setup.server.ranges(".deb");
    assert_eq!(ranges, ["", "bytes=1000-", "bytes=301000-"]);
    assert_eq!(*notes.bytes.lock().unwrap(), setup.locked[0].size, "no byte counts twice");
    assert!(names(&setup.folder.path().join("tmp")).is_empty());
}

#[test]
fn a_later_build_goes_on_with_what_an_earlier_one_got() {
    let setup = Setup::new();
    setup.server.cut(&[5000, 5000, 5000]);
    let error = setup.get(&Notes::default()).unwrap_err();
    assert!(matches!(error, Error::Mirror { .. }), "{error}");
    assert_eq!(setup.server.ranges(".deb"), ["", "bytes=5000-", "bytes=10000-"]);
    assert_eq!(std::fs::metadata(setup.partial()).unwrap().len(), 15_000);
    assert!(names(&setup.folder.path().join("debs")).is_empty());
    // Opened anew, as by the next build.
    let cache = Cache::open(setup.folder.path()).unwrap();
    fetch(&setup.locked, Some(&setup.server.url), &cache, Network::Online, &Notes::default()).unwrap();
    assert_eq!(setup.server.ranges(".deb"), ["bytes=15000-"]);
}

#[test]
fn many_breaks_are_borne_as_long_as_it_goes_on() {
    let setup = Setup::new();
    let size = setup.locked[0].size as usize;
    assert!(size > 1_100_000, "{size}");
    // Three breaks in a row are too many, unless a megabyte has come through in between.
    setup.server.cut(&[1000, 1 << 20, 1000]);
    setup.get(&Notes::default()).unwrap();
    assert_eq!(setup.server.ranges(".deb").len(), 4);
}

#[test]
fn what_does_not_belong_to_the_file_is_fetched_again_from_its_start() {
    let setup = Setup::new();
    let size = setup.locked[0].size as usize;
    for (there, ranges) in [
        // Other bytes than the file's.
        (vec![7; 5000], vec!["bytes=5000-", ""]),
        // As many as the file has, and more.
        (vec![7; size], vec![""]),
        (vec![7; size + 1], vec![""]),
    ] {
        let _ = std::fs::remove_dir_all(setup.folder.path().join("unpacked"));
        std::fs::create_dir(setup.folder.path().join("unpacked")).unwrap();
        let _ =
            std::fs::remove_file(setup.folder.path().join(format!("debs/{}.deb", setup.locked[0].sha256)));
        std::fs::write(setup.partial(), &there).unwrap();
        setup.get(&Notes::default()).unwrap();
        assert_eq!(setup.server.ranges(".deb"), ranges);
        assert!(!setup.partial().exists());
    }
    // A whole one that only lacks its name is not asked for.
    std::fs::remove_dir_all(setup.folder.path().join("unpacked")).unwrap();
    std::fs::create_dir(setup.folder.path().join("unpacked")).unwrap();
    let deb = setup.folder.path().join(format!("debs/{}.deb", setup.locked[0].sha256));
    std::fs::rename(&deb, setup.partial()).unwrap();
    setup.get(&Notes::default()).unwrap();
    assert!(setup.server.ranges(".deb").is_empty() && deb.exists());
}

#[test]
fn of_builds_at_once_one_fetches_and_the_others_find_it() {
    let setup = Setup::new();
    let (folder, _) = cache();
    let suite = ashlar_debian::Suite { mirror: setup.server.url.clone(), ..setup.archive.suite() };
    let build = || {
        let cache = Cache::open(folder.path()).unwrap();
        let notes = Notes::default();
        let index = ashlar_debian::Index::load(&suite, &cache, Network::Online, &notes).unwrap();
        let locked = index.resolve(&["big".into()], &[]).unwrap();
        fetch(&locked, Some(&suite.mirror), &cache, Network::Online, &notes).unwrap();
    };
    std::thread::scope(|scope| (0..4).for_each(|_| drop(scope.spawn(build))));
    let requests = setup.server.paths();
    let count = |ending: &str| requests.iter().filter(|path| path.ends_with(ending)).count();
    assert_eq!((count(".deb"), count("Packages.xz"), count("InRelease")), (1, 1, 4), "{requests:?}");
}

#[test]
fn a_mirror_without_ranges_starts_anew() {
    let setup = Setup::new();
    setup.server.without_ranges();
    setup.server.cut(&[5000]);
    let notes = Notes::default();
    setup.get(&notes).unwrap();
    assert_eq!(setup.server.ranges(".deb"), ["", "bytes=5000-"]);
    assert_eq!(*notes.bytes.lock().unwrap(), setup.locked[0].size);
}

#[test]
fn a_file_that_is_shorter_or_other_on_the_mirror_is_refused_and_nothing_stays() {
    let setup = Setup::new();
    let path = Deb::new("big", "1", "", &[]).path();
    for change in [(|bytes| bytes.truncate(9000)) as fn(&mut Vec<u8>), |bytes| bytes[12_000] ^= 1] {
        let good = std::fs::read(setup.archive.root().join(&path)).unwrap();
        std::fs::write(setup.partial(), &good[..9500]).unwrap();
        setup.archive.change(&path, change);
        let error = setup.get(&Notes::default()).unwrap_err();
        assert!(matches!(error, Error::PackageHash { .. }), "{error}");
        setup.archive.write(&path, &good);
        assert!(names(&setup.folder.path().join("tmp")).is_empty());
        assert!(names(&setup.folder.path().join("debs")).is_empty());
    }
}
