//! EROFS (Linux, `Documentation/filesystems/erofs.rst` and `fs/erofs/erofs_fs.h`): a deterministic writer, and a
//! reader ([`read`]).
//!
//! The file is: superblock; the inodes of directories, links and large files with the indexes of compressed files; the
//! inodes of small files, each followed by its content; blocks of directories; blocks of files.
//!
//! The order serves updates, which fetch the blocks whose hash is not in the old image. A file's content begins at a
//! block and depends on nothing but itself, so it stays the same blocks in the next release wherever it lies. A file that
//! fits behind its inode is stored there; these inodes say nothing about places, so that their blocks stay, too. For the
//! same reason there are no tails behind the inodes of larger files, no fragments and no deduplication between files:
//! one changed file would change blocks of others.
//!
//! Compression ([`Compression`]): each MiB of a file is compressed by itself into physical clusters of at most
//! [`Options::cluster_size`]. A change inside of a file so changes the blocks of one MiB of it, and a large file keeps
//! all cores busy. A file that does not get smaller by a block is stored as it is, and so is a part of a file.
//!
//! [`Plan::new`] compresses into an unnamed temporary file, so that the exact size is known, and what does not fit is
//! refused, before a byte of the image is written; [`Plan::write`] then puts the pieces together. Memory is bounded by
//! the number of files, not by their sizes.

mod codec;
mod directory;
mod index;
mod inode;
mod plan;
pub mod read;
mod source;
mod spool;
mod write;

pub use plan::Plan;

use std::path::PathBuf;

/// Size of a block in bytes.
pub const BLOCK: u64 = 4096;
/// Largest physical cluster in bytes (`Z_EROFS_PCLUSTER_MAX_SIZE`).
pub const MAX_CLUSTER: u32 = 1 << 20;
/// Offset of the superblock in bytes.
const SUPERBLOCK_OFFSET: usize = 1024;
/// Length of the superblock in bytes.
const SUPERBLOCK_SIZE: usize = 128;
/// Granularity of inode numbers (`nid`) in bytes.
const SLOT: u64 = 32;

/// How the content of files is stored.
///
/// What a kernel needs to read it (`fs/erofs/erofs_fs.h`, `fs/erofs/Kconfig`):
///
/// | | `feature_incompat` | kernel | configuration |
/// | --- | --- | --- | --- |
/// | none | none | 5.4 | `EROFS_FS` |
/// | LZ4, LZ4HC | `ZERO_PADDING`, `COMPR_CFGS` (which is `BIG_PCLUSTER`) | 5.13 | `EROFS_FS_ZIP` |
/// | zstd | the same | 6.10 | `EROFS_FS_ZIP_ZSTD` |
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compression {
    /// As it is.
    #[default]
    None,
    /// LZ4, the fast compressor.
    Lz4,
    /// LZ4, the thorough compressor. Reading costs the same.
    Lz4hc {
        /// 3 to 12; 9 is the tool's own choice, 12 the smallest result.
        level: i32,
    },
    /// Zstandard: smaller than LZ4, and several times slower to read.
    Zstd {
        /// 1 to 22; 3 is the tool's own choice.
        level: i32,
    },
}

impl Compression {
    /// `Z_EROFS_COMPRESSION_*`.
    const fn algorithm(self) -> Option<u8> {
        match self {
            Self::None => None,
            Self::Lz4 | Self::Lz4hc { .. } => Some(0),
            Self::Zstd { .. } => Some(3),
        }
    }
}

/// What the file system is called and how it stores content.
#[derive(Debug, Clone)]
pub struct Options {
    /// UUID in the order of its text.
    pub uuid: [u8; 16],
    /// Volume name, at most 15 bytes.
    pub volume_name: String,
    /// Time of all inodes that have exactly this time, seconds since 1970: they need half the space.
    pub build_time: i64,
    /// How content is stored.
    pub compression: Compression,
    /// Largest physical cluster in bytes, a power of two from 4096 to [`MAX_CLUSTER`]: what is read and decompressed at
    /// once. Large ones compress better, small ones cost less where single pages are read.
    pub cluster_size: u32,
    /// Folder for the temporary file with compressed content, as large as the image in the end; the system's folder for
    /// temporary files if none.
    pub spool_folder: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            uuid: [0; 16],
            volume_name: String::new(),
            build_time: 0,
            compression: Compression::None,
            cluster_size: 65_536,
            spool_folder: None,
        }
    }
}

/// Why a file system could not be written.
#[derive(Debug, thiserror::Error)]
pub enum ErofsError {
    /// A node has something that the format cannot hold.
    #[error("`{path}` cannot be stored in erofs: {why}")]
    Unfit {
        /// The node.
        path: String,
        /// Why.
        why: &'static str,
    },
    /// More than 2^32 blocks, or the volume name is too long.
    #[error("the file system is too large for erofs or its volume name is longer than 15 bytes")]
    TooLarge,
    /// The compression is none.
    #[error("erofs cannot be compressed so: {0}")]
    Options(&'static str),
    /// A file's content cannot be read.
    #[error("cannot read the content of `{path}`: {source}")]
    Read {
        /// The file in the image.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// Compressed content cannot be kept or read back.
    #[error("cannot keep compressed content in a temporary file: {0}; is there space left?")]
    Spool(#[source] std::io::Error),
    /// The image cannot be written.
    #[error("cannot write the erofs image: {0}")]
    Write(#[from] std::io::Error),
}
