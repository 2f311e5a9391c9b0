//! A deterministic writer of EROFS (Linux, `Documentation/filesystems/erofs.rst` and
//! `fs/erofs/erofs_fs.h`), uncompressed.
//!
//! The file is: superblock, all inodes with their extended attributes and the tails of their files in the
//! order of the tree, then whole data blocks. [`Plan`] decides where everything lies before a byte is
//! written, so that what does not fit is refused early.

mod directory;
mod inode;
mod plan;
pub mod read;
mod write;

pub use plan::Plan;

/// Size of a block in bytes.
pub const BLOCK: u64 = 4096;
/// Offset of the superblock in bytes.
const SUPERBLOCK_OFFSET: usize = 1024;
/// Length of the superblock in bytes.
const SUPERBLOCK_SIZE: usize = 128;
/// Granularity of inode numbers (`nid`) in bytes.
const SLOT: u64 = 32;

/// What the file system is called and how large it may be.
#[derive(Debug, Clone)]
pub struct Options {
    /// UUID in the order of its text.
    pub uuid: [u8; 16],
    /// Volume name, at most 15 bytes.
    pub volume_name: String,
    /// Time of all inodes that have exactly this time, seconds since 1970: they need half the space.
    pub build_time: i64,
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
    /// A file's content cannot be read.
    #[error("cannot read the content of `{path}`: {source}")]
    Read {
        /// The file in the image.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The image cannot be written.
    #[error("cannot write the erofs image: {0}")]
    Write(#[from] std::io::Error),
}
