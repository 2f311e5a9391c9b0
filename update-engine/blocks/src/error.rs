//! Errors.

use ashlar_fetch::FetchError;
use ashlar_image::digest::Digest;

/// Why blocks cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum BlocksError {
    /// The index is not one.
    #[error("the index is malformed: {0}")]
    Index(&'static str),
    /// The leaves are not those of the index.
    #[error("`{path}` is not what was signed: the SHA-256 of the leaves is {found}, not {wanted}")]
    Leaves {
        /// Where they lie.
        path: String,
        /// What they hash to.
        found: Digest,
        /// What the index says.
        wanted: Digest,
    },
    /// The tree over the leaves has another root.
    #[error("the blocks' tree has the root hash {found}, and the release says {wanted}")]
    RootHash {
        /// What the leaves come to.
        found: Digest,
        /// What the release says.
        wanted: Digest,
    },
    /// A block that was fetched is another one.
    #[error(
        "block {block} of `{path}` from {from} is not what was signed: the server's bytes are damaged or were changed"
    )]
    Block {
        /// Which file.
        path: String,
        /// Which block.
        block: u64,
        /// The source.
        from: String,
    },
    /// A block of the slot that runs cannot be read or has changed.
    #[error("block {block} of the running slot is damaged: {reason}")]
    Running {
        /// Which block.
        block: u64,
        /// What is wrong.
        reason: String,
    },
    /// The image is not a whole number of blocks.
    #[error("an image of {0} bytes is not made of blocks of 4096 bytes")]
    Length(u64),
    /// The writer failed.
    #[error("cannot write block {block}: {source}")]
    Write {
        /// Which block.
        block: u64,
        /// Why not.
        source: std::io::Error,
    },
    /// Publishing failed.
    #[error("cannot {what}: {source}")]
    Io {
        /// What was done.
        what: &'static str,
        /// Why not.
        source: std::io::Error,
    },
    /// Somebody cancelled.
    #[error("it was cancelled")]
    Cancelled,
    /// The source failed.
    #[error(transparent)]
    Fetch(#[from] FetchError),
}
