//! The signature of an archive's index: the cleartext signature framework of OpenPGP (RFC 9580, section 7).

use sequoia_openpgp as openpgp;

use openpgp::cert::amalgamation::ValidAmalgamation;
use openpgp::cert::prelude::{Cert, CertParser, ValidErasedKeyAmalgamation};
use openpgp::packet::key::PublicParts;
use openpgp::parse::Parse;
use openpgp::parse::stream::{
    GoodChecksum, MessageLayer, MessageStructure, VerificationError, VerificationHelper, VerifierBuilder,
};
use openpgp::policy::StandardPolicy;
use openpgp::types::RevocationStatus;
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
    policy: &'a StandardPolicy<'a>,
    now: SystemTime,
}

impl Judge<'_> {
    /// Whether the key of a good signature can still be trusted now. Sequoia asks whether it was valid when the signature
    /// was made; but that time is the signer's word, and whoever has got hold of an expired key can put any time there.
    fn is_current(&self, ka: &ValidErasedKeyAmalgamation<PublicParts>) -> Result<(), String> {
        let why =
            |error: openpgp::anyhow::Error| format!("key {}: {}", ka.key().fingerprint(), whole(&error));
        let certificate = ka.cert().with_policy(self.policy, self.now).map_err(why)?;
        certificate.alive().map_err(why)?;
        let key = certificate.keys().for_signing().key_handle(ka.key().fingerprint()).next();
        let key = key.ok_or_else(|| format!("key {} is not for signing any more", ka.key().fingerprint()))?;
        key.alive().map_err(why)?;
        let revoked = [certificate.revocation_status(), key.revocation_status()]
            .iter()
            .any(|status| matches!(status, RevocationStatus::Revoked(_)));
        if revoked { Err(format!("key {} is revoked", ka.key().fingerprint())) } else { Ok(()) }
    }
}

impl VerificationHelper for Judge<'_> {
    fn get_certs(&mut self, _ids: &[openpgp::KeyHandle]) -> openpgp::Result<Vec<Cert>> {
        Ok(self.certificates.to_vec())
    }

    fn check(&mut self, structure: MessageStructure) -> openpgp::Result<()> {
        let mut reasons = Vec::new();
        for layer in structure {
            // The cleartext framework has neither compression nor encryption.
            let MessageLayer::SignatureGroup { results } = layer else {
                return Err(openpgp::anyhow::Error::msg("it is not a signed text"));
            };
            for result in results {
                let verdict = match &result {
                    Ok(GoodChecksum { ka, .. }) => self.is_current(ka),
                    Err(error) => Err(reason(error)),
                };
                match verdict {
                    Ok(()) => return Ok(()),
                    Err(why) => reasons.push(why),
                }
            }
        }
        if reasons.is_empty() {
            reasons.push("it has no signature".to_owned());
        }
        Err(openpgp::anyhow::Error::msg(reasons.join("; ")))
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
/// What counts as good is Sequoia's standard policy: the signing key or sub-key is bound to its certificate and meant for
/// signing, and the algorithms are not broken. Beyond that, key and certificate must neither have expired nor have been
/// revoked, both when the signature was made and now. What stands outside of the signed part is never returned.
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
    let judge = Judge { certificates, policy: &policy, now };
    // All of the text lies in the verifier's buffer, so that nothing is given out before it was verified.
    let mut verifier = VerifierBuilder::from_bytes(message)
        .map(|builder| builder.buffer_size(message.len().max(1)))
        .and_then(|builder| builder.with_policy(&policy, now, judge))
        .map_err(|error| whole(&error))?;
    let mut text = Vec::new();
    verifier.read_to_end(&mut text).map_err(|error| error.to_string())?;
    if !verifier.message_processed() {
        return Err("the signature was not reached".into());
    }
    String::from_utf8(text).map_err(|_| "it is not UTF-8".into())
}
