//! The signature of an archive's index: the cleartext signature framework of OpenPGP (RFC 9580, section 7).

use sequoia_openpgp as openpgp;

use openpgp::cert::prelude::{Cert, CertParser};
use openpgp::parse::Parse;
use openpgp::parse::stream::{
    MessageLayer, MessageStructure, VerificationError, VerificationHelper, VerifierBuilder,
};
use openpgp::policy::StandardPolicy;
use std::io::Read;
use std::time::SystemTime;

/// Largest signed index that is looked at, in bytes. Debian's are 140 to 300 KB.
pub(crate) const MAX_MESSAGE: u64 = 16 << 20;

/// The certificates in a keyring file, binary or armoured. What cannot be read is passed over: a keyring
/// may hold keys of kinds that are not known here.
pub(crate) fn certificates(keyring: &[u8]) -> Vec<Cert> {
    CertParser::from_bytes(keyring).map(|parser| parser.flatten().collect()).unwrap_or_default()
}

/// Decides which signature is enough: one good one of a certificate in the keyring.
struct Judge<'a> {
    certificates: &'a [Cert],
    reasons: Vec<String>,
}

impl VerificationHelper for Judge<'_> {
    fn get_certs(&mut self, _ids: &[openpgp::KeyHandle]) -> openpgp::Result<Vec<Cert>> {
        Ok(self.certificates.to_vec())
    }

    fn check(&mut self, structure: MessageStructure) -> openpgp::Result<()> {
        let mut good = false;
        for layer in structure {
            match layer {
                MessageLayer::SignatureGroup { results } => {
                    for result in results {
                        match result {
                            Ok(_) => good = true,
                            Err(error) => self.reasons.push(reason(&error)),
                        }
                    }
                }
                // The cleartext framework has neither.
                MessageLayer::Compression { .. } | MessageLayer::Encryption { .. } => {
                    return Err(openpgp::Error::MalformedMessage("not a signed text".into()).into());
                }
            }
        }
        if good { Ok(()) } else { Err(openpgp::Error::BadSignature("no good signature".into()).into()) }
    }
}

/// Why one signature does not count.
fn reason(error: &VerificationError) -> String {
    match error {
        VerificationError::MissingKey { sig } => {
            let issuers: Vec<_> = sig.get_issuers().iter().map(ToString::to_string).collect();
            format!("key {} is not in the keyring", issuers.first().map_or("without a name", |id| id))
        }
        VerificationError::UnboundKey { cert, error, .. } => {
            format!("key {}: {}", cert.fingerprint(), whole(error))
        }
        VerificationError::BadKey { ka, error, .. } => {
            format!("key {}: {}", ka.key().fingerprint(), whole(error))
        }
        VerificationError::BadSignature { ka, error, .. } => {
            format!("bad signature of key {}: {}", ka.key().fingerprint(), whole(error))
        }
        VerificationError::MalformedSignature { error, .. } => {
            format!("malformed signature: {}", whole(error))
        }
        _ => "a signature of an unknown kind".into(),
    }
}

/// An error with all its causes, in one line.
fn whole(error: &impl std::fmt::Display) -> String {
    format!("{error:#}")
}

/// The signed text of an `InRelease` file, if at `now` a certificate in `keyrings` (the bytes of keyring files)
/// has made a good signature on it.
///
/// What counts as good is Sequoia's standard policy: the signing key or sub-key is bound to its
/// certificate and meant for signing, neither expired nor revoked, and the algorithms are not broken. What
/// stands outside of the signed part is never returned.
///
/// # Errors
/// Says for each signature why it does not count.
pub fn verify_in_release(message: &[u8], keyrings: &[Vec<u8>], now: SystemTime) -> Result<String, String> {
    let certificates: Vec<Cert> = keyrings.iter().flat_map(|keyring| certificates(keyring)).collect();
    verify(message, &certificates, now)
}

/// As [`verify_in_release`], with the certificates read.
pub(crate) fn verify(message: &[u8], certificates: &[Cert], now: SystemTime) -> Result<String, String> {
    if message.len() as u64 > MAX_MESSAGE {
        return Err(format!("it is larger than {MAX_MESSAGE} bytes"));
    }
    if !message.starts_with(b"-----BEGIN PGP SIGNED MESSAGE-----") {
        return Err("it is not a signed text".into());
    }
    let policy = StandardPolicy::at(now);
    let judge = Judge { certificates, reasons: Vec::new() };
    // All of the text lies in the verifier's buffer, so that nothing is given out before it was verified.
    let mut verifier = VerifierBuilder::from_bytes(message)
        .map(|builder| builder.buffer_size(message.len().max(1)))
        .and_then(|builder| builder.with_policy(&policy, now, judge))
        .map_err(|error| error.to_string())?;
    let mut text = Vec::new();
    if let Err(error) = verifier.read_to_end(&mut text) {
        let reasons = verifier.into_helper().reasons;
        return Err(if reasons.is_empty() { error.to_string() } else { reasons.join("; ") });
    }
    if !verifier.message_processed() {
        return Err("the signature was not reached".into());
    }
    String::from_utf8(text).map_err(|_| "it is not UTF-8".into())
}
