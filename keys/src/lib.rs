//! The owner's keys and all that is signed with them: the key folder and its signers, Authenticode
//! signatures of EFI programs, authenticated EFI variables, the OVMF variable store with the owner's keys
//! in it, and signed PCR policies.
#![forbid(unsafe_code)]

pub mod auth;
pub mod authenticode;
pub mod certificate;
mod cms;
mod error;
pub mod folder;
pub mod ovmf;
pub mod pcr_policy;
pub mod signer;
mod time;

pub use error::KeyError;
pub use folder::{KeyFolder, NewKeys};
pub use signer::{CertifiedKey, Ed25519Key, Ed25519PublicKey, RsaPublicKey, Signer, SigningKey};
