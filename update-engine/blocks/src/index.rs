//! The index: `docs/reference/update-format.md`.

use crate::leaves::Hashing;
use crate::{BLOCK_SIZE, BlocksError, FRAME_BLOCKS};
use ashlar_image::digest::Digest;
use std::io::Read;

const MAGIC: &[u8; 8] = b"ASHLARB1";
/// Size of the fixed part in bytes.
const HEADER: usize = 128;
/// Most blocks of an image: 16 TiB.
const MAX_BLOCKS: u64 = 1 << 32;
/// Longest index in bytes, unpacked: that of an image of 256 GiB.
pub(crate) const MAX_INDEX: u64 = 64 << 20;
/// Bytes of a run in the index.
const RUN: usize = 10;
/// Level of zstd for the index.
const LEVEL: i32 = 19;

/// How a frame lies in the file of frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frame {
    /// All blocks are zeros; there are no bytes.
    Zero,
    /// The blocks as they are, one after the other.
    Stored,
    /// One frame of zstd.
    Zstd {
        /// Its length in bytes.
        length: u32,
    },
}

/// A run of leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk {
    /// The first eight bytes of the SHA-256 of its leaves.
    pub id: [u8; 8],
    /// How many leaves.
    pub leaves: u16,
}

/// The index of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Index {
    /// How blocks are hashed.
    pub hashing: Hashing,
    /// UUID in the superblock of the verity partition; zeros without one.
    pub uuid: [u8; 16],
    /// Number of blocks.
    pub blocks: u64,
    /// SHA-256 of all leaves.
    pub leaves: Digest,
    /// Frames in order, each with its offset in the file.
    frames: Vec<(u64, Frame)>,
    /// Runs of leaves in order.
    pub chunks: Vec<Chunk>,
    frames_length: u64,
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
}

impl Index {
    pub(crate) fn new(
        hashing: Hashing,
        uuid: [u8; 16],
        blocks: u64,
        leaves: Digest,
        frames: &[Frame],
        chunks: Vec<Chunk>,
    ) -> Option<Self> {
        let mut placed = Vec::new();
        let mut at = 0u64;
        for (number, frame) in frames.iter().enumerate() {
            placed.push((at, *frame));
            let length = match frame {
                Frame::Zero => 0,
                Frame::Stored => blocks_of(blocks, number as u64)?.checked_mul(BLOCK_SIZE)?,
                Frame::Zstd { length } => u64::from(*length),
            };
            at = at.checked_add(length)?;
        }
        Some(Self { hashing, uuid, blocks, leaves, frames: placed, chunks, frames_length: at })
    }

    /// The frame with this block, with its offset in the file and its number.
    pub(crate) fn frame_of(&self, block: u64) -> Option<(u64, Frame, u64)> {
        let number = block / FRAME_BLOCKS;
        let (offset, frame) = self.frames.get(usize::try_from(number).ok()?)?;
        Some((*offset, *frame, number))
    }

    /// Number of blocks in a frame.
    pub(crate) fn blocks_of(&self, frame: u64) -> u64 {
        blocks_of(self.blocks, frame).unwrap_or(0)
    }

    /// Length of the file of frames in bytes.
    pub fn frames_length(&self) -> u64 {
        self.frames_length
    }

    /// Length of the image in bytes.
    pub fn length(&self) -> u64 {
        self.blocks.saturating_mul(BLOCK_SIZE)
    }

    /// Length of the file of leaves in bytes.
    pub fn leaves_length(&self) -> u64 {
        self.blocks.saturating_mul(32)
    }

    /// As it is published.
    pub fn to_bytes(&self) -> Result<Vec<u8>, BlocksError> {
        let mut out = Vec::new();
        out.extend_from_slice(MAGIC);
        let (kind, salt) = match self.hashing {
            Hashing::Plain => (0u32, [0; 32]),
            Hashing::Verity { salt } => (1, salt),
        };
        out.extend_from_slice(&kind.to_le_bytes());
        out.extend_from_slice(&(FRAME_BLOCKS as u32).to_le_bytes());
        out.extend_from_slice(&self.blocks.to_le_bytes());
        out.extend_from_slice(&salt);
        out.extend_from_slice(&self.uuid);
        out.extend_from_slice(&self.leaves.0);
        out.extend_from_slice(&self.frames_length.to_le_bytes());
        out.extend_from_slice(&(self.frames.len() as u64).to_le_bytes());
        out.extend_from_slice(&(self.chunks.len() as u64).to_le_bytes());
        for (_, frame) in &self.frames {
            let word = match frame {
                Frame::Zero => 0u32,
                Frame::Stored => 1,
                Frame::Zstd { length } => {
                    length.checked_mul(2).ok_or(BlocksError::Index("a frame is too long"))?
                }
            };
            out.extend_from_slice(&word.to_le_bytes());
        }
        for chunk in &self.chunks {
            out.extend_from_slice(&chunk.id);
            out.extend_from_slice(&chunk.leaves.to_le_bytes());
        }
        zstd::bulk::compress(&out, LEVEL).map_err(|source| BlocksError::Io { what: "pack the index", source })
    }

