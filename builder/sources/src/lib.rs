//! File trees from what is no Debian package: directories, tar archives, OCI layouts and registries.
//!
//! Nothing needs root: owners, modes and device numbers are metadata. Contents are ranges of files, in the directory itself
//! or in the cache, where archives and layers lie unpacked under their SHA-256 and are verified whenever they are used.
//!
//! What a person gives is read by one of [`directory()`], [`tar()`], [`layout`] and [`Registry::fetch`]; each gives a
//! [`Source`], the last two within an [`Image`].
#![forbid(unsafe_code)]

mod archive;
mod digest;
mod directory;
mod error;
mod keep;
mod layers;
mod oci;
mod registry;

pub use archive::{TarOptions, tar, tar_tree};
pub use digest::tree_digest;
pub use directory::{Options, Owner, Time, directory};
pub use error::Error;
pub use keep::{Devices, Keep};
pub use oci::document::{
    Descriptor, ImageConfig, Manifest, Platform, parse_config, parse_index, parse_manifest,
};
pub use oci::{Image, ImageOptions, Layer, layout};
pub use registry::auth::{Challenge, Credentials, parse_challenges, parse_token};
pub use registry::reference::Reference;
pub use registry::{Locked, Registry, RegistryOptions, Transport};

use ashlar_image::digest::Digest;
use ashlar_tree::Tree;

/// A file tree and what it was read from.
#[derive(Debug, Clone)]
pub struct Source {
    /// The tree.
    pub tree: Tree,
    /// Digest of all metadata and of the identity of all contents: a stage that takes this tree can be keyed by it. It
    /// does not depend on where the source or the cache lies.
    pub digest: Digest,
    /// What was left out or done otherwise, for the report of the build: one line each.
    pub notes: Vec<String>,
    /// The state of the host's files that contents refer to.
    stamps: Vec<directory::Stamp>,
}

impl Source {
    /// Looks whether the files that the tree refers to are still as they were when the digest was made, by their inode,
    /// size and times (the time of status change cannot be set back by an ordinary user). To be called when the build has
    /// read them. Files of the cache never change.
    ///
    /// # Errors
    /// [`Error::Changed`] names the first file that is different.
    pub fn check_unchanged(&self) -> Result<(), Error> {
        self.stamps.iter().try_for_each(directory::Stamp::check)
    }
}
