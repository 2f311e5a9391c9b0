//! Why something could not be made, signed or verified.

use crate::{Question, Role};
use ashlar_image::digest::Digest;
use ashlar_measured_boot::pe::PeError;
use std::io;
use std::path::PathBuf;

/// Why something could not be made, signed or verified, and what to do next.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// Something was encrypted to another key.
    #[error("this was not encrypted to `{}`, or it is damaged; take the key folder of the image that runs on the machine", .0.display())]
    NotForThisKey(PathBuf),
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
        /// Where the private key is.
        private: String,
        /// The certificate's or public key's file.
        public: PathBuf,
    },
    /// A role's private half is not where it was looked for.
    #[error(
        "the private key of `{role}` is not here (looked for: {looked}). Either sign it where the key is: `ashlar build \
         --unsigned`, `ashlar sign` there, `ashlar attach` here; or say in `{places_file}` where the key is"
    )]
    NoPrivateKey {
        /// Whose private half.
        role: Role,
        /// Where.
        looked: String,
        /// The file that can name another place.
        places_file: PathBuf,
    },
    /// The private half is no file, so that it cannot be copied.
    #[error("the private key of `{role}` is not in a file but at: {place}")]
    NotAFile {
        /// Whose private half.
        role: Role,
        /// Where it is.
        place: String,
    },
    /// No role has this name.
    #[error("`{0}` is no role of a key; there are PK, KEK, db, pcr, channel and configuration")]
    NoSuchRole(String),
    /// `keys.toml` cannot be read.
    #[error("{path}, {at}: {why}")]
    Places {
        /// The file.
        path: PathBuf,
        /// Line and column, or the role.
        at: String,
        /// What is wrong.
        why: String,
    },
    /// A PKCS#11 URI cannot be read.
    #[error("not a PKCS#11 URI (RFC 7512): {0}")]
    Uri(String),
    /// A key file is encrypted in a way that is refused.
    #[error("cannot open the key file `{path}`: {source}")]
    KeyFile {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: Box<KeyError>,
    },
    /// The encryption of a key.
    #[error(
        "the key's encryption is not usable: {0}; write it anew with `openssl pkcs8 -topk8 -v2 aes-256-cbc -scrypt`"
    )]
    Encryption(&'static str),
    /// The passphrase is another.
    #[error("the passphrase does not open `{0}`")]
    Passphrase(PathBuf),
    /// A key would be encrypted for nothing.
    #[error("the passphrase is empty; give one, or make keys without encryption")]
    EmptyPassphrase,
    /// A file does not hold a passphrase or PIN.
    #[error("the first line of `{0}` must be the passphrase or PIN: 1 to 1024 bytes of UTF-8")]
    SecretFile(PathBuf),
    /// An environment variable does not hold a passphrase or PIN.
    #[error(
        "the environment variable `{0}` must hold the passphrase or PIN; it is not set, empty or too long"
    )]
    SecretVariable(String),
    /// A passphrase or PIN is needed and nobody can be asked.
    #[error(
        "the {0} is needed, and nobody can be asked; name a file or an environment variable for it in `keys.toml`"
    )]
    Unattended(Question),
    /// A passphrase or PIN was not given.
    #[error("the {question} was not given: {source}")]
    Ask {
        /// What was asked.
        question: Question,
        /// Why there is no answer.
        source: io::Error,
    },
    /// This program cannot load modules.
    #[error(
        "this `ashlar` is linked statically and cannot load PKCS#11 modules; use one that is linked dynamically, or \
         sign offline"
    )]
    StaticProgram,
    /// No module is named.
    #[error("no PKCS#11 module is named for `{0}`; give its path as `module` in `keys.toml`")]
    NoModule(String),
    /// A module cannot be loaded.
    #[error("cannot load the PKCS#11 module `{path}`: {why}; install it, or correct `module` in `keys.toml`")]
    Module {
        /// The module.
        path: PathBuf,
        /// What the loader or the module says.
        why: String,
    },
    /// No token matches.
    #[error("no token matches `{uri}`; {found}. Plug it in, or correct the URI")]
    NoToken {
        /// What was looked for.
        uri: String,
        /// What there is.
        found: String,
    },
    /// Several tokens match.
    #[error("several tokens match `{uri}`: {found}; add `serial=` to the URI")]
    SeveralTokens {
        /// What was looked for.
        uri: String,
        /// Which.
        found: String,
    },
    /// No private key on the token matches.
    #[error("the token `{token}` has no private key that matches `{uri}`; {found}")]
    NoObject {
        /// The token.
        token: String,
        /// What was looked for.
        uri: String,
        /// What there is.
        found: String,
    },
    /// Several private keys match, or one would.
    #[error("the token `{token}` has several private keys that match `{uri}`: {found}; add `id=` to the URI")]
    SeveralObjects {
        /// The token.
        token: String,
        /// What was looked for.
        uri: String,
        /// Which.
        found: String,
    },
    /// A key of this name is on the token already.
    #[error(
        "the token `{token}` already has a key `{object}`; nothing was changed. Keys are never overwritten"
    )]
    TokenInUse {
        /// The token.
        token: String,
        /// The label.
        object: String,
    },
    /// The PIN is wrong.
    #[error("the PIN of the token `{token}` is wrong; {state}")]
    WrongPin {
        /// The token.
        token: String,
        /// How many tries are left, as far as the token tells.
        state: &'static str,
    },
    /// The PIN is locked.
    #[error(
        "the PIN of the token `{0}` is locked after too many wrong ones; its security officer can set a new one"
    )]
    PinLocked(String),
    /// One more wrong PIN would lock the token.
    #[error(
        "the token `{0}` has one try left before its PIN is locked; log in by hand with the right PIN, which gives it \
         all tries back, then correct the PIN that `keys.toml` leads to"
    )]
    PinLastTry(String),
    /// A token refuses.
    #[error("the token `{token}` does not {action} `{object}`: {why}")]
    Token {
        /// The token.
        token: String,
        /// What was to be done.
        action: &'static str,
        /// With which object.
        object: String,
        /// What the token says.
        why: String,
    },
    /// The program was built without a way to TPMs.
    #[error(
        "the private key of `{0}` is in a TPM, and this `ashlar` was built without the feature `tpm-signer`; build it with \
         `--features tpm-signer`, or sign offline"
    )]
    NoTpmSupport(Role),
    /// Keys of this algorithm are in no TPM.
    #[error("the private key of `{0}` cannot be in a TPM: TPMs have no Ed25519 keys")]
    TpmAlgorithm(Role),
    /// A TPM refuses.
    #[error("the TPM at `{tcti}` does not {action} {key}: {why}")]
    Tpm {
        /// The way to it.
        tcti: String,
        /// What was to be done.
        action: &'static str,
        /// Which key.
        key: String,
        /// What it says.
        why: String,
    },
    /// A signature is to be made on another machine.
    #[error("a signature with the key `{0}` is still to be made: sign the request, then attach the answers")]
    Unanswered(Role),
    /// The answers lack a signature.
    #[error(
        "the answers hold no signature with the key `{role}` over this message (SHA-256 {message}); they answer \
         another request"
    )]
    NotAnswered {
        /// The key.
        role: Role,
        /// SHA-256 of what is to be signed.
        message: Digest,
    },
    /// An answer is no signature.
    #[error("the answer with the key `{0}` is not its signature over what was asked; sign the request anew")]
    WrongAnswer(Role),
    /// Two answers to one question.
    #[error(
        "two answers with the key `{0}` differ, although there is only one right signature; sign the request anew"
    )]
    Contradiction(Role),
    /// The request is for other keys.
    #[error(
        "the request wants the key `{role}` with the SHA-256 {wanted} of its public half; the folder's has {found}"
    )]
    OtherKey {
        /// The key.
        role: Role,
        /// That of the request.
        wanted: Digest,
        /// That of the folder.
        found: Digest,
    },
    /// A key would sign what it is not for.
    #[error("the key `{0}` is not for signing this: {1}")]
    Purpose(Role, String),
    /// A signing request or its answers cannot be read.
    #[error("not {wanted} of Ashlar: {why}")]
    Exchange {
        /// `a signing request` or `answers to a signing request`.
        wanted: &'static str,
        /// What is wrong.
        why: String,
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
