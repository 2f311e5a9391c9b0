//! Disks and file systems.

use super::damaged;
use crate::error::BuildError;
use crate::identity::uuid_text;
use ashlar_formats::{disk, esp};
use ashlar_image::digest::Digest;
use serde::Serialize;
use std::fs::File;
use std::path::Path;

/// One partition.
#[derive(Debug, Serialize)]
pub struct Partition {
    /// Number, from 1.
    pub number: u32,
    /// Label.
    pub label: String,
    /// Type GUID.
    pub type_guid: String,
    /// Its own GUID.
    pub guid: String,
    /// First byte.
    pub offset: u64,
    /// Length in bytes.
    pub size: u64,
}

/// A disk.
#[derive(Debug, Serialize)]
pub struct Disk {
    /// Size in bytes.
    pub size: u64,
    /// Partitions in the order of their numbers.
    pub partitions: Vec<Partition>,
}

/// An EFI system partition.
#[derive(Debug, Serialize)]
pub struct Esp {
    /// Size of `EFI/BOOT/BOOTX64.EFI` in bytes.
    pub uki_size: u64,
    /// Its SHA-256.
    pub uki_sha256: Digest,
}

/// An erofs file system.
#[derive(Debug, Serialize)]
pub struct Erofs {
    /// Size in bytes.
    pub size: u64,
    /// Number of inodes.
    pub inodes: u64,
    /// UUID.
    pub uuid: String,
    /// Volume name.
    pub volume_name: String,
    /// Build time, seconds since 1970.
    pub build_time: i64,
}

/// A verity superblock.
#[derive(Debug, Serialize)]
pub struct Verity {
    /// Number of data blocks.
    pub data_blocks: u64,
    /// Size of a data block in bytes.
    pub block_size: u32,
    /// Hash algorithm.
    pub algorithm: String,
    /// Salt.
    pub salt: String,
    /// UUID.
    pub uuid: String,
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes.get(at..at + N).and_then(|part| part.try_into().ok()).unwrap_or([0; N])
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned()
}

pub(super) fn disk(path: &Path, file: &mut File) -> Result<Disk, BuildError> {
    let size = file.metadata().map_err(|e| BuildError::input("read the size of", path, e))?.len();
    let partitions = disk::read(file).map_err(|e| damaged(path, "a disk image", e))?;
    let partitions = partitions
        .into_iter()
        .map(|p| Partition {
            number: p.number,
            label: p.label,
            type_guid: uuid_text(p.type_guid),
            guid: uuid_text(p.guid),
            offset: p.offset,
            size: p.length,
        })
        .collect();
    Ok(Disk { size, partitions })
}

pub(super) fn esp(path: &Path, file: &mut File) -> Result<Esp, BuildError> {
    let uki = esp::read_uki(file).map_err(|e| damaged(path, "an EFI system partition", e))?;
    Ok(Esp { uki_size: uki.len() as u64, uki_sha256: Digest::of(&uki) })
}

/// `struct erofs_super_block` at byte 1024 of `head` (Linux, `fs/erofs/erofs_fs.h`).
pub(super) fn erofs(path: &Path, head: &[u8]) -> Result<Erofs, BuildError> {
    let Some(block) = head.get(1024..1024 + 128) else {
        return Err(damaged(path, "an erofs image", "it is cut off"));
    };
    let bits = u32::from(block[12]);
    if bits > 16 {
        return Err(damaged(path, "an erofs image", "its block size is impossible"));
    }
    Ok(Erofs {
        size: u64::from(u32::from_le_bytes(array(block, 36))) << bits,
        inodes: u64::from_le_bytes(array(block, 16)),
        uuid: uuid_text(array(block, 48)),
        volume_name: text(&array::<16>(block, 64)),
        build_time: i64::from_le_bytes(array(block, 24)),
    })
}

/// The superblock at the start of `head` (cryptsetup's on-disk format, version 1).
pub(super) fn verity(head: &[u8]) -> Verity {
    let salt_size = usize::from(u16::from_le_bytes(array(head, 80))).min(256);
    Verity {
        data_blocks: u64::from_le_bytes(array(head, 72)),
        block_size: u32::from_le_bytes(array(head, 64)),
        algorithm: text(&array::<32>(head, 32)),
        salt: hex::encode(head.get(88..88 + salt_size).unwrap_or_default()),
        uuid: uuid_text(array(head, 16)),
    }
}
