//! An offline bundle: a channel in one tar file.

use crate::folder::part;
use crate::{Body, FetchError, Request, Source, is_inside};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::{Path, PathBuf};

/// Most entries that a bundle may have.
const MAX_ENTRIES: usize = 10_000;

/// Why a file is no bundle.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// It cannot be read, or is no tar archive.
    #[error("the bundle cannot be read: {0}")]
    Io(#[from] io::Error),
    /// An entry that a bundle does not have.
    #[error("the bundle has an entry `{name}` {why}")]
    Entry {
        /// Its name.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// More entries than are read.
    #[error("the bundle has more than {MAX_ENTRIES} entries")]
    TooMany,
}

/// A bundle. Files are read straight from the archive.
#[derive(Debug)]
pub struct Bundle {
    path: PathBuf,
    files: BTreeMap<String, (u64, u64)>,
}

/// The plain files of a tar archive: their place and size in bytes.
pub(crate) fn entries(reader: impl Read + Seek) -> Result<BTreeMap<String, (u64, u64)>, BundleError> {
    let mut archive = tar::Archive::new(reader);
    let mut files = BTreeMap::new();
    for (number, entry) in archive.entries_with_seek()?.enumerate() {
        if number >= MAX_ENTRIES {
            return Err(BundleError::TooMany);
        }
        let entry = entry?;
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let bad = |why| BundleError::Entry { name: name.escape_debug().to_string(), why };
        let path = name.strip_prefix("./").unwrap_or(&name).trim_end_matches('/');
        match entry.header().entry_type() {
            tar::EntryType::Directory => continue,
            tar::EntryType::Regular | tar::EntryType::Continuous => {}
            _ => return Err(bad("that is neither a file nor a folder")),
        }
        if !is_inside(path) {
            return Err(bad("whose name leads out of it"));
        }
        let place = (entry.raw_file_position(), entry.size());
        if files.insert(path.to_owned(), place).is_some() {
            return Err(bad("twice"));
        }
    }
    Ok(files)
}

impl Bundle {
    /// Opens a bundle and reads its list of files.
    pub fn open(path: &Path) -> Result<Self, BundleError> {
        let file = io::BufReader::new(File::open(path)?);
        Ok(Self { path: path.to_owned(), files: entries(file)? })
    }

    /// Its files with their sizes in bytes.
    pub fn files(&self) -> impl Iterator<Item = (&str, u64)> {
        self.files.iter().map(|(name, (_, size))| (name.as_str(), *size))
    }
}

impl Source for Bundle {
    fn open(&self, request: &Request) -> Result<Body, FetchError> {
        let (base, size) =
            *self.files.get(&request.path).ok_or_else(|| FetchError::NotFound(request.path.clone()))?;
        let failed =
            |error: io::Error| FetchError::Failed { path: request.path.clone(), reason: error.to_string() };
        let file = File::open(&self.path).map_err(failed)?;
        let end = file.metadata().map_err(failed)?.len();
        if base.checked_add(size).is_none_or(|stop| stop > end) {
            return Err(FetchError::Failed {
                path: request.path.clone(),
                reason: "the bundle is cut off".into(),
            });
        }
        part(file, base, size, request)
    }

    fn name(&self) -> String {
        self.path.display().to_string()
    }
}
