//! TPM 2.0 commands over the kernel's device, a socket or a recording, and sealing a key with them.
//!
//! A small layer of our own, because PID 1 is one static program and tpm2-tss cannot be linked statically.
//! It is built in steps, each a module: bytes ([`wire`]), frames with their authorisations ([`command`]), ways to a
//! TPM ([`transport`]), the commands as methods of [`Tpm`], sessions ([`session`]), and above them what the state
//! volume needs: the storage root key ([`srk`]), the rollback counter ([`counter`]), policies ([`policy`]), the
//! owner's signatures for them ([`pcrsig`]) and the sealed key ([`seal`]).
//!
//! Formats are those of the TPM 2.0 Library Specification, revision 1.59: part 1 (architecture), part 2 (structures)
//! and part 3 (commands); section numbers in this crate refer to it.
#![forbid(unsafe_code)]

pub mod command;
pub mod counter;
mod crypto;
mod error;
mod hierarchy;
pub mod key;
mod nv;
mod object;
pub mod pcrsig;
pub mod policy;
pub mod public;
pub mod response;
pub mod seal;
pub mod session;
pub mod srk;
mod tpm;
pub mod transport;
pub mod wire;

pub use counter::Counter;
pub use error::Error;
pub use hierarchy::{Clock, Hierarchy};
pub use key::PcrKey;
pub use nv::NvPublic;
pub use pcrsig::PcrSignatures;
pub use policy::{PcrValues, Policy};
pub use public::Name;
pub use response::ResponseCode;
pub use seal::{Authorized, Sealed, seal, unseal};
pub use srk::Srk;
pub use tpm::{Bank, Extended, PCR_COUNT, Sha256Digest, StartupType, Tpm};
pub use transport::{Device, Recording, Replay, Socket, Transport, TransportError};
