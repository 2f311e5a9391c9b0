//! A machine's folder: all that the machine changes. The disk images stay as they are.
//!
//! | name | content |
//! |---|---|
//! | `disk0.qcow2`, … | what the machine wrote to each disk, over the image |
//! | `variables.fd` | the firmware's variables |
//! | `tpm/` | state of the TPM |
//! | `console.log`, `qemu.log`, `swtpm.log` | output of the last run |
//! | `images` | which images the machine was made from; written last, so without it the folder is new |
//! | `lock` | held while the machine runs |

use crate::error::{QemuError, io_error};
use crate::process::Process;
use crate::program::QEMU_IMG;
use rustix::fs::FlockOperation;
use std::fmt::Write as _;
use std::fs::File;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

/// An open folder. A temporary one is removed when it is dropped.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    lock: File,
    // Dropped last: it removes what the lock lies in.
    _temporary: Option<TempDir>,
}

impl Folder {
    /// Opens the machine's folder, or makes one for this run only.
    pub fn open(kept: Option<&Path>) -> Result<Self, QemuError> {
        let (path, temporary) = if let Some(path) = kept {
            let mut folder = std::fs::DirBuilder::new();
            folder.recursive(true).mode(0o700).create(path).map_err(io_error("make", path))?;
            (path.canonicalize().map_err(io_error("open", path))?, None)
        } else {
            let folder = short_folder()?;
            (folder.path().to_owned(), Some(folder))
        };
        let lock_path = path.join("lock");
        let lock = File::create(&lock_path).map_err(io_error("write", &lock_path))?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { path, lock, _temporary: temporary }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(QemuError::InUse(path)),
            Err(error) => Err(io_error("lock", lock_path)(error.into())),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A file in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Makes overlays of `images` and a variable store with `variables`, unless the machine is an old one.
    /// The overlays' paths, in order.
    pub fn prepare(&self, images: &[PathBuf], variables: Option<&[u8]>) -> Result<Vec<PathBuf>, QemuError> {
        let mut found = Vec::new();
        let mut identity = String::new();
        for image in images {
            let path = image.canonicalize().map_err(io_error("open", image))?;
            let metadata = path.metadata().map_err(io_error("open", image))?;
            // A changed image under an old overlay would be a mixture of both.
            let (seconds, nanoseconds) = (metadata.mtime(), metadata.mtime_nsec());
            let _ = writeln!(identity, "{} {seconds}.{nanoseconds:09} {}", metadata.len(), path.display());
            found.push(path);
        }
        let overlays: Vec<_> =
            (0..found.len()).map(|number| self.file(&format!("disk{number}.qcow2"))).collect();
        let made_from = self.file("images");
        match std::fs::read_to_string(&made_from) {
            Ok(old) if old == identity => return Ok(overlays),
            Ok(_) => {
                let image = images.first().cloned().unwrap_or_default();
                return Err(QemuError::OtherImage { folder: self.path.clone(), image });
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(io_error("read", made_from)(error)),
        }
        for (image, overlay) in found.iter().zip(&overlays) {
            self.overlay(image, overlay)?;
        }
        if let Some(variables) = variables {
            let path = self.file("variables.fd");
            std::fs::write(&path, variables).map_err(io_error("write", path))?;
        }
        std::fs::write(&made_from, identity).map_err(io_error("write", made_from))?;
        Ok(overlays)
    }

    fn overlay(&self, image: &Path, overlay: &Path) -> Result<(), QemuError> {
        let mut command = Command::new(QEMU_IMG.find()?);
        command.args(["create", "-q", "-f", "qcow2", "-F", "raw", "-b"]).args([image, overlay]);
        Process::run(QEMU_IMG, command, &self.file("qemu-img.log"), Duration::from_secs(60))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = rustix::fs::flock(&self.lock, FlockOperation::Unlock);
    }
}

/// A new folder of this user only, whose path is short enough for sockets in it (107 bytes, `unix(7)`).
pub fn short_folder() -> Result<TempDir, QemuError> {
    let usual = std::env::temp_dir();
    let fits = usual.is_absolute() && usual.as_os_str().len() <= 60 && !usual.to_string_lossy().contains(',');
    let base = if fits { usual } else { PathBuf::from("/tmp") };
    tempfile::Builder::new().prefix("ashlar-qemu-").tempdir_in(&base).map_err(io_error("make", base))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_of_one_machine_and_one_image() {
        if QEMU_IMG.find().is_err() {
            eprintln!("skipped: qemu-img is needed (package qemu-utils)");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("a, b:c.raw");
        std::fs::write(&image, vec![1; 1 << 20]).unwrap();
        let kept = dir.path().join("new/machine");
        let folder = Folder::open(Some(&kept)).unwrap();
        assert!(matches!(Folder::open(Some(&kept)), Err(QemuError::InUse(_))));
        let images = [image.clone()];
        let overlays = folder.prepare(&images, Some(b"variables")).unwrap();
        std::fs::write(&overlays[0], "the machine's").unwrap();
        drop(folder);

        let folder = Folder::open(Some(&kept)).unwrap();
        folder.prepare(&images, Some(b"others")).unwrap();
        assert_eq!(std::fs::read(&overlays[0]).unwrap(), b"the machine's");
        assert_eq!(std::fs::read(folder.file("variables.fd")).unwrap(), b"variables");

        std::fs::write(&image, vec![2; 2 << 20]).unwrap();
        assert!(matches!(folder.prepare(&images, None), Err(QemuError::OtherImage { .. })));
        let absent = [dir.path().join("absent.raw")];
        let error = folder.prepare(&absent, None).unwrap_err().to_string();
        assert!(error.contains("absent.raw"), "{error}");
    }
}
