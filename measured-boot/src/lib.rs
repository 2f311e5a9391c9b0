//! PE files, unified kernel images and Authenticode hashes; the firmware's event log; what the PCRs will hold and
//! what they do hold. No I/O, no clock, never panics.
#![forbid(unsafe_code)]

pub mod authenticode;
pub mod compare;
pub mod efi;
pub mod eventlog;
pub mod pe;
pub mod predict;
pub mod uki;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
