//! Why a disk image cannot be written.

/// Why a conversion or copy failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The source cannot be read.
    #[error("cannot read the raw disk image: {0}")]
    Read(#[source] std::io::Error),
    /// The target cannot be written.
    #[error("cannot write the disk image: {0}")]
    Write(#[source] std::io::Error),
    /// Disks are whole sectors.
    #[error(
        "the raw disk image has {size} bytes, which is no whole number of 512-byte sectors; is it a disk image?"
    )]
    NotSectors {
        /// Its size in bytes.
        size: u64,
    },
    /// The format has no room for such a disk.
    #[error("the disk has {size} bytes, and {format} images hold at most {limit}; choose another format")]
    TooLarge {
        /// The format.
        format: &'static str,
        /// Size of the disk in bytes.
        size: u64,
        /// What the format can hold, in bytes.
        limit: u64,
    },
    /// A compressor refused its input.
    #[error("cannot compress the disk at byte {at}: {why}")]
    Compress {
        /// Where on the disk.
        at: u64,
        /// What the compressor said.
        why: String,
    },
}
