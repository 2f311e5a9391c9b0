//! The dm-verity hash tree (Linux, `Documentation/admin-guide/device-mapper/verity.rst`; cryptsetup's
//! on-disk format, hash type 1): SHA-256, blocks of 4096 bytes, the salt hashed before each block.
//!
//! The file is: superblock in a block of its own, then the levels from the root's one block down to the
//! one above the data. Blocks are hashed in parallel; the tree of a 4 GiB root takes 32 MiB of memory.

use ashlar_image::cmdline::{BLOCK_SIZE, VerityRoot};
use ashlar_image::digest::Digest;
use ashlar_image::verity::{DIGESTS_PER_BLOCK, SUPERBLOCK_SIZE, superblock};
use rayon::prelude::*;
use ring::digest::{Context, SHA256};
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;

/// Data blocks that one task reads at once: 1 MiB.
const CHUNK_BLOCKS: u64 = 256;

/// Why the tree could not be made.
#[derive(Debug, thiserror::Error)]
pub enum VerityError {
    /// The data is empty or no whole number of blocks.
    #[error("verity data must be a whole number of 4096-byte blocks and at least one; it is {0} bytes")]
    Length(u64),
    /// The data cannot be read or the tree cannot be written.
    #[error("cannot {0}: {1}")]
    Io(&'static str, #[source] std::io::Error),
}

/// The digests of consecutive blocks.
fn hash_blocks(salted: &Context, blocks: &[u8]) -> Vec<u8> {
    let mut digests = Vec::with_capacity(blocks.len() / BLOCK_SIZE as usize * 32);
    for block in blocks.chunks(BLOCK_SIZE as usize) {
        let mut context = salted.clone();
        context.update(block);
        digests.extend_from_slice(context.finish().as_ref());
    }
    digests
}

/// Pads digests with zeros to whole hash blocks.
fn pad(mut level: Vec<u8>) -> Vec<u8> {
    level.resize(level.len().next_multiple_of(BLOCK_SIZE as usize), 0);
    level
}

/// Hashes `length` bytes of `data` and writes superblock and tree to `out`, from its current position.
/// `uuid` is in the order that is stored. Returns what the command line must say.
pub fn write(
    data: &File,
    length: u64,
    salt: [u8; 32],
    uuid: [u8; 16],
    out: &mut impl Write,
) -> Result<VerityRoot, VerityError> {
    if length == 0 || !length.is_multiple_of(BLOCK_SIZE) {
        return Err(VerityError::Length(length));
    }
    let data_blocks = length / BLOCK_SIZE;
    let mut salted = Context::new(&SHA256);
    salted.update(&salt);
    let chunks: Vec<Vec<u8>> = (0..data_blocks.div_ceil(CHUNK_BLOCKS))
        .into_par_iter()
        .map_init(Vec::new, |buffer: &mut Vec<u8>, chunk| {
            let start = chunk * CHUNK_BLOCKS;
            let blocks = CHUNK_BLOCKS.min(data_blocks - start);
            buffer.resize((blocks * BLOCK_SIZE) as usize, 0);
            data.read_exact_at(buffer, start * BLOCK_SIZE)?;
            Ok(hash_blocks(&salted, buffer))
        })
        .collect::<Result<_, std::io::Error>>()
        .map_err(|error| VerityError::Io("read the verity data", error))?;

    let mut digests = chunks.concat();
    // From the data upwards; the file wants the root first.
    let mut levels = Vec::new();
    while digests.len() > 32 {
        let level = pad(digests);
        digests = level
            .par_chunks((BLOCK_SIZE * DIGESTS_PER_BLOCK) as usize)
            .map(|blocks| hash_blocks(&salted, blocks))
            .collect::<Vec<_>>()
            .concat();
        levels.push(level);
    }
    let mut root_hash = [0; 32];
    root_hash.copy_from_slice(&digests);
    let root = VerityRoot { root_hash: Digest(root_hash), data_blocks, salt };
    let mut head = superblock(&root, uuid).to_vec();
    debug_assert_eq!(head.len(), SUPERBLOCK_SIZE);
    head.resize(BLOCK_SIZE as usize, 0);
    for part in std::iter::once(&head).chain(levels.iter().rev()) {
        out.write_all(part).map_err(|error| VerityError::Io("write the verity tree", error))?;
    }
    Ok(root)
}
