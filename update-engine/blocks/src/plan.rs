//! Where each block of a new image comes from.

use crate::index::{Frame, Index};
use crate::leaves::Leaves;
use crate::{BLOCK, BLOCK_SIZE};

/// Where a block comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// It is in its place already.
    Keep,
    /// It is all zeros.
    Zero,
    /// It is this block of the slot that runs.
    Copy(u64),
    /// It must be fetched.
    Fetch,
}

/// A piece of the file of frames that is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Piece {
    /// Offset in the file.
    pub offset: u64,
    /// Length in bytes.
    pub length: u64,
    /// The first block in it.
    pub block: u64,
    /// Whether it is a frame of zstd; else it is one block as it is.
    pub packed: bool,
}

/// What is to be done for one image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    origins: Vec<u32>,
    /// Requests: pieces that lie near one another.
    pub(crate) requests: Vec<Vec<Piece>>,
    /// Blocks that are in their place.
    pub keep: u64,
    /// Blocks that are copied from the slot that runs.
    pub copy: u64,
    /// Blocks of zeros.
    pub zero: u64,
    /// Blocks that are fetched.
    pub fetch: u64,
    /// Bytes that are fetched, without what the protocol adds.
    pub bytes: u64,
}

const KEEP: u32 = u32::MAX;
const ZERO: u32 = u32::MAX - 1;
const FETCH: u32 = u32::MAX - 2;
/// Pieces that lie less than so many bytes apart are fetched by one request: about what a request costs.
const GAP: u64 = 1024;
/// Most bytes of one request, so that a broken connection costs little.
const MAX_REQUEST: u64 = 4 << 20;

impl Plan {
    /// `running` are the digests of the running slot's blocks and `target` those of the target's, hashed in the way of
    /// `index`; both may have any length.
    pub fn new(index: &Index, wanted: &Leaves, running: &Leaves, target: &Leaves) -> Self {
        let mut known: Vec<(&[u8; 32], u32)> = running.iter().zip(0u32..FETCH).collect();
        known.sort_unstable();
        let zeros = index.hashing.of(&[0; BLOCK]);
        let mut plan =
            Self { origins: Vec::new(), requests: Vec::new(), keep: 0, copy: 0, zero: 0, fetch: 0, bytes: 0 };
        for (block, leaf) in (0u64..).zip(wanted.iter()) {
            let origin = if target.get(block) == Some(leaf) {
                plan.keep += 1;
                KEEP
            } else if *leaf == zeros {
                plan.zero += 1;
                ZERO
            } else if let Some(place) =
                known.binary_search_by(|(known, _)| (*known).cmp(leaf)).ok().and_then(|at| known.get(at))
            {
                plan.copy += 1;
                place.1
            } else {
                plan.fetch += 1;
                plan.piece(index, block);
                FETCH
            };
            plan.origins.push(origin);
        }
        for request in &plan.requests {
            if let (Some(first), Some(last)) = (request.first(), request.last()) {
                plan.bytes += last.offset + last.length - first.offset;
            }
        }
        plan
    }

    fn piece(&mut self, index: &Index, block: u64) {
        let Some((offset, frame, number)) = index.frame_of(block) else { return };
        let first = number * crate::FRAME_BLOCKS;
        let piece = match frame {
            // Not by an index that was made here; the block's digest will not fit and say so.
            Frame::Zero => return,
            Frame::Stored => Piece {
                offset: offset + (block - first) * BLOCK_SIZE,
                length: BLOCK_SIZE,
                block,
                packed: false,
            },
            Frame::Zstd { length } => Piece { offset, length: u64::from(length), block: first, packed: true },
        };
        match self.requests.last_mut() {
            Some(request) if request.last() == Some(&piece) => {}
            Some(request) if fits(request, &piece) => request.push(piece),
            _ => self.requests.push(vec![piece]),
        }
    }

    /// Where a block comes from.
    pub fn origin(&self, block: u64) -> Option<Origin> {
        let origin = *self.origins.get(usize::try_from(block).ok()?)?;
        Some(match origin {
            KEEP => Origin::Keep,
            ZERO => Origin::Zero,
            FETCH => Origin::Fetch,
            from => Origin::Copy(u64::from(from)),
        })
    }

    /// Number of blocks.
    pub fn blocks(&self) -> u64 {
        self.origins.len() as u64
    }

    /// Number of requests.
    pub fn requests(&self) -> u64 {
        self.requests.len() as u64
    }

    /// Number of blocks that will be written.
    pub fn writes(&self) -> u64 {
        self.copy + self.zero + self.fetch
    }
}

fn fits(request: &[Piece], piece: &Piece) -> bool {
    let (Some(first), Some(last)) = (request.first(), request.last()) else { return false };
    let end = last.offset + last.length;
    piece.offset.saturating_sub(end) <= GAP && piece.offset + piece.length - first.offset <= MAX_REQUEST
}
