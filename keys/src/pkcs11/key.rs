//! Signing with a private key on a token.

use super::{Token, auth_pin};
use crate::KeyError;
use crate::signer::{Ed25519PublicKey, Ed25519Signer, RsaPublicKey, Signer};
use cryptoki::error::Error;
use cryptoki::mechanism::eddsa::{EddsaParams, EddsaSignatureScheme};
use cryptoki::mechanism::{Mechanism, MechanismType};
use cryptoki::object::{Attribute, AttributeType, ObjectHandle};
use cryptoki::session::UserType;
use ring::digest;
use std::sync::{Mutex, PoisonError};

/// `DigestInfo` of SHA-256 up to the hash (RFC 8017, section 9.2, note 1).
pub(crate) const SHA256_DIGEST_INFO: [u8; 19] =
    *b"\x30\x31\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x05\x00\x04\x20";
/// The exponent of practically all RSA keys, for tokens that do not tell.
const F4: [u8; 3] = [1, 0, 1];

/// A private key on a token.
pub struct TokenKey {
    token: Token,
    object: ObjectHandle,
    /// The key's URI, for errors.
    name: String,
    /// The token wants the PIN anew for each signature (`CKA_ALWAYS_AUTHENTICATE`).
    each_time: bool,
}

/// How a token is asked for RSASSA-PKCS1-v1_5 with SHA-256.
#[derive(Debug, Clone, Copy)]
enum RsaMechanism {
    /// It hashes.
    Sha256,
    /// It is given the `DigestInfo`.
    Raw,
}

impl TokenKey {
    pub(super) fn new(token: Token, object: ObjectHandle, name: String) -> Self {
        let wanted = [AttributeType::AlwaysAuthenticate];
        let attributes = token.session.get_attributes(object, &wanted).unwrap_or_default();
        let each_time = attributes.contains(&Attribute::AlwaysAuthenticate(true));
        Self { token, object, name, each_time }
    }

    fn refused(&self, action: &'static str, error: &Error) -> KeyError {
        self.token.refused(action, &self.name, error)
    }

    /// Signs with it as an RSA key.
    pub(crate) fn rsa(self) -> Result<TokenRsa, KeyError> {
        let wanted = [AttributeType::Modulus, AttributeType::PublicExponent];
        let attributes = self
            .token
            .session
            .get_attributes(self.object, &wanted)
            .map_err(|error| self.refused("show the modulus of", &error))?;
        let (mut n, mut e) = (Vec::new(), F4.to_vec());
        for attribute in attributes {
            match attribute {
                Attribute::Modulus(value) => n = value,
                Attribute::PublicExponent(value) if !value.is_empty() => e = value,
                _ => {}
            }
        }
        let public = RsaPublicKey::new(&n, &e)?;
        let all = self
            .token
            .context
            .get_mechanism_list(self.token.slot)
            .map_err(|error| self.refused("list what it can do with", &error))?;
        let mechanism = if all.contains(&MechanismType::SHA256_RSA_PKCS) {
            RsaMechanism::Sha256
        } else {
            RsaMechanism::Raw
        };
        Ok(TokenRsa { key: Mutex::new(self), mechanism, public })
    }

    /// Signs with it as an Ed25519 key with this public half; without one, the token is asked for it.
    pub(crate) fn ed25519(self, public: Option<Ed25519PublicKey>) -> Result<TokenEd25519, KeyError> {
        let public = match public {
            Some(public) => public,
            None => self.token.ed25519_public(self.object, &self.name)?,
        };
        Ok(TokenEd25519 { key: Mutex::new(self), public })
    }

    fn sign(&self, mechanism: &Mechanism<'_>, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        let session = &self.token.session;
        let refused = |error: Error| self.refused("sign with", &error);
        if !self.each_time {
            return session.sign(mechanism, self.object, message).map_err(refused);
        }
        session.sign_init(mechanism, self.object).map_err(refused)?;
        let pin = self.token.pin.as_ref().map(auth_pin);
        session.login(UserType::ContextSpecific, pin.as_ref()).map_err(refused)?;
        session.sign_update(message).map_err(refused)?;
        session.sign_final().map_err(refused)
    }
}

/// An RSA key on a token.
pub struct TokenRsa {
    key: Mutex<TokenKey>,
    mechanism: RsaMechanism,
    public: RsaPublicKey,
}

impl Signer for TokenRsa {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        let key = self.key.lock().unwrap_or_else(PoisonError::into_inner);
        match self.mechanism {
            RsaMechanism::Sha256 => key.sign(&Mechanism::Sha256RsaPkcs, message),
            RsaMechanism::Raw => {
                let mut info = SHA256_DIGEST_INFO.to_vec();
                info.extend(digest::digest(&digest::SHA256, message).as_ref());
                key.sign(&Mechanism::RsaPkcs, &info)
            }
        }
    }

    fn public_key(&self) -> &RsaPublicKey {
        &self.public
    }
}

/// An Ed25519 key on a token.
pub struct TokenEd25519 {
    key: Mutex<TokenKey>,
    public: Ed25519PublicKey,
}

impl Ed25519Signer for TokenEd25519 {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        let key = self.key.lock().unwrap_or_else(PoisonError::into_inner);
        key.sign(&Mechanism::Eddsa(EddsaParams::new(EddsaSignatureScheme::Pure)), message)
    }

    fn public_key(&self) -> &Ed25519PublicKey {
        &self.public
    }
}
