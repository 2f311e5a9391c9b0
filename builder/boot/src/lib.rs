//! Kernel module closures, the initramfs and the unified kernel image.
#![forbid(unsafe_code)]

pub mod initramfs;
pub mod kernel;
pub mod modules;
pub mod uki;
