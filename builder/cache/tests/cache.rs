//! The cache as builds use it: alone, several at once, killed.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use ashlar_cache::{Cache, CacheError, Policy, Room, gc, read_if_there, sha256, usage};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};
use tempfile::TempDir;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const ROLE: &str = "ASHLAR_CACHE_TEST_ROLE";
const ROOT: &str = "ASHLAR_CACHE_TEST_ROOT";

fn cache() -> (TempDir, Cache) {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::open(folder.path()).unwrap();
    (folder, cache)
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn set_age(path: &Path, age: Duration) {
    File::open(path).unwrap().set_modified(SystemTime::now() - age).unwrap();
}

/// Waits for `what`, but not for ever.
fn until(mut what: impl FnMut() -> bool) {
    let start = Instant::now();
    while !what() {
        assert!(start.elapsed() < Duration::from_secs(30), "it takes too long");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A second process that does one of the parts of [`second_process`]; ended when it is dropped.
struct Process(Child);

impl Process {
    fn start(role: &str, root: &Path) -> Self {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "second_process", "--nocapture"])
            .env(ROLE, role)
            .env(ROOT, root)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn();
        Self(child.unwrap())
    }

    fn ends_well(&mut self) {
        until(|| self.0.try_wait().unwrap().is_some());
        assert!(self.0.wait().unwrap().success());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // SIGKILL; it may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Not a test of its own: what the other processes do. Without a role it does nothing.
#[test]
fn second_process() {
    let (Some(role), Some(root)) = (std::env::var_os(ROLE), std::env::var_os(ROOT)) else { return };
    let root = PathBuf::from(root);
    let ready = root.join("ready");
    match role.to_str().unwrap() {
        "write" => {
            let cache = Cache::open(&root).unwrap();
            std::fs::write(ready, "").unwrap();
            for number in 0_u32.. {
                let bytes = content(number);
                let _lock = cache.lock(&sha256(&bytes), || {}).unwrap();
                cache.put_blob(&bytes[..], &sha256(&bytes)).unwrap();
                cache.write(&cache.path(Room::Stages, &format!("{}.x", sha256(&bytes))), &bytes).unwrap();
            }
        }
        "hold" => {
            let _cache = Cache::open(&root).unwrap();
            std::fs::write(ready, "").unwrap();
            until(|| root.join("go").exists());
        }
        "fetch" => {
            let cache = Cache::open(&root).unwrap();
            let path = cache.path(Room::Packages, "item.deb");
            let lock = cache.lock("item", || {}).unwrap();
            if !path.exists() {
                let count = read_if_there(&root.join("count"), 9).unwrap().unwrap_or_default();
                std::fs::write(root.join("count"), [&count[..], b"x"].concat()).unwrap();
                std::thread::sleep(Duration::from_millis(100));
                cache.write(&path, b"fetched").unwrap();
            }
            drop(lock);
            assert_eq!(std::fs::read(&path).unwrap(), b"fetched");
        }
        other => panic!("{other}"),
    }
}

/// Half a megabyte that differs from number to number.
fn content(number: u32) -> Vec<u8> {
    number.to_le_bytes().repeat(1 << 17)
}

#[test]
fn a_cache_is_tagged_and_leftovers_go_when_nobody_else_is_there() {
    let (folder, cache) = cache();
    assert!(std::fs::read(folder.path().join("CACHEDIR.TAG")).unwrap().starts_with(b"Signature: 8a47"));
    let tmp = folder.path().join("tmp");
    std::fs::write(tmp.join("left"), "x").unwrap();
    std::fs::create_dir_all(tmp.join("folder/deep")).unwrap();
    let [new, old] = ["new", "old"].map(|name| cache.partial(name));
    std::fs::write(&new, "half").unwrap();
    std::fs::write(&old, "half").unwrap();
    set_age(&old, 2 * DAY);
    Cache::open(folder.path()).unwrap();
    assert_eq!(names(&tmp).len(), 4, "another build may need them");
    drop(cache);
    let cache = Cache::open(folder.path()).unwrap();
    assert_eq!(names(&tmp), ["partial-new"]);
    drop(cache.temporary().unwrap());
    drop(cache.temporary_folder().unwrap());
    assert_eq!(names(&tmp), ["partial-new"]);
    // An unfinished download gets its name when it is finished.
    let path = cache.path(Room::Packages, "new.deb");
    cache.keep_path(&File::open(&new).unwrap(), &new, &path).unwrap();
    assert_eq!((std::fs::read(&path).unwrap(), names(&tmp).len()), (b"half".to_vec(), 0));
}

#[test]
fn folders_are_items_too() {
    let (_folder, cache) = cache();
    let path = cache.path(Room::Stages, "key");
    for text in ["first", "second"] {
        let made = cache.temporary_folder().unwrap();
        std::fs::write(made.path().join("file"), text).unwrap();
        cache.keep_folder(made, &path).unwrap();
    }
    assert_eq!(std::fs::read(path.join("file")).unwrap(), b"first");
    assert!(names(&cache.root().join("tmp")).is_empty());
}

#[test]
fn reading_is_bounded() {
    let (_folder, cache) = cache();
    let path = cache.path(Room::Indexes, "a");
    assert_eq!(read_if_there(&path, 9).unwrap(), None);
    cache.write(&path, b"123").unwrap();
    assert_eq!(read_if_there(&path, 3).unwrap().unwrap(), b"123");
    let error = read_if_there(&path, 2).unwrap_err().to_string();
    assert!(error.contains(&path.display().to_string()) && error.contains("larger than 2 bytes"), "{error}");
}

#[test]
fn a_changed_byte_of_a_blob_is_noticed_named_and_can_be_put_again() {
    let (_folder, cache) = cache();
    let bytes = content(7);
    let hash = sha256(&bytes);
    assert!(cache.blob(&hash).unwrap().is_none() && cache.blob_reader(&hash).unwrap().is_none());
    let error = cache.put_blob(&b"other"[..], &hash).unwrap_err();
    assert!(matches!(error, CacheError::Hash { .. }), "{error}");
    for at in [0, bytes.len() / 2, bytes.len() - 1] {
        for whole in [true, false] {
            let path = cache.put_blob(&bytes[..], &hash).unwrap();
            let mut read = Vec::new();
            cache.blob(&hash).unwrap().unwrap().read_to_end(&mut read).unwrap();
            assert!(read == bytes);
            read.clear();
            cache.blob_reader(&hash).unwrap().unwrap().read_to_end(&mut read).unwrap();
            assert!(read == bytes);
            read[at] ^= 1;
            std::fs::write(&path, &read).unwrap();
            let error = if whole {
                cache.blob(&hash).unwrap_err().to_string()
            } else if at == 0 {
                cache.blob_reader(&hash).unwrap().unwrap().finish().unwrap_err().to_string()
            } else {
                let read = cache.blob_reader(&hash).unwrap().unwrap().read_to_end(&mut Vec::new());
                read.unwrap_err().to_string()
            };
            assert!(error.contains(&path.display().to_string()) && error.contains("damaged"), "{error}");
            assert!(!path.exists() && cache.blob(&hash).unwrap().is_none());
        }
    }
    // Cut short.
    let path = cache.put_blob(&bytes[..], &hash).unwrap();
    std::fs::write(&path, &bytes[..99]).unwrap();
    assert!(matches!(cache.blob(&hash).unwrap_err(), CacheError::Damaged { .. }));
    for bad in ["", "../../x", &hash.to_uppercase()] {
        assert!(matches!(cache.blob(bad).unwrap_err(), CacheError::NotAHash(_)), "{bad}");
    }
    assert!(names(&cache.root().join("tmp")).is_empty());
}

#[test]
fn two_threads_never_hold_the_lock_of_one_item() {
    let (_folder, cache) = cache();
    let inside = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..200 {
                    let lock = cache.lock("an item: with a / name", || {}).unwrap();
                    assert!(!inside.swap(true, Ordering::SeqCst), "two hold it");
                    inside.store(false, Ordering::SeqCst);
                    drop(lock);
                }
            });
        }
    });
    assert!(names(&cache.root().join("tmp")).is_empty());
}

