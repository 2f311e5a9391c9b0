//! Who signs: RSA keys behind the [`Signer`] trait, an RSA key with its certificate, Ed25519 keys.

use crate::KeyError;
use crate::purpose::Purpose;
use der::asn1::{BitString, OctetStringRef, UintRef};
use der::pem::{self, LineEnding};
use der::{Decode, Encode, Sequence};
use getrandom::SysRng;
use pkcs8::PrivateKeyInfoRef;
use ring::rand::SystemRandom;
use ring::signature::{
    Ed25519KeyPair, KeyPair as _, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256, RsaKeyPair,
};
use ring::signature::{RsaPublicKeyComponents, UnparsedPublicKey};
use rsa::pkcs8::EncodePrivateKey as _;
use std::fmt;
use std::sync::Arc;
use x509_cert::Certificate;
use x509_cert::spki::{AlgorithmIdentifierOwned, ObjectIdentifier, SubjectPublicKeyInfoOwned};
use zeroize::Zeroizing;

/// `rsaEncryption` (RFC 8017, appendix C).
pub(crate) const RSA_ENCRYPTION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
/// `id-Ed25519` (RFC 8410, section 3).
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");
/// An Ed25519 `PrivateKeyInfo` up to the 32 bytes of the seed (RFC 8410, section 7). Version 1, because
/// OpenSSL does not read the version 2 that ring writes.
const ED25519_PKCS8: [u8; 16] = *b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20";
/// Size of new RSA keys in bits: what firmware everywhere accepts.
const RSA_BITS: usize = 2048;

const RSA_WANTED: &str = "an RSA key of 2048 to 8192 bits";
const ED25519_WANTED: &str = "an Ed25519 key";

/// Something that signs with an RSA key: a key in memory, a token, a TPM, or a person elsewhere.
pub trait Signer: Send + Sync {
    /// RSASSA-PKCS1-v1_5 with SHA-256 over `message` (RFC 8017, section 8.2). Deterministic.
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError>;

    /// Signs `message`, which is that of `purpose`. A signer that asks a person elsewhere shows it.
    fn sign_as(&self, purpose: &Purpose, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        let _ = purpose;
        self.sign(message)
    }

    /// Makes sure that it can sign: opens the private half, asks for what that takes.
    fn ready(&self) -> Result<(), KeyError> {
        Ok(())
    }

    /// The public half.
    fn public_key(&self) -> &RsaPublicKey;
}

/// Something that signs with an Ed25519 key.
pub trait Ed25519Signer: Send + Sync {
    /// Signs `message` (RFC 8032, Ed25519 without prehash). Deterministic.
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError>;

    /// Makes sure that it can sign: opens the private half, asks for what that takes.
    fn ready(&self) -> Result<(), KeyError> {
        Ok(())
    }

    /// The public half.
    fn public_key(&self) -> &Ed25519PublicKey;
}

/// An RSA public key.
#[derive(Clone, PartialEq, Eq)]
pub struct RsaPublicKey {
    n: Vec<u8>,
    e: Vec<u8>,
}

/// `RSAPublicKey` (RFC 8017, appendix A.1.1).
#[derive(Sequence)]
struct Pkcs1<'a> {
    n: UintRef<'a>,
    e: UintRef<'a>,
}

impl RsaPublicKey {
    /// Reads a PKCS#1 `RSAPublicKey`: 2048 to 8192 bits, exponent 3 to 2^32 - 1.
    pub fn from_pkcs1_der(bytes: &[u8]) -> Result<Self, KeyError> {
        let wrong = KeyError::NotAKey(RSA_WANTED);
        let Ok(key) = Pkcs1::from_der(bytes) else { return Err(wrong) };
        let (n, e) = (key.n.as_bytes(), key.e.as_bytes());
        let odd_and_over_1 = matches!(e, [.., last] if last % 2 == 1) && e != [1];
        if !(256..=1024).contains(&n.len()) || e.len() > 4 || !odd_and_over_1 {
            return Err(wrong);
        }
        Ok(Self { n: n.to_vec(), e: e.to_vec() })
    }

    /// The key with this modulus and exponent, big-endian, within the same limits.
    pub fn new(n: &[u8], e: &[u8]) -> Result<Self, KeyError> {
        Self::from_pkcs1_der(&Pkcs1 { n: UintRef::new(n)?, e: UintRef::new(e)? }.to_der()?)
    }

    /// Reads a `SubjectPublicKeyInfo` of an RSA key.
    pub fn from_spki_der(bytes: &[u8]) -> Result<Self, KeyError> {
        SubjectPublicKeyInfoOwned::from_der(bytes)
            .map_err(|_| KeyError::NotAKey(RSA_WANTED))
            .and_then(|spki| Self::from_spki(&spki))
    }

    pub(crate) fn from_spki(spki: &SubjectPublicKeyInfoOwned) -> Result<Self, KeyError> {
        match spki.subject_public_key.as_bytes() {
            Some(key) if spki.algorithm.oid == RSA_ENCRYPTION => Self::from_pkcs1_der(key),
            _ => Err(KeyError::NotAKey(RSA_WANTED)),
        }
    }

