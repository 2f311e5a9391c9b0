//! The builder's cache folder: what can be had again, shared by builds that run at once.
//!
//! A [`Cache`] has a few [`Room`]s; each holds items, and an item is all files (or folders) of one room whose names are
//! the same up to the first dot: `abc.tar` and `abc.control` belong together and go together.
//!
//! What holds at any moment, also after SIGKILL or a power failure:
//! - A file is written in `tmp/`, brought to the disk (fdatasync) and then renamed: under its name it is whole or not
//!   there. The folder itself is not synced: a rename that a power failure undoes costs a second download, no more.
//! - What a killed build leaves behind lies in `tmp/` and is removed by the next build that is alone in the cache.
//! - Nothing in the cache is believed. Whoever reads compares hashes ([`Cache::open_verified`], [`Cache::blob`]); a damaged
//!   item is named, removed and had again. But the folder must belong to whoever builds: who can write to it could
//!   change a file together with its check value.
//!
//! Locks (flock(2), which the kernel takes back when a process ends in whatever way): each [`Cache`] holds the cache's
//! lock shared, so that builds share it and [`gc`] waits for them; [`Cache::lock`] is for one item, so that two builds do
//! not fetch or unpack the same thing twice.
#![forbid(unsafe_code)]

mod blob;
mod error;
mod gc;
mod item;
mod lock;

pub use blob::BlobReader;
pub use error::CacheError;
pub use gc::{GcReport, Policy, Removed, RoomReport, RoomUsage, Usage, gc, usage};
pub use lock::ItemLock;

use rustix::fs::FlockOperation;
use std::fs::{DirBuilder, File};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tempfile::NamedTempFile;

/// What tells backup programs that the folder can be made again (Cache Directory Tagging Specification).
const TAG: &[u8] = b"Signature: 8a477f597d28d172789f06886806bc55\n# What was fetched and made for images.\n";
/// A use is recorded when the last record is older than this.
const USE_GRAIN: Duration = Duration::from_secs(24 * 60 * 60);
/// Unfinished downloads are kept this long after their last byte, to be gone on with.
const PARTIAL_AGE: Duration = Duration::from_secs(24 * 60 * 60);
/// Names of unfinished downloads in `tmp/` begin so.
const PARTIAL: &str = "partial-";

/// A kind of item in the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Room {
    /// Package files as they were fetched. A build reads them only to unpack or to repair what was unpacked, so they are
    /// the first to go.
    Packages,
    /// What was unpacked from packages.
    Unpacked,
    /// Signed indexes of suites, and package lists.
    Indexes,
    /// Whatever else is named by its SHA-256.
    Blobs,
    /// Results of a build's stages, named by the hash of their inputs.
    Stages,
}

impl Room {
    /// All rooms.
    pub const ALL: [Self; 5] = [Self::Packages, Self::Unpacked, Self::Indexes, Self::Blobs, Self::Stages];

    /// The room's folder below the cache's root.
    pub fn folder(self) -> &'static str {
        match self {
            Self::Packages => "debs",
            Self::Unpacked => "unpacked",
            Self::Indexes => "index",
            Self::Blobs => "blobs",
            Self::Stages => "stages",
        }
    }
}

/// A cache folder that is in use. Clones share the lock; it is given back when the last one is dropped.
#[derive(Debug, Clone)]
pub struct Cache {
    root: PathBuf,
    /// Locked shared.
    _lock: Arc<File>,
}

impl Cache {
    /// Opens the cache in `root` and makes it if it is not there. Waits while [`gc`] is at work in it.
    ///
    /// # Errors
    /// Fails when the folder cannot be made, written to or locked.
    pub fn open(root: &Path) -> Result<Self, CacheError> {
        let root = std::path::absolute(root).map_err(CacheError::io("use", root))?;
        make_folders(&root)?;
        let lock = lock::open(&root.join("lock"))?;
        // Who is alone here knows that nobody writes what lies in `tmp/`.
        if lock::try_flock(&lock, FlockOperation::NonBlockingLockExclusive, &root)? {
            remove_leftovers(&root, SystemTime::now());
        }
        lock::flock(&lock, FlockOperation::LockShared, &root)?;
        let cache = Self { root, _lock: Arc::new(lock) };
        let tag = cache.root.join("CACHEDIR.TAG");
        if !tag.exists() {
            cache.write(&tag, TAG)?;
        }
        Ok(cache)
    }

    /// The cache's folder, absolute.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where the file `name` of a room lies, whether it is there or not. A name that could lead out of the room, or
    /// that is none for an item (empty, beginning with a dot, longer than 200 bytes, with other characters than ASCII
    /// letters, digits and `._+-`), is replaced by its SHA-256.
    pub fn path(&self, room: Room, name: &str) -> PathBuf {
        self.root.join(room.folder()).join(item::safe_name(name).as_ref())
    }

    /// A file to be written and then given its name with [`Cache::keep`]; gone if that does not happen.
    ///
    /// # Errors
    /// Fails when no file can be made in `tmp/`.
    pub fn temporary(&self) -> Result<NamedTempFile, CacheError> {
        let folder = self.root.join("tmp");
        tempfile::Builder::new()
            .permissions(std::fs::Permissions::from_mode(0o644))
            .tempfile_in(&folder)
            .map_err(CacheError::io("make a file in", &folder))
    }

    /// A folder to be filled and then given its name with [`Cache::keep_folder`]; gone if that does not happen.
    ///
    /// # Errors
    /// Fails when no folder can be made in `tmp/`.
    pub fn temporary_folder(&self) -> Result<tempfile::TempDir, CacheError> {
        let folder = self.root.join("tmp");
        tempfile::Builder::new()
            .permissions(std::fs::Permissions::from_mode(0o755))
            .tempdir_in(&folder)
            .map_err(CacheError::io("make a folder in", &folder))
    }

