//! Writers of what goes onto a disk. The dm-verity tree so far.
#![forbid(unsafe_code)]

pub mod verity;
