//! Bad input through the program itself: the exit code, what the message says, and that nothing half-written is
//! left.
#![allow(clippy::unwrap_used)] // a test fails by it

use ashlar_builder::lock::{Lock, Stored};
use ashlar_tests::release::{new_keys, recipe};
use ashlar_tests::{Built, Run, built, is_root, programs, skip};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use tempfile::TempDir;

/// A mirror that nobody listens at.
const DOWN: &str = "http://127.0.0.1:1/debian";

/// Exit codes as documented.
const INPUT: i32 = 2;
const PACKAGES: i32 = 3;
const KEYS: i32 = 4;
const OUTPUT: i32 = 5;

/// A folder with a recipe and whatever a test adds.
struct Case {
    folder: TempDir,
    cache: PathBuf,
    keys: PathBuf,
}

/// Everything in a folder, however deep, but a cache.
fn listing(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.file_name().unwrap() == "cache" {
                continue;
            }
            if path.is_dir() && !path.is_symlink() {
                folders.push(path.clone());
            }
            found.push(path);
        }
    }
    found.sort();
    found
}

/// Keys for tests that need none in particular.
fn keys() -> PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let make = || {
        let folder = ashlar_tests::release::shared().join("keys-for-errors");
        if folder.exists() {
            std::fs::remove_dir_all(&folder).unwrap();
        }
        new_keys(&folder, "Ashlar tests");
        folder
    };
    FOLDER.get_or_init(make).clone()
}

impl Case {
    /// The example's recipe with one piece of text replaced.
    fn new(old: &str, new: &str) -> Self {
        let folder = tempfile::tempdir_in(ashlar_tests::release::shared()).unwrap();
        let text = std::fs::read_to_string(recipe()).unwrap();
        assert_eq!(text.matches(old).count(), 1, "`{old}` is not in the example once");
        std::fs::write(folder.path().join("recipe.toml"), text.replace(old, new)).unwrap();
        let cache = folder.path().join("cache");
        Self { folder, cache, keys: keys() }
    }

    /// The example's recipe.
    fn example() -> Self {
        Self::new("hostname = \"ashlar\"", "hostname = \"ashlar\"")
    }

    /// With the lock file and the full cache of the release.
    fn with_cache(mut self, built: &Built) -> Self {
        self.cache.clone_from(&built.cache);
        self
    }

