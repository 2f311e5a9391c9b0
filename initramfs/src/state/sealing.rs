//! The volume's key in the TPM: what was measured, what the owner has signed, and the copies that are sealed.

use super::choice::{Copy, Refusal, Situation};
use crate::error::Error;
use ashlar_image::digest::Digest;
use ashlar_image::state::{COUNTER_INDEX, POLICY_PCRS, SRK_HANDLE, policy_ref};
use ashlar_tpm::counter::Counter;
use ashlar_tpm::key::PcrKey;
use ashlar_tpm::pcrsig::PcrSignatures;
use ashlar_tpm::policy::{PcrValues, Policy};
use ashlar_tpm::public::Name;
use ashlar_tpm::seal::{self, Authorized, Sealed};
use ashlar_tpm::srk::Srk;
use ashlar_tpm::{Tpm, Transport};
use std::collections::BTreeMap;
use std::path::Path;
use zeroize::Zeroizing;

/// Where the stub puts the signatures and the key of the UKI (systemd-stub(7)). Anybody could have put them there:
/// the TPM decides whether they are worth anything.
pub const SIGNATURES: &str = "/.extra/tpm2-pcr-signature.json";
/// The key.
pub const KEY: &str = "/.extra/tpm2-pcr-public-key.pem";

/// A sealed copy of the key with what it needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedCopy {
    /// What it asks for.
    pub copy: Copy,
    /// Name of the storage root key that it is encrypted with.
    pub srk: Vec<u8>,
    /// SHA-256 of the owner's PCR key (PKCS#1 DER).
    pub owner: [u8; 32],
    /// The object's bytes.
    pub sealed: Vec<u8>,
}

/// For whom the key is sealed.
#[derive(Debug)]
pub struct Owner {
    key: PcrKey,
    pem: String,
}

impl Owner {
    /// From the text of `.pcrpkey`.
    pub fn parse(pem: &str) -> Result<Self, Error> {
        Ok(Self { key: PcrKey::from_pem(pem.as_bytes())?, pem: pem.to_owned() })
    }

    /// The text that it was read from.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    fn policy(&self, copy: Copy) -> Policy<'_> {
        Policy {
            key: &self.key,
            policy_ref: Some(policy_ref(copy.generation).0),
            counter: Some((Counter::at(COUNTER_INDEX), copy.counter)),
        }
    }

    /// Seals `key` to this TPM for what `copy` asks for.
    pub fn seal<T: Transport>(&self, tpm: &mut Tpm<T>, copy: Copy, key: &[u8]) -> Result<SealedCopy, Error> {
        let srk = Srk::ensure(tpm, SRK_HANDLE)?;
        let sealed = seal::seal(tpm, &srk, &self.policy(copy).digest(), key)?;
        Ok(SealedCopy {
            copy,
            srk: srk.name().as_bytes().to_vec(),
            owner: *self.key.fingerprint(),
            sealed: sealed.to_bytes(),
        })
    }
}

/// The owner's word about this boot.
#[derive(Debug)]
pub struct Signed {
    /// The owner.
    pub owner: Owner,
    signatures: PcrSignatures,
}

impl Signed {
    /// Reads both files.
    pub fn read() -> Result<Self, Error> {
        let read = |path: &str| std::fs::read(path).map_err(Error::io("read", Path::new(path)));
        let pem = String::from_utf8_lossy(&read(KEY)?).into_owned();
        Ok(Self { owner: Owner::parse(&pem)?, signatures: PcrSignatures::parse(&read(SIGNATURES)?)? })
    }

    /// What there is to choose from among `copies`.
    pub fn situation<T: Transport>(
        &self,
        tpm: &mut Tpm<T>,
        secure_boot: bool,
        security_version: u64,
        copies: &[SealedCopy],
    ) -> Result<Situation, Error> {
        let values = PcrValues::read(tpm, &POLICY_PCRS)?;
        let counter = match Counter::at(COUNTER_INDEX).read(tpm) {
            Ok(value) => Some(value),
            Err(ashlar_tpm::Error::NoCounter { .. } | ashlar_tpm::Error::ForeignCounter { .. }) => None,
            Err(error) => return Err(error.into()),
        };
        let first = security_version.saturating_sub(2 * ashlar_image::state::GENERATIONS);
        let signed = (first..=security_version)
            .filter(|generation| {
                self.signatures.find(&self.owner.key, &values, Some(&policy_ref(*generation).0)).is_some()
            })
            .collect();
        Ok(Situation {
            secure_boot,
            pcrs: pcrs(&values),
            security_version,
            same_owner: copies.iter().all(|copy| copy.owner == *self.owner.key.fingerprint()),
            counter,
            copies: copies.iter().map(|copy| copy.copy).collect(),
            signed,
        })
    }

    /// The volume's key out of `copy`.
    pub fn unseal<T: Transport>(
        &self,
        tpm: &mut Tpm<T>,
        copy: &SealedCopy,
    ) -> Result<Zeroizing<Vec<u8>>, Refusal> {
        let refused = |error: ashlar_tpm::Error| match error {
            ashlar_tpm::Error::NoStorageKey { .. }
            | ashlar_tpm::Error::OtherTpm { .. }
            | ashlar_tpm::Error::ForeignStorageKey { .. }
            | ashlar_tpm::Error::Integrity => Refusal::OtherTpm,
            error => Refusal::Tpm(error.to_string()),
        };
        let name = Name::from_bytes(&copy.srk)
            .ok_or_else(|| Refusal::Header("the name of its storage root key is wrong".into()))?;
        let sealed = Sealed::from_bytes(&copy.sealed).map_err(|error| Refusal::Header(error.to_string()))?;
        let srk = Srk::open(tpm, SRK_HANDLE, &name).map_err(refused)?;
        let values = PcrValues::read(tpm, &POLICY_PCRS).map_err(refused)?;
        let policy = self.owner.policy(copy.copy);
        let entry = self
            .signatures
            .find(&self.owner.key, &values, policy.policy_ref.as_ref())
            .ok_or_else(|| Refusal::NotSigned { pcr7: pcrs(&values).get(&7).copied().unwrap_or_default() })?;
        let authorized = Authorized { policy: &policy, pcrs: &values, signature: &entry.signature };
        seal::unseal(tpm, &srk, &sealed, &authorized).map_err(refused)
    }
}

/// The counter's value, made if it is not there.
pub fn ensure_counter<T: Transport>(tpm: &mut Tpm<T>) -> Result<u64, Error> {
    Ok(Counter::at(COUNTER_INDEX).ensure(tpm)?)
}

/// Raises the rollback floor: copies for the old value are of no use any more.
pub fn raise_floor<T: Transport>(tpm: &mut Tpm<T>) -> Result<u64, Error> {
    let srk = Srk::ensure(tpm, SRK_HANDLE)?;
    Ok(Counter::at(COUNTER_INDEX).increment(tpm, &srk)?)
}

fn pcrs(values: &PcrValues) -> BTreeMap<u32, Digest> {
    values.pcrs().filter_map(|pcr| Some((pcr, Digest(*values.get(pcr)?)))).collect()
}
