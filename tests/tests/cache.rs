//! One changed byte anywhere in the cache is noticed, named and made good; room is made without harm.
#![allow(clippy::unwrap_used)] // a test fails by it

use ashlar_tests::disk::flip;
use ashlar_tests::folders::{assert_same, names};
use ashlar_tests::{Case, Run, built};
use serde_json::Value;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;

/// Packages cannot be had.
const PACKAGES: i32 = 3;

/// Changes one bit in the middle of a file.
fn damage(path: &Path) {
    flip(path, std::fs::metadata(path).unwrap().len() / 2);
}

/// The files of a room of the cache.
fn files(case: &Case, room: &str) -> Vec<PathBuf> {
    let room = case.cache.join(room);
    names(&room).into_iter().map(|name| room.join(name)).filter(|path| path.is_file()).collect()
}

/// Whether a path is named; a long one may be broken into lines anywhere.
fn named(run: &Run, path: &Path) -> bool {
    let text: String = run.error_text().split_whitespace().collect();
    text.contains(&path.to_str().unwrap().replace(' ', ""))
}

#[test]
fn a_changed_byte_in_any_kept_stage_is_noticed_named_and_made_again() {
    let Some(built) = built() else { return };
    let case = Case::of(built).with_own_cache();
    let _ = case.build(&["--locked"]).ok();
    let kept = files(&case, "stages");
    let has = |name: &str| kept.iter().any(|path| path.ends_with(name));
    for name in ["root.erofs", "root.verity", "linux.efi", "initramfs.cpio.zst", "lint.json", "index.json"] {
        assert!(has(name), "no stage has kept a {name}: {kept:?}");
    }
    for path in &kept {
        let before = std::fs::read(path).unwrap();
        damage(path);
        let run = case.build(&["--locked"]).ok();
        assert!(named(&run, path) && run.stderr.contains("damaged"), "{} is not in {run}", path.display());
        assert_same(&built.out, &case.out(), &path.display().to_string());
        assert!(std::fs::read(path).unwrap() == before, "{} was not made again", path.display());
    }
    // And nothing is said when nothing is wrong.
    let run = case.build(&["--locked"]).ok();
    assert!(!run.stderr.contains("damaged"), "{run}");
}

#[test]
fn what_was_unpacked_is_repaired_from_the_package_file() {
    let Some(built) = built() else { return };
    let case = Case::of(built).with_own_cache();
    let _ = case.build(&["--locked"]).ok();
    let lock = std::fs::read_to_string(&built.lock).unwrap();
    for ending in ["tar", "control"] {
        let mut used = files(&case, "unpacked");
        used.retain(|path| {
            path.extension().unwrap() == ending && lock.contains(path.file_stem().unwrap().to_str().unwrap())
        });
        assert!(used.len() > 10, "{used:?}");
        let before: Vec<Vec<u8>> = used.iter().map(|path| std::fs::read(path).unwrap()).collect();
        for path in &used {
            damage(path);
        }
        case.forget_stages();
        let run = case.build(&["--locked"]).ok();
        for (path, before) in used.iter().zip(&before) {
            assert!(named(&run, path), "{} is not in {run}", path.display());
            assert!(std::fs::read(path).unwrap() == *before, "{} was not repaired", path.display());
        }
        assert_same(&built.out, &case.out(), ending);
    }
}

#[test]
fn a_changed_package_file_is_fetched_again() {
    let Some(built) = built() else { return };
    let case = Case::of(built).with_own_cache();
    let mirror = case.mirror(built);
    let lock = std::fs::read_to_string(&built.lock).unwrap();
    let mut debs = files(&case, "debs");
    debs.retain(|path| lock.contains(path.file_stem().unwrap().to_str().unwrap()));
    for path in &debs {
        damage(path);
    }
    let forget = || std::fs::remove_dir_all(case.cache.join("unpacked")).unwrap();
    forget();
    let run = case.build(&["--locked"]);
    assert_eq!(run.code, Some(PACKAGES), "{run}");
    assert!(debs.iter().any(|path| named(&run, path)) && run.error_text().contains("--offline"), "{run}");
    assert!(!case.out().exists());
    let run = Run::of(&mut case.build_command(&["--locked", "--mirror", &mirror])).ok();
    for path in &debs {
        assert!(named(&run, path), "{} is not in {run}", path.display());
    }
    assert_same(&built.out, &case.out(), "fetched again");
    // Now it is whole.
    forget();
    case.forget_stages();
    let run = case.build(&["--locked"]).ok();
    assert!(!run.stderr.contains("damaged"), "{run}");
    assert_same(&built.out, &case.out(), "from what was fetched again");
}

