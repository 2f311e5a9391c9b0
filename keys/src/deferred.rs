//! A signer whose public half is known and whose private half is opened when it is first needed.

use crate::access::Access;
use crate::files;
use crate::keyfile::KeyFile;
use crate::places::Place;
use crate::signer::{Ed25519Key, Ed25519PublicKey, Ed25519Signer, RsaPublicKey, Signer, SigningKey};
use crate::{KeyError, Question, Role, SecretKind, pkcs11, tpm};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use zeroize::Zeroizing;

/// How the private half of a role is opened.
#[derive(Debug, Clone)]
pub(crate) struct Opener {
    pub role: Role,
    pub place: Place,
    pub access: Access,
    /// The certificate or public key.
    pub public_file: PathBuf,
    /// Where it can be said that the private half is elsewhere.
    pub places_file: PathBuf,
}

impl Opener {
    fn absent(&self) -> KeyError {
        KeyError::NoPrivateKey {
            role: self.role,
            looked: self.place.to_string(),
            places_file: self.places_file.clone(),
        }
    }

    fn mismatch(&self) -> KeyError {
        KeyError::Mismatch { private: self.place.to_string(), public: self.public_file.clone() }
    }

    /// The PKCS#8 in the role's file.
    pub fn pkcs8(&self) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        let Place::File { path, passphrase } = &self.place else {
            return Err(KeyError::NotAFile { role: self.role, place: self.place.to_string() });
        };
        let content = match files::read(path, true) {
            Err(KeyError::Missing(_)) => return Err(self.absent()),
            content => content?,
        };
        let parsed = std::str::from_utf8(&content)
            .map_err(|_| KeyError::NotAKey("a private key in PKCS#8 PEM"))
            .and_then(KeyFile::parse);
        let encrypted = match parsed {
            Ok(KeyFile::Plain(pkcs8)) => return Ok(pkcs8),
            Ok(KeyFile::Encrypted(encrypted)) => encrypted,
            Err(KeyError::NotAKey(wanted)) => {
                return Err(KeyError::Malformed { path: path.clone(), wanted });
            }
            Err(error) => return Err(KeyError::KeyFile { path: path.clone(), source: Box::new(error) }),
        };
        let place = path.display().to_string();
        for secret in self.access.remembered(SecretKind::Passphrase, &place) {
            if let Some(pkcs8) = encrypted.decrypt(&secret) {
                return Ok(pkcs8);
            }
        }
        let question = Question { role: self.role, kind: SecretKind::Passphrase, place: place.clone() };
        let secret = self.access.secret(passphrase, &question)?;
        let pkcs8 = encrypted.decrypt(&secret).ok_or_else(|| KeyError::Passphrase(path.clone()))?;
        self.access.remember(SecretKind::Passphrase, &place, &secret);
        Ok(pkcs8)
    }

    fn rsa(&self, public: &RsaPublicKey) -> Result<Arc<dyn Signer>, KeyError> {
        let signer: Arc<dyn Signer> = match &self.place {
            Place::Offline => return Err(self.absent()),
            Place::File { path, .. } => {
                let key = SigningKey::from_pkcs8_der(&self.pkcs8()?);
                Arc::new(key.map_err(|_| KeyError::Malformed {
                    path: path.clone(),
                    wanted: "an RSA key of 2048 bits or more",
                })?)
            }
            Place::Pkcs11(place) => Arc::new(pkcs11::open(place, self.role, &self.access)?.rsa()?),
            Place::Tpm(place) => tpm::open(place, self.role, &self.access)?,
        };
        if signer.public_key() == public { Ok(signer) } else { Err(self.mismatch()) }
    }

    fn ed25519(&self, public: &Ed25519PublicKey) -> Result<Arc<dyn Ed25519Signer>, KeyError> {
        let signer: Arc<dyn Ed25519Signer> = match &self.place {
            Place::Offline => return Err(self.absent()),
            Place::File { path, .. } => {
                let key = Ed25519Key::from_pkcs8_der(&self.pkcs8()?);
                Arc::new(
                    key.map_err(|_| KeyError::Malformed { path: path.clone(), wanted: "an Ed25519 key" })?,
                )
            }
            Place::Pkcs11(place) => {
                Arc::new(pkcs11::open(place, self.role, &self.access)?.ed25519(Some(*public))?)
            }
            Place::Tpm(_) => return Err(KeyError::TpmAlgorithm(self.role)),
        };
        if signer.public_key() == public { Ok(signer) } else { Err(self.mismatch()) }
    }
}

/// A signer that opens the private half at its first signature, or when [`Signer::ready`] is called.
/// Each signature is verified before it is given away: a fault in a token or a stale certificate is noticed here.
pub(crate) struct Deferred<P, S: ?Sized> {
    public: P,
    opener: Opener,
    opened: Mutex<Option<Arc<S>>>,
}

impl<P, S: ?Sized> Deferred<P, S> {
    pub fn new(public: P, opener: Opener) -> Self {
        Self { public, opener, opened: Mutex::new(None) }
    }

    fn opened(&self, open: impl FnOnce(&Opener, &P) -> Result<Arc<S>, KeyError>) -> Result<Arc<S>, KeyError> {
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(signer) = &*opened {
            return Ok(Arc::clone(signer));
        }
        let signer = open(&self.opener, &self.public)?;
        *opened = Some(Arc::clone(&signer));
        Ok(signer)
    }
}

impl Signer for Deferred<RsaPublicKey, dyn Signer> {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        let signature = self.opened(Opener::rsa)?.sign(message)?;
        self.public.verify(message, &signature).map_err(|_| self.opener.mismatch())?;
        Ok(signature)
    }

    fn ready(&self) -> Result<(), KeyError> {
        self.opened(Opener::rsa).map(|_| ())
    }

    fn public_key(&self) -> &RsaPublicKey {
        &self.public
    }
}

impl Ed25519Signer for Deferred<Ed25519PublicKey, dyn Ed25519Signer> {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        let signature = self.opened(Opener::ed25519)?.sign(message)?;
        self.public.verify(message, &signature).map_err(|_| self.opener.mismatch())?;
        Ok(signature)
    }

    fn ready(&self) -> Result<(), KeyError> {
        self.opened(Opener::ed25519).map(|_| ())
    }

    fn public_key(&self) -> &Ed25519PublicKey {
        &self.public
    }
}
