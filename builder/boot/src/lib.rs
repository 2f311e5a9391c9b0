//! Kernel module closures, the initramfs and the unified kernel image.
#![forbid(unsafe_code)]

pub mod kernel;
pub mod uki;
