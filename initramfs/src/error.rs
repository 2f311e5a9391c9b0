//! Why the machine cannot start.

use crate::efi::EfiError;
use crate::guid::Guid;
use crate::state::choice::Refusal;
use ashlar_image::cmdline::CmdlineError;
use ashlar_image::digest::Digest;
use std::io;
use std::path::PathBuf;

/// Why the machine cannot start. The message is the reason, [`Error::advice`] what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or directory does not do what it must.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was tried: `read`, `make`.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file system cannot be mounted.
    #[error("cannot mount {kind} on {target}: {source}")]
    Mount {
        /// Type of the file system.
        kind: String,
        /// Where.
        target: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A line of the module list is no file name of a module.
    #[error("the module list has the line `{0}`, which is no file name of a module")]
    ModuleName(String),
    /// The kernel refuses a module.
    #[error("cannot load the kernel module {name}: {source}")]
    Module {
        /// File name.
        name: String,
        /// Why not.
        source: io::Error,
    },
    /// The root file system is of a type that an Ashlar machine never starts from.
    #[error("the root file system has the unknown type {0:#x}")]
    UnknownRoot(u64),
    /// The signed command line does not name a root.
    #[error(transparent)]
    Cmdline(#[from] CmdlineError),
    /// No TPM appeared.
    #[error("there is no TPM 2.0: {path} did not appear within {seconds} seconds")]
    NoTpm {
        /// The device.
        path: &'static str,
        /// How long init waited.
        seconds: u64,
    },
    /// The TPM does not do what it must.
    #[error("cannot measure `{what}`: {source}")]
    Measure {
        /// What was to be measured.
        what: String,
        /// Why not.
        source: ashlar_tpm::Error,
    },
    /// The TPM cannot be opened or lacks what is needed.
    #[error("the TPM cannot be used: {0}")]
    Tpm(#[from] ashlar_tpm::Error),
    /// The TPM's device cannot be opened.
    #[error("the TPM cannot be used: {0}")]
    TpmDevice(#[from] ashlar_tpm::TransportError),
    /// The firmware does not tell which partition it started from.
    #[error("cannot tell which disk the firmware started from: {0}")]
    BootPartition(#[from] EfiError),
    /// The partition that the firmware started from is on no disk.
    #[error(
        "no disk has the partition {guid} that the firmware started from (waited {seconds} seconds; disks: {disks})"
    )]
    NoBootDisk {
        /// The partition.
        guid: Guid,
        /// How long init waited.
        seconds: u64,
        /// Names of the disks that are there and what is wrong with each.
        disks: String,
    },
    /// Two disks are copies of each other.
    #[error("the disks {0} both have the partition that the firmware started from")]
    TwoBootDisks(String),
    /// No partition pair of the boot disk holds the root.
    #[error("the disk {disk} has no root with the signed hash {hash} ({tried})")]
    NoRoot {
        /// Kernel name of the disk.
        disk: String,
        /// The root hash.
        hash: Digest,
        /// What was looked at and why it is not the root.
        tried: String,
    },
    /// The device mapper refuses a step.
    #[error("device mapper: cannot {step}: {source}")]
    DeviceMapper {
        /// The step.
        step: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// The root cannot be made the root.
    #[error("cannot switch to the root: {step}: {source}")]
    Switch {
        /// The step.
        step: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// A file that init wrote or that the image carries cannot be read.
    #[error("{path} cannot be understood: {source}")]
    Json {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: serde_json::Error,
    },
    /// The owner's configuration key in the image is none.
    #[error("the owner's configuration key in the image is no Ed25519 key")]
    OwnerKey,
    /// The boot disk has no state partition.
    #[error("the disk {0} has no state partition")]
    NoStatePartition(String),
    /// The state volume stays closed.
    #[error("the state volume stays closed: {0}")]
    State(#[from] Refusal),
    /// The state volume's header cannot be written.
    #[error("the state volume's header cannot be written: {0}")]
    StateHeader(ashlar_state::Error),
    /// The state volume's file system does not work.
    #[error("the file system of the state volume on {device} is of no use: {why}")]
    FileSystem {
        /// The mapped device.
        device: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// Init has a defect.
    #[error("init has a defect: {0}")]
    Panic(String),
}

impl Error {
    /// Makes an [`Error::Io`] for `map_err`.
    pub fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.into(), source }
    }

    /// What somebody who stands before the machine should do.
    pub const fn advice(&self) -> &'static str {
        match self {
            Self::Module { .. } | Self::ModuleName(_) => {
                "see that the module belongs to this kernel and is signed with it, then build the image again"
            }
            Self::Cmdline(_) | Self::OwnerKey => {
                "build the image again with `ashlar build`; this one was not made by it"
            }
            Self::NoTpm { .. } => {
                "switch the TPM 2.0 on in the firmware's set-up; if it is on, name its driver in the recipe's \
                 `initramfs-modules`"
            }
            Self::Measure { .. } | Self::Tpm(_) | Self::TpmDevice(_) => {
                "power the machine off and on; if it repeats, look at the TPM in the firmware's set-up"
            }
            Self::BootPartition(_) => {
                "start the disk itself by UEFI: the image's own boot file must be what the firmware starts"
            }
            Self::NoBootDisk { .. } => {
                "see that the disk is connected and that the recipe's `initramfs-modules` name its driver"
            }
            Self::TwoBootDisks(_) => "disconnect the copy; only one disk may carry this partition table",
            Self::NoRoot { .. } => "write the image to the disk again, or start the other slot",
            Self::Io { .. }
            | Self::Mount { .. }
            | Self::UnknownRoot(_)
            | Self::DeviceMapper { .. }
            | Self::Switch { .. }
            | Self::Json { .. } => {
                "start the other slot or write the image to the disk again; if it repeats, report it with the \
                 lines above"
            }
            Self::State(refusal) => refusal.advice(),
            Self::NoStatePartition(_) => {
                "write the image to the disk again: its partition table is not the image's"
            }
            Self::StateHeader(_) => "look whether the disk takes writes; if it does not, replace it",
            Self::FileSystem { .. } => {
                "open the volume on another machine with the recovery key (`cryptsetup open`) and run `e2fsck` on it"
            }
            Self::Panic(_) => "report it with the lines above",
        }
    }
}
