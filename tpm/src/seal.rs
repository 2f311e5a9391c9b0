//! Sealing a key under a policy, and unsealing it.

use crate::Error;
use crate::command::{Code, Entity};
use crate::object::{MAX_PRIVATE, Ticket};
use crate::policy::{PcrValues, Policy};
use crate::public::{Kind, Public, attribute, read_public};
use crate::session::{Session, SessionKind};
use crate::srk::Srk;
use crate::tpm::{Sha256Digest, Tpm};
use crate::transport::Transport;
use crate::wire::{Reader, WireError, Writer};
use zeroize::Zeroizing;

/// The most bytes that can be sealed (`MAX_SYM_DATA`, part 2, annex A).
pub const MAX_SECRET: usize = 128;
/// How often unsealing starts again because somebody extended a PCR meanwhile.
const TRIES: usize = 8;

/// Attributes of a sealed object. Only the policy allows use and administration, and the dictionary lockout does not
/// touch it: power cuts count as wrong authorisations for what it protects.
const ATTRIBUTES: u32 =
    attribute::FIXED_TPM | attribute::FIXED_PARENT | attribute::ADMIN_WITH_POLICY | attribute::NO_DA;

/// A key that is sealed: what the TPM gave, to be kept on a disk. It is worth nothing without that TPM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    public: Vec<u8>,
    private: Vec<u8>,
    policy: Sha256Digest,
}

impl Sealed {
    fn new(public: &[u8], private: &[u8]) -> Result<Self, Error> {
        let parsed = Public::parse(public).map_err(|_| Error::Damaged("its public area cannot be read"))?;
        if parsed.attributes != ATTRIBUTES || !matches!(parsed.kind, Kind::Data { .. }) {
            return Err(Error::Damaged("its public area is not that of a sealed key"));
        }
        let policy = parsed.policy.try_into().map_err(|_| Error::Damaged("it has no policy"))?;
        if private.is_empty() {
            return Err(Error::Damaged("its private area is empty"));
        }
        Ok(Self { public: public.to_vec(), private: private.to_vec(), policy })
    }

    /// Reads what [`Self::to_bytes`] gave.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        let parts = || -> Result<_, WireError> {
            let mut reader = Reader::new(bytes);
            let public = read_public(&mut reader)?;
            let private = reader.sized(MAX_PRIVATE, "the private area")?;
            reader.end()?;
            Ok((public, private))
        };
        let (public, private) = parts().map_err(|_| Error::Damaged("its bytes cannot be read"))?;
        Self::new(public, private)
    }

    /// The bytes: `TPM2B_PUBLIC`, then `TPM2B_PRIVATE`; about 320 of them.
    pub fn to_bytes(&self) -> Vec<u8> {
        // Both were read with less than 64 KiB, so this does not fail.
        let bytes = Writer::new().sized(&self.public).and_then(|to| to.sized(&self.private));
        bytes.map(Writer::into_bytes).unwrap_or_default()
    }

    /// The digest of the policy that it is sealed under: compare with [`Policy::digest`] to learn which generation and
    /// counter it is for, without the TPM. What it says is believed only by the TPM's word, on loading.
    pub const fn policy(&self) -> &Sha256Digest {
        &self.policy
    }
}

/// A policy with what shows that it is satisfied now.
#[derive(Debug, Clone)]
pub struct Authorized<'a> {
    /// The policy that the key was sealed under.
    pub policy: &'a Policy<'a>,
    /// The values that the PCRs have, and that the owner signed ([`PcrValues::read`]).
    pub pcrs: &'a PcrValues,
    /// The owner's signature over [`Policy::to_sign`] (from [`PcrSignatures::find`](crate::PcrSignatures::find)).
    pub signature: &'a [u8],
}

/// Seals `secret`, of at most [`MAX_SECRET`] bytes, under the policy with this digest ([`Policy::digest`]). It goes to the
/// TPM encrypted, in a session that only the holder of `srk` can read. Two commands.
pub fn seal<T: Transport>(
    tpm: &mut Tpm<T>,
    srk: &Srk,
    policy: &Sha256Digest,
    secret: &[u8],
) -> Result<Sealed, Error> {
    if secret.len() > MAX_SECRET {
        return Err(Error::SecretTooLong(secret.len()));
    }
    let malformed = |what| Error::Malformed { command: Code::Create.name(), what };
    let kind = Kind::Data { unique: Vec::new() };
    let template = Public { attributes: ATTRIBUTES, policy: policy.to_vec(), kind };
    let template = template.to_bytes().map_err(malformed)?;
    let created =
        tpm.with_session(SessionKind::Hmac, srk, |tpm, session| tpm.create(session, srk, secret, &template))?;
    let sealed = Sealed::new(&created.public, &created.private)?;
    if sealed.policy == *policy { Ok(sealed) } else { Err(malformed(WireError::Unexpected("the policy"))) }
}

