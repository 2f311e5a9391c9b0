//! The same inputs give the same bytes: in another folder, at another time, with other settings, as another
//! user.
#![allow(clippy::unwrap_used)] // a test fails by it

use ashlar_tests::release::{build, new_keys};
use ashlar_tests::sparse::difference;
use ashlar_tests::{Built, Run, built, is_root, programs, skip};
use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

/// Every file and folder below `folder`, by its path from there. Their modes are not the release's but follow
/// the user's umask.
fn names(folder: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            found.insert(path.strip_prefix(folder).unwrap().to_owned());
            if path.is_dir() {
                folders.push(path);
            }
        }
    }
    found
}

fn assert_same(one: &Path, other: &Path) {
    let (left, right) = (names(one), names(other));
    assert_eq!(left, right);
    assert!(left.len() >= 10, "{left:?}");
    for path in left.iter().filter(|path| one.join(path).is_file()) {
        let differs = difference(&one.join(path), &other.join(path));
        assert_eq!(differs, None, "{} differs at this byte", path.display());
    }
}

/// Not in the second of the first build, so that a clock that gets into the result shows.
fn another_second(built: &Built) {
    let made = std::fs::metadata(built.file("release.json")).unwrap().modified().unwrap();
    while SystemTime::now().duration_since(made).unwrap() < Duration::from_secs(2) {
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A copy of a folder of plain files.
fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &to.join(entry.file_name()));
        } else {
            std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

#[test]
fn in_another_folder_with_other_settings() {
    let Some(built) = built() else { return };
    another_second(built);
    let dir = tempfile::tempdir_in(built.out.parent().unwrap()).unwrap();
    // Another depth, other names, and the recipe by a relative path.
    let folder = dir.path().join("some where/else");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::copy(&built.recipe, folder.join("recipe.toml")).unwrap();
    std::fs::copy(&built.lock, folder.join("recipe.lock")).unwrap();
    let mut command = Command::new("sh");
    command
        .args(["-c", "umask 077; exec \"$0\" \"$@\""])
        .arg(programs::folder().join("ashlar"))
        .args(["build", "recipe.toml", "--locked", "--offline", "-o", "result", "--keys"])
        .arg(&built.keys)
        .arg("--cache")
        .arg(&built.cache)
        .current_dir(&folder)
        .envs([("TZ", "Asia/Kathmandu"), ("LC_ALL", "tr_TR.UTF-8"), ("SOURCE_DATE_EPOCH", "1")])
        .envs([("RAYON_NUM_THREADS", "1"), ("HOME", "/nonexistent")]);
    let _ = Run::of(&mut command).ok();
    assert_same(&built.out, &folder.join("result"));
}

#[test]
fn as_an_ordinary_user_who_unpacks_anew() {
    let Some(built) = built() else { return };
    if !is_root() {
        return skip("only root can become another user");
    }
    another_second(built);
    // Not below the target folder, which the other user may not be allowed to enter.
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let folder = dir.path().join("nobody");
    copy_folder(&built.keys, &folder.join("keys"));
    // The packages, but nothing that was unpacked from them.
    copy_folder(&built.cache.join("debs"), &folder.join("cache/debs"));
    copy_folder(&programs::folder(), &dir.path().join("programs"));
    std::fs::copy(&built.recipe, folder.join("recipe.toml")).unwrap();
    std::fs::copy(&built.lock, folder.join("recipe.lock")).unwrap();
    let _ = Run::of(Command::new("chown").args(["-R", "65534:65534"]).arg(&folder)).ok();
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "--inh-caps=-all"])
        .arg(dir.path().join("programs/ashlar"))
        .args([
            "build",
            "recipe.toml",
            "--locked",
            "--offline",
            "-o",
            "out",
            "--keys",
            "keys",
            "--cache",
            "cache",
        ])
        .current_dir(&folder)
        .env("HOME", "/nonexistent");
    let _ = Run::of(&mut command).ok();
    assert_same(&built.out, &folder.join("out"));
}

/// The comparison can fail: other keys give other bytes exactly where keys are.
#[test]
fn other_keys_change_the_signed_files_and_no_other() {
    let Some(built) = built() else { return };
    let dir = tempfile::tempdir_in(built.out.parent().unwrap()).unwrap();
    let (keys, out) = (dir.path().join("keys"), dir.path().join("out"));
    new_keys(&keys, "Somebody else");
    let _ = Run::of(build(&keys, &out).args(["--locked", "--offline"])).ok();
    let differs = |name: &str| difference(&built.file(name), &out.join(name)).is_some();
    for name in ["uki.efi", "esp.img", "disk.raw", "release.json", "secure-boot/db.auth"] {
        assert!(differs(name), "{name} is the same with other keys");
    }
    for name in ["root.erofs", "root.verity"] {
        assert!(!differs(name), "{name} depends on the keys");
    }
}
