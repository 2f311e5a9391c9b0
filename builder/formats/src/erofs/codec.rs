//! Compressing a piece of a file into physical clusters.
//!
//! A cluster is filled rather than an input of fixed length compressed: what is stored are whole blocks, and a cluster
//! that ends in the middle of a block wastes the rest. liblz4 does so by itself (`LZ4_compress_destSize`); for zstd, the
//! length of the input is searched.

use super::{BLOCK, Compression};
use std::io;

/// Bytes of a file that are compressed without regard to what is before and behind.
pub const WINDOW: u64 = 1 << 20;

/// A part of a file that is stored as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Length in the file in bytes.
    pub length: u32,
    /// Blocks that it takes.
    pub blocks: u16,
    /// Whether it is stored as it is; it has at most a block then.
    pub raw: bool,
}

/// A compressor with its state and its buffer.
pub struct Codec {
    kind: Kind,
    cluster: usize,
    buffer: Vec<u8>,
}

enum Kind {
    Lz4,
    Lz4hc(i32),
    Zstd(Box<zstd::bulk::Compressor<'static>>),
}

impl Codec {
    /// None for [`Compression::None`].
    pub fn new(compression: Compression, cluster: u32) -> io::Result<Option<Self>> {
        let kind = match compression {
            Compression::None => return Ok(None),
            Compression::Lz4 => Kind::Lz4,
            Compression::Lz4hc { level } => Kind::Lz4hc(level),
            Compression::Zstd { level } => Kind::Zstd(Box::new(zstd::bulk::Compressor::new(level)?)),
        };
        Ok(Some(Self { kind, cluster: cluster as usize, buffer: Vec::new() }))
    }

    /// Compresses one window. `extents` and `blocks` get what is stored, whole blocks.
    ///
    /// The index has room for one beginning of an extent in each logical cluster of a block, so that no extent but the
    /// last may be shorter than a block.
    pub fn window(
        &mut self,
        input: &[u8],
        extents: &mut Vec<Extent>,
        blocks: &mut Vec<u8>,
    ) -> io::Result<()> {
        let block = BLOCK as usize;
        // How much shorter this window's data becomes, in thousandths; the first is a guess.
        let mut ratio = 400;
        let mut rest = input;
        while !rest.is_empty() {
            let (length, stored) = self.fill(rest, &mut ratio)?;
            let count = stored.div_ceil(block);
            if length > count * block {
                extents.push(Extent { length: length as u32, blocks: count as u16, raw: false });
                // Compressed data ends where its cluster ends (`ZERO_PADDING`).
                blocks.resize(blocks.len() + count * block - stored, 0);
                blocks.extend_from_slice(&self.buffer[..stored]);
                rest = &rest[length..];
                continue;
            }
            // What did not shrink is stored as it is, in whole blocks, up to where the compressor came.
            let tried = if length == rest.len() { length } else { (length / block * block).max(block) };
            let (raw, behind) = rest.split_at(tried.min(rest.len()));
            for piece in raw.chunks(block) {
                extents.push(Extent { length: piece.len() as u32, blocks: 1, raw: true });
                blocks.extend_from_slice(piece);
                blocks.resize(blocks.len() + block - piece.len(), 0);
            }
            rest = behind;
        }
        Ok(())
    }

    /// Fills one cluster from the beginning of `input`. Gives the bytes of input and how many bytes of the buffer they
    /// have become.
    fn fill(&mut self, input: &[u8], ratio: &mut usize) -> io::Result<(usize, usize)> {
        let cluster = self.cluster;
        match &mut self.kind {
            Kind::Lz4 => {
                self.buffer.resize(cluster, 0);
                Ok(lzzzz::lz4::compress_fill(input, &mut self.buffer)?)
            }
            Kind::Lz4hc(level) => {
                self.buffer.resize(cluster, 0);
                Ok(lzzzz::lz4_hc::compress_fill(input, &mut self.buffer, *level)?)
            }
            Kind::Zstd(zstd) => fill_zstd(zstd, cluster, &mut self.buffer, input, ratio),
        }
    }
}

/// Searches the longest beginning of `input` that becomes at most `cluster` bytes, roughly: up to a 32nd of the cluster
/// may stay empty, of which only what is not a whole block is lost.
fn fill_zstd(
    zstd: &mut zstd::bulk::Compressor<'static>,
    cluster: usize,
    buffer: &mut Vec<u8>,
    input: &[u8],
    ratio: &mut usize,
) -> io::Result<(usize, usize)> {
    let mut attempt = Vec::new();
    let mut best = None;
    // Lengths known to fit, and known not to.
    let (mut fits, mut bursts) = (0, input.len() + 1);
    let mut length = (cluster * 1000 / (*ratio).max(1)).clamp(1, input.len());
    for round in 0..6 {
        attempt.resize(zstd::zstd_safe::compress_bound(length), 0);
        let stored = zstd.compress_to_buffer(&input[..length], &mut attempt)?;
        *ratio = (stored * 1000 / length).max(1);
        if stored <= cluster {
            fits = length;
            std::mem::swap(buffer, &mut attempt);
            best = Some((length, stored));
            if length == input.len() || cluster - stored <= cluster / 32 {
                break;
            }
        } else {
            bursts = length;
        }
        if bursts - fits <= 64 {
            break;
        }
        // Aim a little below the full cluster; halve what is left when the aim leads out of it.
        let aim = length * (cluster - cluster / 64) / stored.max(1);
        length = if round < 4 && aim > fits && aim < bursts { aim } else { usize::midpoint(fits, bursts) };
    }
    match best {
        Some(best) => Ok(best),
        // Nothing fits: what was tried last does not shrink.
        None => Ok((length.min(input.len()), cluster.max(length))),
    }
}