/// Unseals. Ten commands with a counter, nine without; four to six more each time that somebody extends a PCR meanwhile,
/// whichever it is. No object and no session stays behind.
///
/// Only what the TPM with this `srk` said about this very object is given: the session's key, the names and the HMACs
/// see to that. Errors tell why not; the TPM's own word is behind [`Error::Signature`], [`Error::CounterDiffers`] and
/// [`Error::Integrity`], while something between us and it can make any command fail.
pub fn unseal<T: Transport>(
    tpm: &mut Tpm<T>,
    srk: &Srk,
    sealed: &Sealed,
    authorized: &Authorized<'_>,
) -> Result<Zeroizing<Vec<u8>>, Error> {
    let policy = authorized.policy;
    let digest = policy.digest();
    if digest != sealed.policy {
        let (sealed, ours) = (hex::encode(sealed.policy), hex::encode(digest));
        return Err(Error::OtherPolicy { sealed, ours });
    }
    let approved = authorized.pcrs.policy();
    if authorized.signature.len() != policy.key.signature_size() {
        return Err(Error::Signature);
    }
    let ticket = tpm
        .verify_signature(policy.key.public(), &policy.signed_digest(&approved), authorized.signature)
        .map_err(|error| if error.is("TPM_RC_SIGNATURE") { Error::Signature } else { error })?;
    let result = tpm.with_loaded(srk, &sealed.private, &sealed.public, |tpm, object| {
        for _ in 0..TRIES {
            // The session with its policy is made anew: a PCR that changes ends what it was good for.
            let result = tpm.with_session(SessionKind::Policy, srk, |tpm, session| {
                attempt(tpm, session, object, authorized, &approved, &ticket)
            });
            match result {
                Err(error) if error.is("TPM_RC_PCR_CHANGED") => {}
                result => return result,
            }
        }
        Err(Error::PcrsDoNotRest)
    });
    result.map_err(|error| match &error {
        Error::Refused { command, .. } if *command == Code::Load.name() && error.is("TPM_RC_INTEGRITY") => {
            Error::Integrity
        }
        _ => error,
    })
}

/// Satisfies the policy and unseals.
fn attempt<T: Transport>(
    tpm: &mut Tpm<T>,
    session: &mut Session,
    object: &Entity,
    authorized: &Authorized<'_>,
    approved: &Sha256Digest,
    ticket: &Ticket,
) -> Result<Zeroizing<Vec<u8>>, Error> {
    let policy = authorized.policy;
    if let Err(error) = tpm.policy_pcr(session, authorized.pcrs) {
        if !error.is("TPM_RC_VALUE") {
            return Err(error);
        }
        let now = PcrValues::read(tpm, &authorized.pcrs.pcrs().collect::<Vec<_>>())?;
        let differ = authorized.pcrs.differences(&now);
        return Err(if differ.is_empty() {
            Error::ForgedCommand { command: Code::PolicyPcr.name() }
        } else {
            Error::PcrsDiffer(differ)
        });
    }
    tpm.policy_authorize(session, policy, approved, ticket)?;
    if let Some((counter, wanted)) = policy.counter
        && let Err(error) = tpm.policy_nv(session, counter, wanted)
    {
        if error.is("TPM_RC_POLICY") {
            let found = counter.read(tpm)?;
            if found == wanted {
                return Err(Error::ForgedCommand { command: Code::PolicyNv.name() });
            }
            return Err(Error::CounterDiffers { wanted, found });
        }
        return Err(match error {
            Error::Refused { .. } => counter.explain(tpm, error),
            error => error,
        });
    }
    match tpm.unseal(session, object) {
        Err(error) if error.is("TPM_RC_POLICY_FAIL") => Err(explain(tpm, session, policy, error)),
        Err(error) if error.is("TPM_RC_AUTH_FAIL") || error.is("TPM_RC_BAD_AUTH") => {
            Err(Error::ForgedCommand { command: Code::Unseal.name() })
        }
        result => result,
    }
}

/// Why the policy was not satisfied although each step of it was.
fn explain<T: Transport>(tpm: &mut Tpm<T>, session: &Session, policy: &Policy<'_>, error: Error) -> Error {
    if let Some((counter, _)) = policy.counter {
        // An index with other attributes has another name.
        match counter.explain(tpm, error) {
            Error::Refused { .. } => {}
            found => return found,
        }
    }
    match tpm.policy_get_digest(session) {
        // The TPM says that it is, and yet it is not: something between says so.
        Ok(digest) if digest == policy.digest() => Error::ForgedCommand { command: Code::Unseal.name() },
        _ => Error::PolicyNotSatisfied,
    }
}
