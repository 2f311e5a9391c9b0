//! A machine's folder: all that the machine changes. The disk images stay as they are.
//!
//! | name | content |
//! |---|---|
//! | `disk0.qcow2`, … | what the machine wrote to each disk, over the image |
//! | `disk0.raw`, … | or a copy of each image that the machine writes to |
//! | `variables.fd` | the firmware's variables |
//! | `tpm/` | state of the TPM |
//! | `console.log`, `qemu.log`, `swtpm.log` | output of the last run |
//! | `images` | which images the machine was made from; written last, so without it the folder is new |
//! | `lock` | held while the machine runs |

use crate::config::DiskFormat;
use crate::error::{QemuError, io_error};
use crate::process::Process;
use crate::program::{CP, QEMU_IMG};
use rustix::fs::FlockOperation;
use std::fs::File;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

/// What the line of an image begins with when the machine has a copy of it.
pub const COPY: &str = "copy of ";

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

    /// Makes overlays or copies of `images` and a variable store with `variables`, unless the machine is an
    /// old one. The paths of what the machine writes to, in order.
    pub fn prepare(
        &self,
        images: &[PathBuf],
        format: DiskFormat,
        variables: Option<&[u8]>,
    ) -> Result<Vec<PathBuf>, QemuError> {
        let identity = images.iter().map(|image| identity(image, format)).collect::<Result<String, _>>()?;
        let disks: Vec<_> = (0..images.len()).map(|number| self.disk(number, format)).collect();
        match self.made_from()? {
            Some(old) if old == identity => return Ok(disks),
            Some(_) => {
                let image = images.first().cloned().unwrap_or_default();
                return Err(QemuError::OtherImage { folder: self.path.clone(), image });
            }
            None => {}
        }
        for (image, disk) in images.iter().zip(&disks) {
            self.make_disk(image, disk, format)?;
        }
        if let Some(variables) = variables {
            let path = self.file("variables.fd");
            std::fs::write(&path, variables).map_err(io_error("write", path))?;
        }
        self.set_made_from(&identity)?;
        Ok(disks)
    }

    /// Which images the machine was made from, one line each; none if the folder is new.
    pub fn made_from(&self) -> Result<Option<String>, QemuError> {
        let path = self.file("images");
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(io_error("read", path)(error)),
        }
    }

    /// Notes which images the machine is made from.
    pub fn set_made_from(&self, identity: &str) -> Result<(), QemuError> {
        let path = self.file("images");
        std::fs::write(&path, identity).map_err(io_error("write", path))
    }

    /// Where a disk of the machine lies.
    pub fn disk(&self, number: usize, format: DiskFormat) -> PathBuf {
        match format {
            DiskFormat::Overlay => self.file(&format!("disk{number}.qcow2")),
            DiskFormat::Copy => self.file(&format!("disk{number}.raw")),
        }
    }

    /// Makes a disk of the machine anew.
    pub fn make_disk(&self, image: &Path, disk: &Path, format: DiskFormat) -> Result<(), QemuError> {
        let image = image.canonicalize().map_err(io_error("open", image))?;
        match format {
            DiskFormat::Overlay => {
                let mut command = Command::new(QEMU_IMG.find()?);
                command.args(["create", "-q", "-f", "qcow2", "-F", "raw", "-b"]).arg(image).arg(disk);
                Process::run(QEMU_IMG, command, &self.file("qemu-img.log"), Duration::from_secs(60))
            }
            DiskFormat::Copy => {
                let mut command = Command::new(CP.find()?);
                command
                    .args(["--reflink=auto", "--sparse=always", "--no-preserve=mode", "--"])
                    .arg(image)
                    .arg(disk);
                Process::run(CP, command, &self.file("cp.log"), Duration::from_secs(600))
            }
        }
    }
}

/// The line that tells an image from all others. A changed image under an old overlay would be a mixture of both.
pub fn identity(image: &Path, format: DiskFormat) -> Result<String, QemuError> {
    let path = image.canonicalize().map_err(io_error("open", image))?;
    let metadata = path.metadata().map_err(io_error("open", image))?;
    let (seconds, nanoseconds) = (metadata.mtime(), metadata.mtime_nsec());
    let kind = match format {
        DiskFormat::Overlay => "",
        DiskFormat::Copy => COPY,
    };
    Ok(format!("{kind}{} {seconds}.{nanoseconds:09} {}\n", metadata.len(), path.display()))
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
        let overlays = folder.prepare(&images, DiskFormat::Overlay, Some(b"variables")).unwrap();
        std::fs::write(&overlays[0], "the machine's").unwrap();
        drop(folder);

        let folder = Folder::open(Some(&kept)).unwrap();
        folder.prepare(&images, DiskFormat::Overlay, Some(b"others")).unwrap();
        assert_eq!(std::fs::read(&overlays[0]).unwrap(), b"the machine's");
        assert_eq!(std::fs::read(folder.file("variables.fd")).unwrap(), b"variables");

        std::fs::write(&image, vec![2; 2 << 20]).unwrap();
        assert!(matches!(
            folder.prepare(&images, DiskFormat::Overlay, None),
            Err(QemuError::OtherImage { .. })
        ));
        let error = folder.prepare(&images, DiskFormat::Copy, None).unwrap_err();
        assert!(matches!(error, QemuError::OtherImage { .. }), "{error}");
        let absent = [dir.path().join("absent.raw")];
        let error = folder.prepare(&absent, DiskFormat::Overlay, None).unwrap_err().to_string();
        assert!(error.contains("absent.raw"), "{error}");
    }
}
