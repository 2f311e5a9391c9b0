//! Packing and unpacking one frame.

use crate::index::Frame;
use crate::{BLOCK, FRAME_BLOCKS};

/// Level of zstd: a frame is small, so that a high one costs little.
const LEVEL: i32 = 15;
/// Longest frame in bytes, unpacked.
const MAX: usize = FRAME_BLOCKS as usize * BLOCK;

/// A packer, which keeps its memory from frame to frame.
pub(crate) struct Packer(zstd::bulk::Compressor<'static>);

impl Packer {
    pub(crate) fn new() -> std::io::Result<Self> {
        Ok(Self(zstd::bulk::Compressor::new(LEVEL)?))
    }

    /// How the blocks are stored, and their bytes then. Packing must save an eighth: blocks that lie as they are can be
    /// fetched one by one.
    pub(crate) fn pack(&mut self, blocks: &[u8]) -> std::io::Result<(Frame, Vec<u8>)> {
        if blocks.iter().all(|byte| *byte == 0) {
            return Ok((Frame::Zero, Vec::new()));
        }
        let packed = self.0.compress(blocks)?;
        if packed.len() > blocks.len() - blocks.len() / 8 {
            return Ok((Frame::Stored, blocks.to_vec()));
        }
        let length = u32::try_from(packed.len()).map_err(std::io::Error::other)?;
        Ok((Frame::Zstd { length }, packed))
    }
}

/// Unpacks a frame that must come to `blocks` blocks. None if it does not.
pub fn decode_frame(packed: &[u8], blocks: u64) -> Option<Vec<u8>> {
    let length = usize::try_from(blocks).ok()?.checked_mul(BLOCK).filter(|length| *length <= MAX)?;
    let unpacked = zstd::bulk::decompress(packed, length).ok()?;
    (unpacked.len() == length).then_some(unpacked)
}
