//! The envelope around a signed document: DSSE (secure-systems-lab/dsse, protocol and envelope 1.0.2).
//!
//! How keys sign and verify is the caller's: this holds the bytes that are signed and the form of the envelope.

use base64::Engine as _;
use base64::alphabet::{STANDARD as STANDARD_ALPHABET, URL_SAFE};
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use serde::{Deserialize, Serialize};

/// Most signatures that an envelope may have.
pub const MAX_SIGNATURES: usize = 16;

/// Why an envelope was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DsseError {
    /// More bytes than are read.
    #[error("it is larger than {0} bytes")]
    TooLarge(usize),
    /// The text is no envelope.
    #[error("{0}")]
    Malformed(String),
    /// It holds a document of another type.
    #[error("it holds `{found}`, not `{wanted}`")]
    OtherType {
        /// What it says that it holds.
        found: String,
        /// What was looked for.
        wanted: String,
    },
    /// The payload is not base64.
    #[error("its payload is no base64")]
    Payload,
    /// More signatures than are looked at.
    #[error("it has more than {MAX_SIGNATURES} signatures")]
    TooManySignatures,
    /// None of the signatures verifies.
    #[error("no signature is one of the given key")]
    Signature,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope {
    payload_type: String,
    payload: String,
    signatures: Vec<Signature>,
}

#[derive(Serialize, Deserialize)]
struct Signature {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    keyid: String,
    sig: String,
}

/// The pre-authentication encoding, which is what is signed: lengths are in bytes, decimal.
pub fn pae(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let mut bytes = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len()).into_bytes();
    bytes.extend_from_slice(payload);
    bytes
}

/// The envelope of `payload` with one signature of [`pae`]. `keyid` helps a verifier to find the key and proves
/// nothing; it may be empty.
///
/// # Errors
/// The JSON writer's, which has no reason to.
pub fn envelope(
    payload_type: &str,
    payload: &[u8],
    keyid: &str,
    signature: &[u8],
) -> Result<Vec<u8>, serde_json::Error> {
    let envelope = Envelope {
        payload_type: payload_type.to_owned(),
        payload: STANDARD.encode(payload),
        signatures: vec![Signature { keyid: keyid.to_owned(), sig: STANDARD.encode(signature) }],
    };
    let mut bytes = serde_json::to_vec_pretty(&envelope)?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// Base64 in either alphabet, with or without padding: a verifier has to take both.
fn decode(text: &str) -> Option<Vec<u8>> {
    let alphabet = if text.contains(['-', '_']) { &URL_SAFE } else { &STANDARD_ALPHABET };
    let config = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    GeneralPurpose::new(alphabet, config).decode(text).ok()
}

/// The payload of an envelope of this type, if one of its signatures is accepted. `verify` gets the bytes that were
/// signed, and the signature. No more than `most` bytes are read.
///
/// # Errors
/// [`DsseError`] when it is no envelope, of another type, or no signature is accepted.
pub fn open(
    envelope: &[u8],
    payload_type: &str,
    most: usize,
    verify: &dyn Fn(&[u8], &[u8]) -> bool,
) -> Result<Vec<u8>, DsseError> {
    if envelope.len() > most {
        return Err(DsseError::TooLarge(most));
    }
    let envelope: Envelope =
        serde_json::from_slice(envelope).map_err(|error| DsseError::Malformed(error.to_string()))?;
    if envelope.payload_type != payload_type {
        let found = envelope.payload_type.chars().take(100).flat_map(char::escape_debug).collect();
        return Err(DsseError::OtherType { found, wanted: payload_type.to_owned() });
    }
    if envelope.signatures.len() > MAX_SIGNATURES {
        return Err(DsseError::TooManySignatures);
    }
    let payload = decode(&envelope.payload).ok_or(DsseError::Payload)?;
    let signed = pae(payload_type, &payload);
    let accepted = envelope
        .signatures
        .iter()
        .filter_map(|signature| decode(&signature.sig))
        .any(|signature| verify(&signed, &signature));
    if accepted { Ok(payload) } else { Err(DsseError::Signature) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;

    const TYPE: &str = "text/x-test";
    const MOST: usize = 4096;

    fn hash(bytes: &[u8]) -> Vec<u8> {
        Digest::of(bytes).0.to_vec()
    }

    fn is_hash(bytes: &[u8], signature: &[u8]) -> bool {
        signature == hash(bytes)
    }

    #[test]
    fn the_encoding_is_that_of_the_specification() {
        // The protocol's own example.
        assert_eq!(
            pae("http://example.com/HelloWorld", b"hello world"),
            b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
        );
    }

    #[test]
    fn only_what_was_signed_is_opened() {
        let payload = b"{}>>>???";
        let whole = envelope(TYPE, payload, "key", &hash(&pae(TYPE, payload))).unwrap();
        assert_eq!(open(&whole, TYPE, MOST, &is_hash).unwrap(), payload);
        let other = DsseError::OtherType { found: TYPE.into(), wanted: "text/plain".into() };
        assert_eq!(open(&whole, "text/plain", MOST, &is_hash), Err(other));
        assert_eq!(open(&whole, TYPE, MOST, &|_, _| false), Err(DsseError::Signature));
        assert_eq!(open(&whole, TYPE, whole.len() - 1, &is_hash), Err(DsseError::TooLarge(whole.len() - 1)));
        let text = String::from_utf8(whole.clone()).unwrap();
        let changed = text.replace(&STANDARD.encode(payload), &STANDARD.encode(b"[]"));
        assert_ne!(changed, text);
        assert_eq!(open(changed.as_bytes(), TYPE, MOST, &is_hash), Err(DsseError::Signature));
        let broken = text.replace(&STANDARD.encode(payload), "!");
        assert_eq!(open(broken.as_bytes(), TYPE, MOST, &is_hash), Err(DsseError::Payload));
        for end in 0..whole.len() - 2 {
            let error = open(&whole[..end], TYPE, MOST, &is_hash).unwrap_err();
            assert!(matches!(error, DsseError::Malformed(_)), "{error}");
        }
    }

    #[test]
    fn both_alphabets_are_read_and_fields_that_nobody_knows_are_passed_over() {
        let payload = b"\xfb\xff\xfe";
        assert_eq!(STANDARD.encode(payload), "+//+");
        let signature = hex::encode(hash(&pae(TYPE, payload)));
        let verify = |bytes: &[u8], signature: &[u8]| hex::encode(hash(bytes)).as_bytes() == signature;
        for payload_text in ["+//+", "-__-"] {
            for signature in [STANDARD.encode(&signature), STANDARD.encode(&signature).replace('=', "")] {
                let text = format!(
                    r#"{{"x":1,"payloadType":"{TYPE}","payload":"{payload_text}",
                        "signatures":[{{"sig":"?"}},{{"sig":"{signature}","cert":"x"}}]}}"#
                );
                assert_eq!(open(text.as_bytes(), TYPE, MOST, &verify).unwrap(), payload, "{text}");
            }
        }
    }

    #[test]
    fn there_is_an_end_to_signatures() {
        let signatures = vec![r#"{"sig":""}"#; MAX_SIGNATURES + 1].join(",");
        let text = format!(r#"{{"payloadType":"{TYPE}","payload":"","signatures":[{signatures}]}}"#);
        assert_eq!(open(text.as_bytes(), TYPE, MOST, &|_, _| true), Err(DsseError::TooManySignatures));
    }
}
