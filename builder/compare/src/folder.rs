//! A release's folder.

use crate::CompareError;
use ashlar_formats::erofs::read::{Entry, Reader};
use ashlar_image::release::{FORMAT, Release};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Largest `release.json` in bytes.
const MAX_JSON: u64 = 64 << 20;
/// Largest UKI in bytes.
pub(crate) const MAX_UKI: u64 = 1 << 30;
/// Largest file of text out of the root that is read whole, in bytes.
pub(crate) const MAX_TEXT: u64 = 4 << 20;

/// A folder that `ashlar build` has written.
#[derive(Debug, Clone)]
pub struct ReleaseFolder {
    path: PathBuf,
    release: Release,
    json: Vec<u8>,
}

/// Reads the bytes of a `release.json`: the format must be the one that this program knows, and the names of files
/// must be plain names.
///
/// # Errors
/// What is wrong, in words.
pub fn parse_release(bytes: &[u8]) -> Result<Release, String> {
    let release: Release = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    if release.format != FORMAT {
        return Err(format!("its format is {}; this program reads {FORMAT}", release.format));
    }
    let slot = &release.slot;
    for name in
        [&slot.esp.file, &slot.root.file, &slot.verity.file, &release.uki.artifact.file, &release.disk.file]
    {
        if name.is_empty() || name == "." || name == ".." || name.contains(['/', '\0']) {
            return Err(format!("`{name}` is no plain file name"));
        }
    }
    Ok(release)
}

/// An opened root image.
pub(crate) struct Root {
    pub path: PathBuf,
    pub reader: Reader<File>,
    pub entries: Vec<Entry>,
}

impl Root {
    pub fn by_path(&self) -> BTreeMap<&[u8], &Entry> {
        self.entries.iter().map(|entry| (entry.path.as_slice(), entry)).collect()
    }

    /// The content of a small file; none when there is no such file or it is larger than [`MAX_TEXT`].
    pub fn read(&self, path: &str) -> Result<Option<Vec<u8>>, CompareError> {
        let Some(entry) = self.entries.iter().find(|entry| entry.path == path.as_bytes()) else {
            return Ok(None);
        };
        if entry.size > MAX_TEXT {
            return Ok(None);
        }
        let mut bytes = vec![0; usize::try_from(entry.size).unwrap_or(0)];
        let fail = |source| CompareError::Root { path: self.path.clone(), source };
        let length =
            self.reader.open_entry(entry).and_then(|mut file| file.read_at(0, &mut bytes)).map_err(fail)?;
        bytes.truncate(length);
        Ok(Some(bytes))
    }
}

impl ReleaseFolder {
    /// Reads `release.json` of a folder.
    ///
    /// # Errors
    /// [`CompareError::Read`] and [`CompareError::Release`].
    pub fn open(path: &Path) -> Result<Self, CompareError> {
        let file = path.join("release.json");
        let json = read_whole(&file, MAX_JSON)?;
        let release = parse_release(&json).map_err(|why| CompareError::Release { path: file, why })?;
        Ok(Self { path: path.to_owned(), release, json })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What its `release.json` says.
    pub fn release(&self) -> &Release {
        &self.release
    }

    /// The bytes of `release.json`.
    pub fn json(&self) -> &[u8] {
        &self.json
    }

    pub(crate) fn file(&self, name: &str) -> Result<(File, u64), CompareError> {
        open(&self.path.join(name))
    }

    pub(crate) fn uki_path(&self) -> PathBuf {
        self.path.join(&self.release.uki.artifact.file)
    }

    pub(crate) fn uki(&self) -> Result<Vec<u8>, CompareError> {
        read_whole(&self.uki_path(), MAX_UKI)
    }

    pub(crate) fn root(&self) -> Result<Root, CompareError> {
        let path = self.path.join(&self.release.slot.root.file);
        let (file, size) = open(&path)?;
        let fail = |source| CompareError::Root { path: path.clone(), source };
        let reader = Reader::open(file, size).map_err(fail)?;
        let entries = reader.entries().map_err(fail)?;
        Ok(Root { path, reader, entries })
    }
}

/// Opens a regular file: a pipe in its place would be waited for.
pub(crate) fn open(path: &Path) -> Result<(File, u64), CompareError> {
    let fail = |source| CompareError::Read { path: path.to_owned(), source };
    let metadata = std::fs::metadata(path).map_err(fail)?;
    if !metadata.is_file() {
        return Err(fail(std::io::Error::other("it is no regular file")));
    }
    let file = File::open(path).map_err(fail)?;
    Ok((file, metadata.len()))
}

pub(crate) fn read_whole(path: &Path, limit: u64) -> Result<Vec<u8>, CompareError> {
    let (file, _) = open(path)?;
    let mut bytes = Vec::new();
    file.take(limit + 1)
        .read_to_end(&mut bytes)
        .map_err(|source| CompareError::Read { path: path.to_owned(), source })?;
    if bytes.len() as u64 > limit {
        return Err(CompareError::TooLarge { path: path.to_owned(), limit });
    }
    Ok(bytes)
}
