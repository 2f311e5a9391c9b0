//! Writing what was planned, from the first byte to the last.

use super::plan::{Body, Plan, Planned};
use super::source::Source;
use super::{
    BLOCK, Compression, ErofsError, SUPERBLOCK_OFFSET, SUPERBLOCK_SIZE, directory, index, inode::Inode,
};
use ashlar_tree::Kind;
use std::io::{BufWriter, Write};

/// `EROFS_SUPER_MAGIC_V1`.
const MAGIC: u32 = 0xe0f5_e1e2;
/// `EROFS_FEATURE_COMPAT_SB_CHKSUM`.
const SUPERBLOCK_CHECKSUM: u32 = 1;
/// `EROFS_FEATURE_COMPAT_MTIME`: times are modification times.
const MTIME: u32 = 2;
/// `EROFS_FEATURE_INCOMPAT_ZERO_PADDING`: compressed data ends at the end of its cluster.
const ZERO_PADDING: u32 = 1;
/// `EROFS_FEATURE_INCOMPAT_COMPR_CFGS`, which is also `BIG_PCLUSTER`.
const COMPRESSION_CONFIG: u32 = 2;
/// Bytes that are copied at once.
const COPY: u64 = 1 << 20;

/// The configuration of the compressor behind the superblock: its length, then `struct z_erofs_lz4_cfgs` or
/// `struct z_erofs_zstd_cfgs`.
pub(super) fn compression_config(compression: Compression, cluster_size: u32) -> Vec<u8> {
    let mut config = match compression {
        Compression::None => return Vec::new(),
        Compression::Lz4 | Compression::Lz4hc { .. } => vec![0; 2 + 14],
        Compression::Zstd { .. } => vec![0; 2 + 6],
    };
    let length = (config.len() - 2) as u16;
    config[..2].copy_from_slice(&length.to_le_bytes());
    if let Compression::Zstd { .. } = compression {
        // Windows of 2^(10 + 10) bytes: no extent is longer.
        config[3] = 10;
    } else {
        // The farthest match, and the largest cluster in blocks.
        config[2..4].copy_from_slice(&u16::MAX.to_le_bytes());
        config[4..6].copy_from_slice(&((u64::from(cluster_size) / BLOCK) as u16).to_le_bytes());
    }
    config
}

impl<'a> Plan<'a> {
    /// Writes the file system to `out`, exactly [`Plan::size`] bytes, from first to last. With
    /// [`crate::verity::Hashing`] around `out`, its hashes are known in the end without reading it again.
    pub fn write(&'a self, out: impl Write) -> Result<(), ErofsError> {
        let mut source = Source::default();
        let mut out = BufWriter::with_capacity(COPY as usize, out);
        self.metadata(&mut source, &mut out)?;
        for planned in self.data_order() {
            self.data(planned, &mut source, &mut out)?;
        }
        out.flush()?;
        Ok(())
    }

    fn directory(&self, planned: &Planned<'_>) -> Vec<u8> {
        directory::content(&planned.names, |node| self.inodes[node].nid())
    }

    /// Whole blocks of one inode.
    fn data(
        &self,
        planned: &Planned<'a>,
        source: &mut Source<'a>,
        out: &mut impl Write,
    ) -> Result<(), ErofsError> {
        let (blocks, _) = planned.split();
        if let Body::Compressed(stored) = &planned.body {
            return copy(blocks * BLOCK, out, |start, length| {
                let mut bytes = vec![0; length as usize];
                self.spool.as_ref().map_or(Ok(()), |spool| spool.read(&mut bytes, stored.offset + start))?;
                Ok(bytes)
            });
        }
        let stored = planned.size.min(blocks * BLOCK);
        match &planned.node.kind {
            Kind::File(content) => copy(stored, out, |start, length| {
                source.read(content, start, length).map_err(|error| planned.unreadable(error))
            })?,
            Kind::Symlink(target) => out.write_all(&target[..stored as usize])?,
            Kind::Directory(_) => out.write_all(&self.directory(planned)[..stored as usize])?,
            _ => {}
        }
        let padding = blocks * BLOCK - stored;
        out.write_all(&[0; BLOCK as usize][..padding as usize])?;
        Ok(())
    }

