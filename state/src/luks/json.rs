//! The JSON part of a header (section 3), as cryptsetup writes it.

use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

/// Most keyslots, tokens, segments or digests (section 3; cryptsetup's LUKS2_KEYSLOTS_MAX and LUKS2_TOKENS_MAX).
pub const MOST: u8 = 32;

/// An object whose keys are numbers below 32, each at most once.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Numbered<T>(pub BTreeMap<u8, T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Numbered<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Entries<T> {
            type Value = Numbered<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object whose keys are numbers below 32")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries = BTreeMap::new();
                while let Some((key, value)) = map.next_entry::<u8, T>()? {
                    if key >= MOST {
                        return Err(A::Error::custom(format_args!("the number {key} is above 31")));
                    }
                    if entries.insert(key, value).is_some() {
                        return Err(A::Error::custom(format_args!("the number {key} is there twice")));
                    }
                }
                Ok(Numbered(entries))
            }
        }
        deserializer.deserialize_map(Entries(PhantomData))
    }
}

/// A 64-bit number, which JSON holds as a text of decimal digits (section 3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decimal(pub u64);

/// Reads decimal digits without sign or leading zero.
pub fn decimal(text: &str) -> Option<u64> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| plain)
}

impl Serialize for Decimal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Decimal {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        decimal(&text)
            .map(Decimal)
            .ok_or_else(|| D::Error::custom("a number in decimal digits is expected in the text"))
    }
}

/// All of it, with parts that are looked at one after the other.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Document {
    /// Encrypted copies of the volume's key.
    pub keyslots: Numbered<Value>,
    /// Whatever belongs to opening it.
    pub tokens: Numbered<Value>,
    /// The data.
    pub segments: Numbered<Value>,
    /// What proves a key.
    pub digests: Numbered<Value>,
    /// The rest.
    pub config: Config,
}

/// Sizes and flags.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Of the JSON area.
    pub json_size: Decimal,
    /// Of the area of keyslots.
    pub keyslots_size: Decimal,
    /// Never here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flags: Option<Value>,
    /// Never here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requirements: Option<Value>,
}

/// The data segment (section 3.3).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Segment {
    /// `crypt`.
    pub r#type: String,
    /// In bytes.
    pub offset: Decimal,
    /// In bytes, or `dynamic`.
    pub size: String,
    /// In sectors of 512 bytes.
    pub iv_tweak: Decimal,
    /// The cipher.
    pub encryption: String,
    /// In bytes.
    pub sector_size: u32,
    /// Never here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub integrity: Option<Value>,
    /// Never here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flags: Option<Value>,
}

/// A keyslot (section 3.2).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Keyslot {
    /// `luks2`.
    pub r#type: String,
    /// Of the volume's key, in bytes.
    pub key_size: u32,
    /// How it is spread.
    pub af: AntiForensic,
    /// Where it lies.
    pub area: Area,
    /// How its key is derived.
    pub kdf: Kdf,
    /// 0 to 2: whether to try it by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<u8>,
}

/// The anti-forensic splitter.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AntiForensic {
    /// `luks1`.
    pub r#type: String,
    /// How many.
    pub stripes: u32,
    /// Of the diffusion.
    pub hash: String,
}

/// A keyslot's area.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Area {
    /// `raw`.
    pub r#type: String,
    /// In bytes.
    pub offset: Decimal,
    /// In bytes.
    pub size: Decimal,
    /// The cipher.
    pub encryption: String,
    /// Of the cipher, in bytes.
    pub key_size: u32,
}

/// The key derivation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kdf {
    /// `argon2id`.
    pub r#type: String,
    /// Passes.
    pub time: u32,
    /// KiB.
    pub memory: u32,
    /// Lanes.
    pub cpus: u32,
    /// In base64.
    pub salt: String,
}

/// The proof of a key (section 3.4).
#[allow(clippy::struct_field_names)] // the format's names
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Digest {
    /// `pbkdf2`.
    pub r#type: String,
    /// Which keyslots hold the key.
    pub keyslots: Vec<String>,
    /// Which segments it opens.
    pub segments: Vec<String>,
    /// The hash.
    pub hash: String,
    /// The cost.
    pub iterations: u32,
    /// In base64.
    pub salt: String,
    /// In base64.
    pub digest: String,
}

/// What the allow list lets through.
#[derive(Debug, Clone, PartialEq)]
pub struct Metadata {
    /// By number.
    pub keyslots: BTreeMap<u8, Keyslot>,
    /// By number.
    pub tokens: BTreeMap<u8, super::token::Token>,
    /// The one segment.
    pub segment: Segment,
    /// The one digest.
    pub digest: Digest,
    /// Number of the digest.
    pub digest_number: u8,
    /// Sizes.
    pub config: Config,
}

impl Metadata {
    /// As JSON in one line.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        #[derive(Serialize)]
        struct Parts<'a> {
            keyslots: &'a BTreeMap<u8, Keyslot>,
            tokens: BTreeMap<u8, Value>,
            segments: BTreeMap<u8, &'a Segment>,
            digests: BTreeMap<u8, &'a Digest>,
            config: &'a Config,
        }
        let tokens = self.tokens.iter().map(|(number, token)| Ok((*number, token.to_value()?)));
        serde_json::to_string(&Parts {
            keyslots: &self.keyslots,
            tokens: tokens.collect::<Result<_, serde_json::Error>>()?,
            segments: BTreeMap::from([(0, &self.segment)]),
            digests: BTreeMap::from([(self.digest_number, &self.digest)]),
            config: &self.config,
        })
    }
}