    /// The modulus, big-endian without leading zeros.
    pub fn modulus(&self) -> &[u8] {
        &self.n
    }

    /// The public exponent, big-endian without leading zeros.
    pub fn exponent(&self) -> &[u8] {
        &self.e
    }

    /// PKCS#1 `RSAPublicKey` in DER.
    pub fn pkcs1_der(&self) -> Result<Vec<u8>, KeyError> {
        Ok(Pkcs1 { n: UintRef::new(&self.n)?, e: UintRef::new(&self.e)? }.to_der()?)
    }

    pub(crate) fn spki(&self) -> Result<SubjectPublicKeyInfoOwned, KeyError> {
        Ok(SubjectPublicKeyInfoOwned {
            algorithm: rsa_encryption(),
            subject_public_key: BitString::from_bytes(&self.pkcs1_der()?)?,
        })
    }

    /// `SubjectPublicKeyInfo` in DER.
    pub fn spki_der(&self) -> Result<Vec<u8>, KeyError> {
        Ok(self.spki()?.to_der()?)
    }

    /// `SubjectPublicKeyInfo` in PEM.
    pub fn spki_pem(&self) -> Result<String, KeyError> {
        to_pem("PUBLIC KEY", &self.spki_der()?)
    }

    /// Checks a signature that [`Signer::sign`] made over `message`.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), KeyError> {
        RsaPublicKeyComponents { n: &self.n, e: &self.e }
            .verify(&RSA_PKCS1_2048_8192_SHA256, message, signature)
            .map_err(|_| KeyError::BadSignature)
    }
}

impl fmt::Debug for RsaPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RsaPublicKey({} bits, {})", self.n.len() * 8, hex::encode(&self.n))
    }
}

/// `rsaEncryption` with the NULL that RFC 3279 asks for.
pub(crate) fn rsa_encryption() -> AlgorithmIdentifierOwned {
    AlgorithmIdentifierOwned { oid: RSA_ENCRYPTION, parameters: Some(der::asn1::Any::null()) }
}

/// PEM with lines of 64 characters.
pub(crate) fn to_pem(label: &'static str, der: &[u8]) -> Result<String, KeyError> {
    pem::encode_string(label, LineEnding::LF, der).map_err(|e| KeyError::Asn1(der::Error::from(e)))
}

/// `RSAPrivateKey` with two primes (RFC 8017, appendix A.1.2).
#[derive(Sequence)]
pub(crate) struct RsaPrivateKey<'a> {
    version: u8,
    pub n: UintRef<'a>,
    pub e: UintRef<'a>,
    pub d: UintRef<'a>,
    pub p: UintRef<'a>,
    pub q: UintRef<'a>,
    pub dp: UintRef<'a>,
    pub dq: UintRef<'a>,
    pub qinv: UintRef<'a>,
}

/// An RSA key in memory.
pub struct SigningKey {
    pair: RsaKeyPair,
    public: RsaPublicKey,
}

impl SigningKey {
    /// Makes a key of 2048 bits and gives its PKCS#8 in DER, which is erased from memory when dropped.
    pub fn generate() -> Result<Zeroizing<Vec<u8>>, KeyError> {
        let key = rsa::PrivateKey::new(&mut SysRng, RSA_BITS).map_err(KeyError::Generate)?;
        Ok(key.to_pkcs8_der().map_err(|_| KeyError::NotAKey(RSA_WANTED))?.to_bytes())
    }

    /// Reads PKCS#8 in DER: 2048 to 4096 bits.
    pub fn from_pkcs8_der(bytes: &[u8]) -> Result<Self, KeyError> {
        let pair = RsaKeyPair::from_pkcs8(bytes).map_err(|_| KeyError::NotAKey(RSA_WANTED))?;
        let public = RsaPublicKey::from_pkcs1_der(pair.public().as_ref())?;
        Ok(Self { pair, public })
    }
}

impl Signer for SigningKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        let mut signature = vec![0; self.pair.public().modulus_len()];
        // ring takes random numbers against timing attacks; the signature does not depend on them.
        self.pair
            .sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut signature)
            .map_err(|_| KeyError::Sign("the RSA operation failed"))?;
        Ok(signature)
    }

    fn public_key(&self) -> &RsaPublicKey {
        &self.public
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey").field("public", &self.public).finish_non_exhaustive()
    }
}

/// A signer and the X.509 certificate of its key.
pub struct CertifiedKey {
    signer: Arc<dyn Signer>,
    certificate: Certificate,
    der: Vec<u8>,
}

impl CertifiedKey {
    /// Pairs a signer with its certificate in DER; refuses a certificate of another key.
    pub fn new(signer: Arc<dyn Signer>, certificate_der: &[u8]) -> Result<Self, KeyError> {
        let certificate = Certificate::from_der(certificate_der)
            .map_err(|_| KeyError::NotAKey("an X.509 certificate in DER"))?;
        let of = RsaPublicKey::from_spki(certificate.tbs_certificate().subject_public_key_info())?;
        if of != *signer.public_key() {
            return Err(KeyError::ForeignCertificate);
        }
        Ok(Self { signer, certificate, der: certificate_der.to_vec() })
    }

