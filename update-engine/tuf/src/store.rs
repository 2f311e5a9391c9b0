//! Where trusted metadata is kept between runs.

use crate::error::TufError;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Longest file that is read back, in bytes.
const MAX_FILE: u64 = 64 << 20;

/// Files by name. Names are chosen by the client and safe for a file system.
pub trait Store: Debug + Send {
    /// The content of a file; none if it is not there.
    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, TufError>;

    /// Replaces a file. When this is back, the new content is there after a power cut.
    fn write(&mut self, name: &str, content: &[u8]) -> Result<(), TufError>;

    /// Removes a file, if it is there.
    fn remove(&mut self, name: &str) -> Result<(), TufError>;
}

/// A folder.
#[derive(Debug, Clone)]
pub struct FolderStore {
    folder: PathBuf,
}

impl FolderStore {
    /// The folder, which is made if it is not there.
    pub fn open(folder: &Path) -> Result<Self, TufError> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(|error| fail(folder, &error))?;
        Ok(Self { folder: folder.to_owned() })
    }
}

fn fail(path: &Path, error: &io::Error) -> TufError {
    TufError::Store { what: format!("`{}`", path.display()), reason: error.to_string() }
}

impl Store for FolderStore {
    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, TufError> {
        let path = self.folder.join(name);
        let mut content = Vec::new();
        match File::open(&path).and_then(|file| file.take(MAX_FILE + 1).read_to_end(&mut content)) {
            Ok(_) if content.len() as u64 <= MAX_FILE => Ok(Some(content)),
            Ok(_) => Err(fail(&path, &io::Error::other("it is too long"))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(fail(&path, &error)),
        }
    }

    fn write(&mut self, name: &str, content: &[u8]) -> Result<(), TufError> {
        let path = self.folder.join(name);
        replace(&path, content).map_err(|error| fail(&path, &error))
    }

    fn remove(&mut self, name: &str) -> Result<(), TufError> {
        let path = self.folder.join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(fail(&path, &error)),
            _ => Ok(()),
        }
    }
}

/// Replaces a file so that there is the old or the new content after a power cut.
pub(crate) fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let folder = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let mut name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
    name.push(".new");
    let new = folder.join(name);
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o644).open(&new)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    File::open(folder)?.sync_all()
}

/// Memory, for tests and for looking without keeping.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemoryStore {
    /// The files.
    pub files: BTreeMap<String, Vec<u8>>,
}

impl Store for MemoryStore {
    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, TufError> {
        Ok(self.files.get(name).cloned())
    }

    fn write(&mut self, name: &str, content: &[u8]) -> Result<(), TufError> {
        self.files.insert(name.to_owned(), content.to_owned());
        Ok(())
    }

    fn remove(&mut self, name: &str) -> Result<(), TufError> {
        self.files.remove(name);
        Ok(())
    }
}
