//! Results of stages, kept in the cache under the hash of all that they were made from.
//!
//! An item is a folder with the stage's files and an index that gives size and SHA-256 of each. Nothing in it is
//! believed: a file is hashed when it is taken out, and an item with a changed byte is named, removed and made again.

use crate::error::BuildError;
use crate::output;
use ashlar_cache::{Cache, Room, read_if_there};
use ashlar_debian::Progress;
use ashlar_image::digest::Digest;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Name of an item's index.
const INDEX: &str = "index.json";
/// Largest index in bytes.
const MAX_INDEX: u64 = 1 << 20;
/// Largest file that is read into memory, in bytes.
const MAX_READ: u64 = 1 << 30;

/// Size and hash of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Bytes.
    pub size: u64,
    /// SHA-256.
    pub sha256: Digest,
}

/// The name of an item: the stage and the hash of its inputs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key(String);

/// The kept results.
pub struct Store<'a> {
    cache: &'a Cache,
    program: Digest,
    progress: &'a dyn Progress,
}

/// A kept result.
#[derive(Debug)]
pub struct Item {
    folder: PathBuf,
    files: BTreeMap<String, Entry>,
}

/// A result that is being put together; gone unless [`Draft::keep`] is reached.
#[derive(Debug)]
pub struct Draft {
    folder: tempfile::TempDir,
    files: BTreeMap<String, Entry>,
}

impl std::fmt::Debug for Store<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("program", &self.program).finish_non_exhaustive()
    }
}

/// The index with its own hash before it.
fn seal(json: &str) -> String {
    format!("{}\n{json}", Digest::of(json))
}

fn unseal(text: &str) -> Option<BTreeMap<String, Entry>> {
    let (sum, json) = text.split_once('\n')?;
    if Digest::of(json).to_string() != sum {
        return None;
    }
    serde_json::from_str(json).ok()
}

impl<'a> Store<'a> {
    /// The store in `cache`. Results belong to the very program that made them: another version makes its own.
    pub fn new(cache: &'a Cache, progress: &'a dyn Progress) -> Result<Self, BuildError> {
        let program =
            std::env::current_exe().map_err(|e| BuildError::io("find", Path::new("this program"), e))?;
        let (program, _) = output::digest(&program)?;
        Ok(Self { cache, program, progress })
    }

    /// The key of `stage` with these inputs.
    pub fn key(&self, stage: &'static str, inputs: &impl Serialize) -> Result<Key, BuildError> {
        let inputs = serde_json::to_string(inputs)?;
        let digest = Digest::of(format!("ashlar stage v1\0{stage}\0{}\0{inputs}", self.program));
        Ok(Key(format!("{stage}-{digest}")))
    }

    fn folder(&self, key: &Key) -> PathBuf {
        self.cache.path(Room::Stages, &key.0)
    }

    /// What is kept under `key`, if it is there and its index is whole.
    pub fn load(&self, key: &Key) -> Result<Option<Item>, BuildError> {
        let folder = self.folder(key);
        let path = folder.join(INDEX);
        let Some(bytes) = read_if_there(&path, MAX_INDEX)? else { return Ok(None) };
        match std::str::from_utf8(&bytes).ok().and_then(unseal) {
            Some(files) => {
                self.cache.touch(&path);
                Ok(Some(Item { folder, files }))
            }
            None => self.damaged(&folder, &path),
        }
    }

    /// Says that a file was damaged and removes its item, so that the stage runs again.
    fn damaged<T>(&self, folder: &Path, file: &Path) -> Result<Option<T>, BuildError> {
        self.progress.note(&format!("`{}` was damaged and is made again", file.display()));
        std::fs::remove_dir_all(folder).map_err(|e| BuildError::io("remove the damaged", folder, e))?;
        Ok(None)
    }

    /// Reads a file of an item; none when it was damaged.
    pub fn read(&self, item: &Item, name: &str) -> Result<Option<Vec<u8>>, BuildError> {
        let path = item.folder.join(name);
        let wanted = item.files.get(name).filter(|entry| entry.size <= MAX_READ);
        let bytes = match wanted {
            Some(entry) => read_if_there(&path, entry.size).ok().flatten(),
            None => None,
        };
        match (bytes, wanted) {
            (Some(bytes), Some(entry)) if Digest::of(&bytes) == entry.sha256 => Ok(Some(bytes)),
            _ => self.damaged(&item.folder, &path),
        }
    }