    /// The same certificate with another signer of the same key.
    pub(crate) fn with_signer(&self, signer: Arc<dyn Signer>) -> Self {
        Self { signer, certificate: self.certificate.clone(), der: self.der.clone() }
    }

    pub(crate) fn shared_signer(&self) -> Arc<dyn Signer> {
        Arc::clone(&self.signer)
    }

    /// What signs.
    pub fn signer(&self) -> &dyn Signer {
        self.signer.as_ref()
    }

    /// The certificate in DER.
    pub fn certificate_der(&self) -> &[u8] {
        &self.der
    }

    pub(crate) const fn certificate(&self) -> &Certificate {
        &self.certificate
    }
}

impl fmt::Debug for CertifiedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CertifiedKey").field("public", self.signer.public_key()).finish_non_exhaustive()
    }
}

/// An Ed25519 public key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Ed25519PublicKey(pub [u8; 32]);

impl Ed25519PublicKey {
    /// Reads a `SubjectPublicKeyInfo` of an Ed25519 key.
    pub fn from_spki_der(bytes: &[u8]) -> Result<Self, KeyError> {
        let wrong = || KeyError::NotAKey(ED25519_WANTED);
        let spki = SubjectPublicKeyInfoOwned::from_der(bytes).map_err(|_| wrong())?;
        let key = spki.subject_public_key.as_bytes().filter(|_| spki.algorithm.oid == ED25519);
        key.and_then(|key| key.try_into().ok()).map(Self).ok_or_else(wrong)
    }

    /// `SubjectPublicKeyInfo` in DER (RFC 8410, section 4).
    pub fn spki_der(&self) -> Result<Vec<u8>, KeyError> {
        let spki = SubjectPublicKeyInfoOwned {
            algorithm: AlgorithmIdentifierOwned { oid: ED25519, parameters: None },
            subject_public_key: BitString::from_bytes(&self.0)?,
        };
        Ok(spki.to_der()?)
    }

    /// `SubjectPublicKeyInfo` in PEM.
    pub fn spki_pem(&self) -> Result<String, KeyError> {
        to_pem("PUBLIC KEY", &self.spki_der()?)
    }

    /// Checks a signature over `message`.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), KeyError> {
        UnparsedPublicKey::new(&ring::signature::ED25519, &self.0)
            .verify(message, signature)
            .map_err(|_| KeyError::BadSignature)
    }
}

impl fmt::Debug for Ed25519PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ed25519PublicKey({})", hex::encode(self.0))
    }
}

/// An Ed25519 key in memory.
pub struct Ed25519Key {
    pair: Ed25519KeyPair,
    public: Ed25519PublicKey,
}

impl Ed25519Key {
    /// Makes a key and gives its PKCS#8 (version 1) in DER, which is erased from memory when dropped.
    pub fn generate() -> Result<Zeroizing<Vec<u8>>, KeyError> {
        // Both parts have a fixed size, so no copy of the seed is left behind by a growing buffer.
        let mut pkcs8 = Zeroizing::new(vec![0; ED25519_PKCS8.len() + 32]);
        let (prefix, seed) = pkcs8.split_at_mut(ED25519_PKCS8.len());
        prefix.copy_from_slice(&ED25519_PKCS8);
        getrandom::fill(seed).map_err(KeyError::Random)?;
        Ok(pkcs8)
    }

    /// Reads PKCS#8 in DER, version 1 or 2.
    pub fn from_pkcs8_der(bytes: &[u8]) -> Result<Self, KeyError> {
        let wrong = || KeyError::NotAKey(ED25519_WANTED);
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(bytes).map_err(|_| wrong())?;
        let public = Ed25519PublicKey(pair.public_key().as_ref().try_into().map_err(|_| wrong())?);
        Ok(Self { pair, public })
    }
}

impl Ed25519Signer for Ed25519Key {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        Ok(self.pair.sign(message).as_ref().to_vec())
    }

    fn public_key(&self) -> &Ed25519PublicKey {
        &self.public
    }
}

impl fmt::Debug for Ed25519Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ed25519Key").field("public", &self.public).finish_non_exhaustive()
    }
}

/// The seed in the PKCS#8 of an Ed25519 key (RFC 8410, section 7: an OCTET STRING in an OCTET STRING).
pub(crate) fn ed25519_seed(pkcs8: &[u8]) -> Result<Zeroizing<[u8; 32]>, KeyError> {
    let wrong = || KeyError::NotAKey(ED25519_WANTED);
    let info = PrivateKeyInfoRef::from_der(pkcs8).map_err(|_| wrong())?;
    let seed = <&OctetStringRef>::from_der(info.private_key.as_bytes()).map_err(|_| wrong())?;
    Ok(Zeroizing::new(seed.as_bytes().try_into().map_err(|_| wrong())?))
}
