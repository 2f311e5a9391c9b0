//! Folders of files: copied, listed, compared byte for byte.

use crate::programs::Run;
use crate::{is_root, sparse};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A user without any rights, where root runs the tests.
pub const NOBODY: u32 = 65534;
/// Larger files are copied with their holes.
const LARGE: u64 = 256 << 20;

/// Every file and folder below `folder`, by its path from there. Their modes are not the release's but follow the
/// user's umask.
pub fn names(folder: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            found.insert(path.strip_prefix(folder).unwrap().to_owned());
            if path.is_dir() && !path.is_symlink() {
                folders.push(path);
            }
        }
    }
    found
}

/// The first difference between two releases; none when they have the same files with the same bytes.
pub fn release_difference(one: &Path, other: &Path) -> Option<String> {
    let (left, right) = (names(one), names(other));
    assert!(left.len() >= 10, "`{}` is no release: {left:?}", one.display());
    if left != right {
        let only: Vec<_> = left.symmetric_difference(&right).collect();
        return Some(format!("only one of the two has {only:?}"));
    }
    left.iter().filter(|path| one.join(path).is_file()).find_map(|path| {
        let byte = sparse::difference(&one.join(path), &other.join(path))?;
        Some(format!("{} differs at byte {byte}", path.display()))
    })
}

/// Expects the same bytes; `what` says which two these are.
#[track_caller]
pub fn assert_same(one: &Path, other: &Path, what: &str) {
    if let Some(difference) = release_difference(one, other) {
        panic!("{what}: {difference}\n(`{}` and `{}`)", one.display(), other.display());
    }
}

/// A copy of a folder of plain files, with their modes.
pub fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type().unwrap().is_dir() {
            copy(&from, &to);
        } else if entry.metadata().unwrap().len() > LARGE {
            sparse::copy(&from, &to);
        } else {
            std::fs::copy(from, to).unwrap();
        }
    }
}

/// Gives a folder and all in it to a user; nothing happens where an ordinary user runs the tests.
pub fn give_to(folder: &Path, user: u32) {
    if is_root() {
        let _ = Run::of(Command::new("chown").args(["-R", &format!("{user}:{user}")]).arg(folder)).ok();
    }
}
