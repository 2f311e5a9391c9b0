//! The indexes of compressed files: one per logical cluster, in full (8 bytes each) or compact form (4 and 2 bytes),
//! as the kernel's `fs/erofs/zmap.c` reads them.
//!
//! A logical cluster is a head, where an extent begins at `offset` in it, or not. An extent ends where the next
//! begins. The distances that the indexes hold for the kernel's sake are not needed here: a search goes to the
//! neighbours, which a damaged distance cannot lead astray.

use super::inode::{Inode, Layout};
use super::{ReadAt, ReadError, Reader, number, u16_at, u32_at};

/// Largest decoded and encoded extent (`Z_EROFS_PCLUSTER_MAX_DSIZE`, `Z_EROFS_PCLUSTER_MAX_SIZE`).
const MAX_DECODED: u64 = 12 << 20;
const MAX_ENCODED: u64 = 1 << 20;

const ADVISE_COMPACT_2B: u16 = 1;
const ADVISE_BIG_1: u16 = 2;
const ADVISE_BIG_2: u16 = 4;
const ADVISE_INLINE_TAIL: u16 = 8;
const ADVISE_INTERLACED: u16 = 0x10;
const ADVISE_FRAGMENT: u16 = 0x20;
/// In the distance of the first cluster that is no head: it is the number of the extent's blocks.
const BLOCK_COUNT: u16 = 1 << 11;

/// How the bytes of an extent are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coding {
    /// As they are.
    Raw,
    /// As they are, rotated by the extent's place in its block.
    Interlaced,
    /// `h_algorithmtype`; `partial`: more is stored than belongs to the extent.
    Compressed { algorithm: u8, partial: bool },
}

/// A part of a compressed file that is stored as one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Extent {
    /// First byte in the file.
    pub start: u64,
    /// Length in the file in bytes.
    pub length: u64,
    pub place: Place,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Place {
    /// Zeros that are nowhere.
    Hole,
    /// In the image: first byte, stored length, coding.
    Image(u64, u64, Coding),
    /// In the packed inode, from this byte of it on.
    Packed(u64),
}

/// One logical cluster.
#[derive(Debug, Clone, Copy)]
enum Cluster {
    /// 0 raw, 1 or 3 compressed by the first or second algorithm.
    Head { kind: u8, offset: u64, block: u32, partial: bool },
    /// With the number of the extent's blocks if this is where it stands.
    Inner { blocks: Option<u16> },
}

/// Where the last extent of a file really lies.
#[derive(Debug, Clone, Copy)]
enum Tail {
    None,
    Inline { head: u64, offset: u64, length: u64 },
    Packed { head: u64, offset: u64 },
}

/// The index of one file.
#[derive(Debug)]
pub(super) struct Index {
    /// Where the header begins and the last index ends, in bytes of the image.
    pub range: (u64, u64),
    full: bool,
    base: u64,
    advise: u16,
    algorithms: u8,
    cluster_bits: u32,
    block_bits: u32,
    count: u64,
    /// Numbers of the clusters with indexes of 4 bytes at the beginning, then of 2 bytes.
    initial: u64,
    short: u64,
    size: u64,
    nid: u64,
    tail: Tail,
    /// The whole file lies in the packed inode, from this byte on.
    pub packed: Option<u64>,
    /// Indexes that were read last.
    window: (u64, Vec<u8>),
}