#[test]
fn of_two_processes_one_fetches_and_the_other_finds_it() {
    let (folder, cache) = cache();
    let held = cache.lock("item", || {}).unwrap();
    let mut both = [0; 2].map(|_| Process::start("fetch", folder.path()));
    assert!(!held.waited());
    drop(held);
    for process in &mut both {
        process.ends_well();
    }
    assert_eq!(std::fs::read(folder.path().join("count")).unwrap(), b"x", "it was fetched once");
    // A lock that is free is not waited for; one that is not says so.
    let _free = cache.lock("other", || panic!("it is free")).unwrap();
    let said = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let held = cache.lock("item", || panic!("it is free")).unwrap();
        let waiter =
            scope.spawn(|| cache.lock("item", || said.store(true, Ordering::SeqCst)).unwrap().waited());
        until(|| said.load(Ordering::SeqCst));
        drop(held);
        assert!(waiter.join().unwrap());
    });
}

#[test]
fn a_killed_build_leaves_nothing_but_what_lies_in_tmp() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let mut seen = 0;
    for round in 0..12_u64 {
        let process = Process::start("write", root);
        until(|| root.join("ready").exists());
        std::thread::sleep(Duration::from_millis(5 + 7 * round));
        drop(process);
        std::fs::remove_file(root.join("ready")).unwrap();
        for room in [Room::Blobs, Room::Stages] {
            for name in names(&root.join(room.folder())) {
                let bytes = std::fs::read(root.join(room.folder()).join(&name)).unwrap();
                assert_eq!(sha256(&bytes), name.trim_end_matches(".x"), "{name} is not whole");
                seen += 1;
            }
        }
    }
    assert!(seen > 12, "the second process wrote nothing");
    // The locks of the killed ones bind nobody, and nothing of theirs is left.
    let cache = Cache::open(root).unwrap();
    assert!(names(&root.join("tmp")).is_empty());
    let _lock = cache.lock(&sha256(&content(0)), || panic!("nobody holds it")).unwrap();
}

