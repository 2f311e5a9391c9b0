//! An image becomes what machines fetch.

use crate::frame::Packer;
use crate::index::{Chunk, Index};
use crate::leaves::{Hashing, Leaves, run_id, runs};
use crate::{BLOCK, BLOCK_SIZE, BlocksError, FRAME_BLOCKS};
use std::io::{self, Read, Write};

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// The index.
    pub index: Index,
    /// The leaves.
    pub leaves: Leaves,
}

/// Reads an image of `length` bytes and writes its frames. Index and leaves come back; the same image gives the same
/// bytes. `progress` is told how many bytes of the image are done.
pub fn publish(
    image: &mut dyn Read,
    length: u64,
    hashing: Hashing,
    uuid: [u8; 16],
    frames: &mut dyn Write,
    mut progress: impl FnMut(u64),
) -> Result<Published, BlocksError> {
    let io = |what| move |source: io::Error| BlocksError::Io { what, source };
    if length == 0 || !length.is_multiple_of(BLOCK_SIZE) {
        return Err(BlocksError::Length(length));
    }
    let mut packer = Packer::new().map_err(io("start zstd"))?;
    let (mut list, mut leaves) = (Vec::new(), Vec::new());
    let mut buffer = vec![0; FRAME_BLOCKS as usize * BLOCK];
    let mut left = length;
    while left > 0 {
        let take = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let blocks = buffer.get_mut(..take).unwrap_or_default();
        image.read_exact(blocks).map_err(io("read the image"))?;
        leaves.extend(blocks.chunks(BLOCK).flat_map(|block| hashing.of(block)));
        let (frame, bytes) = packer.pack(blocks).map_err(io("pack a frame"))?;
        frames.write_all(&bytes).map_err(io("write the frames"))?;
        list.push(frame);
        left -= take as u64;
        progress(length - left);
    }
    frames.flush().map_err(io("write the frames"))?;
    let leaves = Leaves::from_bytes(&leaves).unwrap_or_default();
    let chunks = runs(leaves.as_slice())
        .map(|run| Chunk { id: run_id(run), leaves: u16::try_from(run.len()).unwrap_or(u16::MAX) })
        .collect();
    let index = Index::new(hashing, uuid, length / BLOCK_SIZE, leaves.digest(), &list, chunks)
        .ok_or(BlocksError::Length(length))?;
    Ok(Published { index, leaves })
}
