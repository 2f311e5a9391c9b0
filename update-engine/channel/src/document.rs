//! The document of a channel.

use crate::rollout::{WHOLE, Wave};
use crate::version::compare;
use ashlar_image::digest::Digest;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::cmp::Ordering;

/// Version of the format; raised when a reader of the old one would be misled.
pub const FORMAT: u32 = 1;
/// Longest document in bytes.
pub const MAX_DOCUMENT: u64 = 4 << 20;
/// Most releases in a channel.
const MAX_OFFERS: usize = 1000;
/// Most waves of a release.
const MAX_WAVES: usize = 32;
/// Longest text in bytes.
const MAX_TEXT: usize = 4096;

/// Why a document was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the channel's document: `{key}`: {reason}")]
pub struct DocumentError {
    /// Which key: `releases[2].rollout[0].share`.
    pub key: String,
    /// What is wrong.
    pub reason: String,
}

/// A channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Document {
    /// [`FORMAT`].
    pub format: u32,
    /// Its name: `stable`.
    pub name: String,
    /// `IMAGE_ID` of its releases.
    pub image_id: String,
    /// Their architecture: `x86-64`.
    pub architecture: String,
    /// No release below this is taken from the channel.
    #[serde(default)]
    pub minimum_security_version: u64,
    /// Machines with a later version go back to the latest one that is not: a recall.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_version: Option<String>,
    /// Where machines tell how an update went: an `http` or `https` address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub collector: Option<String>,
    /// Releases, in any order.
    #[serde(default)]
    pub releases: Vec<Offer>,
}

/// A release in a channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Offer {
    /// `IMAGE_VERSION`.
    pub version: String,
    /// SHA-256 of its `release.json`.
    pub release: Digest,
    /// Its number that never falls.
    pub security_version: u64,
    /// Who gets it when; without any wave everybody at once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rollout: Vec<Wave>,
    /// Whether older machines must pass through it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub floor: bool,
    /// As `floor`, with the reason, for operators.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub barrier: Option<String>,
    /// Machines that run it get no update from here; what the operator must do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dead_end: Option<String>,
    /// Nobody gets it any more; why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub withdrawn: Option<String>,
    /// What is new.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notes: Option<String>,
}

impl Offer {
    /// Whether older machines must pass through it.
    pub const fn is_floor(&self) -> bool {
        self.floor || self.barrier.is_some()
    }
}

fn wrong(key: impl Into<String>, reason: impl Into<String>) -> DocumentError {
    DocumentError { key: key.into(), reason: reason.into() }
}

/// Takes out what other programs may put in: keys that begin with `x-`.
fn strip(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|name, _| !name.starts_with("x-"));
            map.values_mut().for_each(strip);
        }
        Value::Array(values) => values.iter_mut().for_each(strip),
        _ => {}
    }
}

/// Whether a text can be a name: of a channel, an image, a version. Such names become parts of paths.
fn name(key: &str, text: &str) -> Result<(), DocumentError> {
    let good = !text.is_empty()
        && text.len() <= 128
        && !text.starts_with('.')
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-+~^".contains(&byte));
    if good { Ok(()) } else { Err(wrong(key, format!("`{}` is no name", text.escape_debug()))) }
}

impl Document {
    /// A channel without releases.
    pub fn new(name: &str, image_id: &str, architecture: &str) -> Self {
        Self {
            format: FORMAT,
            name: name.to_owned(),
            image_id: image_id.to_owned(),
            architecture: architecture.to_owned(),
            minimum_security_version: 0,
            max_version: None,
            collector: None,
            releases: Vec::new(),
        }
    }

    /// Reads a document.
    pub fn parse(bytes: &[u8]) -> Result<Self, DocumentError> {
        if bytes.len() as u64 > MAX_DOCUMENT {
            return Err(wrong(".", format!("it is longer than {MAX_DOCUMENT} bytes")));
        }
        let mut value: Value =
            serde_json::from_slice(bytes).map_err(|error| wrong(".", error.to_string()))?;
        strip(&mut value);
        let document: Self = serde_path_to_error::deserialize(value)
            .map_err(|error| wrong(error.path().to_string(), error.inner().to_string()))?;
        document.check()?;
        Ok(document)
    }

