//! The output folder: it appears whole or not at all.

use crate::error::BuildError;
use ashlar_image::digest::Digest;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Name of the file by which a folder is known to hold a release.
pub const RELEASE_FILE: &str = "release.json";

/// SHA-256 and size in bytes of a file.
pub fn digest(path: &Path) -> Result<(Digest, u64), BuildError> {
    let fail = |e| BuildError::io("read", path, e);
    let mut file = std::fs::File::open(path).map_err(fail)?;
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    let mut buffer = vec![0; 1 << 20];
    let mut size = 0;
    loop {
        match file.read(&mut buffer).map_err(fail)? {
            0 => break,
            length => {
                context.update(&buffer[..length]);
                size += length as u64;
            }
        }
    }
    let mut digest = Digest::ZERO;
    digest.0.copy_from_slice(context.finish().as_ref());
    Ok((digest, size))
}

/// Copies a file to a place where nothing is yet, sharing its blocks where the file system can.
pub fn copy(from: &Path, to: &Path) -> Result<(), BuildError> {
    let source = std::fs::File::open(from).map_err(|e| BuildError::input("read", from, e))?;
    let target = std::fs::File::create_new(to).map_err(|e| BuildError::io("create", to, e))?;
    ashlar_outputs::copy_sparse(&source, &target).map(drop)?;
    Ok(())
}

/// A folder being filled beside its final place. Dropped without [`Output::finish`], it is removed.
#[derive(Debug)]
pub struct Output {
    target: PathBuf,
    folder: tempfile::TempDir,
}

impl Output {
    /// Starts an output that will become `target`.
    ///
    /// # Errors
    /// Refuses a `target` that exists and holds no release: it may be somebody's folder.
    pub fn begin(target: &Path) -> Result<Self, BuildError> {
        let known = [RELEASE_FILE, crate::build::UNSIGNED_FILE];
        if target.exists() && !known.iter().any(|file| target.join(file).is_file()) {
            let empty = std::fs::read_dir(target).is_ok_and(|mut entries| entries.next().is_none());
            if !empty {
                return Err(BuildError::OutputInTheWay(target.to_owned()));
            }
        }
        let parent = match target.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        std::fs::create_dir_all(parent).map_err(|e| BuildError::io("create the folder", parent, e))?;
        let folder = tempfile::Builder::new()
            .prefix(".ashlar-build-")
            .tempdir_in(parent)
            .map_err(|e| BuildError::io("create a temporary folder in", parent, e))?;
        Ok(Self { target: target.to_owned(), folder })
    }

    /// The folder while it is being filled.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Path of a file of the output while it is being filled.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Makes the output appear at its final place; an older release there is replaced.
    pub fn finish(self) -> Result<(), BuildError> {
        use std::os::unix::fs::PermissionsExt;
        let new = self.folder.path();
        let fail = |e| BuildError::io("put the release at", &self.target, e);
        std::fs::set_permissions(new, std::fs::Permissions::from_mode(0o755)).map_err(fail)?;
        if self.target.exists() {
            // One step: there is an old release or the new one, never none.
            rustix::fs::renameat_with(
                rustix::fs::CWD,
                new,
                rustix::fs::CWD,
                &self.target,
                rustix::fs::RenameFlags::EXCHANGE,
            )
            .map_err(|e| fail(e.into()))?;
            // The temporary name now holds the old release, which is removed with it.
            return self
                .folder
                .close()
                .map_err(|e| BuildError::io("remove the old release in", &self.target, e));
        }
        std::fs::rename(new, &self.target).map_err(fail)?;
        let _moved = self.folder.keep();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_foreign_folder_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("home");
        std::fs::create_dir(&target).unwrap();
        std::fs::write(target.join("letter"), "dear").unwrap();
        assert!(matches!(Output::begin(&target), Err(BuildError::OutputInTheWay(_))));
        assert!(target.join("letter").exists());
    }

    #[test]
    fn an_abandoned_build_leaves_nothing_and_a_finished_one_replaces() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("out");
        for text in ["one", "two"] {
            let output = Output::begin(&target).unwrap();
            std::fs::write(output.path(RELEASE_FILE), text).unwrap();
            output.finish().unwrap();
        }
        let abandoned = Output::begin(&target).unwrap();
        std::fs::write(abandoned.path(RELEASE_FILE), "three").unwrap();
        drop(abandoned);
        assert_eq!(std::fs::read_to_string(target.join(RELEASE_FILE)).unwrap(), "two");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
