//! What a file is and what is in it: a release, a UKI, a disk image, a file system. For people and, as JSON, for
//! programs. Nothing is believed: what cannot be read is said.

mod image;
mod text;
mod uki;

use crate::error::BuildError;
use crate::output::RELEASE_FILE;
use ashlar_image::digest::Digest;
use ashlar_image::release::Release;
use serde::Serialize;
use std::fs::File;
use std::io::Read;
use std::path::Path;

pub use image::{Disk, Erofs, Esp, Partition, Verity};
pub use uki::{Program, Section};

/// Largest program that is read into memory, in bytes.
const MAX_PROGRAM: u64 = 1 << 30;
/// Largest `release.json`, in bytes.
const MAX_RELEASE: u64 = 64 << 20;

/// What a file turned out to be.
#[derive(Debug, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Inspection {
    /// A release.
    Release(Box<Release>),
    /// A PE program: a UKI, a stub, a kernel.
    Program(Program),
    /// A disk with a partition table.
    Disk(Disk),
    /// An EFI system partition.
    Esp(Esp),
    /// An erofs file system.
    Erofs(Erofs),
    /// A dm-verity superblock and tree.
    Verity(Verity),
}

/// Why a file cannot be inspected.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// None of the known kinds.
    #[error(
        "`{0}` is none of: a release's folder or release.json, a UKI or other EFI program, a disk image, an EFI \
         system partition, an erofs image, a verity tree"
    )]
    Unknown(String),
    /// It looks like one kind, but cannot be read as such.
    #[error("`{path}` looks like {kind}, but {why}")]
    Damaged {
        /// The file.
        path: String,
        /// What it looks like.
        kind: &'static str,
        /// What is wrong.
        why: String,
    },
}

/// Reads up to `limit` bytes of a file, and fails when there are more.
pub(crate) fn read_whole(path: &Path, limit: u64, kind: &'static str) -> Result<Vec<u8>, BuildError> {
    let fail = |e| BuildError::input("read", path, e);
    let mut bytes = Vec::new();
    File::open(path).map_err(fail)?.take(limit + 1).read_to_end(&mut bytes).map_err(fail)?;
    if bytes.len() as u64 > limit {
        return Err(damaged(path, kind, format!("it is larger than {limit} bytes")));
    }
    Ok(bytes)
}

fn damaged(path: &Path, kind: &'static str, why: impl std::fmt::Display) -> BuildError {
    InspectError::Damaged { path: path.display().to_string(), kind, why: why.to_string() }.into()
}

/// Reads `release.json` at `path`, or in the folder `path`.
pub fn release(path: &Path) -> Result<Release, BuildError> {
    let file = if path.is_dir() { path.join(RELEASE_FILE) } else { path.to_owned() };
    let bytes = read_whole(&file, MAX_RELEASE, "a release")?;
    let release: Release = serde_json::from_slice(&bytes).map_err(|e| damaged(&file, "a release", e))?;
    if release.format != ashlar_image::release::FORMAT {
        let known = ashlar_image::release::FORMAT;
        let why = format!("its format is {} and this program reads {known}", release.format);
        return Err(damaged(&file, "a release", why));
    }
    Ok(release)
}

/// Tells what `path` is, by its content and not by its name.
pub fn inspect(path: &Path) -> Result<Inspection, BuildError> {
    if path.is_dir() {
        return Ok(Inspection::Release(Box::new(release(path)?)));
    }
    let fail = |e| BuildError::input("read", path, e);
    let mut file = File::open(path).map_err(fail)?;
    let mut head = Vec::new();
    (&mut file).take(4096).read_to_end(&mut head).map_err(fail)?;
    let at = |offset: usize, magic: &[u8]| head.get(offset..offset + magic.len()) == Some(magic);
    if at(0, b"MZ") {
        Ok(Inspection::Program(uki::inspect(path)?))
    } else if at(0, b"verity\0\0") {
        Ok(Inspection::Verity(image::verity(&head)))
    } else if at(1024, &0xe0f5_e1e2_u32.to_le_bytes()) {
        Ok(Inspection::Erofs(image::erofs(path, &head)?))
    } else if at(512, b"EFI PART") {
        Ok(Inspection::Disk(image::disk(path, &mut file)?))
    } else if at(82, b"FAT32") {
        Ok(Inspection::Esp(image::esp(path, &mut file)?))
    } else if head.trim_ascii_start().first() == Some(&b'{') {
        Ok(Inspection::Release(Box::new(release(path)?)))
    } else {
        Err(InspectError::Unknown(path.display().to_string()).into())
    }
}

/// A short digest for tables.
fn short(digest: &Digest) -> String {
    digest.to_string().get(..16).unwrap_or_default().to_owned()
}
