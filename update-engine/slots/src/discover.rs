//! Finding the disk that the machine runs from: by the device that is mounted, and never by a label alone.

use crate::error::SlotsError;
use crate::load_option::Place;
use ashlar_image::layout::{PARTITIONS, Role, Slot};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootDisk {
    /// The slot that the root comes from.
    pub running: Slot,
    /// Device files of the seven partitions, by number.
    pub partitions: BTreeMap<u32, PathBuf>,
    /// Where the two ESPs lie.
    pub esps: BTreeMap<Slot, Place>,
}

impl BootDisk {
    /// The device file of a slot's partition.
    pub fn partition(&self, slot: Slot, role: Role) -> Option<&Path> {
        let entry = PARTITIONS.iter().find(|entry| entry.slot == Some(slot) && entry.role == role)?;
        self.partitions.get(&entry.number).map(PathBuf::as_path)
    }
}

fn fail(reason: impl Into<String>) -> SlotsError {
    SlotsError::Discover(reason.into())
}

fn read(path: &Path) -> Result<String, SlotsError> {
    let text = fs::read_to_string(path).map_err(|error| fail(format!("`{}`: {error}", path.display())))?;
    Ok(text.trim().to_owned())
}

/// A field of a `uevent` file.
fn field(path: &Path, name: &str) -> Result<String, SlotsError> {
    let text = read(&path.join("uevent"))?;
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
        .map(str::to_owned)
        .ok_or_else(|| fail(format!("`{}` has no {name}", path.display())))
}

/// Finds the disk under the dm-verity device with the number `device` (of the file system at `/`). `sys` is where sysfs is
/// mounted, `dev` where the device files are.
pub fn find(device: (u32, u32), sys: &Path, dev: &Path) -> Result<BootDisk, SlotsError> {
    let mapped = sys.join(format!("dev/block/{}:{}", device.0, device.1));
    let slaves = mapped.join("slaves");
    let entries = fs::read_dir(&slaves).map_err(|error| fail(format!("`{}`: {error}", slaves.display())))?;
    let mut numbers = Vec::new();
    let mut disks = Vec::new();
    for entry in entries.flatten() {
        let partition = fs::canonicalize(entry.path()).map_err(|error| fail(error.to_string()))?;
        let number: u32 = read(&partition.join("partition"))?
            .parse()
            .map_err(|_| fail("the root does not lie in a partition"))?;
        numbers.push(number);
        disks.push(partition.parent().map(Path::to_owned).ok_or_else(|| fail("a partition without a disk"))?);
    }
    let disk =
        disks.first().ok_or_else(|| fail("the root's device lies on nothing: it is no dm-verity device"))?;
    if disks.iter().any(|other| other != disk) {
        return Err(fail("root and verity lie on different disks"));
    }
    let slot_of = |number: &u32| {
        PARTITIONS
            .iter()
            .find(|entry| entry.number == *number && entry.role != Role::Esp)
            .and_then(|entry| entry.slot)
    };
    let mut slots = numbers.iter().map(slot_of);
    let running = slots.next().flatten().ok_or_else(|| fail("the root's partition is none of a slot"))?;
    if slots.any(|slot| slot != Some(running)) {
        return Err(fail("root and verity are of different slots"));
    }
    layout(running, disk, dev)
}

fn layout(running: Slot, disk: &Path, dev: &Path) -> Result<BootDisk, SlotsError> {
    let mut partitions = BTreeMap::new();
    for entry in fs::read_dir(disk).map_err(|error| fail(error.to_string()))?.flatten() {
        let path = entry.path();
        let Ok(number) = read(&path.join("partition")) else { continue };
        let number: u32 = number.parse().map_err(|_| fail(format!("`{}` has no number", path.display())))?;
        partitions.insert(number, dev.join(field(&path, "DEVNAME")?));
    }
    let device = dev.join(field(disk, "DEVNAME")?);
    let table = gpt::GptConfig::new()
        .writable(false)
        .open(&device)
        .map_err(|error| fail(format!("the partition table of `{}`: {error}", device.display())))?;
    let mut esps = BTreeMap::new();
    for entry in PARTITIONS {
        let found = table.partitions().get(&entry.number).filter(|partition| partition.name == entry.label);
        let found =
            found.ok_or_else(|| fail(format!("partition {} is not {}", entry.number, entry.label)))?;
        if !partitions.contains_key(&entry.number) {
            return Err(fail(format!("the kernel does not know {}", entry.label)));
        }
        if let (Role::Esp, Some(slot)) = (entry.role, entry.slot) {
            let guid = found.part_guid.to_string().to_lowercase();
            let guid = guid.parse().map_err(|_| fail(format!("`{guid}` is no GUID")))?;
            let size = found.last_lba.saturating_sub(found.first_lba).saturating_add(1);
            esps.insert(slot, Place { number: entry.number, start: found.first_lba, size, guid });
        }
    }
    Ok(BootDisk { running, partitions, esps })
}

/// The device number of the file system at `/`.
pub fn root_device() -> Result<(u32, u32), SlotsError> {
    let metadata = fs::metadata("/").map_err(|error| fail(error.to_string()))?;
    let device = metadata.dev();
    Ok((rustix::fs::major(device), rustix::fs::minor(device)))
}
