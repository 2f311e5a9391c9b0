//! A release's own signatures as signers: who has built the same again gets the same signatures, and nobody else.
//! For anything else they give zeros, which then show as a difference beside what caused it.

use super::secure_boot::SecureBoot;
use crate::error::BuildError;
use ashlar_keys::{CertifiedKey, KeyError, RsaPublicKey, Signer, authenticode};
use ashlar_measured_boot::uki::Uki;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::sync::Arc;
use x509_cert::der::{Decode as _, Encode as _};

/// Gives the one of its signatures that is right for a message.
struct Recorded {
    public: RsaPublicKey,
    signatures: Vec<Vec<u8>>,
}

impl Signer for Recorded {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        let right = self.signatures.iter().find(|signature| self.public.verify(message, signature).is_ok());
        Ok(right.cloned().unwrap_or_else(|| vec![0; self.public.modulus().len()]))
    }

    fn public_key(&self) -> &RsaPublicKey {
        &self.public
    }
}

/// The signers of a release.
pub struct RecordedSigners {
    /// Of the UKI.
    pub db: CertifiedKey,
    /// Of the PCR policy.
    pub pcr: Arc<dyn Signer>,
}

/// `.pcrsig`, as far as it matters here (systemd-measure(1)).
#[derive(serde::Deserialize)]
struct PcrSignatures {
    sha256: Vec<PcrSignature>,
}

#[derive(serde::Deserialize)]
struct PcrSignature {
    sig: String,
}

/// The PEM text's DER.
fn der(pem: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(pem).ok()?.trim_matches(|c: char| c == '\0' || c.is_whitespace());
    let body: String = text.lines().filter(|line| !line.starts_with("-----")).collect();
    STANDARD.decode(body).ok()
}

impl RecordedSigners {
    /// Takes the signatures out of a release's signed UKI.
    pub fn new(uki: &[u8], secure_boot: &SecureBoot) -> Result<Self, BuildError> {
        let missing = |what: &str| BuildError::NotSigned(what.to_owned());
        let parsed = Uki::parse(uki)?;
        let section = |name: &'static str| parsed.section(name).ok_or_else(|| missing(name));
        let pcr_key = der(section(".pcrpkey")?).ok_or_else(|| missing(".pcrpkey"))?;
        let text = section(".pcrsig")?;
        let text = text.split(|byte| *byte == 0).next().unwrap_or_default();
        let signed: PcrSignatures = serde_json::from_slice(text).map_err(|_| missing(".pcrsig"))?;
        let pcr = Recorded {
            public: RsaPublicKey::from_spki_der(&pcr_key)?,
            signatures: signed.sha256.iter().filter_map(|entry| STANDARD.decode(&entry.sig).ok()).collect(),
        };
        let certificate = secure_boot.file("db.crt").and_then(der).ok_or_else(|| missing("db.crt"))?;
        let key = x509_cert::Certificate::from_der(&certificate).map_err(|_| missing("db.crt"))?;
        let key = key.tbs_certificate().subject_public_key_info().to_der().map_err(|_| missing("db.crt"))?;
        let public = RsaPublicKey::from_spki_der(&key)?;
        // A SignerInfo ends with its signature (RFC 5652, section 5.3), and ours has nothing behind it. Whatever these
        // bytes are, they are verified before they are used.
        let length = public.modulus().len();
        let signatures = authenticode::signatures(uki)?
            .into_iter()
            .filter_map(|pkcs7| pkcs7.len().checked_sub(length).and_then(|at| pkcs7.get(at..)))
            .map(<[u8]>::to_vec)
            .collect();
        let db = CertifiedKey::new(Arc::new(Recorded { public, signatures }), &certificate)?;
        Ok(Self { db, pcr: Arc::new(pcr) })
    }
}
