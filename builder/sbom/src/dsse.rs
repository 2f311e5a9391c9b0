//! Signed statements: the envelope of [`ashlar_image::dsse`] with the sizes and errors of this crate.

use crate::SbomError;
use ashlar_image::dsse;

pub use ashlar_image::dsse::pae;

/// Payload type of in-toto statements.
pub const IN_TOTO: &str = "application/vnd.in-toto+json";
/// Largest envelope that is read, in bytes.
pub const MAX_ENVELOPE: usize = 64 << 20;

/// What a signer returns when it cannot sign.
pub type SignError = Box<dyn std::error::Error + Send + Sync>;
/// Signs bytes; the channel's Ed25519 key, say.
pub type Signer<'a> = dyn Fn(&[u8]) -> Result<Vec<u8>, SignError> + 'a;

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
    Ok(dsse::envelope(payload_type, payload, keyid, &signature)?)
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
    dsse::open(envelope, payload_type, MAX_ENVELOPE, verify)
        .map_err(|error| SbomError::Envelope(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_signed_is_opened() {
        let hash = |bytes: &[u8]| ashlar_image::digest::Digest::of(bytes).0.to_vec();
        let signer = |bytes: &[u8]| Ok(hash(bytes));
        let verify = |bytes: &[u8], signature: &[u8]| signature == hash(bytes);
        let envelope = sign(IN_TOTO, b"{}", "key", &signer).unwrap();
        assert_eq!(open(&envelope, IN_TOTO, &verify).unwrap(), b"{}");
        assert!(open(&envelope, "text/plain", &verify).is_err());
        assert!(open(&envelope, IN_TOTO, &|_, _| false).is_err());
        let refused = sign(IN_TOTO, b"{}", "", &|_| Err("no card".into())).unwrap_err();
        assert_eq!(refused.to_string(), "cannot sign the statement: no card");
    }
}
