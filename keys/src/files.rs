//! Files of the key folder: read with a limit, written once, private where they must be.

use crate::KeyError;
use der::Document;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use zeroize::Zeroizing;

/// No file of the folder is larger than this many bytes.
const FILE_LIMIT: u64 = 64 << 10;

pub(crate) fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> KeyError {
    move |source| KeyError::Io { action, path: path.to_owned(), source }
}

/// Refuses a folder that has anything in it, naming the first file in the order of the alphabet.
pub(crate) fn refuse_content(dir: &Path) -> Result<(), KeyError> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(io_error("read", dir))?,
    };
    let names: Result<Vec<_>, _> = entries.map(|entry| Ok(entry?.file_name())).collect();
    match names.map_err(io_error("read", dir))?.into_iter().min() {
        None => Ok(()),
        Some(entry) => {
            Err(KeyError::FolderInUse { folder: dir.to_owned(), entry: entry.to_string_lossy().into_owned() })
        }
    }
}

pub(crate) fn sync(dir: &Path) -> Result<(), KeyError> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(io_error("write", dir))
}

/// Writes a file that must not exist yet.
pub(crate) fn write_new(path: &Path, mode: u32, content: &[u8]) -> Result<(), KeyError> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .map_err(io_error("create", path))?;
    file.write_all(content).and_then(|()| file.sync_all()).map_err(io_error("write", path))
}

/// Reads a file of at most 64 KiB. The permissions that are checked are those of the very file that is read.
pub(crate) fn read(path: &Path, private: bool) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let file = File::open(path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => KeyError::Missing(path.to_owned()),
        _ => KeyError::Io { action: "read", path: path.to_owned(), source },
    })?;
    let metadata = file.metadata().map_err(io_error("read", path))?;
    if private && metadata.permissions().mode() & 0o077 != 0 {
        return Err(KeyError::Readable(path.to_owned()));
    }
    // The whole size at once: a buffer that grows would leave copies of the key behind.
    let mut content = Zeroizing::new(Vec::with_capacity(FILE_LIMIT as usize + 2));
    file.take(FILE_LIMIT + 1).read_to_end(&mut content).map_err(io_error("read", path))?;
    if content.len() as u64 > FILE_LIMIT {
        return Err(KeyError::Malformed { path: path.to_owned(), wanted: "smaller than 64 KiB" });
    }
    Ok(content)
}

/// The DER in a public file.
pub(crate) fn read_public(path: &Path, label: &str, wanted: &'static str) -> Result<Document, KeyError> {
    let content = read(path, false)?;
    match std::str::from_utf8(&content).map(Document::from_pem) {
        Ok(Ok((found, der))) if found == label => Ok(der),
        _ => Err(KeyError::Malformed { path: path.to_owned(), wanted }),
    }
}
