//! Signers that note what they are asked for, and signers that give known answers.

use super::{About, Answer, Item, SignatureSet, SigningRequest};
use crate::folder::KeyFolder;
use crate::purpose::{Base64, Purpose};
use crate::signer::{Ed25519PublicKey, Ed25519Signer, RsaPublicKey, Signer};
use crate::{KeyError, Role};
use ashlar_image::digest::Digest;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What signers of one folder were asked for, and the answers so far.
#[derive(Debug, Clone, Default)]
pub struct Recorder(Arc<Mutex<Notes>>);

#[derive(Debug, Default)]
struct Notes {
    items: Vec<Item>,
    answers: SignatureSet,
}

impl Recorder {
    /// Begins with the answers that there are already: of an earlier round.
    pub fn new(answers: SignatureSet) -> Self {
        Self(Arc::new(Mutex::new(Notes { items: Vec::new(), answers })))
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The signatures that were asked for and are missing. Empty if there were answers to all.
    pub fn request(&self, about: About) -> SigningRequest {
        SigningRequest::new(about, self.notes().items.clone())
    }

    /// The answers: those from the beginning and those that were signed meanwhile.
    pub fn answers(&self) -> SignatureSet {
        self.notes().answers.clone()
    }
}

/// What a signer does that has no answer yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Otherwise {
    /// It notes the question and stops with [`KeyError::Unanswered`].
    Note,
    /// It signs and notes the answer.
    Sign,
    /// It stops with [`KeyError::NotAnswered`].
    Refuse,
}

/// What all of these signers have.
struct Clerk {
    role: Role,
    key: Digest,
    recorder: Recorder,
    otherwise: Otherwise,
}

impl Clerk {
    fn sign(
        &self,
        purpose: Option<&Purpose>,
        message: &[u8],
        verify: impl Fn(&[u8]) -> Result<(), KeyError>,
        sign: impl Fn() -> Result<Vec<u8>, KeyError>,
    ) -> Result<Vec<u8>, KeyError> {
        let digest = Digest::of(message);
        if let Some(answer) = self.recorder.notes().answers.find(self.role, self.key, digest) {
            verify(&answer.signature.0).map_err(|_| KeyError::WrongAnswer(self.role))?;
            return Ok(answer.signature.0.clone());
        }
        match self.otherwise {
            Otherwise::Refuse => Err(KeyError::NotAnswered { role: self.role, message: digest }),
            Otherwise::Sign => {
                let signature = sign()?;
                self.recorder.notes().answers.add(Answer {
                    role: self.role,
                    key: self.key,
                    message: digest,
                    signature: Base64(signature.clone()),
                })?;
                Ok(signature)
            }
            Otherwise::Note => {
                let purpose = purpose.ok_or(KeyError::Sign("what it is for is not told"))?;
                let item = Item { role: self.role, key: self.key, purpose: purpose.clone() };
                // Whoever answers signs what follows from the purpose: it must be what was asked for here.
                if item.message()? != message {
                    return Err(KeyError::Purpose(self.role, purpose.to_string()));
                }
                let mut notes = self.recorder.notes();
                if !notes.items.contains(&item) {
                    notes.items.push(item);
                }
                Err(KeyError::Unanswered(self.role))
            }
        }
    }
}

/// Gives known answers, each verified with the public key; what has none is noted, signed or refused.
struct OfflineSigner<S: ?Sized> {
    clerk: Clerk,
    inner: Arc<S>,
}

impl Signer for OfflineSigner<dyn Signer> {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        let public = self.inner.public_key();
        self.clerk.sign(None, message, |answer| public.verify(message, answer), || self.inner.sign(message))
    }

    fn sign_as(&self, purpose: &Purpose, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        let public = self.inner.public_key();
        let verify = |answer: &[u8]| public.verify(message, answer);
        self.clerk.sign(Some(purpose), message, verify, || self.inner.sign_as(purpose, message))
    }

    fn ready(&self) -> Result<(), KeyError> {
        if self.clerk.otherwise == Otherwise::Sign { self.inner.ready() } else { Ok(()) }
    }

    fn public_key(&self) -> &RsaPublicKey {
        self.inner.public_key()
    }
}

impl Ed25519Signer for OfflineSigner<dyn Ed25519Signer> {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        let public = self.inner.public_key();
        let purpose = Purpose::Document { content: Base64(message.to_vec()) };
        let verify = |answer: &[u8]| public.verify(message, answer);
        self.clerk.sign(Some(&purpose), message, verify, || self.inner.sign(message))
    }

    fn ready(&self) -> Result<(), KeyError> {
        if self.clerk.otherwise == Otherwise::Sign { self.inner.ready() } else { Ok(()) }
    }

    fn public_key(&self) -> &Ed25519PublicKey {
        self.inner.public_key()
    }
}

impl KeyFolder {
    /// The same folder whose signers note what they are asked for and stop at what has no answer yet. No
    /// private half is opened.
    pub fn recording(&self, recorder: &Recorder) -> Result<Self, KeyError> {
        self.clerks(recorder, |_| Otherwise::Note)
    }

    /// The same folder in which these roles sign, with their answers noted, and the others are recorded.
    pub fn answering(&self, recorder: &Recorder, roles: &[Role]) -> Result<Self, KeyError> {
        self.clerks(recorder, |role| if roles.contains(&role) { Otherwise::Sign } else { Otherwise::Note })
    }

    /// The same folder whose signers have these answers and nothing else. No private half is opened.
    pub fn replaying(&self, answers: SignatureSet) -> Result<Self, KeyError> {
        self.clerks(&Recorder::new(answers), |_| Otherwise::Refuse)
    }

    fn clerks(&self, recorder: &Recorder, otherwise: impl Fn(Role) -> Otherwise) -> Result<Self, KeyError> {
        let clerk = |role: Role| -> Result<Clerk, KeyError> {
            Ok(Clerk {
                role,
                key: self.fingerprint(role)?,
                recorder: recorder.clone(),
                otherwise: otherwise(role),
            })
        };
        self.with_signers(
            |role, inner| Ok(Arc::new(OfflineSigner { clerk: clerk(role)?, inner })),
            |role, inner| Ok(Arc::new(OfflineSigner { clerk: clerk(role)?, inner })),
        )
    }
}
