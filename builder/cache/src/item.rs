//! Items of a room: their names, sizes and times.

use crate::{USE_GRAIN, sha256};
use std::borrow::Cow;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::SystemTime;

/// Longest name of a file in the cache, in bytes; file systems have 255.
const MAX_NAME: usize = 200;
/// Deepest folder of an item whose size is counted.
const MAX_DEPTH: usize = 64;

/// The name itself, or its SHA-256 if it could be something else than a file in the room.
pub(crate) fn safe_name(name: &str) -> Cow<'_, str> {
    let good = !name.is_empty()
        && name.len() <= MAX_NAME
        && !name.starts_with('.')
        && name.bytes().all(|c| c.is_ascii_alphanumeric() || b"._+-".contains(&c));
    if good { Cow::Borrowed(name) } else { Cow::Owned(sha256(name.as_bytes())) }
}

/// The item that a file belongs to: its name up to the first dot.
pub(crate) fn item_of(name: &str) -> &str {
    name.split('.').next().unwrap_or(name)
}

/// Bytes that a file or folder takes on the disk; holes of sparse files do not count.
pub(crate) fn size_on_disk(path: &Path) -> u64 {
    size_below(path, MAX_DEPTH)
}

fn size_below(path: &Path, depth: usize) -> u64 {
    let Ok(metadata) = std::fs::symlink_metadata(path) else { return 0 };
    let own = metadata.blocks().saturating_mul(512);
    if !metadata.is_dir() || depth == 0 {
        return own;
    }
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    entries.map(|entry| size_below(&entry.path(), depth - 1)).fold(own, u64::saturating_add)
}

/// See [`crate::Cache::touch`]. A time in the future (a clock that was wrong) is put right.
pub(crate) fn touch(path: &Path, now: SystemTime) {
    let Ok(file) = File::open(path) else { return };
    let Ok(last) = file.metadata().and_then(|metadata| metadata.modified()) else { return };
    if now.duration_since(last).is_ok_and(|age| age <= USE_GRAIN) {
        return;
    }
    let _ = file.set_modified(now);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn names_stay_in_their_room() {
        for good in ["a", "0f.tar", "x+y_z-1.2.control"] {
            assert_eq!(safe_name(good), good);
        }
        let long = "a".repeat(201);
        for bad in ["", ".", "..", "../x", "a/b", "/etc", ".hidden", "a\0", "ä", "sha256:ab", &long] {
            let name = safe_name(bad);
            assert!(name.len() == 64 && name.bytes().all(|c| c.is_ascii_hexdigit()), "{bad}: {name}");
        }
        assert_eq!((item_of("ab.tar.x"), item_of("ab")), ("ab", "ab"));
    }

    #[test]
    fn a_use_is_recorded_once_a_day() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let now = SystemTime::now();
        let day = Duration::from_secs(24 * 60 * 60);
        let modified = || std::fs::metadata(file.path()).unwrap().modified().unwrap();
        for (age, written) in [(day / 2, false), (2 * day, true)] {
            let then = now - age;
            file.as_file().set_modified(then).unwrap();
            touch(file.path(), now);
            assert_eq!(modified() != then, written, "{age:?}");
        }
        file.as_file().set_modified(now + 9 * day).unwrap();
        touch(file.path(), now);
        assert!(modified() <= now);
        touch(Path::new("/nonexistent/file"), now);
    }
}
