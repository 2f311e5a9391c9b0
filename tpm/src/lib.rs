//! TPM 2.0 commands over the kernel's device, a socket or a recording.
//!
//! A small layer of our own, because PID 1 is one static program and tpm2-tss cannot be linked statically.
//! It is built in four steps, each a module: bytes ([`wire`]), frames with their authorisations
//! ([`command`]), ways to a TPM ([`transport`]) and the commands as methods ([`Tpm`]). Sessions, sealing,
//! quotes and NV indices are further methods over the same frames.
//!
//! Formats are those of the TPM 2.0 Library Specification, revision 1.59: part 2 (structures) and part 3
//! (commands); section numbers in this crate refer to it.
#![forbid(unsafe_code)]

pub mod command;
pub mod response;
mod tpm;
pub mod transport;
pub mod wire;

pub use response::ResponseCode;
pub use tpm::{Bank, Extended, PCR_COUNT, Sha256Digest, StartupType, Tpm};
pub use transport::{Device, Recording, Replay, Socket, Transport, TransportError};

/// Why a command did not give a result.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The TPM could not be reached.
    #[error("{command}: {source}")]
    Transport {
        /// The command's name.
        command: &'static str,
        /// What went wrong.
        source: TransportError,
    },
    /// The TPM answered with an error.
    #[error("{command}: the TPM answered {code}; {}", code.next_step())]
    Refused {
        /// The command's name.
        command: &'static str,
        /// Its answer.
        code: ResponseCode,
    },
    /// The answer does not have the form that the specification gives it.
    #[error("{command}: the TPM's answer cannot be read: {what}; the firmware of the TPM may need an update")]
    Malformed {
        /// The command's name.
        command: &'static str,
        /// What is wrong.
        what: wire::WireError,
    },
    /// No such PCR.
    #[error("there is no PCR {0}: PCRs are numbered 0 to 23")]
    NoSuchPcr(u32),
    /// The bank of SHA-256 PCRs is switched off.
    #[error(
        "the TPM has no active SHA-256 PCR bank (active: {active}); switch it on in the firmware's set-up"
    )]
    NoSha256Bank {
        /// Names of the active banks.
        active: String,
    },
    /// A PCR did not take the value that the extension should have given it.
    #[error(
        "PCR {pcr} is {found} after the extension and should be {wanted}; somebody else extends it, or the \
         TPM does not work: power the machine off and on"
    )]
    ReadBack {
        /// The PCR.
        pcr: u32,
        /// What it should be, hexadecimal.
        wanted: String,
        /// What it is, hexadecimal.
        found: String,
    },
}
