//! An empty ext4 as mke2fs makes it, and a look at a superblock.
//!
//! Blocks of 4096 bytes, inodes of 256, extents, 64-bit numbers, checksums over all metadata, a journal. Only what is not zero
//! in meaning is written: bitmaps and inode tables of unused groups are marked as not initialized, and the kernel clears them
//! in the background after the first mount (Linux, `Documentation/filesystems/ext4/blockgroup.rst`, "Lazy Block Group
//! Initialization"). So the time to make one hardly depends on its size.

mod crc;
mod inode;
mod layout;
mod superblock;

pub use superblock::Ext4Super;

use crate::bytes::put;
use crate::device::WriteAt;
use crate::error::Ext4Error;
use crate::uuid::Uuid;
use crc::crc32c;
use inode::{Inode, JOURNAL, LOST_FOUND, ROOT};
use layout::{DESCRIPTOR, Layout};

/// Size of a block in bytes.
pub const BLOCK: usize = 4096;
/// Blocks in a group: as many as a bitmap of one block has bits.
const GROUP_BLOCKS: u64 = BLOCK as u64 * 8;
/// Size of an inode in bytes.
const INODE_SIZE: usize = 256;
/// The smallest that is made, in bytes.
pub const LEAST: u64 = 64 << 20;
/// The largest that is made, in bytes.
pub const MOST: u64 = 16 << 40;

/// Flags of a group (`bg_flags`).
const INODES_UNINITIALIZED: u16 = 1;
const BLOCKS_UNINITIALIZED: u16 = 2;

/// What a new file system is called.
#[derive(Debug, Clone, Copy)]
pub struct Params<'a> {
    /// Up to 16 bytes.
    pub label: &'a str,
    /// Its UUID; never one that was used before, because it seeds the checksums.
    pub uuid: Uuid,
    /// Random bytes that the folders' hashes begin with.
    pub hash_seed: [u8; 16],
    /// The time, in seconds since 1970.
    pub time: u64,
}

/// Makes an empty file system that fills the device. What was on it is lost. The superblock is written last, after a
/// flush: without it there is no file system, and a power cut leaves none or a whole one.
pub fn make(device: &mut impl WriteAt, params: &Params<'_>) -> Result<(), Ext4Error> {
    if params.label.len() > 16 || params.label.contains('\0') {
        return Err(Ext4Error::Label);
    }
    let layout = Layout::new(device.size().map_err(Ext4Error::io("find the size of"))?)?;
    let sum = crc32c(!0, &params.uuid.0);
    let free = (0..layout.groups).map(|group| layout.free(group)).sum();
    write(device, &[0; BLOCK], 0)?;
    flush(device)?;
    // At most 8 MiB, for 16 TiB.
    let mut descriptors = vec![0; layout.descriptor_blocks as usize * BLOCK];
    for (group, descriptor) in (0..layout.groups).zip(descriptors.chunks_exact_mut(DESCRIPTOR)) {
        descriptor.copy_from_slice(&write_group(device, &layout, group, sum)?);
    }
    for group in (1..layout.groups).filter(|group| layout::has_copy(*group)) {
        let mut copy = [0; BLOCK];
        put(&mut copy, 0, &superblock::write(&layout, params, free, group));
        write(device, &copy, layout.start(group))?;
        write(device, &descriptors, layout.start(group) + 1)?;
    }
    write(device, &descriptors, 1)?;
    write_files(device, &layout, params, sum)?;
    flush(device)?;
    let mut first = [0; BLOCK];
    put(&mut first, superblock::AT, &superblock::write(&layout, params, free, 0));
    write(device, &first, 0)?;
    flush(device)
}

/// Writes the bitmaps of a group as far as they are needed, and gives its descriptor.
fn write_group(
    device: &mut impl WriteAt,
    layout: &Layout,
    group: u32,
    sum: u32,
) -> Result<[u8; DESCRIPTOR], Ext4Error> {
    let [block_bitmap, inode_bitmap, table] = layout.places(group);
    let first = group == 0;
    let used_inodes = if first { LOST_FOUND } else { 0 };
    let mut flags = if first { 0 } else { INODES_UNINITIALIZED };
    let mut sums = [0; 2];
    if layout.untouched(group) {
        flags |= BLOCKS_UNINITIALIZED;
    } else {
        let start = layout.start(group);
        let mut bitmap = [0; BLOCK];
        for range in layout.used(group) {
            set(&mut bitmap, range.start - start, range.end - start);
        }
        set(&mut bitmap, layout.size(group), GROUP_BLOCKS);
        sums[0] = crc32c(sum, &bitmap);
        write(device, &bitmap, block_bitmap)?;
    }
    if first {
        let mut bitmap = [0; BLOCK];
        set(&mut bitmap, 0, used_inodes.into());
        sums[1] = crc32c(sum, bitmap.get(..layout.inodes_per_group as usize / 8).unwrap_or_default());
        set(&mut bitmap, layout.inodes_per_group.into(), GROUP_BLOCKS);
        write(device, &bitmap, inode_bitmap)?;
    }
    let unused = layout.inodes_per_group - used_inodes;
    let folders = if first { 2 } else { 0 };
    let mut descriptor = [0; DESCRIPTOR];
    for (low, high, value) in [(0, 32, block_bitmap), (4, 36, inode_bitmap), (8, 40, table)] {
        put(&mut descriptor, low, &(value as u32).to_le_bytes());
        put(&mut descriptor, high, &((value >> 32) as u32).to_le_bytes());
    }
    let halves = [(12, 44, layout.free(group) as u32), (14, 46, unused), (16, 48, folders), (28, 50, unused)];
    for (low, high, value) in halves.into_iter().chain([(24, 56, sums[0]), (26, 58, sums[1])]) {
        put(&mut descriptor, low, &(value as u16).to_le_bytes());
        put(&mut descriptor, high, &((value >> 16) as u16).to_le_bytes());
    }
    put(&mut descriptor, 18, &flags.to_le_bytes());
    // The sum's own field is zero until now.
    let own = crc32c(crc32c(sum, &group.to_le_bytes()), &descriptor);
    put(&mut descriptor, 30, &(own as u16).to_le_bytes());
    Ok(descriptor)
}

