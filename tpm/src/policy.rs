//! Policies: their digests, computed as the TPM does, and the commands that satisfy them (part 1, section 19.7;
//! part 3, section 23).

use crate::Error;
use crate::command::{Code, Command};
use crate::counter::Counter;
use crate::crypto::sha256;
use crate::key::PcrKey;
use crate::object::Ticket;
use crate::session::Session;
use crate::tpm::{Sha256Digest, Tpm, check_pcr, write_selection};
use crate::transport::Transport;
use crate::wire::{WireError, Writer};
use std::collections::BTreeMap;

/// `TPM_EO_EQ`: equal (part 2, section 6.7).
const EQUAL: u16 = 0;

/// SHA-256 PCRs with their values: what a signed policy allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PcrValues(BTreeMap<u32, Sha256Digest>);

impl PcrValues {
    /// These values.
    pub fn new(values: impl IntoIterator<Item = (u32, Sha256Digest)>) -> Result<Self, Error> {
        let values: BTreeMap<_, _> = values.into_iter().collect();
        values.keys().try_for_each(|pcr| check_pcr(*pcr))?;
        Ok(Self(values))
    }

    /// The values that `pcrs` have now. One command for up to eight of them.
    pub fn read<T: Transport>(tpm: &mut Tpm<T>, pcrs: &[u32]) -> Result<Self, Error> {
        Self::new(tpm.pcr_read_together(pcrs)?)
    }

    /// The PCRs, ascending.
    pub fn pcrs(&self) -> impl Iterator<Item = u32> {
        self.0.keys().copied()
    }

    /// The value of a PCR.
    pub fn get(&self, pcr: u32) -> Option<&Sha256Digest> {
        self.0.get(&pcr)
    }

    /// The digest over the values.
    fn digest(&self) -> Sha256Digest {
        sha256(&self.0.values().map(<[u8; 32]>::as_slice).collect::<Vec<_>>())
    }

    /// The digest of the policy that demands these values: what a signature approves
    /// (`TPM2_PolicyPCR`, part 3, section 23.7).
    pub fn policy(&self) -> Sha256Digest {
        let code = (Code::PolicyPcr as u32).to_be_bytes();
        let selection = write_selection(Writer::new(), self.pcrs());
        sha256(&[&[0; 32], &code, selection.as_bytes(), &self.digest()])
    }

    /// The PCRs whose values are different in `other`, or that are not in it.
    pub fn differences(&self, other: &Self) -> Vec<u32> {
        self.0.iter().filter(|(pcr, value)| other.get(**pcr) != Some(value)).map(|(pcr, _)| *pcr).collect()
    }
}

/// The policy that a key is sealed under: whatever PCR values the holder of `key` signed for `policy_ref`, as long as the
/// counter has the given value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy<'a> {
    /// The owner's key for PCR policies.
    pub key: &'a PcrKey,
    /// What the signatures are for besides PCR values; none for signatures by systemd-measure.
    pub policy_ref: Option<[u8; 32]>,
    /// The counter and the value that it must have.
    pub counter: Option<(Counter, u64)>,
}

impl Policy<'_> {
    /// The bytes of the policy reference.
    fn reference(&self) -> &[u8] {
        self.policy_ref.as_ref().map_or(&[], |reference| reference)
    }

    /// The digest, computed as the TPM does: `TPM2_PolicyAuthorize` (part 3, section 23.16), then `TPM2_PolicyNV`
    /// (section 23.9).
    pub fn digest(&self) -> Sha256Digest {
        let code = (Code::PolicyAuthorize as u32).to_be_bytes();
        let authorized = sha256(&[&[0; 32], &code, self.key.name().as_bytes()]);
        let authorized = sha256(&[&authorized, self.reference()]);
        let Some((counter, value)) = self.counter else { return authorized };
        let code = (Code::PolicyNv as u32).to_be_bytes();
        // The operand, the offset and the operation.
        let arguments = sha256(&[&value.to_be_bytes(), &[0; 2], &EQUAL.to_be_bytes()]);
        sha256(&[&authorized, &code, &arguments, counter.name().as_bytes()])
    }

    /// What the holder of the key signs to allow `approved` ([`PcrValues::policy`]): these bytes, with RSASSA-PKCS1-v1_5
    /// and SHA-256. Without a reference they are what systemd-measure signs.
    pub fn to_sign(approved: &Sha256Digest, policy_ref: Option<&[u8; 32]>) -> Vec<u8> {
        let mut bytes = approved.to_vec();
        bytes.extend(policy_ref.into_iter().flatten());
        bytes
    }

    /// The digest of [`Self::to_sign`].
    pub(crate) fn signed_digest(&self, approved: &Sha256Digest) -> Sha256Digest {
        sha256(&[approved, self.reference()])
    }
}