fn policy(max_age: Option<Duration>, max_bytes: Option<u64>) -> Policy {
    Policy { max_age, max_bytes, now: SystemTime::now(), dry_run: false }
}

#[test]
fn gc_waits_for_a_build_and_a_killed_build_is_none() {
    for killed in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let mut build = Process::start("hold", root);
        until(|| root.join("ready").exists());
        std::fs::write(root.join("debs/x.deb"), "x").unwrap();
        let (waits, done) = (AtomicBool::new(false), AtomicBool::new(false));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let report =
                    gc(root, &policy(None, Some(0)), || waits.store(true, Ordering::SeqCst)).unwrap();
                done.store(true, Ordering::SeqCst);
                assert_eq!(report.total.removed.items, 1);
            });
            until(|| waits.load(Ordering::SeqCst));
            // As long as the build is there nothing goes; a second build need not wait.
            drop(Cache::open(root).unwrap());
            std::thread::sleep(Duration::from_millis(20));
            assert!(!done.load(Ordering::SeqCst) && root.join("debs/x.deb").exists());
            if killed {
                build.0.kill().unwrap();
            } else {
                std::fs::write(root.join("go"), "").unwrap();
            }
            build.0.wait().unwrap();
        });
        assert!(!root.join("debs/x.deb").exists());
    }
}

