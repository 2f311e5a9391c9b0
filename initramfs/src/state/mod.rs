//! The sealed state volume: the one place of the machine that keeps anything.
//!
//! In the first stage [`open()`] reads its header once, has the TPM give the key, maps it from the header's copy in memory
//! and measures the key into PCR 15, all before `leave-initrd`. The second stage mounts it ([`volume`]). Why the TPM
//! may refuse, and what to do then, is [`choice`].

pub mod choice;
mod crypt;
mod escrow;
mod header;
mod later;
mod open;
mod prompt;
pub mod sealing;
pub mod volume;

pub use later::{floor, raise_floor, reseal};
pub use open::{Start, open};

use choice::Copy;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::PathBuf;

/// How the volume was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum How {
    /// The TPM gave the key.
    Tpm,
    /// It was made in this boot.
    New,
    /// Somebody gave the recovery key.
    RecoveryKey,
}

impl How {
    /// For people and for the status.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Tpm => "tpm",
            Self::New => "new",
            Self::RecoveryKey => "recovery-key",
        }
    }
}

/// What the second stage must know of the volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateBoot {
    /// The mapped device.
    pub device: PathBuf,
    /// The partition.
    pub partition: PathBuf,
    /// Identity of the machine, 32 hexadecimal digits.
    pub machine_id: String,
    /// How it was opened.
    pub how: How,
    /// Whether it has no file system yet.
    pub new_file_system: bool,
    /// The configuration that an installer had left where the volume was made.
    pub seed: Option<String>,
    /// The sealed copies of its key.
    pub copies: Vec<Copy>,
    /// The PCR key that they are sealed for, in PEM.
    pub pcr_key: String,
}

/// Fills `bytes` with the kernel's random numbers, waiting for them.
fn fill_random(bytes: &mut [u8]) -> io::Result<()> {
    let mut at = 0;
    while let Some(rest) = bytes.get_mut(at..).filter(|rest| !rest.is_empty()) {
        match rustix::rand::getrandom(rest, rustix::rand::GetRandomFlags::empty()) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(length) => at += length,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
