//! Several suites, snapshots, pins, and local package files.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use ashlar_debian::{
    Cache, Error, Index, Locked, Network, NoProgress, Origin, Pin, PinTo, Places, Snapshot, SuiteSource,
    Suites, compose, fetch_from, read_local_debs,
};
use ashlar_tree::{Kind, Metadata, Tree};
use common::{Archive, DAY, Deb, Entry, Notes, cache, sign};
use std::fmt::Write;
use std::path::{Path, PathBuf};

fn deb(name: &'static str, version: &'static str, fields: &'static str, content: &str) -> Deb {
    Deb::new(name, version, fields, &[Entry::File(&format!("./usr/{name}"), content)])
}

fn load(suites: &Suites, cache: &Cache) -> Result<Index, Error> {
    Index::load_all(suites, cache, Network::Online, &NoProgress)
}

fn of(sources: &[SuiteSource]) -> Suites {
    Suites { sources: sources.to_vec(), ..Suites::default() }
}

fn resolve(suites: &Suites, cache: &Cache, name: &str) -> Result<Vec<Locked>, String> {
    let index = load(suites, cache).map_err(|error| error.to_string())?;
    index.resolve(&[name.into()], &[]).map_err(|error| error.to_string())
}

fn versions(locked: &[Locked]) -> Vec<String> {
    locked.iter().map(|l| format!("{} {} {}", l.name, l.version, String::from(l.origin.clone()))).collect()
}

