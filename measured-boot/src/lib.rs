//! PE files and Authenticode hashes; event logs and PCR prediction follow. No I/O, no clock, never panics.
#![forbid(unsafe_code)]

pub mod authenticode;
pub mod efi;
pub mod pe;

#[cfg(test)]
mod tests;