    /// Reads an index. It comes from a signed target; what it says is checked all the same.
    pub fn parse(bytes: &[u8]) -> Result<Self, BlocksError> {
        let mut out = Vec::new();
        let decoder = zstd::stream::read::Decoder::with_buffer(bytes);
        decoder
            .and_then(|decoder| decoder.take(MAX_INDEX + 1).read_to_end(&mut out))
            .map_err(|_| BlocksError::Index("it is not packed by zstd"))?;
        if out.len() as u64 > MAX_INDEX {
            return Err(BlocksError::Index("it is too long"));
        }
        Self::parse_unpacked(&out)
    }

    /// Reads an unpacked index.
    pub fn parse_unpacked(bytes: &[u8]) -> Result<Self, BlocksError> {
        let short = || BlocksError::Index("it is cut off");
        if bytes.get(..8) != Some(MAGIC) {
            return Err(BlocksError::Index("it does not begin as one of this version"));
        }
        let array = |from: usize, to: usize| bytes.get(from..to).ok_or_else(short);
        let kind = u32_at(bytes, 8).ok_or_else(short)?;
        if u64::from(u32_at(bytes, 12).ok_or_else(short)?) != FRAME_BLOCKS {
            return Err(BlocksError::Index("its frames have another number of blocks"));
        }
        let blocks = u64_at(bytes, 16).ok_or_else(short)?;
        if blocks == 0 || blocks > MAX_BLOCKS {
            return Err(BlocksError::Index("its number of blocks is out of bounds"));
        }
        let salt: [u8; 32] = array(24, 56)?.try_into().map_err(|_| short())?;
        let hashing = match kind {
            0 => Hashing::Plain,
            1 => Hashing::Verity { salt },
            _ => return Err(BlocksError::Index("its way of hashing is not known")),
        };
        let uuid: [u8; 16] = array(56, 72)?.try_into().map_err(|_| short())?;
        let leaves = Digest(array(72, 104)?.try_into().map_err(|_| short())?);
        let frames_length = u64_at(bytes, 104).ok_or_else(short)?;
        let frame_count = u64_at(bytes, 112).ok_or_else(short)?;
        let chunk_count = u64_at(bytes, 120).ok_or_else(short)?;
        if frame_count != blocks.div_ceil(FRAME_BLOCKS) || chunk_count > blocks {
            return Err(BlocksError::Index("its counts do not fit together"));
        }
        let expected = frame_count.checked_mul(4).and_then(|frames| {
            frames.checked_add(chunk_count.checked_mul(RUN as u64)?)?.checked_add(HEADER as u64)
        });
        if expected != Some(bytes.len() as u64) {
            return Err(BlocksError::Index("its length does not fit its counts"));
        }
        let split = HEADER + usize::try_from(frame_count * 4).map_err(|_| short())?;
        let mut frames = Vec::new();
        for word in array(HEADER, split)?.as_chunks::<4>().0 {
            frames.push(match u32::from_le_bytes(*word) {
                0 => Frame::Zero,
                1 => Frame::Stored,
                word if word & 1 == 0 && u64::from(word / 2) < FRAME_BLOCKS * BLOCK_SIZE => {
                    Frame::Zstd { length: word / 2 }
                }
                _ => return Err(BlocksError::Index("a frame is longer than its blocks")),
            });
        }
        let mut chunks = Vec::new();
        let mut sum = 0u64;
        for run in bytes.get(split..).unwrap_or_default().as_chunks::<RUN>().0 {
            let [id @ .., low, high] = *run;
            let leaves = u16::from_le_bytes([low, high]);
            if leaves == 0 {
                return Err(BlocksError::Index("a run of leaves is empty"));
            }
            sum = sum.saturating_add(u64::from(leaves));
            chunks.push(Chunk { id, leaves });
        }
        if sum != blocks {
            return Err(BlocksError::Index("its runs of leaves are not all of them"));
        }
        let index = Self::new(hashing, uuid, blocks, leaves, &frames, chunks)
            .ok_or(BlocksError::Index("its lengths are out of bounds"))?;
        if index.frames_length != frames_length {
            return Err(BlocksError::Index("its frames do not add up"));
        }
        Ok(index)
    }
}

fn blocks_of(blocks: u64, frame: u64) -> Option<u64> {
    let first = frame.checked_mul(FRAME_BLOCKS)?;
    Some(blocks.checked_sub(first)?.min(FRAME_BLOCKS))
}
