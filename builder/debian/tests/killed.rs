//! A build that is killed while it fetches and unpacks, in a process of its own.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use ashlar_debian::{Cache, Locked, Network, NoProgress, fetch};
use common::{Archive, Deb, Entry, Notes, names};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const ROOT: &str = "ASHLAR_DEBIAN_TEST_ROOT";

#[derive(serde::Serialize, serde::Deserialize)]
struct Job {
    mirror: String,
    packages: Vec<Locked>,
}

/// Not a test of its own: what the other process does. Without a folder it does nothing.
#[test]
fn second_process() {
    let Some(root) = std::env::var_os(ROOT) else { return };
    let root = Path::new(&root);
    let job: Job = toml::from_str(&std::fs::read_to_string(root.join("job")).unwrap()).unwrap();
    std::fs::write(root.join("ready"), "").unwrap();
    let cache = Cache::open(&root.join("cache")).unwrap();
    fetch(&job.packages, Some(&job.mirror), &cache, Network::Online, &NoProgress).unwrap();
    std::fs::write(root.join("done"), "").unwrap();
}

#[test]
fn a_killed_build_leaves_no_stale_part_behind() {
    let content = |name: &str| name.repeat(400_000);
    let names_of_debs = ["alpha", "beta", "gamma", "delta"];
    let debs: Vec<Deb> = names_of_debs
        .iter()
        .map(|name| Deb::new(name, "1", "", &[Entry::File(&format!("./usr/{name}"), &content(name))]))
        .collect();
    let archive = Archive::new(&debs);
    let work = tempfile::tempdir().unwrap();
    let root = work.path();
    let packages = archive.locked(&common::cache().1, &names_of_debs);
    let job = Job { mirror: archive.mirror(), packages: packages.clone() };
    std::fs::write(root.join("job"), toml::to_string(&job).unwrap()).unwrap();

    let mut whole = 0;
    for round in 0..15 {
        for name in ["ready", "done"] {
            let _ = std::fs::remove_file(root.join(name));
        }
        // Every third build begins with nothing, the others with what the killed ones have left.
        if round % 3 == 0 {
            let _ = std::fs::remove_dir_all(root.join("cache"));
        }
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "second_process"])
            .env(ROOT, root)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let start = Instant::now();
        while !root.join("ready").exists() {
            assert!(start.elapsed() < Duration::from_secs(30), "the second process does not begin");
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_millis(2 + round * 4));
        // SIGKILL; it may have ended already.
        child.kill().unwrap();
        child.wait().unwrap();
        whole += u32::from(root.join("done").exists());
        // It may have been killed before it had made the folder.
        let there =
            if root.join("cache/debs").exists() { names(&root.join("cache/debs")) } else { Vec::new() };
        for name in there {
            let bytes = std::fs::read(root.join("cache/debs").join(&name)).unwrap();
            assert_eq!(format!("{}.deb", common::sha256(&bytes)), name, "it is not whole");
        }
    }
    assert!(whole < 15, "every build ended before it was killed");

    // The next build goes on: nothing was damaged, nothing is missing, nothing is left.
    let cache = Cache::open(&root.join("cache")).unwrap();
    let notes = Notes::default();
    let built = fetch(&packages, Some(&archive.mirror()), &cache, Network::Online, &notes).unwrap();
    assert!(notes.notes.into_inner().unwrap().is_empty());
    let mut tree = ashlar_tree::Tree::new(ashlar_tree::Metadata::root(0o755, 0));
    ashlar_debian::compose(&built, &mut tree).unwrap();
    for name in names_of_debs {
        match &tree.get(format!("/usr/{name}").as_bytes()).unwrap().kind {
            ashlar_tree::Kind::File(file) => assert!(file.read().unwrap() == content(name).as_bytes()),
            other => panic!("{other:?}"),
        }
    }
    let left = names(&root.join("cache/tmp"));
    assert!(left.is_empty(), "{left:?}");
}
