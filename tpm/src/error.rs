//! Why something did not work, and what to do about it.

use crate::public::Name;
use crate::response::ResponseCode;
use crate::transport::TransportError;
use crate::wire::WireError;

/// Why a command, or sealing and unsealing, did not give a result.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The TPM could not be reached.
    #[error("{command}: {source}")]
    Transport {
        /// The command's name.
        command: &'static str,
        /// What went wrong.
        source: TransportError,
    },
    /// The TPM answered with an error.
    #[error("{command}: the TPM answered {code}; {}", code.next_step())]
    Refused {
        /// The command's name.
        command: &'static str,
        /// Its answer.
        code: ResponseCode,
    },
    /// Too many wrong authorisations. Nothing that this crate makes counts for that or is kept closed by it.
    #[error(
        "{command}: the TPM is locked after wrong authorisations; wait until it opens again, or reset the lockout \
         with its authorisation"
    )]
    Lockout {
        /// The command's name.
        command: &'static str,
    },
    /// The answer does not have the form that the specification gives it.
    #[error("{command}: the TPM's answer cannot be read: {what}; the firmware of the TPM may need an update")]
    Malformed {
        /// The command's name.
        command: &'static str,
        /// What is wrong.
        what: WireError,
    },
    /// The HMAC of an answer is wrong.
    #[error(
        "{command}: the answer was changed on its way, or another TPM gave it: its HMAC is wrong; have the machine \
         looked at for something on the TPM's bus"
    )]
    Forged {
        /// The command's name.
        command: &'static str,
    },
    /// The TPM found the HMAC of a command wrong.
    #[error(
        "{command}: the command was changed on its way, or another TPM got it: its HMAC was refused; have the \
         machine looked at for something on the TPM's bus"
    )]
    ForgedCommand {
        /// The command's name.
        command: &'static str,
    },
    /// No such PCR.
    #[error("there is no PCR {0}: PCRs are numbered 0 to 23")]
    NoSuchPcr(u32),
    /// The bank of SHA-256 PCRs is switched off.
    #[error(
        "the TPM has no active SHA-256 PCR bank (active: {active}); switch it on in the firmware's set-up"
    )]
    NoSha256Bank {
        /// Names of the active banks.
        active: String,
    },
    /// A PCR did not take the value that the extension should have given it.
    #[error(
        "PCR {pcr} is {found} after the extension and should be {wanted}; somebody else extends it, or the \
         TPM does not work: power the machine off and on"
    )]
    ReadBack {
        /// The PCR.
        pcr: u32,
        /// What it should be, hexadecimal.
        wanted: String,
        /// What it is, hexadecimal.
        found: String,
    },
    /// PCRs are extended again and again while they are read or used.
    #[error(
        "PCRs changed each time while the TPM was reading them or unsealing; find out what extends them, and try again"
    )]
    PcrsDoNotRest,
    /// The kernel gives no random bytes.
    #[error("the kernel gives no random bytes: {0}; see that it is Linux 5.6 or later")]
    Random(std::io::Error),
    /// There is no storage root key.
    #[error(
        "the TPM has no storage root key at 0x{handle:08x}: it was cleared, or it is not the TPM that sealed; open \
         the volume with its recovery key and enrol the machine again"
    )]
    NoStorageKey {
        /// Where it should be.
        handle: u32,
    },
    /// The storage root key is another.
    #[error(
        "the TPM's storage root key is {found} and the key was sealed under {wanted}: the TPM was cleared, or it is \
         another; open the volume with its recovery key and enrol the machine again"
    )]
    OtherTpm {
        /// The name that was noted when it was sealed.
        wanted: Name,
        /// The name that there is.
        found: Name,
    },
    /// What lies at the handle is no storage root key.
    #[error(
        "the object at 0x{handle:08x} is no storage root key on P-256 as TCG's template makes it ({why}); remove it \
         (tpm2_evictcontrol) or clear the TPM in the firmware's set-up"
    )]
    ForeignStorageKey {
        /// Where.
        handle: u32,
        /// What is different.
        why: &'static str,
    },
    /// The sealed object cannot be read, or was changed.
    #[error(
        "the sealed key is damaged: {0}; open the volume with its recovery key and enrol the machine again"
    )]
    Damaged(&'static str),
    /// The TPM does not take the sealed object.
    #[error(
        "the TPM does not take the sealed key: it was changed on the disk, or another TPM sealed it; open the volume \
         with its recovery key and enrol the machine again"
    )]
    Integrity,
    /// The secret is too long.
    #[error("{0} bytes cannot be sealed: at most {max} can", max = crate::seal::MAX_SECRET)]
    SecretTooLong(usize),
    /// The policy is not the one that the object was sealed under.
    #[error(
        "the key was sealed under policy {sealed} and the policy of this release is {ours}: it has another signing \
         key, generation or counter"
    )]
    OtherPolicy {
        /// In the object, hexadecimal.
        sealed: String,
        /// Ours, hexadecimal.
        ours: String,
    },
    /// PCRs do not have the values of the policy.
    #[error("PCR {} changed after the signed policy was chosen; read the PCRs and choose again", list(.0))]
    PcrsDiffer(
        /// Which.
        Vec<u32>,
    ),
    /// The TPM found the signature of the policy wrong.
    #[error(
        "the signature of the PCR policy is not by the key, or for another policy; build the release again"
    )]
    Signature,
    /// The TPM found the policy not satisfied, for a reason that could not be told.
    #[error(
        "the TPM finds the policy of the sealed key not satisfied; something may have changed commands on their way"
    )]
    PolicyNotSatisfied,
    /// The counter has another value.
    #[error(
        "the rollback counter is {found} and the key was sealed for {wanted}: a newer release has ended this copy; \
         boot the newer release"
    )]
    CounterDiffers {
        /// The value that it was sealed for.
        wanted: u64,
        /// The value now.
        found: u64,
    },
    /// There is no counter.
    #[error(
        "the TPM has no rollback counter at 0x{index:08x}: it was cleared or the index was removed; open the volume \
         with its recovery key and enrol the machine again"
    )]
    NoCounter {
        /// Where it should be.
        index: u32,
    },
    /// What lies at the index is not our counter.
    #[error(
        "the NV index 0x{index:08x} has attributes 0x{attributes:08x} and {size} bytes and is no rollback counter of \
         ours; remove it (tpm2_nvundefine)"
    )]
    ForeignCounter {
        /// Where.
        index: u32,
        /// `TPMA_NV`.
        attributes: u32,
        /// Bytes.
        size: u16,
    },
    /// The public key of the PCR policies cannot be used.
    #[error(
        "the PCR policy's public key cannot be used: {0}; it must be an RSA key of 2048, 3072 or 4096 bits in PEM"
    )]
    Key(&'static str),
    /// The signed policies cannot be read.
    #[error("the signed PCR policies cannot be read: {0}")]
    Signatures(String),
}

impl Error {
    /// Whether the TPM answered with the code of this name.
    pub(crate) fn is(&self, name: &str) -> bool {
        matches!(self, Self::Refused { code, .. } if code.name() == Some(name))
    }
}

fn list(pcrs: &[u32]) -> String {
    pcrs.iter().map(u32::to_string).collect::<Vec<_>>().join(", ")
}
