//! What lies where: which file or structure a byte of the image belongs to.

use super::data::FileReader;
use super::index::{Coding, Place};
use super::{Entry, ReadAt, ReadError, Reader};
use std::collections::BTreeSet;

/// What a range of the image holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The superblock.
    Superblock,
    /// An inode: mode, owner, time, size, place of the content.
    Inode,
    /// The extended attributes behind an inode.
    Xattrs,
    /// The index of a compressed or chunk-based file.
    Index,
    /// Content. For compressed content, the range of the file that its cluster holds; else from this byte on.
    Data {
        /// First byte in the file.
        offset: u64,
        /// Length in the file in bytes.
        length: u64,
        /// Whether the cluster is compressed, so that its bytes have no place of their own in the file.
        compressed: bool,
    },
}

/// Who owns a byte of the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// The file, by its first path; none for the superblock and the packed inode.
    pub path: Option<Vec<u8>>,
    /// Which part of it.
    pub part: Part,
}

/// One range of the image.
#[derive(Debug)]
struct Range {
    start: u64,
    end: u64,
    /// Number of the entry.
    entry: Option<usize>,
    part: Part,
}

/// The ranges of an image, to be asked often. Attributes that inodes share have no owner.
#[derive(Debug)]
pub struct Owners {
    ranges: Vec<Range>,
    paths: Vec<Vec<u8>>,
}

impl Owners {
    /// Who owns the byte at `offset` of the image; none for padding and shared attributes. Where files share data, the
    /// first one is named.
    pub fn locate(&self, offset: u64) -> Option<Owner> {
        let behind = self.ranges.partition_point(|range| range.start <= offset);
        // Shared ranges overlap in no deep way: a few steps back find the owner.
        let range = self.ranges[..behind].iter().rev().take(16).find(|range| offset < range.end)?;
        let path = range.entry.and_then(|entry| self.paths.get(entry).cloned());
        let part = match range.part {
            Part::Data { offset: first, length, compressed: false } => {
                let into = offset - range.start;
                Part::Data { offset: first + into, length: length - into.min(length), compressed: false }
            }
            part => part,
        };
        Some(Owner { path, part })
    }
}

impl<S: ReadAt> Reader<S> {
    /// Who owns which bytes, for all of `entries` ([`entries`](Self::entries)). Takes about 64 bytes of memory for each
    /// extent of compressed data.
    pub fn owners(&self, entries: &[Entry]) -> Result<Owners, ReadError> {
        self.owners_of(entries, 1 << 24)
    }

    pub(super) fn owners_of(&self, entries: &[Entry], limit: usize) -> Result<Owners, ReadError> {
        let mut ranges = vec![Range { start: 1024, end: 1024 + 128, entry: None, part: Part::Superblock }];
        let mut seen = BTreeSet::new();
        let mut extents = 0_usize;
        let packed = (self.packed != 0).then_some((None, self.packed));
        let all = entries.iter().enumerate().map(|(at, entry)| (Some(at), entry.nid)).chain(packed);
        for (entry, nid) in all {
            if !seen.insert(nid) {
                continue;
            }
            let inode = self.inode(nid)?;
            let mut add = |start: u64, end: u64, part: Part| {
                if start < end {
                    ranges.push(Range { start, end, entry, part });
                }
            };
            add(inode.offset, inode.offset + inode.length, Part::Inode);
            add(inode.offset + inode.length, inode.end(), Part::Xattrs);
            if !matches!(inode.mode & 0o170_000, 0o040_000 | 0o100_000 | 0o120_000) {
                continue;
            }
            let mut file = FileReader::new(self, inode)?;
            if let Some((start, end)) = file.index_range() {
                add(start, end, Part::Index);
            }
            let mut at = 0;
            while at < file.size() {
                extents += 1;
                if extents > limit {
                    return Err(ReadError::Limit("extents"));
                }
                let extent = file.extent(at)?;
                let part =
                    |compressed| Part::Data { offset: extent.start, length: extent.length, compressed };
                match extent.place {
                    Place::Image(start, _, Coding::Raw) => {
                        add(start, start.saturating_add(extent.length), part(false));
                    }
                    Place::Image(start, stored, _) => add(start, start.saturating_add(stored), part(true)),
                    Place::Hole | Place::Packed(_) => {}
                }
                at = extent.start + extent.length;
            }
        }
        // The order of files with the same range stays theirs: the first is found last in the search from behind.
        ranges.sort_by(|a, b| a.start.cmp(&b.start).then(b.entry.cmp(&a.entry)));
        Ok(Owners { ranges, paths: entries.iter().map(|entry| entry.path.clone()).collect() })
    }
}
