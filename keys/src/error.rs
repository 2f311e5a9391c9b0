//! Why something could not be made, signed or verified.

use ashlar_measured_boot::pe::PeError;
use std::io;
use std::path::PathBuf;

/// Why something could not be made, signed or verified, and what to do next.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// A file or folder could not be read or written.
    #[error("cannot {action} `{path}`: {source}")]
    Io {
        /// `read`, `create`, `write`, `rename`.
        action: &'static str,
        /// What it was tried on.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The folder for new keys has something in it.
    #[error(
        "`{folder}` already has `{entry}`; nothing was changed. Choose a new folder: keys are never overwritten"
    )]
    FolderInUse {
        /// The folder.
        folder: PathBuf,
        /// What is in it.
        entry: String,
    },
    /// A file of the key folder is not there.
    #[error(
        "`{0}` is missing; bring it back from the copy of your key folder, or make a set of new keys in \
         another folder with `ashlar keys new`"
    )]
    Missing(PathBuf),
    /// Others than the owner may read a private key.
    #[error("others may read the private key `{0}`; run `chmod 600 '{0}'`, and replace the key if they did")]
    Readable(PathBuf),
    /// A file of the key folder does not hold what it should.
    #[error("`{path}` is not {wanted}; bring it back from the copy of your key folder")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What it should be.
        wanted: &'static str,
    },
    /// A private key and the public file beside it are not of one pair.
    #[error(
        "`{private}` and `{public}` do not belong together; bring both back from one copy of your key folder"
    )]
    Mismatch {
        /// The private key's file.
        private: PathBuf,
        /// The certificate's or public key's file.
        public: PathBuf,
    },
    /// The certificate is of another key.
    #[error("the certificate is not of the key that shall sign; give the certificate of this key")]
    ForeignCertificate,
    /// The owner's name cannot stand in a certificate.
    #[error("`{0}` cannot be the owner's name: 1 to 64 characters without control characters are wanted")]
    OwnerName(String),
    /// The system gave no random numbers.
    #[error("the system gives no random numbers: {0}")]
    Random(getrandom::Error),
    /// No RSA key came of it.
    #[error("no RSA key could be made: {0}")]
    Generate(rsa::Error),
    /// The bytes are not the key or certificate that the text names.
    #[error("not {0}")]
    NotAKey(&'static str),
    /// The signer did not sign.
    #[error("the key cannot sign: {0}")]
    Sign(&'static str),
    /// A time is outside of what certificates and firmware can hold.
    #[error("the time {0} (seconds since 1970) cannot be written into a certificate or variable")]
    Time(i64),
    /// ASN.1 could not be written. Only absurd sizes lead here.
    #[error("cannot write ASN.1: {0}")]
    Asn1(#[from] der::Error),
    /// The file is no EFI program.
    #[error(transparent)]
    Pe(#[from] PeError),
    /// The file has no room for a signature.
    #[error("the EFI program cannot be signed: {0}")]
    NotSignable(&'static str),
    /// The file carries no signature.
    #[error("the EFI program is not signed")]
    Unsigned,
    /// The signature cannot be read.
    #[error("the EFI program's signature is malformed: {0}")]
    Signature(&'static str),
    /// The signature is over other content.
    #[error("the EFI program was changed after it was signed: its hash is not the signed one")]
    Changed,
    /// A signature was made with another key or over other bytes.
    #[error("the signature does not fit this key and content")]
    BadSignature,
    /// The signature names another signer than the given certificate's owner.
    #[error("the EFI program is not signed with the given certificate")]
    OtherSigner,
    /// The variable store cannot be read or holds no more.
    #[error("the file is not a usable OVMF variable store: {0}; take `OVMF_VARS_4M.fd` of the package ovmf")]
    Store(&'static str),
    /// The variables do not fit.
    #[error("the variables need {needed} bytes; the OVMF variable store has {available}")]
    StoreFull {
        /// Bytes that they need.
        needed: usize,
        /// Bytes that there are.
        available: usize,
    },
    /// The name is empty, too long, has a NUL in it, or is not one of those that can be signed.
    #[error("`{0}` cannot be the name of an EFI variable")]
    VariableName(String),
    /// No PCR, or one that cannot be in a policy.
    #[error("a PCR policy needs at least one set of values, each of one or more PCRs from 0 to 23")]
    Pcrs,
}
