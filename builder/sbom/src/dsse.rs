//! The envelope around a signed statement: DSSE (secure-systems-lab/dsse, protocol 1.0.2).

use crate::SbomError;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

/// Payload type of in-toto statements.
pub const IN_TOTO: &str = "application/vnd.in-toto+json";
/// Largest envelope that is read, in bytes.
pub const MAX_ENVELOPE: usize = 64 << 20;
/// Most signatures that an envelope may have.
const MAX_SIGNATURES: usize = 16;

/// What a signer returns when it cannot sign.
pub type SignError = Box<dyn std::error::Error + Send + Sync>;
/// Signs bytes; the channel's Ed25519 key, say.
pub type Signer<'a> = dyn Fn(&[u8]) -> Result<Vec<u8>, SignError> + 'a;

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

/// The envelope of `payload` with one signature by `signer`, which gets the bytes to sign. `keyid` helps a verifier to
/// find the key and proves nothing; it may be empty.
///
/// # Errors
/// [`SbomError::Sign`] when the signer refuses.
pub fn sign(
    payload_type: &str,
    payload: &[u8],
    keyid: &str,
    signer: &Signer<'_>,
) -> Result<Vec<u8>, SbomError> {
    let signature = signer(&pae(payload_type, payload)).map_err(SbomError::Sign)?;
    let envelope = Envelope {
        payload_type: payload_type.to_owned(),
        payload: STANDARD.encode(payload),
        signatures: vec![Signature { keyid: keyid.to_owned(), sig: STANDARD.encode(signature) }],
    };
    let mut bytes = serde_json::to_vec_pretty(&envelope)?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// The payload of an envelope of this type, if one of its signatures is accepted. `verify` gets the bytes that were
/// signed, and the signature.
///
/// # Errors
/// [`SbomError::Envelope`] when it is no envelope, of another type, or no signature is accepted.
pub fn open(
    envelope: &[u8],
    payload_type: &str,
    verify: &dyn Fn(&[u8], &[u8]) -> bool,
) -> Result<Vec<u8>, SbomError> {
    let refuse = |why: &str| SbomError::Envelope(why.to_owned());
    if envelope.len() > MAX_ENVELOPE {
        return Err(refuse("it is larger than 64 MiB"));
    }
    let envelope: Envelope =
        serde_json::from_slice(envelope).map_err(|error| SbomError::Envelope(error.to_string()))?;
    if envelope.payload_type != payload_type {
        return Err(SbomError::Envelope(format!(
            "it holds `{}`, not `{payload_type}`",
            envelope.payload_type
        )));
    }
    if envelope.signatures.len() > MAX_SIGNATURES {
        return Err(refuse("it has more than 16 signatures"));
    }
    let payload = STANDARD.decode(&envelope.payload).map_err(|_| refuse("its payload is no base64"))?;
    let signed = pae(payload_type, &payload);
    let accepted = envelope
        .signatures
        .iter()
        .filter_map(|signature| STANDARD.decode(&signature.sig).ok())
        .any(|signature| verify(&signed, &signature));
    if accepted { Ok(payload) } else { Err(refuse("no signature is one of the given key")) }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let hash = |bytes: &[u8]| ashlar_image::digest::Digest::of(bytes).0.to_vec();
        let signer = |bytes: &[u8]| Ok(hash(bytes));
        let verify = |bytes: &[u8], signature: &[u8]| signature == hash(bytes);
        let envelope = sign(IN_TOTO, b"{}", "key", &signer).unwrap();
        assert_eq!(open(&envelope, IN_TOTO, &verify).unwrap(), b"{}");
        assert!(open(&envelope, "text/plain", &verify).is_err());
        assert!(open(&envelope, IN_TOTO, &|_, _| false).is_err());
        let text = String::from_utf8(envelope.clone()).unwrap();
        let changed = text.replace(&STANDARD.encode(b"{}"), &STANDARD.encode(b"[]"));
        assert_ne!(changed, text);
        assert!(open(changed.as_bytes(), IN_TOTO, &verify).is_err());
        for end in 0..envelope.len() - 2 {
            assert!(open(&envelope[..end], IN_TOTO, &verify).is_err());
        }
        let refused = sign(IN_TOTO, b"{}", "", &|_| Err("no card".into())).unwrap_err();
        assert_eq!(refused.to_string(), "cannot sign the statement: no card");
    }
}
