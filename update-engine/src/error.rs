//! Why an update did not come about.

use ashlar_blocks::BlocksError;
use ashlar_channel::DocumentError;
use ashlar_fetch::{BundleError, FetchError};
use ashlar_image::control::RefusalKind;
use ashlar_slots::SlotsError;
use ashlar_tuf::TufError;

/// Why. The release that runs is as it was.
#[derive(Debug, thiserror::Error)]
pub enum UpdateError {
    /// There is no channel in the machine configuration.
    #[error("the machine configuration names no channel")]
    NoChannel,
    /// The repository.
    #[error(transparent)]
    Tuf(#[from] TufError),
    /// The channel's document.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// Blocks of the release.
    #[error(transparent)]
    Blocks(#[from] BlocksError),
    /// The slot.
    #[error(transparent)]
    Slots(#[from] SlotsError),
    /// The network.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// The bundle.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The release is not the one that the channel names.
    #[error("the release's description is not the one that the channel names: {0}")]
    Release(String),
    /// PID 1 does not answer or refuses.
    #[error("PID 1: {0}")]
    Pid1(String),
    /// What the engine keeps cannot be read or written.
    #[error("the engine's own state: {0}")]
    State(String),
    /// The reboot lock.
    #[error("the reboot lock: {0}")]
    Lock(String),
    /// Not now.
    #[error("{0}")]
    Refused(String),
    /// Somebody cancelled.
    #[error("it was cancelled")]
    Cancelled,
}

impl UpdateError {
    /// For programs.
    pub const fn kind(&self) -> RefusalKind {
        match self {
            Self::NoChannel | Self::Refused(_) | Self::Cancelled => RefusalKind::Conflict,
            _ => RefusalKind::Failed,
        }
    }

    /// What to do next.
    pub const fn advice(&self) -> &'static str {
        match self {
            Self::NoChannel => "add `[channel]` to the machine configuration",
            Self::Tuf(TufError::Expired { .. }) => {
                "the channel's owner must renew it (ashlar channel refresh), or somebody gives old news for new; look at the clock too"
            }
            Self::Tuf(TufError::ClockBehind { .. }) => {
                "set the clock: look at the time servers in the machine configuration"
            }
            Self::Tuf(TufError::Fetch(_)) | Self::Fetch(_) => {
                "look at the network and at the channel's server; the next attempt comes by itself"
            }
            Self::Tuf(TufError::Store { .. }) | Self::State(_) => {
                "the state volume may be damaged: look at its disk; `/var/lib/ashlar/update` holds what cannot be read"
            }
            Self::Tuf(_) | Self::Document(_) | Self::Release(_) | Self::Bundle(_) => {
                "the channel's owner must look at the repository (ashlar channel check); nothing of it was taken"
            }
            Self::Blocks(BlocksError::Running { .. }) => {
                "the disk of the running slot is failing: replace it"
            }
            Self::Blocks(_) => "the server's copy is damaged: the channel's owner must publish it again",
            Self::Slots(SlotsError::State(_)) => {
                "sign the release for this machine's state (PCR key, PCR 7, security version)"
            }
            Self::Slots(SlotsError::Firmware(_)) => {
                "sign the release with a key that is in this machine's db"
            }
            Self::Slots(_) => "look at the machine's disk and firmware",
            Self::Lock(_) => {
                "look at the lock's server and at `[lock]` in the machine configuration; `lockctl status` tells who is down"
            }
            Self::Pid1(_) => "look at the machine's console",
            Self::Refused(_) | Self::Cancelled => "`ashlarctl update status` tells what goes on",
        }
    }
}
