//! Where everything lies (Linux, `Documentation/filesystems/ext4`, "High Level Design").
//!
//! Groups of 128 MiB, sixteen of them a flexible group whose bitmaps and inode tables lie together at its start. Copies of the
//! superblock and of the group descriptors lie in groups 1 and those whose number is a power of 3, 5 or 7.

use super::{BLOCK, GROUP_BLOCKS, INODE_SIZE, LEAST, MOST};
use crate::error::Ext4Error;
use std::ops::Range;

/// Groups in a flexible group, as a power of two: what mke2fs takes.
pub const LOG_FLEX: u8 = 4;
const FLEX: u32 = 1 << LOG_FLEX;
/// Size of a group descriptor in bytes, with 64-bit numbers.
pub const DESCRIPTOR: usize = 64;
/// Inodes in a block.
const INODES_IN_BLOCK: u32 = BLOCK as u32 / INODE_SIZE as u32;
/// Bytes for each inode: what mke2fs takes for file systems of this kind, more in larger ones.
const BYTES_PER_INODE: u64 = 16384;
/// Blocks that a last group must have beside what describes it; a smaller one is left out.
const LEAST_IN_GROUP: u64 = 50;
/// Blocks of the root folder and of `lost+found`.
pub const ROOT_BLOCKS: u64 = 1;
pub const LOST_FOUND_BLOCKS: u64 = 4;
/// The group that a large journal fills: without a copy of the superblock, and not the first of a flexible group.
const JOURNAL_GROUP: u64 = 2;

/// Sizes and places, in blocks of 4096 bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// Blocks of the file system.
    pub blocks: u64,
    /// Groups.
    pub groups: u32,
    /// Blocks of all group descriptors.
    pub descriptor_blocks: u32,
    /// Inodes in a group.
    pub inodes_per_group: u32,
    /// The journal.
    pub journal: Range<u64>,
}

impl Layout {
    /// For a device of `bytes` bytes.
    pub fn new(bytes: u64) -> Result<Self, Ext4Error> {
        if !(LEAST..=MOST).contains(&bytes) {
            return Err(Ext4Error::Size(bytes));
        }
        let mut layout = Self {
            blocks: bytes / BLOCK as u64,
            groups: 0,
            descriptor_blocks: 0,
            inodes_per_group: 0,
            journal: 0..0,
        };
        layout.divide();
        // The rest behind whole groups may be too small to be a group.
        let last = layout.groups - 1;
        let needed = layout.described(last).end - layout.start(last) + LEAST_IN_GROUP;
        if layout.size(last) < needed {
            layout.blocks = layout.start(last);
            layout.divide();
        }
        let length = journal_blocks(bytes);
        let start = if u64::from(layout.groups) > JOURNAL_GROUP + 1 {
            JOURNAL_GROUP * GROUP_BLOCKS
        } else {
            layout.lost_found().end
        };
        layout.journal = start..start + length;
        Ok(layout)
    }

    fn divide(&mut self) {
        // At most 2^17 for 16 TiB.
        self.groups = self.blocks.div_ceil(GROUP_BLOCKS) as u32;
        self.descriptor_blocks = self.groups.div_ceil((BLOCK / DESCRIPTOR) as u32);
        let per_inode = match self.blocks * BLOCK as u64 {
            0..0x400_0000_0000 => BYTES_PER_INODE,
            0x400_0000_0000..0x800_0000_0000 => BYTES_PER_INODE * 2,
            _ => BYTES_PER_INODE * 4,
        };
        let inodes = GROUP_BLOCKS.min(self.blocks) * BLOCK as u64 / per_inode;
        // Whole blocks of the table, and whole bytes of the bitmap.
        self.inodes_per_group = (inodes as u32).next_multiple_of(INODES_IN_BLOCK);
    }

    /// Blocks of a group's inode table.
    pub fn table_blocks(&self) -> u32 {
        self.inodes_per_group / INODES_IN_BLOCK
    }

    /// First block of a group.
    #[allow(clippy::unused_self)] // reads like its neighbours
    pub fn start(&self, group: u32) -> u64 {
        u64::from(group) * GROUP_BLOCKS
    }

    /// Blocks in a group.
    pub fn size(&self, group: u32) -> u64 {
        self.blocks.saturating_sub(self.start(group)).min(GROUP_BLOCKS)
    }

    /// The first group of the flexible group of `group`, and how many groups that has.
    fn flex(&self, group: u32) -> (u32, u32) {
        let leader = group & !(FLEX - 1);
        (leader, (self.groups - leader).min(FLEX))
    }

    /// Blocks at the start of a group that hold the superblock and the group descriptors.
    pub fn copies(&self, group: u32) -> u64 {
        if has_copy(group) { 1 + u64::from(self.descriptor_blocks) } else { 0 }
    }

    /// Where the block bitmap, the inode bitmap and the inode table of a group lie.
    pub fn places(&self, group: u32) -> [u64; 3] {
        let (leader, groups) = self.flex(group);
        let index = u64::from(group - leader);
        let base = self.start(leader) + self.copies(leader);
        let groups = u64::from(groups);
        [base + index, base + groups + index, base + 2 * groups + index * u64::from(self.table_blocks())]
    }

