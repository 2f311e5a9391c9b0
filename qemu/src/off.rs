//! A machine that is off: its parts can be looked at, changed and taken out.

use crate::config::DiskFormat;
use crate::error::{QemuError, io_error};
use crate::folder::{self, Folder};
use crate::tpm::OfflineTpm;
use std::path::{Path, PathBuf};

/// A machine that was started with a folder of its own ([`crate::MachineConfig::folder`]) and is off. It cannot be started
/// while this exists.
#[derive(Debug)]
pub struct Stopped {
    folder: Folder,
    /// One line for each disk.
    made_from: Vec<String>,
}

impl Stopped {
    /// The machine in `folder`.
    pub fn open(folder: &Path) -> Result<Self, QemuError> {
        if !folder.is_dir() {
            return Err(QemuError::NoMachine(folder.into()));
        }
        let folder = Folder::open(Some(folder))?;
        let made_from = folder.made_from()?.ok_or_else(|| QemuError::NoMachine(folder.path().into()))?;
        let made_from = made_from.split_inclusive('\n').map(str::to_owned).collect();
        Ok(Self { folder, made_from })
    }

    fn part(&self, part: String) -> QemuError {
        QemuError::NoPart { folder: self.folder.path().into(), part }
    }

    fn format(&self, disk: usize) -> Result<DiskFormat, QemuError> {
        let line = self.made_from.get(disk).ok_or_else(|| self.part(format!("disk {disk}")))?;
        Ok(if line.starts_with(folder::COPY) { DiskFormat::Copy } else { DiskFormat::Overlay })
    }

    /// The file that the machine writes disk number `disk` to, from 0: qcow2 or raw, as it was started.
    pub fn disk(&self, disk: usize) -> Result<PathBuf, QemuError> {
        Ok(self.folder.disk(disk, self.format(disk)?))
    }

    /// Puts a new disk with the content of `image` in the place of disk number `disk`, from 0. Start the machine with this
    /// image in [`crate::MachineConfig::disks`] from now on.
    pub fn replace_disk(&mut self, disk: usize, image: &Path) -> Result<(), QemuError> {
        let format = self.format(disk)?;
        let file = self.folder.disk(disk, format);
        match std::fs::remove_file(&file) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(io_error("remove", file)(error));
            }
            _ => {}
        }
        self.folder.make_disk(image, &file, format)?;
        if let Some(line) = self.made_from.get_mut(disk) {
            *line = folder::identity(image, format)?;
        }
        self.folder.set_made_from(&self.made_from.concat())
    }

    /// The firmware's variable store.
    pub fn variables(&self) -> Result<Vec<u8>, QemuError> {
        let path = self.folder.file("variables.fd");
        std::fs::read(&path).map_err(io_error("read", path))
    }

    /// Replaces the firmware's variable store, for example by one with other keys or without any.
    pub fn set_variables(&self, variables: &[u8]) -> Result<(), QemuError> {
        let path = self.folder.file("variables.fd");
        std::fs::write(&path, variables).map_err(io_error("write", path))
    }

    /// Starts the machine's TPM by itself; it is made if the machine has none yet.
    pub fn tpm(&self) -> Result<OfflineTpm, QemuError> {
        OfflineTpm::start(&self.folder.file("tpm"), &self.folder.file("swtpm.log"))
    }

    /// Takes the TPM out for good; the next start makes a new one, with other seeds.
    pub fn remove_tpm(&self) -> Result<(), QemuError> {
        let path = self.folder.file("tpm");
        match std::fs::remove_dir_all(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(io_error("remove", path)(error))
            }
            _ => Ok(()),
        }
    }

    /// Exchanges the TPMs of two machines, which both must have one.
    pub fn exchange_tpm(&self, other: &Self) -> Result<(), QemuError> {
        let (ours, theirs) = (self.folder.file("tpm"), other.folder.file("tpm"));
        let flags = rustix::fs::RenameFlags::EXCHANGE;
        let cwd = rustix::fs::CWD;
        rustix::fs::renameat_with(cwd, &ours, cwd, &theirs, flags)
            .map_err(|error| io_error("exchange the TPMs of two machines, in", ours)(error.into()))
    }

    /// The machine's folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}
