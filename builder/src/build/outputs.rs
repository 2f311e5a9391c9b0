//! The forms in which a release can be taken away: disk images of hypervisors, the set for a network boot. An update
//! without a network takes a bundle of a signed channel: see [`crate::channel`].

use super::assemble::UKI_FILE;
use super::disk::DISK_FILE;
use super::parts::{ROOT_FILE, VERITY_FILE};
use crate::error::BuildError;
use crate::identity::Identity;
use crate::output::{Output, RELEASE_FILE};
use ashlar_outputs::{Compression, Format, Options};
use std::collections::BTreeSet;
use std::fs::File;
use std::path::Path;

/// A form of a release beside the three images of a slot, which are always there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum OutputKind {
    /// Nothing beside the slot's images
    Slot,
    /// Raw disk image, sparse (disk.raw)
    Raw,
    /// QEMU's format, compressed (disk.qcow2)
    Qcow2,
    /// Hyper-V's and Azure's older format, dynamic (disk.vhd)
    Vhd,
    /// The same with all blocks stored, as Azure wants it (disk-fixed.vhd)
    VhdFixed,
    /// Hyper-V's format (disk.vhdx)
    Vhdx,
    /// What a network boot serves: UKI, root, verity tree (netboot.tar)
    Netboot,
}

impl OutputKind {
    /// All that are files.
    pub const FILES: [Self; 6] =
        [Self::Raw, Self::Qcow2, Self::Vhd, Self::VhdFixed, Self::Vhdx, Self::Netboot];

    /// Name of the file in a release's folder; none for what is always there.
    pub const fn file(self) -> Option<&'static str> {
        match self {
            Self::Slot => None,
            Self::Raw => Some(DISK_FILE),
            Self::Qcow2 => Some("disk.qcow2"),
            Self::Vhd => Some("disk.vhd"),
            Self::VhdFixed => Some("disk-fixed.vhd"),
            Self::Vhdx => Some("disk.vhdx"),
            Self::Netboot => Some("netboot.tar"),
        }
    }

    /// Name of the file where it is made from the rest of the release.
    pub(super) fn made_file(self) -> Option<&'static str> {
        if self == Self::Raw { None } else { self.file() }
    }

    const fn format(self) -> Option<Format> {
        match self {
            Self::Qcow2 => Some(Format::Qcow2(Compression::Zstd)),
            Self::Vhd => Some(Format::VhdDynamic),
            Self::VhdFixed => Some(Format::VhdFixed),
            Self::Vhdx => Some(Format::Vhdx),
            Self::Slot | Self::Raw | Self::Netboot => None,
        }
    }

    /// The members of an archive, in the order in which they are needed.
    const fn members(self) -> &'static [&'static str] {
        match self {
            Self::Netboot => &[RELEASE_FILE, UKI_FILE, VERITY_FILE, ROOT_FILE],
            _ => &[],
        }
    }

    /// The forms that a release's folder has.
    pub fn of_release(folder: &Path) -> BTreeSet<Self> {
        let there = |kind: &Self| kind.file().is_some_and(|file| folder.join(file).exists());
        Self::FILES.into_iter().filter(there).collect()
    }
}

/// Whether a disk is needed for what is wanted.
pub(super) fn need_disk(kinds: &BTreeSet<OutputKind>) -> bool {
    kinds.iter().any(|kind| *kind == OutputKind::Raw || kind.format().is_some())
}

/// Writes one form; everything else of the release is there.
pub(super) fn write(
    output: &Output,
    kind: OutputKind,
    identity: &Identity,
    time: i64,
) -> Result<(), BuildError> {
    let Some(name) = kind.file() else { return Ok(()) };
    let path = output.path(name);
    let create = || File::create_new(&path).map_err(|e| BuildError::io("create", &path, e));
    if let Some(format) = kind.format() {
        let raw = output.path(DISK_FILE);
        let raw = File::open(&raw).map_err(|e| BuildError::io("open", &raw, e))?;
        let options = Options { id: identity.uuid(name), time };
        ashlar_outputs::convert(&raw, &create()?, format, &options, &|_, _| {})?;
    } else if !kind.members().is_empty() {
        archive(output, kind.members(), &create()?, time).map_err(|e| BuildError::io("write", &path, e))?;
    }
    Ok(())
}

/// A tar (POSIX.1-1988) that depends on nothing but its members.
fn archive(output: &Output, members: &[&str], out: &File, time: i64) -> std::io::Result<()> {
    let mut tar = tar::Builder::new(out);
    for name in members {
        let mut file = File::open(output.path(name))?;
        let mut header = tar::Header::new_ustar();
        header.set_size(file.metadata()?.len());
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(u64::try_from(time).unwrap_or(0));
        tar.append_data(&mut header, name, &mut file)?;
    }
    tar.finish()
}
