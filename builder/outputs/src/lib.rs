//! Disk images in the formats of hypervisors: a raw disk image becomes qcow2, VHD or VHDX.
//!
//! The bytes that are written depend on the disk's content, the format and [`Options`] only: not on where the raw file has
//! its holes, not on the clock, not on the number of processors. Blocks of zeros are not stored. Only what the raw
//! file holds data for is read, and a few MiB of it are in memory at a time.
#![forbid(unsafe_code)]

mod copy;
mod error;
mod extents;
mod qcow2;
mod vhd;
mod vhdx;
mod write;

pub use copy::{Copied, copy_sparse};
pub use error::Error;

use std::fs::File;

/// Bytes of a sector: every disk is a whole number of them.
pub const SECTOR: u64 = 512;

/// What is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// QEMU's format, version 3, with 64 KiB clusters.
    Qcow2(Compression),
    /// VHD as Hyper-V and Azure read it, all blocks stored: the disk followed by a footer. Zeros become holes of the file.
    VhdFixed,
    /// VHD with 2 MiB blocks, those of zeros not stored.
    VhdDynamic,
    /// VHDX with 1 MiB blocks, those of zeros not stored.
    Vhdx,
}

/// How the clusters of a qcow2 image are compressed. Reading is slower then, writing makes a plain copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// Deflate, which every reader of qcow2 knows.
    Zlib,
    /// Zstandard: smaller and faster; QEMU 5.1 or newer is needed.
    Zstd,
}

/// What the formats store beside the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Options {
    /// Identity of the disk (VHD, VHDX): 16 bytes as they are stored. Derive them from the image, so that two builds agree.
    pub id: [u8; 16],
    /// Time of creation (VHD), seconds since 1970; taken as 2000-01-01 when it is earlier.
    pub time: i64,
}

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// Size of the disk that a machine sees, in bytes.
    pub virtual_size: u64,
    /// Length of the file in bytes, holes included.
    pub file_size: u64,
    /// Bytes of the disk that are stored as blocks, before compression.
    pub stored: u64,
}

/// Writes the raw disk image `raw` to `out` in another format. `out` is emptied first. The position of `raw` as an open
/// file changes. `progress` is called with the bytes of the disk that are done and the bytes that there are.
///
/// # Errors
/// [`Error::NotSectors`] or [`Error::TooLarge`] when the format cannot hold the disk, [`Error::Read`] and
/// [`Error::Write`] when a file fails. What is in `out` is of no use then.
pub fn convert(
    raw: &File,
    out: &File,
    format: Format,
    options: &Options,
    progress: &dyn Fn(u64, u64),
) -> Result<Written, Error> {
    let size = raw.metadata().map_err(Error::Read)?.len();
    let (name, limit) = match format {
        Format::Qcow2(_) => ("qcow2", qcow2::MAX_SIZE),
        Format::VhdFixed | Format::VhdDynamic => ("VHD", vhd::MAX_SIZE),
        Format::Vhdx => ("VHDX", vhdx::MAX_SIZE),
    };
    if size == 0 || !size.is_multiple_of(SECTOR) {
        return Err(Error::NotSectors { size });
    }
    if size > limit {
        return Err(Error::TooLarge { format: name, size, limit });
    }
    out.set_len(0).map_err(Error::Write)?;
    let job = Job { raw, out, size, options, progress };
    let written = match format {
        Format::Qcow2(compression) => qcow2::write_qcow2(&job, compression),
        Format::VhdFixed => vhd::write_fixed(&job),
        Format::VhdDynamic => vhd::write_dynamic(&job),
        Format::Vhdx => vhdx::write_vhdx(&job),
    }?;
    progress(size, size);
    Ok(written)
}

/// One conversion.
struct Job<'a> {
    raw: &'a File,
    out: &'a File,
    /// Size of the disk in bytes.
    size: u64,
    options: &'a Options,
    progress: &'a dyn Fn(u64, u64),
}
