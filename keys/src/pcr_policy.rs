//! Signed PCR policies in systemd's form: the `.pcrsig` and `.pcrpkey` sections of a unified kernel image
//! (systemd-measure(1), "sign"). A secret that is sealed to the PCR-policy key opens on every machine whose
//! PCRs have values that the owner signed.

use crate::KeyError;
use crate::purpose::Purpose;
use crate::signer::Signer;
use ashlar_image::digest::Digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use std::collections::BTreeMap;

/// `TPM_CC_PolicyPCR` (TPM 2.0 Library Specification, part 2, section 6.5.2).
const TPM_CC_POLICY_PCR: u32 = 0x0000_017f;
/// `TPM_ALG_SHA256`.
const TPM_ALG_SHA256: u16 = 0x000b;
/// PCRs of a PC client TPM.
const PCRS: u32 = 24;

/// What is to be signed: PCR values and what they may open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// PCR and value in the SHA-256 bank.
    pub pcrs: BTreeMap<u32, Digest>,
    /// The `policyRef` of `TPM2_PolicyAuthorize`: the signature is good only where the sealed object names the same
    /// one (TPM 2.0 Library Specification, part 3, section 23.16). None is the empty one, as systemd has it.
    pub policy_ref: Option<Digest>,
}

impl From<BTreeMap<u32, Digest>> for Policy {
    fn from(pcrs: BTreeMap<u32, Digest>) -> Self {
        Self { pcrs, policy_ref: None }
    }
}

impl Policy {
    /// The bytes that are signed: the policy's digest, and behind it the `policyRef`.
    pub fn message(&self) -> Result<Vec<u8>, KeyError> {
        let mut message = policy_digest(&self.pcrs)?.0.to_vec();
        message.extend(self.policy_ref.iter().flat_map(|reference| reference.0));
        Ok(message)
    }
}

/// One signed policy.
#[derive(Serialize)]
struct Entry {
    /// Which PCRs, ascending.
    pcrs: Vec<u32>,
    /// SHA-256 of the key's PKCS#1 DER.
    pkfp: String,
    /// The policy's digest.
    pol: Digest,
    /// The `policyRef`: ours, systemd's entries have none.
    #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
    policy_ref: Option<Digest>,
    /// Signature over the digest's 32 bytes and those of the `policyRef`, base64.
    sig: String,
}

#[derive(Serialize)]
struct Signatures {
    sha256: Vec<Entry>,
}

/// The policy digest after one `TPM2_PolicyPCR` over the SHA-256 bank with these values (TPM 2.0 Library
/// Specification, part 3, section 23.7).
pub fn policy_digest(values: &BTreeMap<u32, Digest>) -> Result<Digest, KeyError> {
    if values.is_empty() || values.keys().any(|pcr| *pcr >= PCRS) {
        return Err(KeyError::Pcrs);
    }
    let bitmap = values.keys().fold(0u32, |bitmap, pcr| bitmap | 1 << pcr).to_le_bytes();
    let concatenated: Vec<u8> = values.values().flat_map(|value| value.0).collect();
    let mut policy = Digest::ZERO.0.to_vec();
    policy.extend(TPM_CC_POLICY_PCR.to_be_bytes());
    // TPML_PCR_SELECTION: one bank, three bytes of bitmap.
    policy.extend(1u32.to_be_bytes());
    policy.extend(TPM_ALG_SHA256.to_be_bytes());
    policy.push(3);
    policy.extend(&bitmap[..3]);
    policy.extend(Digest::of(concatenated).0);
    Ok(Digest::of(policy))
}

/// Signs policies in the order given, and gives the JSON text of `.pcrsig` without a trailing NUL.
pub fn sign<P: Clone + Into<Policy>>(key: &dyn Signer, policies: &[P]) -> Result<String, KeyError> {
    if policies.is_empty() {
        return Err(KeyError::Pcrs);
    }
    let fingerprint = Digest::of(key.public_key().pkcs1_der()?).to_string();
    let mut sha256 = Vec::with_capacity(policies.len());
    let mut unanswered = None;
    for policy in policies {
        let policy: Policy = policy.clone().into();
        let pol = policy_digest(&policy.pcrs)?;
        let message = policy.message()?;
        let purpose = Purpose::PcrPolicy { pcrs: policy.pcrs.clone(), policy_ref: policy.policy_ref };
        let signature = match key.sign_as(&purpose, &message) {
            // The others are asked for as well, so that one round of signing answers all of them.
            Err(error @ KeyError::Unanswered(_)) => {
                unanswered = Some(error);
                continue;
            }
            signature => signature?,
        };
        sha256.push(Entry {
            pcrs: policy.pcrs.keys().copied().collect(),
            pkfp: fingerprint.clone(),
            pol,
            policy_ref: policy.policy_ref,
            sig: STANDARD.encode(signature),
        });
    }
    if let Some(unanswered) = unanswered {
        return Err(unanswered);
    }
    serde_json::to_string(&Signatures { sha256 }).map_err(|_| KeyError::Sign("the JSON text cannot be made"))
}

/// The public key in PEM, as it belongs into `.pcrpkey`.
pub fn public_key_pem(key: &dyn Signer) -> Result<String, KeyError> {
    key.public_key().spki_pem()
}