/// Writes the used inodes, the folders and the journal's superblock.
fn write_files(
    device: &mut impl WriteAt,
    layout: &Layout,
    params: &Params<'_>,
    sum: u32,
) -> Result<(), Ext4Error> {
    let (root, lost_found, time) = (layout.root(), layout.lost_found(), params.time);
    let used = [
        Inode { number: ROOT, mode: 0o40755, links: 3, blocks: root.clone(), time },
        Inode { number: JOURNAL, mode: 0o10_0600, links: 1, blocks: layout.journal.clone(), time },
        Inode { number: LOST_FOUND, mode: 0o40700, links: 2, blocks: lost_found.clone(), time },
    ];
    // One block of the table has sixteen inodes.
    let mut table = [0; BLOCK];
    for (number, place) in (1..=LOST_FOUND).zip(table.chunks_exact_mut(INODE_SIZE)) {
        let unused = Inode::unused(number);
        let inode = used.iter().find(|inode| inode.number == number).unwrap_or(&unused);
        place.copy_from_slice(&inode.bytes(sum));
    }
    let [_, _, table_at] = layout.places(0);
    write(device, &table, table_at)?;
    let entries: [(u32, &[u8]); 3] = [(ROOT, b"."), (ROOT, b".."), (LOST_FOUND, b"lost+found")];
    write(device, &inode::folder(sum, ROOT, &entries), root.start)?;
    for block in lost_found.clone() {
        let entries: &[(u32, &[u8])] =
            if block == lost_found.start { &[(LOST_FOUND, b"."), (ROOT, b"..")] } else { &[(0, b"")] };
        write(device, &inode::folder(sum, LOST_FOUND, entries), block)?;
    }
    write(device, &journal(layout, params), layout.journal.start)
}

/// The superblock of an empty journal (Linux, `Documentation/filesystems/ext4/journal.rst`), in the order of bytes of
/// networks.
///
/// The journal's other blocks stay as they are: old ones of another file system are not replayed, because the kernel adds
/// checksums over this UUID before it writes the first transaction, and an empty journal is not read at all.
fn journal(layout: &Layout, params: &Params<'_>) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    let length = (layout.journal.end - layout.journal.start) as u32;
    // Magic, a superblock of version 2, its number; size of a block, blocks, first block of the log, first number.
    for (index, value) in [0xc03b_3998, 4, 0, BLOCK as u32, length, 1, 1].into_iter().enumerate() {
        put(&mut block, index * 4, &value.to_be_bytes());
    }
    put(&mut block, 48, &params.uuid.0);
    // One user.
    put(&mut block, 64, &1u32.to_be_bytes());
    block
}

/// Sets the bits from `start` up to `end`.
fn set(bitmap: &mut [u8; BLOCK], start: u64, end: u64) {
    for (index, byte) in (0u64..).step_by(8).zip(bitmap.iter_mut()) {
        let low = start.saturating_sub(index).min(8);
        let high = end.saturating_sub(index).min(8);
        if low < high {
            // Bits low to high - 1 of this byte.
            *byte |= (0xff_u16 << low & 0xff_u16 >> (8 - high)) as u8;
        }
    }
}

fn write(device: &mut impl WriteAt, data: &[u8], block: u64) -> Result<(), Ext4Error> {
    device.write_at(data, block.saturating_mul(BLOCK as u64)).map_err(Ext4Error::io("write"))
}

fn flush(device: &mut impl WriteAt) -> Result<(), Ext4Error> {
    device.flush().map_err(Ext4Error::io("flush what was written to"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits() {
        for (start, end) in [(0, 0), (0, 1), (3, 5), (7, 9), (0, 32768), (32760, 32768), (9, 8), (100, 4097)]
        {
            let mut bitmap = [0; BLOCK];
            set(&mut bitmap, start, end);
            let found: Vec<u64> =
                (0..GROUP_BLOCKS).filter(|bit| bitmap[*bit as usize / 8] >> (bit % 8) & 1 == 1).collect();
            assert_eq!(found, (start..end).collect::<Vec<_>>());
        }
    }
}
