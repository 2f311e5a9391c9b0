//! Writers for erofs, dm-verity, cpio, the EFI system partition and the disk image.
