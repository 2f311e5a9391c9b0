//! What differs between two releases: [`diff`] tells what changed from one to the next as a person would ask it,
//! [`same`] proves that two builds came to the same bytes or shows where they did not.
//!
//! Both read the folders that `ashlar build` writes. Every read is bounded, and roots are read piece by piece: memory
//! does not grow with them.
#![forbid(unsafe_code)]

pub mod cpio;
pub mod diff;
mod folder;
mod initramfs;
mod json;
pub mod same;
mod stream;
mod text;

pub use diff::{Diff, diff};
pub use folder::{ReleaseFolder, parse_release};
pub use same::{Verdict, same};

use ashlar_formats::erofs::read::ReadError;
use ashlar_formats::esp::EspError;
use ashlar_measured_boot::uki::UkiError;
use std::path::PathBuf;

/// Why releases cannot be compared.
#[derive(Debug, thiserror::Error)]
pub enum CompareError {
    /// A file of the release cannot be read.
    #[error("cannot read `{}`: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file is larger than any that is built.
    #[error("`{}` is larger than {limit} bytes and is not read", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The limit in bytes.
        limit: u64,
    },
    /// `release.json` is none.
    #[error("`{}` is no release.json that this program reads: {why}", path.display())]
    Release {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The root is no erofs image.
    #[error("`{}`: {source}", path.display())]
    Root {
        /// The file.
        path: PathBuf,
        /// Why.
        source: ReadError,
    },
    /// The UKI is none.
    #[error("`{}`: {source}", path.display())]
    Uki {
        /// The file.
        path: PathBuf,
        /// Why.
        source: UkiError,
    },
    /// The EFI system partition has no UKI.
    #[error("`{}`: {source}", path.display())]
    Esp {
        /// The file.
        path: PathBuf,
        /// Why.
        source: EspError,
    },
    /// The initramfs cannot be unpacked.
    #[error("the initramfs in `{}` cannot be read: {why}", path.display())]
    Initramfs {
        /// The UKI.
        path: PathBuf,
        /// Why.
        why: String,
    },
}
