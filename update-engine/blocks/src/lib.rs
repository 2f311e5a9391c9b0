//! A partition image as blocks of 4096 bytes, published so that a machine fetches those that it lacks and no others.
//!
//! Beside each other lie three files. Their form is in `docs/reference/update-format.md`:
//!
//! - `*.leaves`: the SHA-256 of each block in order; for the root the leaves of its dm-verity tree.
//! - `*.frames`: the blocks, in frames of up to [`FRAME_BLOCKS`]: packed by zstd, or as they are where that helps little.
//! - `*.index`: where each frame lies, and which runs of leaves there are. It is signed as a whole; everything else is
//!   verified by what it says.
//!
//! A client takes the index, then those leaves that are not in the tree of the slot that runs ([`fetch_leaves`]), and
//! so knows every block that it wants. [`Plan`] says which of them lie somewhere already; [`Download`] fetches the rest,
//! verifies each block as it arrives and gives it to the writer. What is right in the target already is left alone, so a
//! download that was cut off goes on where it was, without any record of how far it came.

mod client;
mod download;
mod error;
mod frame;
mod index;
mod leaves;
mod plan;
mod publish;
pub mod verity;

pub use client::fetch_leaves;
pub use download::{Download, Progress, Retry};
pub use error::BlocksError;
pub use frame::decode_frame;
pub use index::{Chunk, Frame, Index};
pub use leaves::{Hashing, Leaves};
pub use plan::{Origin, Plan};
pub use publish::{Published, publish};

/// Size of a block in bytes.
pub const BLOCK: usize = 4096;
/// The same as a file offset.
pub const BLOCK_SIZE: u64 = 4096;
/// Blocks in a frame; the last one may have fewer.
pub const FRAME_BLOCKS: u64 = 8;
/// A block.
pub type Block = [u8; BLOCK];
