//! Locks between builds: flock(2), which is given back when the last descriptor is closed, in whatever way.

use crate::{CacheError, item};
use rustix::fs::{FlockOperation, flock as raw_flock};
use rustix::io::Errno;
use std::fs::File;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The lock of one item, given back when it is dropped.
#[derive(Debug)]
#[must_use = "the lock is given back when this is dropped"]
pub struct ItemLock {
    file: File,
    path: PathBuf,
    waited: bool,
}

impl ItemLock {
    pub(crate) fn take(folder: &Path, name: &str, waiting: impl FnOnce()) -> Result<Self, CacheError> {
        let path = folder.join(format!("lock-{}", item::safe_name(name)));
        let mut waiting = Some(waiting);
        let mut waited = false;
        loop {
            let file = open(&path)?;
            if !try_flock(&file, FlockOperation::NonBlockingLockExclusive, &path)? {
                if let Some(waiting) = waiting.take() {
                    waiting();
                }
                waited = true;
                flock(&file, FlockOperation::LockExclusive, &path)?;
            }
            // Who had it before has removed the file, and somebody else may have made a new one since.
            if is_at(&file, &path) {
                return Ok(Self { file, path, waited });
            }
        }
    }

    /// Whether somebody else had the lock first: the item may be there now.
    pub fn waited(&self) -> bool {
        self.waited
    }
}

impl Drop for ItemLock {
    fn drop(&mut self) {
        // While it is still locked, so that nobody else's file is removed. A file that stays does no harm.
        if is_at(&self.file, &self.path) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Whether the open file is still the one at `path`.
fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), std::fs::metadata(path)) {
        (Ok(open), Ok(named)) => (open.dev(), open.ino()) == (named.dev(), named.ino()),
        _ => false,
    }
}

/// Opens a lock file and makes it if it is not there.
pub(crate) fn open(path: &Path) -> Result<File, CacheError> {
    File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o644)
        .open(path)
        .map_err(CacheError::io("open the lock file", path))
}

/// Locks and waits for it.
pub(crate) fn flock(file: &File, operation: FlockOperation, path: &Path) -> Result<(), CacheError> {
    loop {
        match raw_flock(file, operation) {
            Ok(()) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(error) => return Err(CacheError::io("lock", path)(error.into())),
        }
    }
}

/// Locks if nobody else has a lock that is against it; whether it did.
pub(crate) fn try_flock(file: &File, operation: FlockOperation, path: &Path) -> Result<bool, CacheError> {
    loop {
        match raw_flock(file, operation) {
            Ok(()) => return Ok(true),
            Err(Errno::WOULDBLOCK) => return Ok(false),
            Err(Errno::INTR) => {}
            Err(error) => return Err(CacheError::io("lock", path)(error.into())),
        }
    }
}