/// Turns errors of building parameters into those of the command.
fn built(code: Code) -> impl Fn(WireError) -> Error {
    move |what| Error::Malformed { command: code.name(), what }
}

impl<T: Transport> Tpm<T> {
    /// `TPM2_PolicyPCR` (part 3, section 23.7) with the digest that the values have to have.
    pub(crate) fn policy_pcr(&mut self, session: &Session, values: &PcrValues) -> Result<(), Error> {
        let code = Code::PolicyPcr;
        let parameters = Writer::new().sized(&values.digest()).map_err(built(code))?;
        let parameters = write_selection(parameters, values.pcrs());
        self.run(&Command::new(code, parameters).on(session.handle()), |_| Ok(()))
    }

    /// `TPM2_PolicyAuthorize` (part 3, section 23.16).
    pub(crate) fn policy_authorize(
        &mut self,
        session: &Session,
        policy: &Policy<'_>,
        approved: &Sha256Digest,
        ticket: &Ticket,
    ) -> Result<(), Error> {
        let code = Code::PolicyAuthorize;
        let parameters = Writer::new()
            .sized(approved)
            .and_then(|to| to.sized(policy.reference()))
            .and_then(|to| to.sized(policy.key.name().as_bytes()))
            .map_err(built(code))?
            .bytes(ticket.as_bytes());
        self.run(&Command::new(code, parameters).on(session.handle()), |_| Ok(()))
    }

    /// `TPM2_PolicyNV` (part 3, section 23.9): that `counter` is `value`.
    pub(crate) fn policy_nv(&mut self, session: &Session, counter: Counter, value: u64) -> Result<(), Error> {
        let code = Code::PolicyNv;
        let parameters = Writer::new().sized(&value.to_be_bytes()).map_err(built(code))?.u16(0).u16(EQUAL);
        let command = Command::new(code, parameters)
            .on(counter.index())
            .on(counter.index())
            .on(session.handle())
            .password(&[]);
        self.run(&command, |_| Ok(()))
    }

    /// `TPM2_PolicyGetDigest` (part 3, section 23.6).
    pub(crate) fn policy_get_digest(&mut self, session: &Session) -> Result<Sha256Digest, Error> {
        let command = Command::new(Code::PolicyGetDigest, Writer::new()).on(session.handle());
        self.run(&command, |reader| {
            let digest = reader.sized(64, "the policy's digest")?;
            digest.try_into().map_err(|_| WireError::Unexpected("the policy's digest"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_those_that_tpm2_tools_find() {
        let values = PcrValues::new([7, 11, 12, 13, 15].map(|pcr| (pcr, [0; 32]))).unwrap();
        // tpm2_policypcr -l sha256:7,11,12,13,15
        let pcr = "fcb664bfe03a002636089eab1639ff9fecdd07164842812dfff5957daf19ced3";
        assert_eq!(hex::encode(values.policy()), pcr);
        let key = PcrKey::from_pem(crate::key::tests::PEM.as_bytes()).unwrap();
        let policy_ref = Some([0x5e; 32]);
        // tpm2_policyauthorize -q ref
        let authorized = "19aa676ec872db15ffd7c677827e867c637dc904a65e5f71a3a2d13528a9138d";
        let policy = Policy { key: &key, policy_ref, counter: None };
        assert_eq!(hex::encode(policy.digest()), authorized);
        // tpm2_policynv 0x180a541 eq, with 1 as operand; the name is that of tpm2_nvreadpublic.
        let counter = Counter::at(0x0180_a541);
        let name = "000bb4b2ddd33a4e03c727922e8829ebac11c5c6865bc059a35caa6be545acbc4d90";
        assert_eq!(counter.name().to_string(), name);
        let whole = "aa7d747465d2a0ad8ad2a12b4e11744f216379df183f1b1c257a852e7c174fbb";
        let policy = Policy { counter: Some((counter, 1)), ..policy };
        assert_eq!(hex::encode(policy.digest()), whole);
        assert_eq!(Policy::to_sign(&values.policy(), policy_ref.as_ref()).len(), 64);
        assert_eq!(Policy::to_sign(&values.policy(), None), values.policy());
    }

    #[test]
    fn values_are_compared_pcr_by_pcr() {
        let one = PcrValues::new([(15, [0; 32]), (11, [1; 32])]).unwrap();
        let two = PcrValues::new([(11, [2; 32]), (15, [0; 32])]).unwrap();
        assert_eq!(one.differences(&two), [11]);
        assert!(one.differences(&one).is_empty());
        assert_eq!(one.differences(&PcrValues::new([(11, [1; 32])]).unwrap()), [15]);
        assert_eq!(one.pcrs().collect::<Vec<_>>(), [11, 15]);
        assert_ne!(one.policy(), two.policy());
        assert!(matches!(PcrValues::new([(24, [0; 32])]), Err(Error::NoSuchPcr(24))));
    }
}
