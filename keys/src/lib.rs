//! The owner's keys and all that is signed with them: the key folder and its signers (files, tokens, TPMs,
//! people elsewhere), Authenticode signatures of EFI programs, authenticated EFI variables, the OVMF variable
//! store with the owner's keys in it, and signed PCR policies.
#![forbid(unsafe_code)]

pub mod access;
pub mod auth;
pub mod authenticode;
pub mod certificate;
mod cms;
mod create;
mod deferred;
mod error;
mod files;
pub mod folder;
pub mod keyfile;
pub mod offline;
pub mod ovmf;
pub mod pcr_policy;
pub mod pkcs11;
pub mod places;
pub mod purpose;
pub mod recovery;
mod role;
pub mod signer;
mod time;
#[cfg_attr(feature = "tpm-signer", path = "tpm_signer.rs")]
mod tpm;
pub mod uri;

pub use access::{Access, Question, Secret, SecretKind, SecretSource};
pub use create::{Home, Homes, NewKeys};
pub use error::KeyError;
pub use folder::KeyFolder;
pub use purpose::Purpose;
pub use role::Role;
pub use signer::{
    CertifiedKey, Ed25519Key, Ed25519PublicKey, Ed25519Signer, RsaPublicKey, Signer, SigningKey,
};
pub use uri::Pkcs11Uri;
