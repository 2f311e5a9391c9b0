//! The signed form of a machine configuration, and what makes one valid.
//!
//! A DSSE envelope of the type [`PAYLOAD_TYPE`] around the TOML text, signed with the owner's configuration key
//! (Ed25519). Its order of checks is fixed: nothing is parsed that the owner has not signed.

use super::error::{ConfigError, TextError, position};
use super::values::PublicKey;
use super::{MAX_TEXT, MachineConfig};
use crate::digest::Digest;
use crate::dsse::{self, DsseError};

/// Payload type of machine configurations.
pub const PAYLOAD_TYPE: &str = "application/vnd.ashlar.machine-config+toml";
/// Largest envelope that is read, in bytes: the longest text in base64 with signatures and space around it.
pub const MAX_ENVELOPE: usize = 512 << 10;

/// A machine configuration that the owner stands for: made by [`verify`], or by [`Verified::of_image`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified<T> {
    text: String,
    digest: Digest,
    config: T,
}

impl<T> Verified<T> {
    /// The signed text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// SHA-256 of the text: what is extended into PCR 12.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// What it says.
    pub fn config(&self) -> &T {
        &self.config
    }
}

/// The configuration that a new one would replace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Serial {
    /// Its serial.
    pub serial: u64,
    /// SHA-256 of its text.
    pub digest: Digest,
}

impl Verified<MachineConfig> {
    /// A text that is part of the image, as in debug images: the image is signed and verity protects it, so it has no
    /// signature of its own.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub fn of_image(text: &str) -> Result<Self, Vec<ConfigError>> {
        let config = MachineConfig::parse(text)?;
        Ok(Self { text: text.to_owned(), digest: Digest::of(text), config })
    }

    /// What [`verify`] has to know of it when another is offered.
    pub fn serial(&self) -> Serial {
        Serial { serial: self.config.serial, digest: self.digest }
    }
}

impl PublicKey {
    /// Whether a signature of `message` is by this key (RFC 8032, strictly: no key of small order, no second form of
    /// a signature).
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let Ok(key) = ed25519_dalek::VerifyingKey::from_bytes(&self.0) else { return false };
        let Ok(signature) = ed25519_dalek::Signature::from_slice(signature) else { return false };
        key.verify_strict(message, &signature).is_ok()
    }
}

/// The bytes that the owner signs for a text.
pub fn payload(text: &str) -> Vec<u8> {
    dsse::pae(PAYLOAD_TYPE, text.as_bytes())
}

/// The signed form of a text: the envelope with the signature of [`payload`].
///
/// # Errors
/// The JSON writer's, which has no reason to.
pub fn sign(text: &str, key: &PublicKey, signature: &[u8]) -> Result<Vec<u8>, serde_json::Error> {
    dsse::envelope(PAYLOAD_TYPE, text.as_bytes(), &key.fingerprint().to_string(), signature)
}

/// Opens a signed configuration: the signature by `key` first, then length, form and content, then its serial against
/// the one that is in force. The same configuration once more is good, so that it can be applied after each start.
///
/// # Errors
/// All that is wrong with it.
pub fn verify(
    envelope: &[u8],
    key: &PublicKey,
    current: Option<Serial>,
) -> Result<Verified<MachineConfig>, Vec<ConfigError>> {
    let is_owners = |message: &[u8], signature: &[u8]| key.verifies(message, signature);
    let payload = dsse::open(envelope, PAYLOAD_TYPE, MAX_ENVELOPE, &is_owners).map_err(|error| {
        vec![match error {
            DsseError::Signature => ConfigError::Signature { key: key.fingerprint() },
            other => ConfigError::Envelope(other),
        }]
    })?;
    if payload.len() > MAX_TEXT {
        return Err(vec![ConfigError::TooLarge(payload.len())]);
    }
    let text = String::from_utf8(payload)
        .map_err(|error| vec![ConfigError::NotText(error.utf8_error().valid_up_to())])?;
    let config = MachineConfig::parse(&text)?;
    let digest = Digest::of(&text);
    if let Some(current) = current {
        let message = if config.serial < current.serial {
            format!(
                "{} is older than {}, which is in force; sign it with a serial above that",
                config.serial, current.serial
            )
        } else if config.serial == current.serial && digest != current.digest {
            format!("{} is in force with another text; raise the serial", config.serial)
        } else {
            String::new()
        };
        if !message.is_empty() {
            return Err(vec![at_serial(&text, message)]);
        }
    }
    Ok(Verified { text, digest, config })
}

/// An error about the serial of a text that could be read.
fn at_serial(text: &str, message: String) -> ConfigError {
    let (document, _) = toml::de::DeTable::parse_recoverable(text);
    let found = document.get_ref().iter().find(|(key, _)| key.get_ref().as_ref() == "serial");
    let span = found.map_or(0..0, |(_, value)| value.span());
    let (line, column) = position(text, span.start);
    ConfigError::Text(TextError { key: "serial".into(), line, column, span, message, help: None })
}
