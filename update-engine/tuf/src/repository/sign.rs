//! Who signs.

use crate::key::PublicKey;
use ring::signature::{Ed25519KeyPair, KeyPair};
use std::fmt;

/// A key that signs, wherever its private part is.
pub trait Sign {
    /// The public key.
    fn public(&self) -> &PublicKey;

    /// Signs; the error is for people.
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, String>;
}

/// An Ed25519 key in memory.
pub struct Ed25519 {
    pair: Ed25519KeyPair,
    public: PublicKey,
}

impl fmt::Debug for Ed25519 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ed25519").field("public", &self.public).finish_non_exhaustive()
    }
}

impl Ed25519 {
    /// From PKCS#8 (RFC 8410), with or without the public key.
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, String> {
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der)
            .map_err(|error| format!("no Ed25519 key: {error}"))?;
        let key: [u8; 32] = pair.public_key().as_ref().try_into().map_err(|_| "no Ed25519 key")?;
        Ok(Self { pair, public: PublicKey::ed25519(key) })
    }

    /// From its 32 secret bytes (RFC 8032, section 5.1.5).
    pub fn from_seed(seed: &[u8; 32]) -> Result<Self, String> {
        let pair =
            Ed25519KeyPair::from_seed_unchecked(seed).map_err(|error| format!("no Ed25519 key: {error}"))?;
        let key: [u8; 32] = pair.public_key().as_ref().try_into().map_err(|_| "no Ed25519 key")?;
        Ok(Self { pair, public: PublicKey::ed25519(key) })
    }
}

impl Sign for Ed25519 {
    fn public(&self) -> &PublicKey {
        &self.public
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, String> {
        Ok(self.pair.sign(message).as_ref().to_vec())
    }
}
