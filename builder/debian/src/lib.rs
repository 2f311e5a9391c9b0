//! Debian suites: verify, resolve, fetch and unpack without root.
//!
//! The way is [`Index::load`] (the suite's signed index), [`Index::resolve`] (names to a closed set of
//! packages with versions and hashes, which the lock file keeps), [`fetch`] (verified and unpacked in the
//! [`Cache`]) and [`compose`] (into an [`ashlar_tree::Tree`]). No maintainer script runs, no package manager
//! is needed on the host, and nothing is trusted before it was verified: the index by the archive's
//! OpenPGP signature, the package lists by the index, the packages by the lists or by the lock file.
#![forbid(unsafe_code)]

mod cache;
mod compose;
mod deb;
mod error;
mod fetch;
mod index;
mod openpgp;
mod progress;
mod relation;
mod release;
mod resolve;
mod sources;
mod stanza;
mod store;
mod tar_entries;
mod transport;
mod version;

pub use cache::Cache;
pub use compose::compose;
pub use deb::{ControlFiles, Deb, MAX_CONTROL};
pub use error::Error;
pub use fetch::{Locked, Package, fetch};
pub use index::{DEFAULT_KEYRINGS, Index, Suite};
pub use openpgp::verify_in_release;
pub use progress::{NoProgress, Progress};
pub use relation::{Alternative, Clause, Constraint, parse_relations};
pub use release::Release;
pub use sources::{host_mirror, mirror_in};
pub use stanza::{Stanza, stanzas};
pub use tar_entries::{Entry, read_entries};
pub use transport::Network;
pub use version::{Version, compare_versions};
