//! Signed PCR policies: the JSON text of `.pcrsig` in a unified kernel image, in the form of systemd-measure(1).
//!
//! Besides systemd's fields an entry may have `ref`: the policy reference in hexadecimal. Its signature is then over the
//! policy's digest followed by the reference ([`Policy::to_sign`](crate::Policy::to_sign)).

use crate::Error;
use crate::key::PcrKey;
use crate::policy::PcrValues;
use crate::tpm::PCR_COUNT;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

/// The longest text in bytes: more than 300 entries.
pub const MAX_TEXT: usize = 256 << 10;
/// The most entries.
const MAX_ENTRIES: usize = 1024;
/// The longest signature in bytes: RSA of 4096 bits.
const MAX_SIGNATURE: usize = 512;

/// The text. Banks of other algorithms, and fields that later versions add, are left alone.
#[derive(Deserialize)]
struct Text {
    #[serde(default)]
    sha256: Vec<TextEntry>,
}

#[derive(Deserialize)]
struct TextEntry {
    pcrs: Vec<u32>,
    pkfp: String,
    pol: String,
    sig: String,
    #[serde(default, rename = "ref")]
    reference: Option<String>,
}

/// One signed policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The PCRs, ascending.
    pub pcrs: Vec<u32>,
    /// The key's fingerprint ([`PcrKey::fingerprint`]).
    pub key: [u8; 32],
    /// The digest that was approved ([`PcrValues::policy`]).
    pub policy: [u8; 32],
    /// What it was approved for; none in systemd's own.
    pub policy_ref: Option<[u8; 32]>,
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    pub signature: Vec<u8>,
}

/// All signed policies of the SHA-256 bank.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PcrSignatures(Vec<Entry>);

impl PcrSignatures {
    /// Reads the text, of at most [`MAX_TEXT`] bytes. NUL bytes at the end are no part of it.
    pub fn parse(text: &[u8]) -> Result<Self, Error> {
        if text.len() > MAX_TEXT {
            return Err(Error::Signatures(format!(
                "the text has {} bytes, more than {MAX_TEXT}",
                text.len()
            )));
        }
        let end = text.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        let text: Text = serde_json::from_slice(text.get(..end).unwrap_or_default())
            .map_err(|error| Error::Signatures(error.to_string()))?;
        if text.sha256.len() > MAX_ENTRIES {
            return Err(Error::Signatures(format!("there are {} entries", text.sha256.len())));
        }
        let entries = text.sha256.into_iter().enumerate().map(|(number, entry)| {
            read(entry).map_err(|what| Error::Signatures(format!("entry {number}: {what}")))
        });
        Ok(Self(entries.collect::<Result<_, _>>()?))
    }

    /// The entries, in the order of the text.
    pub fn entries(&self) -> &[Entry] {
        &self.0
    }

    /// The entry by which `key` approved these values for this reference.
    pub fn find(&self, key: &PcrKey, values: &PcrValues, policy_ref: Option<&[u8; 32]>) -> Option<&Entry> {
        let policy = values.policy();
        self.0.iter().find(|entry| entry.is_for(key, values, policy_ref) && entry.policy == policy)
    }

    /// Whether `key` approved any values of the same PCRs for this reference. When not, the release was not signed for
    /// it; when so and [`Self::find`] finds none, the PCRs have other values.
    pub fn covers(&self, key: &PcrKey, values: &PcrValues, policy_ref: Option<&[u8; 32]>) -> bool {
        self.0.iter().any(|entry| entry.is_for(key, values, policy_ref))
    }
}

impl Entry {
    fn is_for(&self, key: &PcrKey, values: &PcrValues, policy_ref: Option<&[u8; 32]>) -> bool {
        self.key == *key.fingerprint()
            && self.policy_ref.as_ref() == policy_ref
            && self.pcrs.iter().copied().eq(values.pcrs())
    }
}

fn read(entry: TextEntry) -> Result<Entry, &'static str> {
    let mut ascending = entry.pcrs.windows(2).map(|pair| pair.first() < pair.last());
    if entry.pcrs.is_empty()
        || entry.pcrs.iter().any(|pcr| *pcr >= PCR_COUNT)
        || ascending.any(|right| !right)
    {
        return Err("`pcrs` is no ascending list of PCRs");
    }
    let signature = STANDARD.decode(entry.sig).map_err(|_| "`sig` is no base64")?;
    if signature.is_empty() || signature.len() > MAX_SIGNATURE {
        return Err("`sig` has no size that a signature has");
    }
    Ok(Entry {
        pcrs: entry.pcrs,
        key: digest(&entry.pkfp).ok_or("`pkfp` is no SHA-256 digest")?,
        policy: digest(&entry.pol).ok_or("`pol` is no SHA-256 digest")?,
        policy_ref: match entry.reference {
            None => None,
            Some(reference) => Some(digest(&reference).ok_or("`ref` is no SHA-256 digest")?),
        },
        signature,
    })
}

fn digest(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    hex::decode_to_slice(text, &mut bytes).ok()?;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(pcrs: &str, pol: &str, more: &str) -> String {
        let zeros = "0".repeat(64);
        format!(
            r#"{{"sha256":[{{"pcrs":{pcrs},"pkfp":"{zeros}","pol":"{pol}","sig":"AAAA"{more}}}],"sha1":7}}"#
        )
    }

    fn error(text: &str) -> String {
        PcrSignatures::parse(text.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn systemds_text_and_ours_are_read() {
        let pol = "ab".repeat(32);
        let mut systemd = text("[7,11]", &pol, "").into_bytes();
        systemd.extend([0, 0]);
        let signatures = PcrSignatures::parse(&systemd).unwrap();
        let wanted = Entry {
            pcrs: vec![7, 11],
            key: [0; 32],
            policy: [0xab; 32],
            policy_ref: None,
            signature: vec![0; 3],
        };
        assert_eq!(signatures.entries(), std::slice::from_ref(&wanted));
        let ours = text("[7,11]", &pol, &format!(r#","ref":"{}","new":[{{}}]"#, "cd".repeat(32)));
        let signatures = PcrSignatures::parse(ours.as_bytes()).unwrap();
        assert_eq!(signatures.entries(), [Entry { policy_ref: Some([0xcd; 32]), ..wanted }]);
        assert_eq!(PcrSignatures::parse(b"{}").unwrap().entries(), []);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let pol = "ab".repeat(32);
        for pcrs in ["[]", "[11,7]", "[7,7]", "[24]"] {
            assert!(error(&text(pcrs, &pol, "")).contains("entry 0: `pcrs`"), "{pcrs}");
        }
        assert!(error(&text("[7]", "ab", "")).contains("`pol`"));
        assert!(error(&text("[7]", &pol, r#","ref":"x""#)).contains("`ref`"));
        assert!(error(&text("[7]", &pol, "").replace("AAAA", "")).contains("`sig`"));
        assert!(error(&text("[7]", &pol, "").replace("AAAA", "?")).contains("`sig`"));
        assert!(error("").contains("EOF"));
        assert!(error(&"[".repeat(10_000)).contains("cannot be read"));
        assert!(error(&" ".repeat(MAX_TEXT + 1)).contains("more than"));
        let entry = text("[7]", &pol, "");
        let entry = &entry[r#"{"sha256":["#.len()..entry.len() - r#"],"sha1":7}"#.len()];
        let many = format!(r#"{{"sha256":[{}]}}"#, vec![entry; MAX_ENTRIES + 1].join(","));
        assert!(error(&many).contains("entries") || many.len() > MAX_TEXT);
    }
}