    fn with_lock(self, built: &Built) -> Self {
        std::fs::copy(&built.lock, self.path("recipe.lock")).unwrap();
        self
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn build(&self, arguments: &[&str]) -> Run {
        self.build_to("out", arguments)
    }

    fn build_to(&self, out: &str, arguments: &[&str]) -> Run {
        let mut command = Command::new(programs::folder().join("ashlar"));
        command
            .args(["build", "recipe.toml", "-o", out, "--keys"])
            .arg(&self.keys)
            .arg("--cache")
            .arg(&self.cache)
            .args(arguments)
            .current_dir(self.folder.path())
            .env("NO_COLOR", "1");
        Run::of(&mut command)
    }

    /// Builds and expects that it fails with `code`, that the message has all of `words`, and that the folder is
    /// as it was.
    fn fails(self, arguments: &[&str], code: i32, words: &[&str]) -> Run {
        let before = listing(self.folder.path());
        let run = self.build(arguments);
        assert_eq!(run.code, Some(code), "{run}");
        let text = run.error_text();
        for word in words {
            assert!(text.contains(word), "`{word}` is not in: {text}");
        }
        assert!(!text.contains("panicked"), "{text}");
        assert_eq!(listing(self.folder.path()), before, "something was left behind");
        run
    }
}

#[test]
fn an_unknown_key_is_shown_with_line_column_and_the_nearest() {
    let case = Case::new("hostname = \"ashlar\"", "hostnaem = \"ashlar\"");
    let text = std::fs::read_to_string(case.path("recipe.toml")).unwrap();
    let line = text.lines().position(|line| line.starts_with("hostnaem")).unwrap() + 1;
    let place = format!("recipe.toml, line {line}, column 1");
    case.fails(&[], INPUT, &[&place, "`hostnaem`", "did you mean `hostname`?"]);
}

#[test]
fn a_recipe_that_is_not_there_or_no_toml() {
    let case = Case::example();
    std::fs::remove_file(case.path("recipe.toml")).unwrap();
    case.fails(&[], INPUT, &["cannot read the recipe", "recipe.toml"]);
    let case = Case::example();
    std::fs::write(case.path("recipe.toml"), "[image]\nid = \"a\nversion = 1").unwrap();
    case.fails(&[], INPUT, &["recipe.toml, line 2, column"]);
}

#[test]
fn a_missing_key_file_is_named() {
    let mut case = Case::example();
    case.keys = case.path("absent");
    case.fails(&[], KEYS, &["absent"]);
    let mut case = Case::example();
    case.keys = case.path("keys");
    new_keys(&case.keys, "Half a folder");
    std::fs::remove_file(case.keys.join("db.key")).unwrap();
    case.fails(&[], KEYS, &["db.key"]);
}

#[test]
fn keys_are_never_overwritten() {
    let case = Case::example();
    let folder = case.path("keys");
    new_keys(&folder, "First");
    let before = std::fs::read(folder.join("PK.key")).unwrap();
    let run = Run::of(Command::new(programs::folder().join("ashlar")).args(["keys", "new"]).arg(&folder));
    assert_eq!(run.code, Some(KEYS), "{run}");
    assert_eq!(std::fs::read(folder.join("PK.key")).unwrap(), before);
}

#[test]
fn an_init_that_is_not_there_or_not_static() {
    Case::example().fails(&["--init", "/nonexistent/init"], INPUT, &["/nonexistent/init"]);
    // This test itself; `ashlar` may be static.
    let dynamic = std::env::current_exe().unwrap();
    Case::example().fails(&["--init", dynamic.to_str().unwrap()], INPUT, &["linked dynamically"]);
}

#[test]
fn a_mirror_that_is_down_without_a_cache() {
    Case::example().fails(&["--mirror", DOWN], PACKAGES, &[DOWN, "InRelease"]);
    // The network forbidden: another way out is named.
    Case::example().fails(&["--mirror", DOWN, "--offline"], PACKAGES, &["without `--offline`"]);
    Case::example().fails(&["--mirror", "ftp://example.org"], PACKAGES, &["cannot be used as a mirror"]);
}

#[test]
fn a_mirror_that_is_down_does_not_matter_with_lock_and_cache() {
    let Some(built) = built() else { return };
    let case = Case::example().with_cache(built).with_lock(built);
    let _ = case.build(&["--mirror", DOWN, "--locked"]).ok();
    assert!(case.path("out/release.json").is_file());
}

#[test]
fn without_a_lock_the_cached_index_gives_the_same_one() {
    let Some(built) = built() else { return };
    let case = Case::example().with_cache(built);
    let _ = case.build(&["--offline"]).ok();
    let (ours, first) = (Lock::load(&case.path("recipe.lock")), Lock::load(&built.lock));
    let ours = ours.unwrap();
    assert!(matches!(ours, Stored::Lock(_)));
    assert_eq!(ours, first.unwrap());
}

#[test]
fn an_unknown_package_is_shown_with_the_nearest() {
    let Some(built) = built() else { return };
    let case = Case::new("packages = [\"crun\", ", "packages = [\"crum\", ").with_cache(built);
    case.fails(&["--offline"], PACKAGES, &["no package `crum`", "near to it:", "crun"]);
}

#[test]
fn packages_that_exclude_each_other_are_both_named() {
    let Some(built) = built() else { return };
    // Two mail servers: each conflicts with whatever else provides `mail-transport-agent`.
    let (old, new) = ("packages = [\"busybox-static\"]", "packages = [\"exim4-daemon-light\", \"postfix\"]");
    let case = Case::new(old, new);
    let words = ["exim4-daemon-light", "postfix", "cannot be together", "mail-transport-agent"];
    case.with_cache(built).fails(&["--offline"], PACKAGES, &words);
}

#[test]
fn a_lock_that_does_not_fit_is_not_passed_over() {
    let Some(built) = built() else { return };
    let case = || Case::new("packages = [\"crun\", ", "packages = [\"crun\", \"jq\", ").with_cache(built);
    case().fails(&["--locked"], PACKAGES, &["recipe.lock", "there is no such file"]);
    case().with_lock(built).fails(&["--locked"], PACKAGES, &["recipe.lock", "does not fit", "`root`"]);
    let garbled = case().with_lock(built);
    std::fs::write(garbled.path("recipe.lock"), "hello").unwrap();
    garbled.fails(&[], PACKAGES, &["recipe.lock", "is not a lock file"]);
}

/// The signed index as the mirror gave it.
fn in_release(built: &Built) -> Vec<u8> {
    let files = std::fs::read_dir(built.cache.join("index")).unwrap();
    let mut found = files.map(|file| std::fs::read(file.unwrap().path()).unwrap_or_default());
    found.find(|bytes| bytes.starts_with(b"-----BEGIN PGP SIGNED MESSAGE-----")).unwrap()
}

#[test]
fn an_index_with_a_bad_signature_is_refused() {
    let Some(built) = built() else { return };
    let good = in_release(built);
    let build = |content: &[u8], words: &[&str]| {
        let case = Case::example();
        let suite = case.path("mirror/dists/trixie");
        std::fs::create_dir_all(&suite).unwrap();
        std::fs::write(suite.join("InRelease"), content).unwrap();
        let mirror = format!("file://{}", case.path("mirror").display());
        case.fails(&["--mirror", &mirror], PACKAGES, words)
    };
    let mut bad = good.clone();
    let date = bad.windows(6).position(|bytes| bytes == b"\nDate:").unwrap();
    let digit = bad[date..].iter().position(u8::is_ascii_digit).unwrap() + date;
    bad[digit] = if bad[digit] == b'1' { b'2' } else { b'1' };
    build(&bad, &["is not signed by a key in the archive keyring", "do not trust this mirror"]);
    // As it is, it is believed: then the package list is what is missing.
    let run = build(&good, &["Packages"]);
    assert!(!run.stderr.contains("is not signed"), "{run}");
}

#[test]
fn a_package_that_was_changed_is_refused() {
    let Some(built) = built() else { return };
    let Stored::Lock(lock) = Lock::load(&built.lock).unwrap() else { panic!("no lock file of this format") };
    let smallest =
        lock.parts.iter().flat_map(|part| &part.packages).min_by_key(|package| package.size).unwrap();
    let build = |change: &dyn Fn(&mut Vec<u8>)| {
        let case = Case::example().with_lock(built);
        for package in lock.parts.iter().flat_map(|part| &part.packages) {
            let path = case.path("mirror").join(&package.path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            let deb = built.cache.join("debs").join(format!("{}.deb", package.sha256));
            if package.sha256 == smallest.sha256 {
                let mut bytes = std::fs::read(deb).unwrap();
                change(&mut bytes);
                std::fs::write(path, bytes).unwrap();
            } else if !path.exists() {
                std::os::unix::fs::symlink(deb, path).unwrap();
            }
        }
        let mirror = format!("file://{}", case.path("mirror").display());
        let words = [smallest.name.as_str(), "is not what the lock file names"];
        case.fails(&["--mirror", &mirror, "--locked"], PACKAGES, &words);
    };
    build(&|bytes| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
    });
    build(&|bytes| bytes.truncate(bytes.len() - 1));
    build(&|bytes| bytes.push(0));
}

#[test]
fn a_folder_that_holds_something_else_is_left_alone() {
    let Some(built) = built() else { return };
    let case = Case::example().with_cache(built).with_lock(built);
    std::fs::create_dir(case.path("out")).unwrap();
    std::fs::write(case.path("out/letter"), "dear").unwrap();
    case.fails(&["--locked", "--offline"], OUTPUT, &["holds no release"]);
}

#[test]
fn what_does_not_fit_its_partition_is_refused_with_the_numbers() {
    let Some(built) = built() else { return };
    let case = Case::new("root = \"4GiB\"", "root = \"8MiB\"").with_cache(built).with_lock(built);
    case.fails(
        &["--offline"],
        OUTPUT,
        &["the root needs", "MiB", "but its partition has 8", "partitions.root"],
    );
}

/// A file system of 8 MiB, mounted for as long as this value lives.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: &Path) -> Option<Self> {
        std::fs::create_dir_all(at).unwrap();
        let mut command = Command::new("mount");
        let run = Run::of(command.args(["-t", "tmpfs", "-o", "size=8m", "tmpfs"]).arg(at));
        (run.code == Some(0)).then(|| Self(at.to_owned()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Run::of(Command::new("umount").arg(&self.0));
    }
}

#[test]
fn a_full_disk_leaves_the_old_release() {
    let Some(built) = built() else { return };
    if !is_root() {
        return skip("only root can mount a small file system");
    }
    let case = Case::example().with_cache(built).with_lock(built);
    let Some(_disk) = SmallDisk::mount(&case.path("small")) else {
        return skip("a tmpfs cannot be mounted here");
    };
    // What an older build left there.
    std::fs::create_dir(case.path("small/out")).unwrap();
    std::fs::write(case.path("small/out/release.json"), "the old one").unwrap();
    let before = listing(&case.path("small"));
    let run = case.build_to("small/out", &["--locked", "--offline"]);
    assert_eq!(run.code, Some(OUTPUT), "{run}");
    assert!(run.error_text().contains("No space left on device"), "{run}");
    assert_eq!(listing(&case.path("small")), before, "something was left behind");
    assert_eq!(std::fs::read_to_string(case.path("small/out/release.json")).unwrap(), "the old one");
}
