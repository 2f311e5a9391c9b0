//! Debian suites: verify, resolve, fetch and unpack without root.
//!
//! The way is [`Index::load_all`] (the suites' signed indexes and local package files; [`Index::load`] for one suite),
//! [`Index::resolve`] (names to a closed set of packages with versions and hashes, which the lock file keeps),
//! [`fetch_from`] (verified and unpacked in the cache; [`fetch`] for one mirror) and [`compose`] (into an [`ashlar_tree::Tree`]). No maintainer script runs, no package manager
//! is needed on the host, and nothing is trusted before it was verified: the index by the archive's
//! OpenPGP signature, the package lists by the index, the packages by the lists or by the lock file.
#![forbid(unsafe_code)]

mod cache;
mod compose;
mod deb;
mod error;
mod fetch;
mod index;
mod loader;
mod local;
mod locked;
mod openpgp;
mod preferences;
mod progress;
mod relation;
mod release;
mod resolve;
mod sources;
mod stanza;
mod store;
mod suite;
mod transport;
mod version;

pub use ashlar_tar::{Entry, EntryKind, read_entries};
pub use cache::Cache;
pub use compose::compose;
pub use deb::{ControlFiles, Deb, MAX_CONTROL};
pub use error::Error;
pub use fetch::{Package, Places, fetch, fetch_from};
pub use index::{Index, IndexSource};
pub use local::{LocalDeb, read_local_debs};
pub use locked::{Locked, Origin};
pub use openpgp::verify_in_release;
pub use preferences::{LOCAL_PRIORITY, Pin, PinTo};
pub use progress::{NoProgress, Progress};
pub use relation::{Alternative, Clause, Constraint, parse_relations};
pub use release::Release;
pub use sources::{host_mirror, mirror_in};
pub use stanza::{Stanza, stanzas};
pub use suite::{DEFAULT_KEYRINGS, Snapshot, Suite, SuiteSource, Suites};
pub use transport::Network;
pub use version::{Version, compare_versions};
