//! `release.json`: one release as an immutable set of bytes, and what a machine that runs it measures.

use crate::digest::Digest;
use crate::hardening::Expectation;
use crate::layout::Sizes;
use crate::measure::Prediction;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The architecture that releases are built for, in systemd's words (systemd.unit(5), `ConditionArchitecture=`).
pub const ARCHITECTURE: &str = "x86-64";
/// Version of the format; raised when a reader of the old one would be misled.
pub const FORMAT: u32 = 1;

/// One of the three partitions of the slot, as a file beside `release.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Artifact {
    /// File name.
    pub file: String,
    /// Size in bytes.
    pub size: u64,
    /// SHA-256 of the file.
    pub sha256: Digest,
}

/// The slot's content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotArtifacts {
    /// The FAT file system with the UKI.
    pub esp: Artifact,
    /// The erofs root.
    pub root: Artifact,
    /// The verity superblock and tree.
    pub verity: Artifact,
}

/// The disk image that an installation starts from: the partition table and the three partitions of slot A. It
/// has no hash: all of it but the table is covered by the slot's hashes, and most of it is holes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskImage {
    /// File name.
    pub file: String,
    /// Size in bytes; a sparse file takes less.
    pub size: u64,
}

/// The unified kernel image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Uki {
    /// The signed file.
    #[serde(flatten)]
    pub artifact: Artifact,
    /// Authenticode SHA-256 of the signed file.
    pub authenticode: Digest,
    /// Authenticode SHA-256 of the kernel inside it.
    pub kernel_authenticode: Digest,
    /// Version of systemd-stub, as in `.sdmagic`.
    pub stub_version: String,
    /// Command line, as in `.cmdline`.
    pub cmdline: String,
    /// SHA-256 of each section's content (`VirtualSize` bytes), by name.
    pub sections: BTreeMap<String, Digest>,
}

/// A package in the release.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Package {
    /// Which part of the image it is in: `root` or `container NAME`.
    pub part: String,
    /// Binary package name.
    pub name: String,
    /// Version.
    pub version: String,
    /// Architecture.
    pub architecture: String,
    /// SHA-256 of the package file.
    pub sha256: Digest,
}

/// Which machines may open their state volume with a release: see [`crate::state`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatePolicy {
    /// Values of PCR 7, the one that is predicted first.
    pub pcr7: Vec<Digest>,
    /// Generations that the release signs for, ascending.
    pub generations: Vec<u64>,
}

/// A release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// [`FORMAT`].
    pub format: u32,
    /// `IMAGE_ID`.
    pub image_id: String,
    /// `IMAGE_VERSION`.
    pub image_version: String,
    /// The architecture: [`ARCHITECTURE`]. None in releases that were built before there was this field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub architecture: Option<String>,
    /// Number that never falls; a machine refuses releases below its floor.
    pub security_version: u64,
    /// Build time from the recipe or the lock file, seconds since 1970.
    pub build_time: i64,
    /// Release of the kernel (`uname -r`).
    pub kernel: String,
    /// Sizes of the partitions that the slot must fit in, in bytes.
    pub partition_sizes: Sizes,
    /// The three partitions.
    pub slot: SlotArtifacts,
    /// The disk image.
    pub disk: DiskImage,
    /// Root of the verity tree.
    pub root_hash: Digest,
    /// The unified kernel image.
    pub uki: Uki,
    /// What each PCR comes to.
    pub pcrs: Prediction,
    /// Which machines may open their state volume with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state_policy: Option<StatePolicy>,
    /// SHA-256 of the init program in the initramfs and the root.
    pub init: Digest,
    /// SHA-256 of the control program in the root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub control: Option<Digest>,
    /// SHA-256 of the update engine in the root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update: Option<Digest>,
    /// What a machine that runs it reads back before it is ready: see [`crate::hardening`].
    #[serde(default)]
    pub hardening: Vec<Expectation>,
    /// Every package, sorted.
    pub packages: Vec<Package>,
}
