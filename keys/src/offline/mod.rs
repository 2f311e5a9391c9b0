//! Signing on another machine than the one that builds.
//!
//! The one that builds runs as always, with signers that note what they are asked for ([`Recorder`]) and stop at
//! the first signature that is missing. The notes are a [`SigningRequest`], which a person can read. The machine
//! that has the keys answers it with a [`SignatureSet`]. With the answers, the build runs again and comes to the
//! same bytes as if the keys had been there, because RSA PKCS#1 v1.5 and Ed25519 are deterministic.
//!
//! A signed image needs two signatures, and the second one is over the first: the program with the PCR policy's
//! signature in it. With both keys on one machine that can build the program from its parts, one round does: it
//! signs through a [`Recorder`] too and hands back what was signed. With the keys on two machines there are two
//! rounds; [`SignatureSet::merge`] joins the answers.

mod recorder;

use crate::folder::KeyFolder;
use crate::purpose::{Base64, Purpose};
use crate::{KeyError, Role};
use ashlar_image::digest::Digest;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fmt;

pub use recorder::Recorder;

/// Version of both files.
const FORMAT: u32 = 1;
/// Largest text of a request or of answers, in bytes.
pub const TEXT_LIMIT: usize = 64 << 20;
/// Most signatures in one of them.
pub const ITEM_LIMIT: usize = 4096;

const REQUEST: &str = "a signing request";
const ANSWERS: &str = "answers to a signing request";

/// For the person who signs: what the signatures are for. It is not signed itself and proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct About {
    /// Identifier of the image.
    pub image_id: String,
    /// Version of the image.
    pub image_version: String,
    /// Root hash of the image's verity tree.
    pub root_hash: Option<Digest>,
    /// The kernel's command line.
    pub cmdline: Option<String>,
}

/// One signature that is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Item {
    /// Whose key shall sign.
    pub role: Role,
    /// SHA-256 of that key's `SubjectPublicKeyInfo`.
    pub key: Digest,
    /// What is signed; the bytes follow from it.
    pub purpose: Purpose,
}

/// What is to be signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SigningRequest {
    format: u32,
    /// What it is for.
    pub about: About,
    /// The signatures, in the order in which they were asked for.
    pub items: Vec<Item>,
}

/// One signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    /// Whose key signed.
    pub role: Role,
    /// SHA-256 of that key's `SubjectPublicKeyInfo`.
    pub key: Digest,
    /// SHA-256 of the bytes that were signed.
    pub message: Digest,
    /// The signature: RSASSA-PKCS1-v1_5 with SHA-256, or Ed25519.
    pub signature: Base64,
}

/// Signatures that were made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignatureSet {
    format: u32,
    /// The signatures, sorted by role, key and message.
    pub signatures: Vec<Answer>,
}

#[derive(Deserialize)]
struct Format {
    format: u32,
}

/// Reads one of the two files: the version first, so that a newer one is called that.
fn read<T: DeserializeOwned>(text: &str, wanted: &'static str) -> Result<T, KeyError> {
    let malformed = |why: String| KeyError::Exchange { wanted, why };
    if text.len() > TEXT_LIMIT {
        return Err(malformed("it is larger than 64 MiB".to_owned()));
    }
    let Format { format } = serde_json::from_str(text).map_err(|error| malformed(error.to_string()))?;
    if format != FORMAT {
        return Err(malformed(format!(
            "its format is {format}, this program reads {FORMAT}; update the older one"
        )));
    }
    serde_json::from_str(text).map_err(|error| malformed(error.to_string()))
}

fn write(value: &impl Serialize, wanted: &'static str) -> Result<String, KeyError> {
    let mut text = serde_json::to_string_pretty(value)
        .map_err(|error| KeyError::Exchange { wanted, why: error.to_string() })?;
    text.push('\n');
    Ok(text)
}

impl SigningRequest {
    /// A request for these signatures.
    pub fn new(about: About, items: Vec<Item>) -> Self {
        Self { format: FORMAT, about, items }
    }

