//! A copy of the release's disk with something changed.

use crate::programs::Run;
use crate::release::Built;
use crate::sparse;
use ashlar_image::layout::{PARTITIONS, Role, Slot};
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// Path of the UKI in the EFI system partition.
pub const UKI: &str = "::/EFI/BOOT/BOOTX64.EFI";
/// Folder beside it whose files systemd-stub takes for credentials, extensions and add-ons.
pub const EXTRA: &str = "::/EFI/BOOT/BOOTX64.EFI.extra.d";

/// A disk image that goes with this value.
#[derive(Debug)]
pub struct Disk {
    folder: TempDir,
    path: PathBuf,
}

impl Disk {
    /// A copy of the release's disk.
    pub fn copy_of(built: &Built) -> Self {
        let folder = tempfile::tempdir_in(built.out.parent().unwrap()).unwrap();
        let path = folder.path().join("disk.raw");
        sparse::copy(&built.file(&built.release.disk.file), &path);
        Self { folder, path }
    }

    /// The image.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The folder that it lies in.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Writes a file for use with this disk.
    pub fn scratch(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    /// Where slot A's partition of this role lies, in bytes.
    pub fn partition(&self, role: Role) -> Range<u64> {
        let wanted = |entry: &&ashlar_image::layout::Entry| entry.slot == Some(Slot::A) && entry.role == role;
        partition(&self.path, PARTITIONS.iter().find(wanted).unwrap().number)
    }

    /// Changes one bit of the byte at `offset` in a partition of slot A.
    pub fn flip(&self, role: Role, offset: u64) {
        let partition = self.partition(role);
        assert!(partition.start + offset < partition.end);
        flip(&self.path, partition.start + offset);
    }

    /// Copies a file into the EFI system partition.
    pub fn put(&self, file: &Path, to: &str) {
        self.mtool("mcopy", &["-o", file.to_str().unwrap(), to]);
    }

    /// Makes a folder in the EFI system partition.
    pub fn make_folder(&self, path: &str) {
        self.mtool("mmd", &[path]);
    }

    fn mtool(&self, program: &str, arguments: &[&str]) {
        let image = format!("{}@@{}", self.path.display(), self.partition(Role::Esp).start);
        let mut command = Command::new(program);
        let _ = Run::of(command.env("MTOOLS_SKIP_CHECK", "1").args(["-i", &image]).args(arguments)).ok();
    }
}

/// Changes one bit of the byte at `offset`.
pub fn flip(path: &Path, offset: u64) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 1], offset).unwrap();
}

/// Makes an empty disk that takes no space.
pub fn empty(path: &Path, bytes: u64) {
    File::create(path).unwrap().set_len(bytes).unwrap();
}

/// Where a partition lies, in bytes, by the disk's own table (UEFI Specification 2.10, section 5.3).
pub fn partition(disk: &Path, number: u32) -> Range<u64> {
    const SECTOR: u64 = 512;
    let mut entry = [0; 128];
    let at = 2 * SECTOR + u64::from(number - 1) * 128;
    File::open(disk).unwrap().read_exact_at(&mut entry, at).unwrap();
    let field = |at: usize| u64::from_le_bytes(entry[at..at + 8].try_into().unwrap());
    field(32) * SECTOR..(field(40) + 1) * SECTOR
}
