//! Inodes and folders of an empty file system (Linux, `Documentation/filesystems/ext4/{inodes,directory,ifork}.rst`).

use super::crc::crc32c;
use super::{BLOCK, INODE_SIZE};
use crate::bytes::put;
use std::ops::Range;

/// Inode of the root folder.
pub const ROOT: u32 = 2;
/// Inode of the journal.
pub const JOURNAL: u32 = 8;
/// Inode of `lost+found`: the first that is not reserved.
pub const LOST_FOUND: u32 = 11;
/// `EXT4_EXTENTS_FL`.
const EXTENTS: u32 = 0x8_0000;
/// Bytes of the inode's second half that are used: all fields up to the project.
pub const EXTRA: u16 = 32;
/// Places of the checksum's halves.
const SUM_LOW: usize = 124;
const SUM_HIGH: usize = 130;
/// Where the map of blocks lies, and its length.
const MAP: usize = 40;
pub const MAP_LENGTH: usize = 60;
/// Length of the tail of a folder's block, which looks like an unused entry.
const TAIL: usize = 12;

/// The sum that an inode's own sums begin with; no generation is given to a new inode.
fn seed(file_system: u32, number: u32) -> u32 {
    crc32c(crc32c(file_system, &number.to_le_bytes()), &0u32.to_le_bytes())
}

/// What an inode is.
pub struct Inode {
    /// Its number.
    pub number: u32,
    /// Type and permissions.
    pub mode: u16,
    /// How many names it has.
    pub links: u16,
    /// Its blocks; an empty range makes an unused inode.
    pub blocks: Range<u64>,
    /// Seconds since 1970.
    pub time: u64,
}

/// The map of one extent (`ext4_extent_header`, `ext4_extent`).
pub fn map(blocks: &Range<u64>) -> [u8; MAP_LENGTH] {
    let mut map = [0; MAP_LENGTH];
    put(&mut map, 0, &0xf30a_u16.to_le_bytes());
    put(&mut map, 2, &1u16.to_le_bytes());
    put(&mut map, 4, &4u16.to_le_bytes());
    // At most 32768, the longest extent there is.
    put(&mut map, 16, &((blocks.end - blocks.start) as u16).to_le_bytes());
    put(&mut map, 18, &((blocks.start >> 32) as u16).to_le_bytes());
    put(&mut map, 20, &(blocks.start as u32).to_le_bytes());
    map
}

impl Inode {
    /// An unused inode, which has a checksum nevertheless.
    pub const fn unused(number: u32) -> Self {
        Self { number, mode: 0, links: 0, blocks: 0..0, time: 0 }
    }

    /// Its length in bytes.
    pub fn length(&self) -> u64 {
        (self.blocks.end - self.blocks.start) * BLOCK as u64
    }

    /// Its bytes. `file_system` is the sum of the file system's UUID.
    pub fn bytes(&self, file_system: u32) -> [u8; INODE_SIZE] {
        let mut bytes = [0; INODE_SIZE];
        if self.mode != 0 {
            put(&mut bytes, 0, &self.mode.to_le_bytes());
            // At most 128 MiB.
            put(&mut bytes, 4, &(self.length() as u32).to_le_bytes());
            for at in [8, 12, 16, 144] {
                put(&mut bytes, at, &(self.time as u32).to_le_bytes());
            }
            for at in [132, 136, 140, 148] {
                put(&mut bytes, at, &epoch(self.time).to_le_bytes());
            }
            put(&mut bytes, 26, &self.links.to_le_bytes());
            put(&mut bytes, 28, &((self.length() / 512) as u32).to_le_bytes());
            put(&mut bytes, 32, &EXTENTS.to_le_bytes());
            put(&mut bytes, MAP, &map(&self.blocks));
            put(&mut bytes, 128, &EXTRA.to_le_bytes());
        }
        let sum = crc32c(seed(file_system, self.number), &bytes);
        put(&mut bytes, SUM_LOW, &(sum as u16).to_le_bytes());
        if self.mode != 0 {
            put(&mut bytes, SUM_HIGH, &((sum >> 16) as u16).to_le_bytes());
        }
        bytes
    }
}

/// The bits of a time beyond 2038. The low half is a signed number, so that they count from its middle; a time beyond the
/// year 2446 wraps.
pub const fn epoch(time: u64) -> u32 {
    (time.wrapping_add(0x8000_0000) >> 32) as u32 & 3
}

/// An entry of a folder: inode, length of the entry, name. Folders only.
fn entry(block: &mut [u8], at: usize, inode: u32, length: usize, name: &[u8]) {
    put(block, at, &inode.to_le_bytes());
    put(block, at + 4, &(length as u16).to_le_bytes());
    put(block, at + 6, &[name.len() as u8, if inode == 0 { 0 } else { 2 }]);
    put(block, at + 8, name);
}

/// One block of the folder `number` with these entries; the last one takes the rest.
pub fn folder(file_system: u32, number: u32, entries: &[(u32, &[u8])]) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    let mut at = 0;
    for (index, (inode, name)) in entries.iter().enumerate() {
        let last = index + 1 == entries.len();
        let length = if last { BLOCK - TAIL - at } else { (8 + name.len()).next_multiple_of(4) };
        entry(&mut block, at, *inode, length, name);
        at += length;
    }
    let tail = BLOCK - TAIL;
    put(&mut block, tail + 4, &[TAIL as u8, 0, 0, 0xde]);
    let sum = crc32c(seed(file_system, number), block.get(..tail).unwrap_or_default());
    put(&mut block, tail + 8, &sum.to_le_bytes());
    block
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_beyond_2038() {
        for (time, low, bits) in [
            (0, 0, 0),
            (0x7fff_ffff, 0x7fff_ffff, 0),
            (0x8000_0000, 0x8000_0000, 1),
            (0x1_8000_0000, 0x8000_0000, 2),
        ] {
            // Documentation/filesystems/ext4/inodes.rst, "Inode Timestamps".
            assert_eq!((time as u32, epoch(time)), (low, bits), "{time:#x}");
        }
        let _ = epoch(u64::MAX);
    }
}