/// One item a day older than the next: `a` in five rooms down to `e`.
fn filled() -> (TempDir, Vec<PathBuf>) {
    let (folder, cache) = cache();
    let mut files = Vec::new();
    for (number, room) in (0_u32..).zip(Room::ALL) {
        let name = char::from(b'a' + number as u8);
        for ending in ["control", "tar"] {
            let path = cache.path(room, &format!("{name}.{ending}"));
            cache.write(&path, &content(number)).unwrap();
            // Of the two files of an item the later use counts.
            set_age(&path, (10 - number) * DAY + if ending == "tar" { 50 * DAY } else { Duration::ZERO });
            files.push(path);
        }
    }
    (folder, files)
}

#[test]
fn the_least_recently_used_goes_first_with_all_of_its_files() {
    let (folder, files) = filled();
    let before = usage(folder.path()).unwrap();
    assert_eq!(before.total.items, 5);
    assert!(before.total.bytes >= 5 << 20 && before.rooms[&Room::Blobs].items == 1, "{before:?}");
    let limit = before.total.bytes / 5 * 3;
    let dry = Policy { dry_run: true, ..policy(None, Some(limit)) };
    let would = gc(folder.path(), &dry, || panic!("nobody is there")).unwrap();
    assert!(files.iter().all(|file| file.exists()));
    let report = gc(folder.path(), &policy(None, Some(limit)), || {}).unwrap();
    assert_eq!(would.removed, report.removed);
    let removed: Vec<_> = report.removed.iter().map(|item| (item.room, &item.name[..])).collect();
    assert_eq!(removed, [(Room::Packages, "a"), (Room::Unpacked, "b")]);
    assert_eq!(
        files.iter().map(|file| file.exists()).collect::<Vec<_>>(),
        [&[false; 4][..], &[true; 6]].concat()
    );
    assert_eq!((report.total.kept.items, report.rooms[&Room::Stages].kept.items), (3, 1));
    assert_eq!(usage(folder.path()).unwrap().total, report.total.kept);

    let report = gc(folder.path(), &policy(Some(DAY * 15 / 2), None), || {}).unwrap();
    assert_eq!(report.removed.iter().map(|item| &item.name[..]).collect::<Vec<_>>(), ["c"]);
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["rooms"]["indexes"]["removed"]["items"], 1);
    assert_eq!(json["removed"][0]["room"], "indexes");
}

#[test]
fn a_use_saves_an_item_and_leftovers_go() {
    let (folder, files) = filled();
    let cache = Cache::open(folder.path()).unwrap();
    cache.touch(&files[0]);
    std::fs::write(folder.path().join("tmp/left"), "x").unwrap();
    std::fs::create_dir(folder.path().join("stages/f")).unwrap();
    std::fs::write(folder.path().join("stages/f/file"), content(1)).unwrap();
    set_age(&folder.path().join("stages/f"), 90 * DAY);
    drop(cache);
    let report = gc(folder.path(), &policy(Some(DAY), Some(u64::MAX)), || {}).unwrap();
    let removed: Vec<_> = report.removed.iter().map(|item| &item.name[..]).collect();
    assert_eq!(removed, ["f", "b", "c", "d", "e"]);
    assert!(report.removed[0].bytes >= 1 << 19, "the size of a folder is that of its files");
    assert_eq!((report.leftovers.items, report.total.kept.items), (1, 1));
    assert!(files[0].exists() && names(&folder.path().join("tmp")).is_empty());
    assert!(names(&folder.path().join("stages")).is_empty());
}

#[test]
fn gc_of_a_folder_that_is_no_cache_does_nothing() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("debs")).unwrap();
    std::fs::write(folder.path().join("debs/mine"), "x").unwrap();
    let report = gc(folder.path(), &policy(None, Some(0)), || {}).unwrap();
    assert_eq!(report.total.removed.items, 0);
    assert!(folder.path().join("debs/mine").exists());
    assert_eq!(usage(&folder.path().join("gone")).unwrap().total.items, 0);
}
