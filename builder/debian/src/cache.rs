//! The cache folder: what was fetched and verified, and what was unpacked from it.
//!
//! Files are written under another name and renamed, and named by what they hold: two builds may use one
//! cache at the same time; at worst both do the same work. Whatever is read is verified again, so that a
//! damaged file is noticed, but the folder must belong to whoever builds: who can write to it could change a
//! file together with its check value.

use crate::Error;
use std::fs::{DirBuilder, File};
use std::io::Read;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::NamedTempFile;

/// What tells backup programs that the folder can be made again (Cache Directory Tagging Specification).
const TAG: &[u8] = b"Signature: 8a477f597d28d172789f06886806bc55\n# Packages that were fetched for images.\n";
/// Unfinished files of builds that ended hard are removed after this time.
const STALE: Duration = Duration::from_secs(24 * 60 * 60);

/// A cache folder.
#[derive(Debug, Clone)]
pub struct Cache {
    root: PathBuf,
}

impl Cache {
    /// Opens the cache in `dir`, making it if it is not there.
    pub fn open(dir: &Path) -> Result<Self, Error> {
        let root = std::path::absolute(dir).map_err(Error::io("use", dir))?;
        for folder in ["index", "debs", "unpacked", "tmp"] {
            let path = root.join(folder);
            DirBuilder::new()
                .recursive(true)
                .mode(0o755)
                .create(&path)
                .map_err(Error::io("make the cache folder", &path))?;
        }
        let cache = Self { root };
        let tag = cache.root.join("CACHEDIR.TAG");
        if !tag.exists() {
            cache.write(&tag, TAG)?;
        }
        cache.remove_stale();
        Ok(cache)
    }

    /// Where the verified file with this SHA-256 of an index lies.
    pub(crate) fn index_file(&self, name: &str) -> PathBuf {
        self.root.join("index").join(name)
    }

    /// Where the package file with this SHA-256 lies.
    pub(crate) fn deb(&self, sha256: &str) -> PathBuf {
        self.root.join("debs").join(format!("{sha256}.deb"))
    }

    /// Where the uncompressed files of the package with this SHA-256 lie.
    pub(crate) fn data(&self, sha256: &str) -> PathBuf {
        self.root.join("unpacked").join(format!("{sha256}.tar"))
    }

    /// Where the check values and the control file of the package with this SHA-256 lie.
    pub(crate) fn control(&self, sha256: &str) -> PathBuf {
        self.root.join("unpacked").join(format!("{sha256}.control"))
    }

    /// A file to be written and then given its name with [`Cache::keep`]; gone if that does not happen.
    pub(crate) fn temporary(&self) -> Result<NamedTempFile, Error> {
        let folder = self.root.join("tmp");
        tempfile::Builder::new()
            .permissions(std::fs::Permissions::from_mode(0o644))
            .tempfile_in(&folder)
            .map_err(Error::io("make a file in", &folder))
    }

    /// Gives a finished file its name.
    pub(crate) fn keep(file: NamedTempFile, path: &Path) -> Result<File, Error> {
        file.persist(path).map_err(|error| Error::io("write", path)(error.error))
    }

    /// Writes a small file.
    pub(crate) fn write(&self, path: &Path, bytes: &[u8]) -> Result<(), Error> {
        let mut file = self.temporary()?;
        std::io::Write::write_all(&mut file, bytes).map_err(Error::io("write", path))?;
        Self::keep(file, path).map(drop)
    }

    fn remove_stale(&self) {
        let old = |entry: &std::fs::DirEntry| {
            let modified = entry.metadata().and_then(|metadata| metadata.modified()).ok()?;
            modified.elapsed().ok()
        };
        for entry in std::fs::read_dir(self.root.join("tmp")).into_iter().flatten().flatten() {
            if old(&entry).is_some_and(|age| age > STALE) {
                // Another build may have been faster; a file that stays does no harm.
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }
}

/// Reads a file of at most `limit` bytes; none when it is not there.
pub(crate) fn read_if_there(path: &Path, limit: u64) -> Result<Option<Vec<u8>>, Error> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io("read", path)(error)),
    };
    let mut bytes = Vec::new();
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes).map_err(Error::io("read", path))?;
    if bytes.len() as u64 > limit {
        let too_large = std::io::Error::other(format!("it is larger than {limit} bytes"));
        return Err(Error::io("read", path)(too_large));
    }
    Ok(Some(bytes))
}

/// SHA-256 in lower-case hexadecimal.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex::encode(ring::digest::digest(&ring::digest::SHA256, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cache_is_tagged_and_old_leftovers_go() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path()).unwrap();
        assert!(std::fs::read(dir.path().join("CACHEDIR.TAG")).unwrap().starts_with(b"Signature: 8a47"));
        let (old, new) = (dir.path().join("tmp/old"), dir.path().join("tmp/new"));
        for path in [&old, &new] {
            std::fs::write(path, "x").unwrap();
        }
        let long_ago = std::time::SystemTime::now() - 2 * STALE;
        File::options().write(true).open(&old).unwrap().set_modified(long_ago).unwrap();
        Cache::open(dir.path()).unwrap();
        assert!(!old.exists() && new.exists());
        drop(cache.temporary().unwrap());
        assert_eq!(std::fs::read_dir(dir.path().join("tmp")).unwrap().count(), 1);
    }
}
