//! Writers of what goes onto a disk: the dm-verity tree and the initramfs archive so far.
#![forbid(unsafe_code)]

pub mod cpio;
pub mod verity;