#[test]
fn a_changed_index_is_fetched_again() {
    let Some(built) = built() else { return };
    let mut case = Case::of(built);
    let mirror = case.mirror(built);
    case.cache = case.path("cache");
    let build = |more: &[&str]| {
        let lock = case.path("recipe.lock");
        let _ = std::fs::remove_file(&lock);
        let run = Run::of(case.build_command(&["--mirror", &mirror]).args(more));
        let same = || std::fs::read(&lock).unwrap() == std::fs::read(&built.lock).unwrap();
        assert!(run.code != Some(0) || same(), "another lock: {run}");
        run
    };
    // From an empty cache, all from the mirror that is this folder.
    let _ = build(&[]).ok();
    assert_same(&built.out, &case.out(), "from a mirror that is a folder");
    let indexes = files(&case, "index");
    assert!(indexes.len() >= 2, "{indexes:?}");
    for path in &indexes {
        let before = std::fs::read(path).unwrap();
        damage(path);
        std::fs::remove_dir_all(case.out()).unwrap();
        let run = build(&["--offline"]);
        assert_eq!(run.code, Some(PACKAGES), "{run}");
        assert!(
            named(&run, path) && run.error_text().contains("damaged"),
            "{} is not in {run}",
            path.display()
        );
        assert!(!case.out().exists());
        let run = build(&[]).ok();
        assert!(named(&run, path) && run.stderr.contains("damaged"), "{} is not in {run}", path.display());
        assert!(std::fs::read(path).unwrap() == before, "{} was not fetched again", path.display());
        assert_same(&built.out, &case.out(), &path.display().to_string());
    }
}

#[test]
fn a_changed_blob_is_unpacked_again() {
    let Some(built) = built() else { return };
    let case = Case::of(built).with_own_cache();
    let _ = std::fs::remove_dir_all(case.cache.join("blobs"));
    case.write("tree/etc/from-a-tar", "text\n".repeat(1000));
    let mut tar = std::process::Command::new("tar");
    let _ = Run::of(tar.args(["-czf", "tree.tar.gz", "-C", "tree", "."]).current_dir(case.path(""))).ok();
    case.add("[[source]]\ntar = \"tree.tar.gz\"\n");
    let _ = case.build(&["--locked"]).ok();
    let first = case.path("first");
    std::fs::rename(case.out(), &first).unwrap();
    let blobs = files(&case, "blobs");
    assert!(blobs.len() >= 2, "{blobs:?}");
    for path in &blobs {
        let before = std::fs::read(path).unwrap();
        damage(path);
        let run = case.build(&["--locked"]).ok();
        // The note of which tar lies in which archive is no more than that, and simply written anew.
        assert!(named(&run, path) || path.extension().is_some(), "{} is not in {run}", path.display());
        assert!(std::fs::read(path).unwrap() == before, "{} was not made again", path.display());
        assert_same(&first, &case.out(), &path.display().to_string());
    }
}

fn json(run: &Run) -> Value {
    serde_json::from_str(&run.stdout).unwrap_or_else(|error| panic!("{error}: {run}"))
}

fn total(value: &Value) -> u64 {
    value["bytes"].as_u64().unwrap()
}

#[test]
fn room_is_made_as_asked() {
    let Some(built) = built() else { return };
    let case = Case::of(built).with_own_cache();
    let mirror = case.mirror(built);
    let _ = case.build(&["--locked"]).ok();
    let show = || json(&Run::of(&mut case.ashlar(&["cache", "show", "--json"])).ok());
    let gc = |more: &[&str]| json(&Run::of(case.ashlar(&["cache", "gc", "--json"]).args(more)).ok());
    let before = show();
    for room in ["packages", "unpacked", "stages"] {
        assert!(total(&before["rooms"][room]) > 0, "{before}");
    }
    let text = Run::of(&mut case.ashlar(&["cache", "show"])).ok().stdout;
    assert!(text.contains("unpacked") && text.contains("stages"), "{text}");
    let here = names(&case.cache);

    // Only said.
    let told = gc(&["--dry-run", "--max-size", "64MiB"]);
    assert!(total(&told["total"]["removed"]) > 0 && total(&told["total"]["kept"]) <= 64 << 20, "{told}");
    assert_eq!(show(), before);
    assert_eq!(names(&case.cache), here);
    // Done, and as it was said.
    let done = gc(&["--max-size", "64MiB"]);
    assert_eq!(done["total"], told["total"]);
    assert!(total(&show()["total"]) <= 64 << 20);
    let build = || {
        let _ = Run::of(&mut case.build_command(&["--locked", "--mirror", &mirror])).ok();
        assert_same(&built.out, &case.out(), "after room was made");
    };
    build();
    // Nothing was used long ago.
    let kept = gc(&[]);
    assert_eq!(total(&kept["total"]["removed"]), 0, "{kept}");
    let _ = gc(&["--max-size", "1MiB", "--days", "0"]);
    build();
    let run = Run::of(&mut case.ashlar(&["cache", "gc", "--max-size", "much"]));
    assert_eq!(run.code, Some(2), "{run}");
    // A folder that is no cache is left alone.
    case.write("mine/debs/letter.txt", "dear");
    let _ = Run::of(
        case.ashlar(&["cache", "gc", "--max-size", "1MiB", "--days", "0", "--cache", "mine"]).arg("--json"),
    )
    .ok();
    assert!(case.path("mine/debs/letter.txt").exists());
}

#[test]
fn room_is_made_while_builds_run() {
    let Some(built) = built() else { return };
    let case = Case::of(built).with_own_cache();
    let mirror = case.mirror(built);
    for round in 0..3 {
        case.forget_stages();
        let log = File::create(case.path("build.log")).unwrap();
        let mut command = case.build_command(&["--locked", "--mirror", &mirror]);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(150 * round));
        let gc = Run::of(&mut case.ashlar(&["cache", "gc", "--max-size", "1MiB", "--json"]));
        let status = child.wait().unwrap();
        let log = std::fs::read_to_string(case.path("build.log")).unwrap();
        assert!(status.success(), "round {round}: {log}");
        let _ = gc.ok();
        assert_same(&built.out, &case.out(), &format!("round {round}"));
    }
}
