//! Disks and their partitions, as the kernel shows them in `/sys/class/block`.

use crate::error::Error;
use crate::gpt::{self, GptError, Partition};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Something that can be read anywhere: a disk, or bytes in a test.
pub trait ReadAt {
    /// Fills `buffer` from `offset` on.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
}

impl ReadAt for File {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        FileExt::read_exact_at(self, buffer, offset)
    }
}

impl ReadAt for [u8] {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let start = usize::try_from(offset).map_err(|_| io::ErrorKind::UnexpectedEof)?;
        let source = start
            .checked_add(buffer.len())
            .and_then(|end| self.get(start..end))
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(source);
        Ok(())
    }
}

/// Where the kernel shows block devices.
const SYSFS: &str = "/sys/class/block";

/// A disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// Kernel name: `vda`, `nvme0n1`.
    pub name: String,
    /// Size in bytes of a logical block.
    pub block_size: u32,
}

/// A partition's device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Its file in `/dev`.
    pub path: PathBuf,
    /// `MAJOR:MINOR`.
    pub numbers: String,
}

fn attribute(folder: &Path, name: &str) -> Option<String> {
    std::fs::read_to_string(folder.join(name)).ok().map(|text| text.trim().to_owned())
}

/// The kernel writes `!` where the device's name has a slash.
fn device_path(name: &str) -> PathBuf {
    Path::new("/dev").join(name.replace('!', "/"))
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect();
    names.sort();
    names
}

/// The disks that are hardware, in the order of their names: no partitions, loop devices or mapped devices, and no
/// hidden paths of a multipath disk.
pub fn disks() -> Vec<Disk> {
    names(Path::new(SYSFS))
        .into_iter()
        .filter_map(|name| {
            let folder = Path::new(SYSFS).join(&name);
            let hardware = folder.join("device").exists() && !folder.join("partition").exists();
            if !hardware || attribute(&folder, "hidden").is_some_and(|hidden| hidden != "0") {
                return None;
            }
            let block_size = attribute(&folder, "queue/logical_block_size")?.parse().ok()?;
            Some(Disk { name, block_size })
        })
        .collect()
}

impl Disk {
    /// Its partition table, read from the disk.
    pub fn table(&self) -> Result<Vec<Partition>, GptError> {
        gpt::read(&File::open(device_path(&self.name))?, self.block_size)
    }

    /// The kernel's device for `partition`, if it is there and lies where the table says.
    pub fn device(&self, partition: &Partition) -> Option<Device> {
        let folder = Path::new(SYSFS).join(&self.name);
        let wanted_sector = partition.first.checked_mul(u64::from(self.block_size) / 512)?;
        names(&folder).into_iter().find_map(|name| {
            let folder = folder.join(&name);
            let number: u32 = attribute(&folder, "partition")?.parse().ok()?;
            let start: u64 = attribute(&folder, "start")?.parse().ok()?;
            if number != partition.number || start != wanted_sector {
                return None;
            }
            Some(Device { path: device_path(&name), numbers: attribute(&folder, "dev")? })
        })
    }
}

impl Device {
    /// Opens it for reading.
    pub fn open(&self) -> Result<File, Error> {
        File::open(&self.path).map_err(Error::io("open", &self.path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_are_read_within_their_bounds() {
        let data = [1u8, 2, 3, 4];
        let mut buffer = [0; 2];
        data.read_exact_at(&mut buffer, 2).unwrap();
        assert_eq!(buffer, [3, 4]);
        assert!(data.read_exact_at(&mut buffer, 3).is_err());
        assert!(data.read_exact_at(&mut buffer, u64::MAX).is_err());
    }

    #[test]
    fn slashes_in_names() {
        assert_eq!(device_path("cciss!c0d0"), Path::new("/dev/cciss/c0d0"));
    }
}
