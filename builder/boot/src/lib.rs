//! Kernel module closures, the initramfs and the unified kernel image.