impl Index {
    pub fn read<S: ReadAt>(reader: &Reader<S>, inode: &Inode) -> Result<Self, ReadError> {
        let at = inode.end().next_multiple_of(8);
        let header = reader.bytes(at, 8)?;
        let full = inode.layout == Layout::CompressedFull;
        let advise = u16_at(&header, 4);
        let cluster_bits = reader.block_bits + u32::from(header[7] & 7);
        let count = inode.size.div_ceil(1 << cluster_bits);
        // Full indexes keep eight bytes free behind the header.
        let base = at + if full { 16 } else { 8 };
        let initial = if full { 0 } else { ((32 - base % 32) / 4 % 8).min(count) };
        let short = if !full && advise & ADVISE_COMPACT_2B != 0 { (count - initial) / 16 * 16 } else { 0 };
        let rest = count - initial - short;
        let length = if full { count * 8 } else { (initial + rest).next_multiple_of(2) * 4 + short * 2 };
        let mut index = Self {
            range: (at, base + length),
            full,
            base,
            advise,
            algorithms: header[6],
            cluster_bits,
            block_bits: reader.block_bits,
            count,
            initial,
            short,
            size: inode.size,
            nid: inode.nid,
            tail: Tail::None,
            packed: None,
            window: (0, Vec::new()),
        };
        if header[7] & 0x80 != 0 {
            index.packed = Some(number::<8>(&header, 0) ^ 1 << 63);
            index.range.1 = at + 8;
            return Ok(index);
        }
        if index.range.1 > reader.size {
            return index.damaged("its index is longer than the image");
        }
        if !full && advise & ADVISE_COMPACT_2B != 0 && cluster_bits != 12 || !full && cluster_bits > 14 {
            return Err(ReadError::Unsupported("compact indexes of clusters of this size".into()));
        }
        if advise & (ADVISE_INLINE_TAIL | ADVISE_FRAGMENT) != 0 && inode.size != 0 {
            let (head, block) = index.head_of(reader, inode.size - 1)?;
            if advise & ADVISE_INLINE_TAIL != 0 {
                let length = u64::from(u16_at(&header, 2));
                let offset = index.range.1;
                index.tail = Tail::Inline { head, offset, length };
                index.range.1 += length;
            } else {
                let high = if full { u64::from(block) << 32 } else { 0 };
                index.tail = Tail::Packed { head, offset: u64::from(u32_at(&header, 0)) | high };
            }
        }
        Ok(index)
    }

    fn damaged<T>(&self, what: &'static str) -> Result<T, ReadError> {
        Err(ReadError::Damaged { nid: self.nid, what })
    }

    /// Reads a pack of indexes through a window.
    fn pack<S: ReadAt>(&mut self, reader: &Reader<S>, at: u64, length: usize) -> Result<&[u8], ReadError> {
        let inside = |window: &(u64, Vec<u8>)| {
            let from = usize::try_from(at.checked_sub(window.0)?).ok()?;
            (from + length <= window.1.len()).then_some(from)
        };
        if inside(&self.window).is_none() {
            let end = self.range.1.min(at.saturating_add(4096)).max(at + length as u64);
            self.window = (at, reader.bytes(at, (end - at) as usize)?);
        }
        let from = inside(&self.window).unwrap_or_default();
        Ok(&self.window.1[from..from + length])
    }

    fn cluster<S: ReadAt>(&mut self, reader: &Reader<S>, number: u64) -> Result<Cluster, ReadError> {
        let cluster_size = 1_u64 << self.cluster_bits;
        let cluster = if self.full {
            let base = self.base;
            let entry = self.pack(reader, base + number * 8, 8)?;
            let (advise, offset) = (u16_at(entry, 0), u64::from(u16_at(entry, 2)));
            match (advise & 3) as u8 {
                2 => {
                    let distance = u16_at(entry, 4);
                    let blocks = (distance & BLOCK_COUNT != 0).then_some(distance & !BLOCK_COUNT);
                    Cluster::Inner { blocks }
                }
                kind => {
                    Cluster::Head { kind, offset, block: u32_at(entry, 4), partial: advise & 0x8000 != 0 }
                }
            }
        } else {
            self.compact(reader, number)?
        };
        match cluster {
            Cluster::Head { offset, .. } if offset >= cluster_size => {
                self.damaged("an extent begins behind its cluster")
            }
            _ => Ok(cluster),
        }
    }

    fn compact<S: ReadAt>(&mut self, reader: &Reader<S>, number: u64) -> Result<Cluster, ReadError> {
        let (initial, short) = (self.initial, self.short);
        // First cluster, place and number of clusters of the pack, bits of an index in it.
        let (first, at, per_pack, bits) = if number < initial {
            (number / 2 * 2, self.base + number / 2 * 8, 2, 16)
        } else if number < initial + short {
            let pack = (number - initial) / 16;
            (initial + pack * 16, self.base + initial * 4 + pack * 32, 16, 14)
        } else {
            let pack = (number - initial - short) / 2;
            let at = self.base + initial * 4 + short * 2 + pack * 8;
            (initial + short + pack * 2, at, 2, 16)
        };
        let length = if per_pack == 16 { 32 } else { 8 };
        let low_bits = self.cluster_bits.max(12);
        let big = self.advise & (ADVISE_BIG_1 | ADVISE_BIG_2) != 0;
        let pack = self.pack(reader, at, length)?;
        let mut address = u32_at(pack, length - 4);
        // Without big clusters every head is one block; with them, one unless a count follows.
        let mut uncounted = !big;
        for position in 0..per_pack {
            let bit = position * bits;
            let word = number_at(pack, bit);
            let kind = (word >> low_bits & 3) as u8;
            let low = word & ((1 << low_bits) - 1);
            let here = first + position as u64 == number;
            if kind == 2 {
                let counted = low & u32::from(BLOCK_COUNT) != 0;
                let blocks = counted.then_some((low & !u32::from(BLOCK_COUNT)) as u16);
                if let Some(blocks) = blocks
                    && big
                {
                    address = address.wrapping_add(u32::from(blocks));
                    uncounted = false;
                }
                if here {
                    return Ok(Cluster::Inner { blocks });
                }
            } else {
                address = address.wrapping_add(u32::from(uncounted));
                uncounted = true;
                if here {
                    return Ok(Cluster::Head {
                        kind,
                        offset: u64::from(low),
                        block: address,
                        partial: false,
                    });
                }
            }
        }
        self.damaged("its index is too short")
    }