    /// Where the unfinished download of the file with this hash or name lies, to be gone on with by a later build. Write it
    /// only while holding the item's lock; give it its name with [`Cache::keep_path`]. It is removed a day after its
    /// last byte.
    pub fn partial(&self, name: &str) -> PathBuf {
        self.root.join("tmp").join(format!("{PARTIAL}{}", item::safe_name(name)))
    }

    /// Brings a finished file to the disk and gives it its name; a file that has the name already is replaced.
    ///
    /// # Errors
    /// Fails when the file cannot be synced or renamed; it is gone then.
    pub fn keep(&self, file: NamedTempFile, path: &Path) -> Result<File, CacheError> {
        file.as_file().sync_data().map_err(CacheError::io("write", path))?;
        file.persist(path).map_err(|error| CacheError::io("write", path)(error.error))
    }

    /// As [`Cache::keep`], for an open file in `tmp/` that was not made by [`Cache::temporary`].
    ///
    /// # Errors
    /// Fails when the file cannot be synced or renamed.
    pub fn keep_path(&self, file: &File, from: &Path, to: &Path) -> Result<(), CacheError> {
        file.sync_data().map_err(CacheError::io("write", to))?;
        std::fs::rename(from, to).map_err(CacheError::io("write", to))
    }

    /// Gives a finished folder its name, unless another build was faster: then what is there stays. The files in it
    /// are not synced: whoever fills it does that, or verifies them when they are read.
    ///
    /// # Errors
    /// Fails when the folder cannot be renamed.
    pub fn keep_folder(&self, folder: tempfile::TempDir, path: &Path) -> Result<(), CacheError> {
        match std::fs::rename(folder.path(), path) {
            Ok(()) => {
                // It is not there any more under its old name; nothing is left to remove.
                let _ = folder.keep();
                Ok(())
            }
            Err(_) if path.is_dir() => Ok(()),
            Err(error) => Err(CacheError::io("write", path)(error)),
        }
    }

    /// Writes a small file.
    ///
    /// # Errors
    /// Fails when it cannot be written; what had this name before is still there then.
    pub fn write(&self, path: &Path, bytes: &[u8]) -> Result<(), CacheError> {
        let mut file = self.temporary()?;
        file.write_all(bytes).map_err(CacheError::io("write", path))?;
        self.keep(file, path).map(drop)
    }

    /// Takes the lock of one item, which keeps out other threads as well as other processes. When somebody else has it,
    /// `waiting` is called once and then waited for. Whoever had to wait looks first whether the item is there now.
    ///
    /// Nobody may hold two item locks at once, unless all that do take them in one order.
    ///
    /// # Errors
    /// Fails when the lock file cannot be made or locked.
    pub fn lock(&self, name: &str, waiting: impl FnOnce()) -> Result<ItemLock, CacheError> {
        ItemLock::take(&self.root.join("tmp"), name, waiting)
    }

    /// Records that the item with this file was used now, for [`gc`]: at most once a day, in the file's time of
    /// modification, which means nothing else in the cache. That it fails (a cache of another user) does no harm.
    pub fn touch(&self, path: &Path) {
        item::touch(path, SystemTime::now());
    }
}

/// Reads a file of at most `limit` bytes; none when it is not there.
///
/// # Errors
/// Fails when the file is larger or cannot be read.
pub fn read_if_there(path: &Path, limit: u64) -> Result<Option<Vec<u8>>, CacheError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(CacheError::io("read", path)(error)),
    };
    let mut bytes = Vec::new();
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes).map_err(CacheError::io("read", path))?;
    if bytes.len() as u64 > limit {
        let too_large = std::io::Error::other(format!("it is larger than {limit} bytes"));
        return Err(CacheError::io("read", path)(too_large));
    }
    Ok(Some(bytes))
}

/// SHA-256 in lower-case hexadecimal.
pub fn sha256(bytes: &[u8]) -> String {
    hex::encode(ring::digest::digest(&ring::digest::SHA256, bytes))
}

fn make_folders(root: &Path) -> Result<(), CacheError> {
    for folder in Room::ALL.map(Room::folder).into_iter().chain(["tmp"]) {
        let path = root.join(folder);
        DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(&path)
            .map_err(CacheError::io("make the cache folder", &path))?;
    }
    Ok(())
}

/// Removes what killed builds have left in `tmp/`; says how much that was. Only for who holds the lock alone.
fn remove_leftovers(root: &Path, now: SystemTime) -> RoomUsage {
    let mut removed = RoomUsage::default();
    for (path, size) in leftovers(root, now) {
        let gone = if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
        // What stays does no harm and is tried again the next time.
        if gone.is_ok() {
            removed.items += 1;
            removed.bytes += size;
        }
    }
    removed
}

/// What lies in `tmp/` for nobody, with its size on the disk. Only for who holds the lock alone.
fn leftovers(root: &Path, now: SystemTime) -> Vec<(PathBuf, u64)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(root.join("tmp")).into_iter().flatten().flatten() {
        let path = entry.path();
        let partial = entry.file_name().to_str().is_some_and(|name| name.starts_with(PARTIAL));
        let age = entry
            .metadata()
            .and_then(|metadata| metadata.modified())
            .ok()
            .and_then(|time| now.duration_since(time).ok());
        if !partial || age.is_some_and(|age| age > PARTIAL_AGE) {
            let size = item::size_on_disk(&path);
            found.push((path, size));
        }
    }
    found
}
