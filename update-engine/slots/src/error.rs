//! Errors.

use crate::variables::Name;
use ashlar_image::digest::Digest;
use ashlar_image::layout::Role;
use std::io;

/// Why a slot was not swapped. The slot that runs is as it was.
#[derive(Debug, thiserror::Error)]
pub enum SlotsError {
    /// The disk failed.
    #[error("cannot {what} the {role} partition of slot {slot}: {source}")]
    Disk {
        /// `read`, `write`, `flush`.
        what: &'static str,
        /// Which partition.
        role: &'static str,
        /// Which slot: `a` or `b`.
        slot: char,
        /// Why not.
        source: io::Error,
    },
    /// The release does not fit.
    #[error(
        "the release's {role} has {size} bytes, and the partition of slot {slot} has {room}: install the machine anew with larger partitions"
    )]
    TooLarge {
        /// Which partition.
        role: &'static str,
        /// Which slot.
        slot: char,
        /// Size of the artefact in bytes.
        size: u64,
        /// Size of the partition in bytes.
        room: u64,
    },
    /// What was read back is not the release.
    #[error(
        "what was read back from the {role} partition of slot {slot} is not the release (SHA-256 {found}, not {wanted}): the disk may be failing"
    )]
    ReadBack {
        /// Which partition.
        role: &'static str,
        /// Which slot.
        slot: char,
        /// What is there.
        found: Digest,
        /// What the release says.
        wanted: Digest,
    },
    /// The first block of the ESP was never written.
    #[error("the first block of the ESP is missing")]
    NoFirstBlock,
    /// The UKI cannot be taken out of the ESP.
    #[error("the slot's UKI cannot be read from its ESP: {0}")]
    NoUki(String),
    /// The firmware would not start the UKI.
    #[error("this machine's firmware would not start the release: {0}")]
    Firmware(String),
    /// The state volume would not open.
    #[error("the release would not open this machine's state volume: {0}")]
    State(String),
    /// A firmware variable.
    #[error("the EFI variable {name} cannot be {what}: {reason}")]
    Variable {
        /// Which one.
        name: Name,
        /// `read`, `written`, `removed`, `listed`.
        what: &'static str,
        /// Why not, and what to do.
        reason: String,
    },
    /// All 65536 numbers of boot entries are taken.
    #[error("there is no free number for a boot entry: remove entries in the firmware's set-up")]
    NoNumber,
    /// The disk of the machine was not found.
    #[error("cannot find the disk that the machine runs from: {0}")]
    Discover(String),
}

pub(crate) const fn role_name(role: Role) -> &'static str {
    match role {
        Role::Esp => "ESP",
        Role::Root => "root",
        Role::Verity => "verity",
        Role::State => "state",
    }
}
