//! The Update Framework (TUF specification 1.0.33): a client and the repository that it reads.
//!
//! [`TrustedSet`] is the whole of the client's judgement: bytes and the time go in, and either more is trusted or there is
//! an error with its reason. It does no I/O. [`Client`] fetches, asks it, and only then keeps what it has accepted.
//! [`repository`] makes and changes what clients read.
//!
//! Why not `tough`: it is asynchronous, while the engine is a small static program of threads; it keeps its trust state by
//! plain overwriting, and a damaged state is replaced in silence; its limits on time are those of its HTTP client. The engine
//! must survive power cuts at every write and tell an operator why something was refused.

mod client;
mod delegation;
mod error;
mod json;
mod key;
mod metadata;
mod store;
mod target;
mod trusted;

pub mod repository;

pub use client::{Bootstrap, Client, Clock, Limits, TARGETS_FOLDER};
pub use error::{Role, TufError};
pub use json::canonical;
pub use key::{KeyId, PublicKey};
pub use metadata::{
    DelegatedRole, Delegations, FileMeta, Metadata, RoleKeys, Root, Signature, Snapshot, TargetFile, Targets,
    Timestamp, Version,
};
pub use store::{FolderStore, MemoryStore, Store};
pub use target::Verified;
pub use trusted::TrustedSet;
