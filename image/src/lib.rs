//! What builder, init and update engine agree on: slots and their partitions, the command line, the
//! verity superblock, the manifest that the image carries for its init, `release.json` and the report of
//! a booted machine. No I/O, no clock, no randomness.
#![forbid(unsafe_code)]

pub mod capability;
pub mod cmdline;
pub mod control;
pub mod digest;
pub mod dsse;
pub mod hardening;
pub mod layout;
pub mod machine;
pub mod manifest;
pub mod measure;
pub mod owner;
pub mod release;
pub mod report;
pub mod state;
pub mod update;
pub mod verity;
