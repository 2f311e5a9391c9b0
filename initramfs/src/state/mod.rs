//! The sealed state volume.

pub mod choice;
mod crypt;
mod escrow;
mod prompt;
