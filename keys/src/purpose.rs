//! What a signature is for. The bytes that are signed follow from it alone, so that whoever signs offline signs
//! nothing but what was shown to him.

use crate::{KeyError, Role, auth, authenticode, pcr_policy};
use ashlar_image::digest::Digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::BTreeMap;
use std::fmt;

/// Bytes that JSON holds in base64 (RFC 4648, section 4).
#[derive(Clone, PartialEq, Eq)]
pub struct Base64(pub Vec<u8>);

impl fmt::Debug for Base64 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Base64({} bytes)", self.0.len())
    }
}

impl Serialize for Base64 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        STANDARD.decode(text).map(Self).map_err(|_| serde::de::Error::custom("not base64 with padding"))
    }
}

/// What a signature is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Purpose {
    /// A machine whose PCRs have these values opens what is sealed to the PCR-policy key.
    PcrPolicy {
        /// PCR and value in the SHA-256 bank.
        pcrs: BTreeMap<u32, Digest>,
        /// Only what names this `policyRef` opens.
        #[serde(default, rename = "policy-ref", skip_serializing_if = "Option::is_none")]
        policy_ref: Option<Digest>,
    },
    /// The firmware runs this EFI program.
    #[serde(rename_all = "kebab-case")]
    EfiProgram {
        /// Authenticode hash of the program.
        authenticode: Digest,
        /// The time that the signature names, seconds since 1970.
        signing_time: Option<i64>,
    },
    /// The firmware writes this Secure Boot variable.
    Variable {
        /// `PK`, `KEK`, `db` or `dbx`.
        name: String,
        /// The time that must be later than that of the last write, seconds since 1970.
        time: i64,
        /// The new content.
        payload: Base64,
    },
    /// Ashlar's programs believe this document: a release of the channel, a machine configuration.
    Document {
        /// The whole document.
        content: Base64,
    },
}

impl Purpose {
    /// The bytes that are signed.
    pub fn message(&self) -> Result<Vec<u8>, KeyError> {
        match self {
            Self::PcrPolicy { pcrs, policy_ref } => {
                pcr_policy::Policy { pcrs: pcrs.clone(), policy_ref: *policy_ref }.message()
            }
            Self::EfiProgram { authenticode, signing_time } => {
                authenticode::message(*authenticode, *signing_time)
            }
            Self::Variable { name, time, payload } => auth::message(name, &payload.0, *time),
            Self::Document { content } => Ok(content.0.clone()),
        }
    }

    /// Whether a key of this role signs such things.
    pub fn fits(&self, role: Role) -> bool {
        match self {
            Self::PcrPolicy { .. } => role == Role::Pcr,
            Self::EfiProgram { .. } => role == Role::Db,
            Self::Variable { name, .. } => match role {
                Role::Pk => true,
                Role::Kek => name == "db" || name == "dbx",
                _ => false,
            },
            Self::Document { .. } => matches!(role, Role::Channel | Role::Configuration),
        }
    }
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PcrPolicy { pcrs, policy_ref } => {
                f.write_str("a PCR policy:")?;
                pcrs.iter().try_for_each(|(pcr, value)| write!(f, " PCR {pcr} = {value}"))?;
                match policy_ref {
                    Some(reference) => write!(f, ", for what names {reference}"),
                    None => Ok(()),
                }
            }
            Self::EfiProgram { authenticode, signing_time } => {
                write!(f, "an EFI program with the Authenticode hash {authenticode}")?;
                match signing_time {
                    Some(time) => write!(f, ", signed at {time} (seconds since 1970)"),
                    None => f.write_str(", without a time"),
                }
            }
            Self::Variable { name, time, payload } => write!(
                f,
                "the variable {}, {} bytes with the SHA-256 {}, at {time} (seconds since 1970)",
                name.escape_default(),
                payload.0.len(),
                Digest::of(&payload.0)
            ),
            Self::Document { content } => {
                write!(
                    f,
                    "a document of {} bytes with the SHA-256 {}",
                    content.0.len(),
                    Digest::of(&content.0)
                )
            }
        }
    }
}