    /// The head of the extent that holds the byte `at`: number of its cluster and its block.
    fn head_of<S: ReadAt>(&mut self, reader: &Reader<S>, at: u64) -> Result<(u64, u32), ReadError> {
        let mut number = at >> self.cluster_bits;
        let lowest = number.saturating_sub((MAX_DECODED >> self.cluster_bits) + 1);
        loop {
            if let Cluster::Head { offset, block, .. } = self.cluster(reader, number)?
                && (number << self.cluster_bits) + offset <= at
            {
                return Ok((number, block));
            }
            if number == lowest {
                return self.damaged("an extent has no beginning");
            }
            number -= 1;
        }
    }

    /// The extent that holds the byte `at`, which is in the file.
    pub fn extent<S: ReadAt>(&mut self, reader: &Reader<S>, at: u64) -> Result<Extent, ReadError> {
        let (head, _) = self.head_of(reader, at)?;
        let Cluster::Head { kind, offset, block, partial } = self.cluster(reader, head)? else {
            return self.damaged("an extent has no beginning");
        };
        let start = (head << self.cluster_bits) + offset;
        let mut blocks = None;
        let mut next = head + 1;
        let end = loop {
            if next >= self.count {
                break self.size;
            }
            match self.cluster(reader, next)? {
                Cluster::Head { offset, .. } => break ((next << self.cluster_bits) + offset).min(self.size),
                Cluster::Inner { blocks: stored } if next == head + 1 => blocks = stored,
                Cluster::Inner { .. } => {}
            }
            next += 1;
            if (next - head) << self.cluster_bits > MAX_DECODED + (1 << self.cluster_bits) {
                return self.damaged("an extent is longer than 12 MiB");
            }
        };
        let length = end.checked_sub(start).filter(|&length| length != 0 && at < end);
        let Some(length) = length else { return self.damaged("an extent has no bytes") };
        if length > MAX_DECODED {
            return self.damaged("an extent is longer than 12 MiB");
        }
        let coding = match kind {
            0 if self.advise & ADVISE_INTERLACED != 0 => Coding::Interlaced,
            0 => Coding::Raw,
            1 => Coding::Compressed { algorithm: self.algorithms & 15, partial },
            _ => Coding::Compressed { algorithm: self.algorithms >> 4, partial },
        };
        let place = match self.tail {
            Tail::Inline { head: tail, offset, length } if tail == head => {
                Place::Image(offset, length, coding)
            }
            Tail::Packed { head: tail, offset } if tail == head => Place::Packed(offset),
            _ => {
                let big = self.advise & if kind == 3 { ADVISE_BIG_2 } else { ADVISE_BIG_1 } != 0;
                let stored = match blocks {
                    Some(blocks) if big => u64::from(blocks) << self.block_bits,
                    _ => 1 << self.cluster_bits,
                };
                if stored == 0 || stored > MAX_ENCODED {
                    return self.damaged("an extent is stored in no block or in more than 1 MiB");
                }
                Place::Image(u64::from(block) << self.block_bits, stored, coding)
            }
        };
        Ok(Extent { start, length, place })
    }
}

/// The 32 bits from bit `bit` of `bytes` on, as far as they go.
fn number_at(bytes: &[u8], bit: usize) -> u32 {
    let mut word = [0; 8];
    for (to, from) in word.iter_mut().zip(bytes.iter().skip(bit / 8)) {
        *to = *from;
    }
    (u64::from_le_bytes(word) >> (bit % 8)) as u32
}
