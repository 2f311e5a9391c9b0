//! A release before it is signed: what the stages made. It can lie in a folder, go to another machine for its
//! signatures and be finished later, with the same bytes as a build that signs at once.

use crate::error::BuildError;
use crate::inspect::read_whole;
use crate::output::Output;
use ashlar_image::digest::Digest;
use ashlar_image::hardening::Expectation;
use ashlar_image::layout::Sizes;
use ashlar_image::release::{self, Artifact};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Name of the root's erofs image in a release's folder.
pub const ROOT_FILE: &str = "root.erofs";
/// Name of its verity superblock and tree.
pub const VERITY_FILE: &str = "root.verity";
/// Name of the facts in the folder of an unsigned release.
pub const UNSIGNED_FILE: &str = "unsigned.json";
/// Folder of an unsigned release with what the UKI is made from.
pub const UKI_DIR: &str = "uki";

/// Version of the format of [`UNSIGNED_FILE`].
const FORMAT: u32 = 3;
/// Largest [`UNSIGNED_FILE`], in bytes.
const MAX_FACTS: u64 = 64 << 20;
/// Largest part of the UKI, in bytes.
const MAX_PART: u64 = 1 << 30;

/// What is known of a release beside its files.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Facts {
    /// Version of the format, 2.
    pub format: u32,
    /// `IMAGE_ID`.
    pub image_id: String,
    /// `IMAGE_VERSION`.
    pub image_version: String,
    /// Number that never falls.
    pub security_version: u64,
    /// Seconds since 1970.
    pub build_time: i64,
    /// Release of the kernel.
    pub kernel: String,
    /// Sizes of the partitions in bytes.
    pub partition_sizes: Sizes,
    /// The root.
    pub root: Artifact,
    /// Its verity tree.
    pub verity: Artifact,
    /// Root of the verity tree.
    pub root_hash: Digest,
    /// SHA-256 of init.
    pub init: Digest,
    /// SHA-256 of the control program.
    pub control: Digest,
    /// SHA-256 of the update engine.
    pub update: Digest,
    /// Values of PCR 7 with which the state volume opens, beside the predicted one.
    pub more_pcr7: Vec<Digest>,
    /// What a machine that runs it must hold.
    pub hardening: Vec<Expectation>,
    /// Every package, sorted.
    pub packages: Vec<release::Package>,
    /// Text of `.osrel`.
    pub os_release: String,
    /// Text of `.cmdline`.
    pub cmdline: String,
    /// What the release is made of, for its bills of materials.
    pub materials: super::materials::Materials,
}

impl Facts {
    /// The version of the format that this program writes.
    pub const FORMAT: u32 = FORMAT;
}

/// A release before it is signed; root and verity tree are files in its folder.
#[derive(Debug)]
pub struct Parts {
    /// What is known of it.
    pub facts: Facts,
    /// systemd-stub.
    pub stub: Vec<u8>,
    /// The kernel.
    pub kernel: Vec<u8>,
    /// The compressed initramfs.
    pub initramfs: Vec<u8>,
}

impl Parts {
    fn files(&self) -> [(&'static str, &[u8]); 3] {
        [("stub.efi", &self.stub), ("linux.efi", &self.kernel), ("initramfs.cpio.zst", &self.initramfs)]
    }

    /// Writes what is not in the folder yet.
    pub(super) fn save(&self, output: &Output) -> Result<(), BuildError> {
        let folder = output.path(UKI_DIR);
        std::fs::create_dir(&folder).map_err(|e| BuildError::io("create", &folder, e))?;
        for (name, bytes) in self.files() {
            super::write(output, &format!("{UKI_DIR}/{name}"), bytes)?;
        }
        let mut json = serde_json::to_vec_pretty(&self.facts)?;
        json.push(b'\n');
        super::write(output, UNSIGNED_FILE, &json)
    }

    /// Reads the folder of an unsigned release.
    pub fn load(folder: &Path) -> Result<Self, BuildError> {
        let path = folder.join(UNSIGNED_FILE);
        let bad = |why: String| BuildError::NotUnsigned { path: path.clone(), why };
        let facts: Facts = serde_json::from_slice(&read_whole(&path, MAX_FACTS, "an unsigned release")?)
            .map_err(|error| bad(error.to_string()))?;
        if facts.format != FORMAT {
            return Err(bad(format!("its format is {} and this program reads {FORMAT}", facts.format)));
        }
        let read = |name: &str| read_whole(&folder.join(UKI_DIR).join(name), MAX_PART, "a part of a UKI");
        Ok(Self {
            facts,
            stub: read("stub.efi")?,
            kernel: read("linux.efi")?,
            initramfs: read("initramfs.cpio.zst")?,
        })
    }
}