/// Content of `/usr/NAME` of the packages.
fn content(locked: &[Locked], places: &Places, cache: &Cache, name: &str) -> String {
    let packages = fetch_from(locked, places, cache, Network::Online, &NoProgress).unwrap();
    let mut tree = Tree::new(Metadata::root(0o755, 0));
    compose(&packages, &mut tree).unwrap();
    match &tree.get(format!("/usr/{name}").as_bytes()).unwrap().kind {
        Kind::File(content) => String::from_utf8(content.read().unwrap()).unwrap(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn each_package_comes_from_the_suite_that_it_was_chosen_from() {
    let main = Archive::new(&[deb("app", "1", "Depends: lib\n", "main"), deb("lib", "1", "", "main")]);
    let security = Archive::new(&[deb("lib", "1+deb13u1", "", "security")]);
    let mut backports = Archive::new(&[]);
    backports.release_fields = "NotAutomatic: yes\nButAutomaticUpgrades: yes\n".into();
    backports.publish(&[deb("lib", "3", "", "backports"), deb("app", "0", "", "old")]);
    let sources = [main.source("main"), security.source("security"), backports.source("backports")];
    let (_folder, cache) = cache();
    let suites = of(&sources);
    let index = load(&suites, &cache).unwrap();
    assert_eq!(index.sources.iter().map(|s| s.priority).collect::<Vec<_>>(), [500, 500, 100]);
    let mut lines = String::new();
    for source in &index.sources {
        writeln!(lines, "{} {}", source.name, source.in_release_sha256).unwrap();
    }
    assert_eq!(index.in_release_sha256, common::sha256(lines.as_bytes()));
    assert_eq!(index.sources[1].url, security.mirror());

    let locked = resolve(&suites, &cache, "app").unwrap();
    assert_eq!(versions(&locked), ["app 1 main", "lib 1+deb13u1 security"]);
    let places = Places::of(&sources, Path::new("/")).unwrap();
    assert_eq!(content(&locked, &places, &cache, "lib"), "security");
    // A lock file keeps it.
    let text = toml::to_string(&locked[1]).unwrap();
    assert_eq!(toml::from_str::<Locked>(&text).unwrap(), locked[1]);

    let pin = |to: PinTo| Pin { packages: vec!["li*".into()], to, priority: 990 };
    for to in [PinTo::Suite("backports".into()), PinTo::Version("3*".into())] {
        let suites = Suites { pins: vec![pin(to)], ..suites.clone() };
        assert_eq!(versions(&resolve(&suites, &cache, "app").unwrap()), ["app 1 main", "lib 3 backports"]);
    }
    let mut first = sources.clone();
    first[2].priority = Some(990);
    assert_eq!(versions(&resolve(&of(&first), &cache, "app").unwrap()), ["app 0 backports"]);

    // Without the network the same; and a source that is gone from the recipe is named.
    let offline = Index::load_all(&suites, &cache, Network::Offline, &NoProgress).unwrap();
    assert_eq!(offline.resolve(&["app".into()], &[]).unwrap(), locked);
    let fewer = Places::of(&sources[..1], Path::new("/")).unwrap();
    let error = fetch_from(&locked, &fewer, &cache, Network::Online, &NoProgress).unwrap_err().to_string();
    assert!(error.contains("locked to the source `security`") && error.contains("--refresh"), "{error}");
}

#[test]
fn sources_that_cannot_be_together_are_named() {
    let archive = Archive::new(&[]);
    let (_folder, cache) = cache();
    let refused = |sources: &[SuiteSource]| load(&of(sources), &cache).err().unwrap().to_string();
    assert!(refused(&[]).contains("no source is given"));
    assert!(
        refused(&[archive.source("a"), archive.source("a")]).contains("`a` cannot be used: another source")
    );
    assert!(refused(&[archive.source("local")]).contains("this cannot be its name"));
    let mut other = archive.source("b");
    other.suite.architecture = "arm64".into();
    assert!(refused(&[archive.source("a"), other]).contains("another architecture"));
}

#[test]
fn an_expired_index_is_judged_at_the_date_of_the_snapshot() {
    let mut archive = Archive::new(&[]);
    archive.release_fields = "Valid-Until: Sat, 28 Nov 2020 09:15:44 UTC\n".into();
    archive.publish(&[deb("app", "1", "", "then")]);
    let (_folder, cache) = cache();
    let source = archive.source("main");
    let error = load(&of(std::slice::from_ref(&source)), &cache).err().unwrap().to_string();
    assert!(error.contains("was valid until 2020-11-28 09:15:44 UTC"), "{error}");
    assert!(error.ends_with("`allow-expired` takes it all the same"), "{error}");
    let expired = SuiteSource { allow_expired: true, ..source.clone() };
    assert!(load(&of(&[expired]), &cache).is_ok());

    // The mirror as it was then lies below it.
    let then = archive.root().join("snapshots/20201122T000000Z");
    std::fs::create_dir_all(&then).unwrap();
    for folder in ["dists", "pool"] {
        std::fs::rename(archive.root().join(folder), then.join(folder)).unwrap();
    }
    let template = Some("{mirror}/snapshots/{timestamp}/");
    let at = |date: &str| SuiteSource {
        snapshot: Some(Snapshot::parse(date, template).unwrap()),
        ..source.clone()
    };
    let snapshot = at("2020-11-22T00:00:00Z");
    let locked = resolve(&of(std::slice::from_ref(&snapshot)), &cache, "app").unwrap();
    let places = Places::of(std::slice::from_ref(&snapshot), Path::new("/")).unwrap();
    assert_eq!(content(&locked, &places, &cache, "app"), "then");
    for (date, wanted) in [
        ("2020-11-29T00:00:00Z", "which is before the snapshot of 2020-11-29 00:00:00 UTC"),
        ("2020-11-20T00:00:00Z", "it is of 2020-11-21 09:15:44 UTC, later than the snapshot of 2020-11-20"),
    ] {
        let source = at(date);
        let folder = archive.root().join("snapshots").join(date.replace(['-', ':'], ""));
        let _ = std::fs::remove_file(&folder);
        std::os::unix::fs::symlink(&then, &folder).unwrap();
        let error = load(&of(&[source]), &cache).err().unwrap().to_string();
        assert!(error.contains(wanted), "{error}");
    }
    // A key that has expired since is not trusted, whatever the snapshot's date.
    archive.key = common::key(3000 * DAY, Some(1000 * DAY));
    let text = archive.release(&[deb("app", "1", "", "then")]);
    std::fs::write(then.join("dists/test/InRelease"), sign(&text, &archive.key, 2500 * DAY)).unwrap();
    // Writes the keyring anew.
    archive.suite();
    let error = load(&of(&[snapshot]), &cache).err().unwrap();
    assert!(matches!(error, Error::Signature { .. }), "{error}");
}

struct Local {
    folder: tempfile::TempDir,
}

impl Local {
    fn new(debs: &[(&str, Deb)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for (path, deb) in debs {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, &deb.bytes).unwrap();
        }
        Self { folder }
    }

    fn read(&self, paths: &[&str]) -> Result<Vec<ashlar_debian::LocalDeb>, String> {
        let paths: Vec<PathBuf> = paths.iter().map(PathBuf::from).collect();
        read_local_debs(self.folder.path(), &paths, "amd64").map_err(|error| error.to_string())
    }
}

#[test]
fn local_package_files_come_before_those_of_suites_and_are_locked_by_their_hash() {
    let archive =
        Archive::new(&[deb("app", "9", "Depends: own, lib\n", "suite"), deb("lib", "1", "", "suite")]);
    let local = Local::new(&[
        ("debs/lib.deb", deb("lib", "0.5", "", "local")),
        ("debs/own.deb", deb("own", "1", "Depends: lib (= 0.5)\n", "local")),
        ("debs/readme.txt", deb("x", "1", "", "")),
        ("one.deb", deb("app", "9", "Depends: own\n", "local")),
    ]);
    let (_folder, cache) = cache();
    let sources = [archive.source("main")];
    let debs = local.read(&["debs", "./one.deb", "one.deb"]).unwrap();
    let named: Vec<_> = debs.iter().map(|deb| (&deb.path[..], &deb.name[..])).collect();
    assert_eq!(
        named,
        [("debs/lib.deb", "lib"), ("debs/own.deb", "own"), ("./one.deb", "app")].map(|(p, n)| (p, n)),
        "one file that is named twice counts once"
    );
    let suites = Suites { local: debs, ..of(&sources) };
    let locked = resolve(&suites, &cache, "app").unwrap();
    assert_eq!(versions(&locked), ["app 9 local", "lib 0.5 local", "own 1 local"]);
    assert_eq!((&locked[1].path[..], &locked[1].origin), ("debs/lib.deb", &Origin::Local));

    let places = Places::of(&sources, local.folder.path()).unwrap();
    assert_eq!(content(&locked, &places, &cache, "app"), "local");
    // No mirror and no network are asked for.
    let get = || fetch_from(&locked, &places, &cache, Network::Offline, &Notes::default());
    assert!(get().is_ok());

    // A pin may still prefer the suite.
    let pin = Pin { packages: vec!["lib".into()], to: PinTo::Suite("local".into()), priority: 100 };
    let pinned = Suites { pins: vec![pin], ..suites.clone() };
    let error = resolve(&pinned, &cache, "app").unwrap_err();
    assert!(error.contains("`debs/lib.deb` has lib 0.5 at priority 100, which is too low"), "{error}");

    // Changed or gone since, with all of it in the cache: an error that names the file.
    let path = local.folder.path().join("debs/lib.deb");
    let good = std::fs::read(&path).unwrap();
    std::fs::write(&path, &deb("lib", "0.5", "", "other").bytes).unwrap();
    let error = get().unwrap_err().to_string();
    let name = path.display().to_string();
    assert!(error.contains(&name) && error.contains("is not the one that the lock file names"), "{error}");
    std::fs::remove_file(&path).unwrap();
    assert!(get().unwrap_err().to_string().contains(&name));
    std::fs::write(&path, good).unwrap();
    assert!(get().is_ok());

    // A damaged cache is repaired from the local file.
    let data = cache.root().join(format!("unpacked/{}.tar", locked[1].sha256));
    let mut bytes = std::fs::read(&data).unwrap();
    bytes[600] ^= 1;
    std::fs::write(&data, bytes).unwrap();
    let notes = Notes::default();
    fetch_from(&locked, &places, &cache, Network::Offline, &notes).unwrap();
    let notes = notes.notes.into_inner().unwrap();
    assert!(
        matches!(&notes[..], [note] if note.ends_with("repaired from the local package file")),
        "{notes:?}"
    );
}

#[test]
fn local_files_that_cannot_be_used_are_named() {
    let local = Local::new(&[
        ("a/one.deb", deb("lib", "1", "", "one")),
        ("b/two.deb", deb("lib", "1", "", "two")),
        ("c/broken.deb", Deb { bytes: b"!<arch>\nnothing".to_vec(), ..deb("x", "1", "", "") }),
    ]);
    assert_eq!(local.read(&["a"]).unwrap().len(), 1);
    let error = local.read(&["a", "b"]).unwrap_err();
    assert_eq!(error, "`a/one.deb` and `b/two.deb` are both package lib 1; remove one of them");
    let error = local.read(&["c"]).unwrap_err();
    assert!(
        error.starts_with("the local package file `") && error.contains("c/broken.deb` cannot be used"),
        "{error}"
    );
    assert!(local.read(&["gone.deb"]).unwrap_err().contains("gone.deb"));
    let debs = |path: &str, architecture: &str| {
        read_local_debs(local.folder.path(), &[PathBuf::from(path)], architecture).map(|debs| debs.len())
    };
    assert_eq!(debs("a", "arm64").unwrap(), 0);
    let error = debs("a/one.deb", "arm64").unwrap_err().to_string();
    assert!(error.contains("it is for architecture amd64; the image is for arm64"), "{error}");
}
