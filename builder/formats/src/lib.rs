//! Writers of what goes onto a disk: erofs, the dm-verity tree, the initramfs archive, the EFI system partition and the
//! partition table.
#![forbid(unsafe_code)]

pub mod cpio;
pub mod disk;
pub mod erofs;
pub mod esp;
pub mod verity;