    /// Superblock, inodes, attributes, indexes and inline content.
    fn metadata(&'a self, source: &mut Source<'a>, out: &mut impl Write) -> Result<(), ErofsError> {
        let mut bytes = vec![0; SUPERBLOCK_OFFSET + SUPERBLOCK_SIZE];
        bytes.extend(compression_config(self.options.compression, self.options.cluster_size));
        // What of `bytes` has been written and taken away.
        let mut written = 0;
        for &number in &self.inode_order {
            let planned = &self.inodes[number];
            let inode = Inode {
                metadata: &planned.node.metadata,
                kind: &planned.node.kind,
                size: planned.size,
                links: planned.links,
                number: crc32c::crc32c(&planned.path),
                layout: planned.layout(),
                data: match &planned.body {
                    Body::Compressed(stored) => stored.blocks as u32,
                    _ => planned.first_block,
                },
                xattr_size: planned.xattrs.len(),
            };
            bytes.resize((planned.offset - written) as usize, 0);
            bytes.extend(inode.bytes(self.options.build_time));
            bytes.extend_from_slice(&planned.xattrs);
            let (blocks, tail) = planned.split();
            let inline = (blocks * BLOCK) as usize;
            match (&planned.body, &planned.node.kind) {
                (Body::Compressed(stored), _) => {
                    let at = (written + bytes.len() as u64).next_multiple_of(8);
                    bytes.resize((at - written) as usize, 0);
                    let algorithm = self.options.compression.algorithm().unwrap_or_default();
                    bytes.extend(index::bytes(at, &stored.extents, planned.first_block, algorithm));
                }
                (Body::Tail, Kind::File(content)) => {
                    let read = source.read(content, blocks * BLOCK, tail);
                    bytes.extend(read.map_err(|error| planned.unreadable(error))?);
                }
                (Body::Tail, Kind::Symlink(target)) => bytes.extend_from_slice(&target[inline..]),
                (Body::Tail, Kind::Directory(_)) => {
                    bytes.extend_from_slice(&self.directory(planned)[inline..]);
                }
                (Body::Flat | Body::Tail, _) => {}
            }
            let whole = bytes.len() / BLOCK as usize * BLOCK as usize;
            if whole as u64 >= COPY {
                self.flush(&mut bytes, &mut written, whole, out)?;
            }
        }
        bytes.resize((self.metadata_blocks * BLOCK - written) as usize, 0);
        let whole = bytes.len();
        self.flush(&mut bytes, &mut written, whole, out)
    }

    /// Writes the first `length` bytes and takes them away.
    fn flush(
        &self,
        bytes: &mut Vec<u8>,
        written: &mut u64,
        length: usize,
        out: &mut impl Write,
    ) -> Result<(), ErofsError> {
        if *written == 0 {
            self.superblock(bytes);
        }
        out.write_all(&bytes[..length])?;
        bytes.drain(..length);
        *written += length as u64;
        Ok(())
    }

    /// Fills in `struct erofs_super_block`; its checksum covers the rest of the first block too.
    fn superblock(&self, bytes: &mut [u8]) {
        let mut put = |at: usize, value: &[u8]| {
            bytes[SUPERBLOCK_OFFSET + at..SUPERBLOCK_OFFSET + at + value.len()].copy_from_slice(value);
        };
        put(0, &MAGIC.to_le_bytes());
        put(8, &(SUPERBLOCK_CHECKSUM | MTIME).to_le_bytes());
        put(12, &[BLOCK.trailing_zeros() as u8]);
        // The root comes first, so its number is small.
        put(14, &(self.inodes.first().map_or(0, Planned::nid) as u16).to_le_bytes());
        put(16, &(self.inodes.len() as u64).to_le_bytes());
        put(24, &self.options.build_time.to_le_bytes());
        put(36, &self.blocks.to_le_bytes());
        put(48, &self.options.uuid);
        put(64, self.options.volume_name.as_bytes());
        if let Some(algorithm) = self.options.compression.algorithm() {
            put(80, &(ZERO_PADDING | COMPRESSION_CONFIG).to_le_bytes());
            put(84, &(1_u16 << algorithm).to_le_bytes());
        }
        // The kernel's crc32c: all ones to begin with, not inverted at the end.
        let checksum = !crc32c::crc32c(&bytes[SUPERBLOCK_OFFSET..BLOCK as usize]);
        bytes[SUPERBLOCK_OFFSET + 4..SUPERBLOCK_OFFSET + 8].copy_from_slice(&checksum.to_le_bytes());
    }
}

/// Copies `length` bytes in pieces.
fn copy(
    length: u64,
    out: &mut impl Write,
    mut read: impl FnMut(u64, u64) -> Result<Vec<u8>, ErofsError>,
) -> Result<(), ErofsError> {
    for start in (0..length).step_by(COPY as usize) {
        out.write_all(&read(start, COPY.min(length - start))?)?;
    }
    Ok(())
}