    /// Copies a file of an item to a place where nothing is yet; none when it was damaged.
    pub fn copy(&self, item: &Item, name: &str, to: &Path) -> Result<Option<Entry>, BuildError> {
        let from = item.folder.join(name);
        let Some(entry) = item.files.get(name).copied() else { return self.damaged(&item.folder, &from) };
        if !from.is_file() {
            return self.damaged(&item.folder, &from);
        }
        output::copy(&from, to)?;
        // The copy is what goes into the release, so the copy is what is looked at.
        let (sha256, size) = output::digest(to)?;
        if (Entry { size, sha256 }) == entry {
            return Ok(Some(entry));
        }
        std::fs::remove_file(to).map_err(|e| BuildError::io("remove", to, e))?;
        self.damaged(&item.folder, &from)
    }

    /// Begins a result.
    pub fn draft(&self) -> Result<Draft, BuildError> {
        Ok(Draft { folder: self.cache.temporary_folder()?, files: BTreeMap::new() })
    }

    /// Gives a finished result its name.
    pub fn keep(&self, draft: Draft, key: &Key) -> Result<(), BuildError> {
        let index = seal(&serde_json::to_string(&draft.files)?);
        let path = draft.folder.path().join(INDEX);
        std::fs::write(&path, index).map_err(|e| BuildError::io("write", &path, e))?;
        Ok(self.cache.keep_folder(draft.folder, &self.folder(key))?)
    }
}

impl Draft {
    /// Adds a file with these bytes.
    pub fn write(&mut self, name: &str, bytes: &[u8]) -> Result<(), BuildError> {
        let path = self.folder.path().join(name);
        std::fs::write(&path, bytes).map_err(|e| BuildError::io("write", &path, e))?;
        self.files.insert(name.to_owned(), Entry { size: bytes.len() as u64, sha256: Digest::of(bytes) });
        Ok(())
    }

    /// Adds a copy of a file that is known to be this.
    pub fn copy(&mut self, name: &str, from: &Path, entry: Entry) -> Result<(), BuildError> {
        output::copy(from, &self.folder.path().join(name))?;
        self.files.insert(name.to_owned(), entry);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ashlar_debian::NoProgress;

    #[test]
    fn a_result_comes_back_as_it_was_and_never_changed() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(&dir.path().join("cache")).unwrap();
        let store = Store::new(&cache, &NoProgress).unwrap();
        let key = store.key("root", &("inputs", 1)).unwrap();
        assert_ne!(key, store.key("root", &("inputs", 2)).unwrap());
        assert_ne!(key, store.key("kernel", &("inputs", 1)).unwrap());
        assert!(store.load(&key).unwrap().is_none());
        let keep = || {
            let mut draft = store.draft().unwrap();
            draft.write("small", b"bytes").unwrap();
            store.keep(draft, &key).unwrap();
            store.load(&key).unwrap().unwrap()
        };
        let item = keep();
        assert_eq!(store.read(&item, "small").unwrap().unwrap(), b"bytes");
        let to = dir.path().join("copy");
        assert_eq!(store.copy(&item, "small", &to).unwrap().unwrap().size, 5);
        for damage in ["small", INDEX] {
            let item = keep();
            let path = item.folder.join(damage);
            let mut bytes = std::fs::read(&path).unwrap();
            bytes[0] ^= 1;
            std::fs::write(&path, bytes).unwrap();
            let item = store.load(&key).unwrap();
            let found = item.and_then(|item| store.read(&item, "small").unwrap());
            assert_eq!(found, None, "{damage}");
            assert!(store.load(&key).unwrap().is_none(), "{damage} is still there");
        }
        let item = keep();
        std::fs::write(item.folder.join("small"), "bytesandmore").unwrap();
        std::fs::remove_file(&to).unwrap();
        assert!(store.copy(&item, "small", &to).unwrap().is_none());
        assert!(!to.exists());
    }
}
