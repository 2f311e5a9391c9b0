//! Files that are named by their SHA-256, and files that have to have one.

use crate::{Cache, CacheError, Room};
use ring::digest::{Context, SHA256};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// Bytes that are read and hashed at once.
const CHUNK: usize = 256 << 10;

impl Cache {
    /// Where the blob with this SHA-256 lies, whether it is there or not.
    pub fn blob_path(&self, sha256: &str) -> PathBuf {
        self.path(Room::Blobs, sha256)
    }

    /// Keeps what `reader` gives, if it has this SHA-256 (lower-case hexadecimal), and says where. The reader has to be
    /// bounded by the caller; nothing is kept when it fails or gives something else.
    ///
    /// # Errors
    /// [`CacheError::Hash`] when the bytes are others, [`CacheError::Source`] when the reader fails.
    pub fn put_blob(&self, mut reader: impl Read, expected_sha256: &str) -> Result<PathBuf, CacheError> {
        check_hash(expected_sha256)?;
        let path = self.blob_path(expected_sha256);
        let mut file = self.temporary()?;
        let mut context = Context::new(&SHA256);
        let mut buffer = vec![0; CHUNK];
        loop {
            let length = match reader.read(&mut buffer) {
                Ok(0) => break,
                Ok(length) => length,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(source) => {
                    return Err(CacheError::Source { sha256: expected_sha256.to_owned(), source });
                }
            };
            let bytes = buffer.get(..length).unwrap_or_default();
            context.update(bytes);
            file.write_all(bytes).map_err(CacheError::io("write", &path))?;
        }
        let got = hex::encode(context.finish());
        if got != expected_sha256 {
            return Err(CacheError::Hash { expected: expected_sha256.to_owned(), got });
        }
        self.keep(file, &path)?;
        Ok(path)
    }

    /// The blob with this SHA-256, verified before it is returned; none when it is not there.
    ///
    /// # Errors
    /// [`CacheError::Damaged`] when it was changed: it is removed, so that it can be had again.
    pub fn blob(&self, sha256: &str) -> Result<Option<File>, CacheError> {
        self.open_verified(&self.blob_path(sha256), sha256)
    }

    /// The blob with this SHA-256, verified while it is read; none when it is not there.
    ///
    /// # Errors
    /// Fails when it cannot be opened. That it was changed is said by the [`BlobReader`].
    pub fn blob_reader(&self, sha256: &str) -> Result<Option<BlobReader>, CacheError> {
        check_hash(sha256)?;
        let path = self.blob_path(sha256);
        let Some(file) = open_if_there(&path)? else { return Ok(None) };
        self.touch(&path);
        let context = Context::new(&SHA256);
        Ok(Some(BlobReader { file, path, expected: sha256.to_owned(), context, done: false }))
    }

    /// Opens any file of the cache that must have this SHA-256, reads it whole to verify that and goes back to its start;
    /// none when it is not there. Its use is recorded.
    ///
    /// # Errors
    /// [`CacheError::Damaged`] when it was changed: it is removed, so that it can be had again.
    pub fn open_verified(&self, path: &Path, sha256: &str) -> Result<Option<File>, CacheError> {
        check_hash(sha256)?;
        let Some(mut file) = open_if_there(path)? else { return Ok(None) };
        let got = hash(&mut file).map_err(CacheError::io("read", path))?;
        if got != sha256 {
            return Err(remove_damaged(path, sha256, got));
        }
        file.seek(SeekFrom::Start(0)).map_err(CacheError::io("read", path))?;
        self.touch(path);
        Ok(Some(file))
    }
}

/// Reads a blob and compares its hash at the end: the last read fails with [`std::io::ErrorKind::InvalidData`] when it was
/// changed, and the blob is removed. Nothing that was read may be used before the end was reached; who does not need
/// all bytes calls [`BlobReader::finish`].
pub struct BlobReader {
    file: File,
    path: PathBuf,
    expected: String,
    context: Context,
    /// The end was reached and the hash was good.
    done: bool,
}

impl BlobReader {
    /// Reads what is left and verifies all of it.
    ///
    /// # Errors
    /// [`CacheError::Damaged`] when the blob was changed: it is removed.
    pub fn finish(mut self) -> Result<(), CacheError> {
        let mut buffer = vec![0; CHUNK];
        while self.step(&mut buffer)? != 0 {}
        Ok(())
    }

    fn step(&mut self, buffer: &mut [u8]) -> Result<usize, CacheError> {
        if buffer.is_empty() || self.done {
            return Ok(0);
        }
        let length = self.file.read(buffer).map_err(CacheError::io("read", &self.path))?;
        self.context.update(buffer.get(..length).unwrap_or_default());
        if length == 0 {
            let got = hex::encode(self.context.clone().finish());
            if got != self.expected {
                return Err(remove_damaged(&self.path, &self.expected, got));
            }
            self.done = true;
        }
        Ok(length)
    }
}

impl Read for BlobReader {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.step(buffer).map_err(|error| match error {
            CacheError::Io { source, .. } => source,
            other => std::io::Error::new(std::io::ErrorKind::InvalidData, other),
        })
    }
}

fn check_hash(sha256: &str) -> Result<(), CacheError> {
    let digit = |c: u8| c.is_ascii_digit() || (b'a'..=b'f').contains(&c);
    let good = sha256.len() == 64 && sha256.bytes().all(digit);
    if good { Ok(()) } else { Err(CacheError::NotAHash(sha256.to_owned())) }
}

fn open_if_there(path: &Path) -> Result<Option<File>, CacheError> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(CacheError::io("open", path)(error)),
    }
}

fn hash(file: &mut File) -> std::io::Result<String> {
    let mut context = Context::new(&SHA256);
    let mut buffer = vec![0; CHUNK];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(hex::encode(context.finish())),
            Ok(length) => context.update(buffer.get(..length).unwrap_or_default()),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Removes a damaged file and makes the error that names it.
fn remove_damaged(path: &Path, expected: &str, got: String) -> CacheError {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            CacheError::io("remove the damaged file", path)(error)
        }
        _ => CacheError::Damaged { path: path.to_owned(), expected: expected.to_owned(), got },
    }
}