    /// As it is published.
    pub fn to_bytes(&self) -> Result<Vec<u8>, DocumentError> {
        self.check()?;
        let mut bytes = serde_json::to_vec_pretty(self).map_err(|error| wrong(".", error.to_string()))?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// Whether everything in it can be.
    pub fn check(&self) -> Result<(), DocumentError> {
        if self.format != FORMAT {
            return Err(wrong(
                "format",
                format!("it is {}, and this program knows {FORMAT}: update it", self.format),
            ));
        }
        name("name", &self.name)?;
        name("image_id", &self.image_id)?;
        name("architecture", &self.architecture)?;
        self.max_version.iter().try_for_each(|version| name("max_version", version))?;
        if let Some(address) = &self.collector
            && !(address.starts_with("https://") || address.starts_with("http://"))
        {
            return Err(wrong("collector", "it is no http or https address"));
        }
        if self.releases.len() > MAX_OFFERS {
            return Err(wrong("releases", format!("there are more than {MAX_OFFERS}")));
        }
        for (number, offer) in self.releases.iter().enumerate() {
            let key = |field: &str| format!("releases[{number}].{field}");
            name(&key("version"), &offer.version)?;
            let earlier = self.releases.iter().take(number);
            if earlier.clone().any(|other| compare(&other.version, &offer.version) == Ordering::Equal) {
                return Err(wrong(key("version"), format!("`{}` is there twice", offer.version)));
            }
            if offer.rollout.len() > MAX_WAVES {
                return Err(wrong(key("rollout"), format!("there are more than {MAX_WAVES} waves")));
            }
            let shares: u64 = offer.rollout.iter().map(|wave| u64::from(wave.share)).sum();
            if shares > u64::from(WHOLE) {
                return Err(wrong(key("rollout"), format!("its shares come to {shares} of {WHOLE}")));
            }
            for (wave, next) in offer.rollout.iter().zip(offer.rollout.iter().skip(1)) {
                if next.start < wave.start.saturating_add(i64::from(wave.duration)) {
                    return Err(wrong(key("rollout"), "a wave begins before the one before it is over"));
                }
            }
            if offer.rollout.iter().any(|wave| wave.share == 0) {
                return Err(wrong(key("rollout"), "a wave has no machines"));
            }
            for (field, text) in [
                ("barrier", &offer.barrier),
                ("dead_end", &offer.dead_end),
                ("withdrawn", &offer.withdrawn),
                ("notes", &offer.notes),
            ] {
                if text.as_ref().is_some_and(|text| text.len() > MAX_TEXT) {
                    return Err(wrong(key(field), format!("it is longer than {MAX_TEXT} bytes")));
                }
            }
        }
        Ok(())
    }

    /// A release by its version.
    pub fn offer(&self, version: &str) -> Option<&Offer> {
        self.releases.iter().find(|offer| compare(&offer.version, version) == Ordering::Equal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"{
        "format": 1, "name": "stable", "image_id": "host", "architecture": "x86-64", "x-owner": {"a": 1},
        "releases": [
            {"version": "1.1", "release": "0000000000000000000000000000000000000000000000000000000000000000",
             "security_version": 1, "x-build": 7,
             "rollout": [{"start": 1000, "duration": 500, "share": 100000}, {"start": 1500, "share": 900000}]}
        ]
    }"#;

    #[test]
    fn a_good_one() {
        let document = Document::parse(GOOD.as_bytes()).unwrap();
        assert_eq!(document.releases[0].rollout[1].duration, 0);
        assert_eq!(Document::parse(&document.to_bytes().unwrap()).unwrap(), document);
    }

    #[test]
    fn bad_ones_name_the_key() {
        for (old, new, key) in [
            ("\"format\": 1", "\"format\": 2", "format"),
            ("\"stable\"", "\"../x\"", "name"),
            ("\"host\"", "\"\"", "image_id"),
            ("\"security_version\": 1", "\"security_version\": -1", "releases[0].security_version"),
            ("\"security_version\": 1", "\"security_version\": 1, \"sorry\": 1", "releases[0].sorry"),
            ("\"architecture\"", "\"arch\"", "arch"),
            ("\"share\": 900000", "\"share\": 900001", "releases[0].rollout"),
            ("\"share\": 900000", "\"share\": \"all\"", "releases[0].rollout[1].share"),
            ("\"start\": 1500", "\"start\": 1499", "releases[0].rollout"),
            ("\"share\": 100000", "\"share\": 0", "releases[0].rollout"),
            ("\"1.1\"", "\"1 1\"", "releases[0].version"),
            ("000000\",", "00000g\",", "releases[0].release"),
            ("\"format\": 1,", "\"format\": 1, \"collector\": \"ftp://x\",", "collector"),
            ("}", "", "."),
        ] {
            let text = GOOD.replacen(old, new, 1);
            assert_ne!(text, GOOD, "{old}");
            let error = Document::parse(text.as_bytes()).unwrap_err();
            assert_eq!(error.key, key, "{error}");
        }
        let double = GOOD.replacen("]\n    }", ", {\"version\": \"1.01\", \"release\": \"0000000000000000000000000000000000000000000000000000000000000000\", \"security_version\": 1}]\n}", 1);
        assert_eq!(Document::parse(double.as_bytes()).unwrap_err().key, "releases[1].version");
    }
}
