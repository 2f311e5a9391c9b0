//! Writers of what goes onto a disk: erofs, the dm-verity tree and the initramfs archive so far.
#![forbid(unsafe_code)]

pub mod cpio;
pub mod erofs;
pub mod verity;
