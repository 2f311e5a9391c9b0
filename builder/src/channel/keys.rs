//! Who signs a channel: the owner's `channel` key for root and targets, an online key for snapshot and timestamp.
//!
//! The online key only says that nothing is newer. It is a plain file, because whatever renews a timestamp every day does
//! so alone; whoever has it can hide new releases until the timestamp ends, and cannot make any.

use super::ChannelError;
use crate::error::BuildError;
use ashlar_keys::keyfile::{self, KeyFile};
use ashlar_keys::{Ed25519Key, Ed25519PublicKey, Ed25519Signer, KeyFolder};
use ashlar_tuf::PublicKey;
use ashlar_tuf::repository::{Ed25519, Sign};
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Longest key file in bytes.
const MAX_KEY: u64 = 64 << 10;
/// Name of the online key in a key folder.
pub const ONLINE_KEY: &str = "online.key";

/// The owner's key, wherever its private half is.
pub struct Owner<'a> {
    signer: &'a dyn Ed25519Signer,
    public: PublicKey,
}

impl<'a> Owner<'a> {
    /// The channel key of a folder.
    pub fn of(folder: &'a KeyFolder) -> Self {
        let signer = folder.channel();
        Self { signer, public: PublicKey::ed25519(signer.public_key().0) }
    }

    /// Its 32 bytes.
    pub fn bytes(&self) -> [u8; 32] {
        self.signer.public_key().0
    }
}

impl Sign for Owner<'_> {
    fn public(&self) -> &PublicKey {
        &self.public
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, String> {
        self.signer.sign(message).map_err(|error| error.to_string())
    }
}

/// Reads an online key: PKCS#8 in PEM, not encrypted.
pub fn read_online(path: &Path) -> Result<Ed25519, BuildError> {
    let bad = |why| ChannelError::BadOnlineKey { path: path.to_owned(), why };
    let mut text = String::new();
    File::open(path)
        .and_then(|file| file.take(MAX_KEY).read_to_string(&mut text))
        .map_err(|e| BuildError::input("read the online key", path, e))?;
    match KeyFile::parse(&text)? {
        KeyFile::Plain(pkcs8) => Ok(Ed25519::from_pkcs8(&pkcs8).map_err(|_| bad("is no Ed25519 key"))?),
        KeyFile::Encrypted(_) => Err(bad("is encrypted, and it signs where nobody can be asked").into()),
    }
}

/// Makes an online key: `path`, and the public half beside it, ending in `.pub`.
pub fn make_online(path: &Path) -> Result<Ed25519, BuildError> {
    let pkcs8 = Ed25519Key::generate()?;
    let public = Ed25519Key::from_pkcs8_der(&pkcs8)?.public_key().spki_pem()?;
    let fail = |e: std::io::Error| match e.kind() {
        std::io::ErrorKind::AlreadyExists => BuildError::Exists(path.to_owned()),
        _ => BuildError::io("write the online key", path, e),
    };
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(fail)?;
    file.write_all(keyfile::write(&pkcs8, None)?.as_bytes()).and_then(|()| file.sync_all()).map_err(fail)?;
    let beside = path.with_extension("pub");
    fs::write(&beside, public).map_err(|e| BuildError::io("write", &beside, e))?;
    read_online(path)
}

/// Reads a public key: `channel.pub`, as machines have it.
pub fn read_public(path: &Path) -> Result<[u8; 32], BuildError> {
    let mut text = String::new();
    File::open(path)
        .and_then(|file| file.take(MAX_KEY).read_to_string(&mut text))
        .map_err(|e| BuildError::input("read the key", path, e))?;
    let der = x509_cert::der::pem::decode_vec(text.trim().as_bytes())
        .ok()
        .filter(|(label, _)| *label == "PUBLIC KEY")
        .map(|(_, der)| der)
        .ok_or(ashlar_keys::KeyError::NotAKey("an Ed25519 public key in PEM"))?;
    Ok(Ed25519PublicKey::from_spki_der(&der)?.0)
}
