//! Public keys of roles (TUF specification, section 4.2).

use crate::error::{Role, TufError};
use crate::json::canonical;
use ring::signature;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use spki::SubjectPublicKeyInfoOwned;
use spki::der::DecodePem as _;

/// Name of a key in metadata. It is only a name: thresholds count keys by what they are.
pub type KeyId = String;

/// Longest key in metadata, in bytes of text.
const MAX_KEY: usize = 16 << 10;

/// How a key verifies.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Scheme {
    Ed25519,
    EcdsaP256,
    EcdsaP384,
    RsaPssSha256,
    RsaPkcs1Sha256,
    /// One that this client does not know: it never verifies.
    Unknown(String),
}

/// A public key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PublicKey {
    scheme: Scheme,
    /// What `ring` takes: 32 bytes, a point, or an `RSAPublicKey`.
    material: Vec<u8>,
}

impl PublicKey {
    /// An Ed25519 key of 32 bytes.
    pub fn ed25519(key: [u8; 32]) -> Self {
        Self { scheme: Scheme::Ed25519, material: key.to_vec() }
    }

    /// Reads the key object of metadata. A key type or scheme that is not known gives a key that verifies nothing.
    pub(crate) fn from_json(value: &Value) -> Result<Self, String> {
        let field =
            |name: &str| value.get(name).and_then(Value::as_str).ok_or(format!("a key has no `{name}`"));
        let (kind, scheme) = (field("keytype")?, field("scheme")?);
        let public = value
            .get("keyval")
            .and_then(|value| value.get("public"))
            .and_then(Value::as_str)
            .ok_or("a key has no `keyval.public`")?;
        if public.len() > MAX_KEY {
            return Err(format!("a key is longer than {MAX_KEY} bytes"));
        }
        let scheme = match (kind, scheme) {
            ("ed25519", "ed25519") => Scheme::Ed25519,
            ("ecdsa" | "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp256") => Scheme::EcdsaP256,
            ("ecdsa" | "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp384") => Scheme::EcdsaP384,
            ("rsa", "rsassa-pss-sha256") => Scheme::RsaPssSha256,
            ("rsa", "rsa-pkcs1v15-sha256") => Scheme::RsaPkcs1Sha256,
            (kind, scheme) => Scheme::Unknown(format!("{kind}/{scheme}")),
        };
        let material = match &scheme {
            // What it is does not matter, only that two of them are different keys.
            Scheme::Unknown(_) => public.as_bytes().to_vec(),
            Scheme::Ed25519 if !public.starts_with("-----") => hex::decode(public)
                .ok()
                .filter(|key| key.len() == 32)
                .ok_or("an Ed25519 key is not 32 bytes in hexadecimal")?,
            _ => {
                let info = SubjectPublicKeyInfoOwned::from_pem(public.trim())
                    .map_err(|e| format!("a key is no PEM: {e}"))?;
                info.subject_public_key.as_bytes().ok_or("a key has bits that are no bytes")?.to_vec()
            }
        };
        Ok(Self { scheme, material })
    }

    /// The key object of metadata; only for keys that [`Self::ed25519`] made.
    pub(crate) fn to_json(&self) -> Value {
        json!({
            "keytype": "ed25519", "scheme": "ed25519", "keyval": { "public": hex::encode(&self.material) },
        })
    }

    /// The usual name: SHA-256 of the canonical key object.
    pub fn id(&self) -> KeyId {
        let bytes = canonical(&self.to_json()).unwrap_or_default();
        hex::encode(Sha256::digest(bytes))
    }

    /// Whether `signature` over `message` is this key's.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let algorithm: &dyn signature::VerificationAlgorithm = match &self.scheme {
            Scheme::Ed25519 => &signature::ED25519,
            Scheme::EcdsaP256 => &signature::ECDSA_P256_SHA256_ASN1,
            Scheme::EcdsaP384 => &signature::ECDSA_P384_SHA384_ASN1,
            Scheme::RsaPssSha256 => &signature::RSA_PSS_2048_8192_SHA256,
            Scheme::RsaPkcs1Sha256 => &signature::RSA_PKCS1_2048_8192_SHA256,
            Scheme::Unknown(_) => return false,
        };
        signature::UnparsedPublicKey::new(algorithm, &self.material).verify(message, signature).is_ok()
    }

    /// The 32 bytes of an Ed25519 key (RFC 8032).
    pub fn ed25519_bytes(&self) -> Option<[u8; 32]> {
        (self.scheme == Scheme::Ed25519).then(|| self.material.as_slice().try_into().ok())?
    }

    /// Whether this is the Ed25519 key of these 32 bytes.
    pub fn is_ed25519(&self, key: &[u8; 32]) -> bool {
        self.scheme == Scheme::Ed25519 && self.material == key
    }
}

pub(crate) fn malformed(role: &Role) -> impl Fn(String) -> TufError + '_ {
    |reason| TufError::Malformed { role: role.clone(), reason }
}
