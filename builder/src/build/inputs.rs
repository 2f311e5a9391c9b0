//! Files of the build host that a recipe names: looked at once, before any stage, and once more at the end, so that
//! a file that somebody changes meanwhile is never half in a release.

use crate::error::BuildError;
use crate::output;
use crate::recipe::{File, Recipe};
use ashlar_image::digest::Digest;
use ashlar_tree::Content;
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Files of at most this many bytes are kept in memory; of larger ones a range is.
const INLINE: u64 = 1 << 20;

/// What changes when a file is written to or replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    changed: (i64, i64),
}

impl Stamp {
    fn of(path: &Path) -> Result<Self, BuildError> {
        let metadata =
            std::fs::metadata(path).map_err(|e| BuildError::input("read the file of the recipe", path, e))?;
        if !metadata.is_file() {
            let error = std::io::Error::other("it is no regular file; add folders with `[[source]]`");
            return Err(BuildError::input("read the file of the recipe", path, error));
        }
        Ok(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.len(),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }
}

#[derive(Debug, Clone)]
struct HostFile {
    stamp: Stamp,
    digest: Digest,
    content: Content,
}

/// The files that `[[file]] source = …` names.
#[derive(Debug, Default)]
pub struct HostFiles(BTreeMap<PathBuf, HostFile>);

impl HostFiles {
    /// Reads all files of a recipe.
    pub fn read(recipe: &Recipe) -> Result<Self, BuildError> {
        let mut files = BTreeMap::new();
        let all = recipe.files.iter().chain(recipe.containers.iter().flat_map(|container| &container.files));
        for source in all.filter_map(|file| file.source.as_ref()) {
            let path = recipe.host_path(source);
            let stamp = Stamp::of(&path)?;
            let (digest, content) = if stamp.size <= INLINE {
                let bytes = std::fs::read(&path)
                    .map_err(|e| BuildError::input("read the file of the recipe", &path, e))?;
                (Digest::of(&bytes), Content::Inline(bytes.into()))
            } else {
                let (digest, len) = output::digest(&path)?;
                (digest, Content::Range { path: Arc::new(path.clone()), offset: 0, len })
            };
            files.insert(path, HostFile { stamp, digest, content });
        }
        Ok(Self(files))
    }

    /// The content of a file of the recipe.
    pub fn content(&self, recipe: &Recipe, file: &File) -> Content {
        let empty = || Content::Inline(Arc::from(&b""[..]));
        match (&file.content, &file.source) {
            (Some(text), _) => Content::Inline(text.as_bytes().into()),
            (None, Some(source)) => {
                let read = self.0.get(&recipe.host_path(source));
                read.map_or_else(empty, |file| file.content.clone())
            }
            // The recipe was checked: one of both is there.
            (None, None) => empty(),
        }
    }

    /// The hash of each file, in the order in which the recipe names them: part of a stage's key.
    pub fn digests(&self, recipe: &Recipe) -> Vec<Digest> {
        let all = recipe.files.iter().chain(recipe.containers.iter().flat_map(|container| &container.files));
        all.filter_map(|file| self.0.get(&recipe.host_path(file.source.as_ref()?)))
            .map(|file| file.digest)
            .collect()
    }

    /// Sees that no file was changed since it was read.
    pub fn unchanged(&self) -> Result<(), BuildError> {
        for (path, file) in &self.0 {
            if Stamp::of(path)? != file.stamp {
                return Err(BuildError::ChangedMeanwhile(path.clone()));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_changes_during_the_build_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let recipe = dir.path().join("image.toml");
        std::fs::write(
            &recipe,
            "[image]\nid = \"a\"\nversion = \"1\"\n[kernel]\ninitramfs-modules = []\n[[file]]\npath = \"/a\"\nsource = \"a\"\n",
        )
        .unwrap();
        let recipe = Recipe::load(&recipe, &[]).unwrap();
        let error = HostFiles::read(&recipe).unwrap_err().to_string();
        assert!(error.contains("read the file of the recipe"), "{error}");
        let path = dir.path().join("a");
        std::fs::write(&path, "one").unwrap();
        let files = HostFiles::read(&recipe).unwrap();
        assert_eq!(files.digests(&recipe), [Digest::of("one")]);
        assert_eq!(files.content(&recipe, &recipe.files[0]).read().unwrap(), b"one");
        files.unchanged().unwrap();
        std::fs::write(&path, "two").unwrap();
        assert!(matches!(files.unchanged(), Err(BuildError::ChangedMeanwhile(named)) if named == path));
    }
}