    /// Blocks of a group, from its start, that describe groups: copies, bitmaps, tables.
    pub fn described(&self, group: u32) -> Range<u64> {
        let start = self.start(group);
        let (leader, groups) = self.flex(group);
        let flexible =
            if leader == group { u64::from(groups) * (2 + u64::from(self.table_blocks())) } else { 0 };
        start..start + self.copies(group) + flexible
    }

    /// The root folder.
    pub fn root(&self) -> Range<u64> {
        let start = self.described(0).end;
        start..start + ROOT_BLOCKS
    }

    /// The folder `lost+found`.
    pub fn lost_found(&self) -> Range<u64> {
        let start = self.root().end;
        start..start + LOST_FOUND_BLOCKS
    }

    /// What is used in a group: at most three ranges, in any order, some of them empty.
    pub fn used(&self, group: u32) -> [Range<u64>; 3] {
        let (start, end) = (self.start(group), self.start(group) + self.size(group));
        let folders = self.root().start..self.lost_found().end;
        [self.described(group), folders, self.journal.clone()].map(|range| {
            let first = range.start.clamp(start, end);
            first..range.end.clamp(first, end)
        })
    }

    /// Free blocks of a group.
    pub fn free(&self, group: u32) -> u64 {
        let used: u64 = self.used(group).iter().map(|range| range.end - range.start).sum();
        self.size(group).saturating_sub(used)
    }

    /// Whether nothing in a group is used but copies, so that its bitmap need not be written: whoever reads the file
    /// system makes it up. Not the last group, whose bitmap ends early.
    pub fn untouched(&self, group: u32) -> bool {
        let [described, folders, journal] = self.used(group);
        let bare = described.end - described.start == self.copies(group);
        bare && folders.is_empty() && journal.is_empty() && group + 1 != self.groups
    }

    /// Inodes of the file system: at most 2^30.
    pub fn inodes(&self) -> u32 {
        self.groups.saturating_mul(self.inodes_per_group)
    }

    /// Blocks that never hold a file: all that describes, and the journal.
    pub fn overhead(&self) -> u64 {
        let described: u64 = (0..self.groups)
            .map(|group| {
                let range = self.described(group);
                range.end - range.start
            })
            .sum();
        described + (self.journal.end - self.journal.start)
    }
}

/// Whether a group has a copy of the superblock.
pub fn has_copy(group: u32) -> bool {
    let power = |base: u32| {
        let mut rest = group;
        while rest.is_multiple_of(base) {
            rest /= base;
        }
        rest == 1
    };
    group <= 1 || [3, 5, 7].into_iter().any(power)
}

/// Blocks of the journal: what mke2fs takes, up to 128 MiB. A longer one is not faster here and takes longer to replay.
const fn journal_blocks(bytes: u64) -> u64 {
    const MIB: u64 = 1 << 20;
    let size = match bytes / MIB {
        0..128 => 4 * MIB,
        128..1024 => 16 * MIB,
        1024..2048 => 32 * MIB,
        2048..16384 => 64 * MIB,
        _ => 128 * MIB,
    };
    size / BLOCK as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_of_the_superblock() {
        let with: Vec<u32> = (0..400).filter(|group| has_copy(*group)).collect();
        assert_eq!(with, [0, 1, 3, 5, 7, 9, 25, 27, 49, 81, 125, 243, 343]);
    }

    #[test]
    fn nothing_overlaps_at_any_size() {
        let mib = 1u64 << 20;
        let near = |size: u64| [size - 4096, size, size + 4096, size + mib, size + 3 * mib, size + 100 * mib];
        let sizes = [128, 256, 384, 512, 1024, 2048, 2176, 2304, 16384, 1 << 20, 4 << 20, 16 << 20];
        let mut sizes: Vec<u64> = sizes.into_iter().flat_map(|size| near(size * mib)).collect();
        sizes.extend([LEAST, LEAST + 4095, LEAST + 9 * mib, MOST]);
        for bytes in sizes.into_iter().filter(|bytes| *bytes <= MOST) {
            let layout = Layout::new(bytes).unwrap();
            assert!(layout.blocks * 4096 <= bytes && bytes - layout.blocks * 4096 < 8 * mib, "{bytes}");
            assert!(layout.inodes_per_group.is_multiple_of(16), "{bytes}");
            let [_, journal] = [layout.root(), layout.journal.clone()];
            assert!(journal.end <= layout.blocks && journal.end - journal.start >= 1024, "{bytes}");
            for group in 0..layout.groups {
                let [described, folders, journal] = layout.used(group);
                assert!(described.end <= layout.start(group) + layout.size(group), "{bytes} {group}");
                let mut ranges = vec![described, folders, journal];
                ranges.retain(|range| !range.is_empty());
                ranges.sort_by_key(|range| range.start);
                assert!(
                    ranges.windows(2).all(|pair| pair[0].end <= pair[1].start),
                    "{bytes} {group}: {ranges:?}"
                );
                let (leader, _) = layout.flex(group);
                let [blocks, inodes, table] = layout.places(group);
                let described = layout.described(leader);
                assert!(blocks < inodes && inodes < table, "{bytes} {group}");
                assert!(table + u64::from(layout.table_blocks()) <= described.end, "{bytes} {group}");
            }
        }
        for bytes in [0, LEAST - 1, MOST + 1, u64::MAX] {
            assert!(Layout::new(bytes).is_err());
        }
    }
}