    /// Reads the JSON text of a request: at most 64 MiB and 4096 signatures, each fit for its key.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let request: Self = read(text, REQUEST)?;
        if request.items.len() > ITEM_LIMIT {
            return Err(KeyError::Exchange { wanted: REQUEST, why: "it asks for more than 4096".to_owned() });
        }
        for item in &request.items {
            item.message()?;
        }
        Ok(request)
    }

    /// The JSON text.
    pub fn to_json(&self) -> Result<String, KeyError> {
        write(self, REQUEST)
    }

    /// What of it is not among the answers. An answer that is no signature of the folder's key is an error.
    pub fn unanswered<'a>(
        &'a self,
        answers: &SignatureSet,
        keys: &KeyFolder,
    ) -> Result<Vec<&'a Item>, KeyError> {
        let mut missing = Vec::new();
        for item in &self.items {
            let message = item.message_for(keys)?;
            match answers.find(item.role, item.key, Digest::of(&message)) {
                None => missing.push(item),
                Some(answer) => keys
                    .key(item.role)
                    .verify(&message, &answer.signature.0)
                    .map_err(|_| KeyError::WrongAnswer(item.role))?,
            }
        }
        Ok(missing)
    }
}

impl Item {
    /// The bytes to sign, if a key of this role signs such things.
    pub fn message(&self) -> Result<Vec<u8>, KeyError> {
        if self.purpose.fits(self.role) {
            self.purpose.message()
        } else {
            Err(KeyError::Purpose(self.role, self.purpose.to_string()))
        }
    }

    /// The bytes to sign, if the key is that of the folder.
    fn message_for(&self, keys: &KeyFolder) -> Result<Vec<u8>, KeyError> {
        let found = keys.fingerprint(self.role)?;
        if found != self.key {
            return Err(KeyError::OtherKey { role: self.role, wanted: self.key, found });
        }
        self.message()
    }
}

/// What the person who signs is shown.
impl fmt::Display for SigningRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let about = &self.about;
        writeln!(
            f,
            "image         {} {}",
            about.image_id.escape_default(),
            about.image_version.escape_default()
        )?;
        if let Some(hash) = about.root_hash {
            writeln!(f, "root hash     {hash}")?;
        }
        if let Some(cmdline) = &about.cmdline {
            writeln!(f, "command line  {}", cmdline.escape_default())?;
        }
        for item in &self.items {
            writeln!(f, "{:<13} {}", item.role.name(), item.purpose)?;
        }
        Ok(())
    }
}

/// Signs what a request asks of these roles; what it asks of others stays unanswered. Nothing is signed if one
/// item wants a key that is not the folder's, or a signature that its key is not for.
pub fn answer(request: &SigningRequest, keys: &KeyFolder, roles: &[Role]) -> Result<SignatureSet, KeyError> {
    let asked: Vec<&Item> = request.items.iter().filter(|item| roles.contains(&item.role)).collect();
    let messages = asked.iter().map(|item| item.message_for(keys)).collect::<Result<Vec<_>, _>>()?;
    let mut set = SignatureSet::default();
    for (item, message) in asked.iter().zip(messages) {
        let signature = keys.key(item.role).sign(&message)?;
        set.add(Answer {
            role: item.role,
            key: item.key,
            message: Digest::of(&message),
            signature: Base64(signature),
        })?;
    }
    Ok(set)
}

impl Default for SignatureSet {
    fn default() -> Self {
        Self { format: FORMAT, signatures: Vec::new() }
    }
}

impl SignatureSet {
    /// Reads the JSON text of answers: at most 64 MiB and 4096 signatures. They are checked when they are used.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let read: Self = read(text, ANSWERS)?;
        if read.signatures.len() > ITEM_LIMIT {
            return Err(KeyError::Exchange { wanted: ANSWERS, why: "there are more than 4096".to_owned() });
        }
        let mut set = Self::default();
        set.merge(read)?;
        Ok(set)
    }

    /// The JSON text.
    pub fn to_json(&self) -> Result<String, KeyError> {
        write(self, ANSWERS)
    }

    /// Adds the answers of another host. The same one twice is no harm; two that differ are an error.
    pub fn merge(&mut self, other: Self) -> Result<(), KeyError> {
        other.signatures.into_iter().try_for_each(|answer| self.add(answer))
    }

    fn add(&mut self, answer: Answer) -> Result<(), KeyError> {
        let place = |of: &Answer| (of.role, of.key, of.message);
        match self.signatures.binary_search_by_key(&place(&answer), place) {
            Ok(at) if self.signatures.get(at) == Some(&answer) => Ok(()),
            Ok(_) => Err(KeyError::Contradiction(answer.role)),
            Err(at) => {
                self.signatures.insert(at, answer);
                Ok(())
            }
        }
    }

    fn find(&self, role: Role, key: Digest, message: Digest) -> Option<&Answer> {
        let at = self
            .signatures
            .binary_search_by_key(&(role, key, message), |of| (of.role, of.key, of.message))
            .ok()?;
        self.signatures.get(at)
    }
}
