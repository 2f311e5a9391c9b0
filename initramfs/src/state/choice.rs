//! Which sealed copy of the volume's key fits this boot, or why none does. The TPM has the last word; this is so that a
//! refusal can say what is wrong.

use ashlar_image::digest::Digest;
use ashlar_image::state::generations;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A sealed copy of the volume's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Copy {
    /// The generation whose `policyRef` it names.
    pub generation: u64,
    /// The counter's value that it asks for.
    pub counter: u64,
}

/// What there is to choose from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Situation {
    /// Whether the firmware enforces Secure Boot.
    pub secure_boot: bool,
    /// The PCRs of the policy.
    pub pcrs: BTreeMap<u32, Digest>,
    /// The running release's number.
    pub security_version: u64,
    /// Whether the volume was sealed for the owner of the running release.
    pub same_owner: bool,
    /// The counter's value; none when this TPM has none.
    pub counter: Option<u64>,
    /// The copies in the volume's header.
    pub copies: Vec<Copy>,
    /// Generations that the owner has signed with the PCRs' values of now.
    pub signed: Vec<u64>,
}

/// Why the TPM does not open the volume.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Secure Boot is off.
    #[error("Secure Boot is off")]
    SecureBootOff,
    /// Something was measured before init that an owner's image never measures.
    #[error("PCR {pcr} is {value} and must be zero: {what}")]
    Measured {
        /// The PCR.
        pcr: u32,
        /// Its value.
        value: Digest,
        /// What extends it.
        what: &'static str,
    },
    /// The volume was sealed for another owner.
    #[error("the volume is sealed for the images of another owner")]
    OtherOwner,
    /// No copy is in the header.
    #[error("the volume's key is not sealed to any TPM")]
    NotSealed,
    /// The TPM does not have the counter.
    #[error("this TPM has no rollback counter of this machine: it was cleared, or it is another one")]
    NoCounter,
    /// No copy is for the counter's value.
    #[error("the rollback counter is {counter} and the volume's key is sealed for {sealed}")]
    CounterMoved {
        /// The counter.
        counter: u64,
        /// The values that copies ask for.
        sealed: String,
    },
    /// The release is older than what this machine has committed.
    #[error("this release has security version {version}; this machine's rollback floor is {floor}")]
    BelowFloor {
        /// The release's.
        version: u64,
        /// The machine's.
        floor: u64,
    },
    /// The release is so new that it has no signature for what the volume is sealed for.
    #[error("the volume is sealed for generation {generation}; this release opens {oldest} and later")]
    TooOld {
        /// The volume's.
        generation: u64,
        /// The oldest that the release signs for.
        oldest: u64,
    },
    /// The PCRs are not what the owner has signed.
    #[error("the owner has not signed this machine's PCRs (PCR 7 is {pcr7})")]
    NotSigned {
        /// PCR 7.
        pcr7: Digest,
    },
    /// The TPM does not know the key that the copies are encrypted with.
    #[error("the volume's key was sealed by another TPM, or this one was cleared since")]
    OtherTpm,
    /// What the TPM gave is not the volume's key.
    #[error("the sealed key does not open this volume: another volume was put in its place")]
    OtherVolume,
    /// The TPM refuses.
    #[error("the TPM does not give the volume's key: {0}")]
    Tpm(String),
    /// The header is not one that init accepts.
    #[error("the header of the state volume is refused: {0}")]
    Header(String),
    /// The partition holds something else.
    #[error("the state partition holds something that is no state volume: {0}")]
    Foreign(&'static str),
}

impl Refusal {
    /// What to do, for somebody who stands before the machine.
    pub const fn advice(&self) -> &'static str {
        match self {
            Self::SecureBootOff => {
                "switch Secure Boot on in the firmware's set-up, with the owner's keys (secure-boot/ of the release)"
            }
            Self::Measured { .. } => {
                "remove everything but EFI/BOOT/BOOTX64.EFI from the EFI system partition, or write the image again"
            }
            Self::OtherOwner => {
                "start an image of the owner whose machine this was, or give the recovery key"
            }
            Self::NotSealed | Self::NoCounter | Self::OtherTpm | Self::CounterMoved { .. } | Self::Tpm(_) => {
                "give the recovery key: the volume is opened and sealed to this TPM anew"
            }
            Self::BelowFloor { .. } => {
                "start the other slot or install a newer release; the recovery key opens the volume once"
            }
            Self::TooOld { .. } => "install a release between the two first, or give the recovery key",
            Self::NotSigned { .. } => {
                "if firmware, db or dbx were changed on purpose: give the recovery key, and name the new value in the \
                 recipe's `state.pcr7` for the next release"
            }
            Self::OtherVolume => {
                "look who had the disk; the recovery key opens only the volume that it was made with"
            }
            Self::Header(_) => {
                "look who had the disk: init makes no such header; `cryptsetup luksDump` shows it, and data can be \
                 saved on another machine with the recovery key"
            }
            Self::Foreign(_) => "save what is on the partition, then write zeros over its first MiB",
        }
    }

    /// Whether the recovery key may open the volume here. Not where the machine's own state is in doubt: whoever
    /// could change what runs could read the key when it is typed.
    pub const fn recovery_key_helps(&self) -> bool {
        !matches!(self, Self::SecureBootOff | Self::Measured { .. } | Self::Header(_) | Self::Foreign(_))
    }
}

/// What extends those PCRs that must be zero.
const ZERO: [(u32, &str); 3] = [
    (12, "credentials or another command line were given to the stub"),
    (13, "system extensions lie on the EFI system partition"),
    (15, "a volume was opened before"),
];

/// Why nothing could be sealed or opened in this boot, whatever the volume; none when all is as the owner signed it.
pub fn machine_refusal(situation: &Situation) -> Option<Refusal> {
    if !situation.secure_boot {
        return Some(Refusal::SecureBootOff);
    }
    let value = |pcr: u32| situation.pcrs.get(&pcr).copied().unwrap_or_default();
    ZERO.into_iter().find(|(pcr, _)| value(*pcr) != Digest::ZERO).map(|(pcr, what)| Refusal::Measured {
        pcr,
        value: value(pcr),
        what,
    })
}

/// Whether the owner has signed the machine as it is now, for the running release's own generation.
pub fn is_signed(situation: &Situation) -> bool {
    situation.signed.contains(&situation.security_version)
}

/// The copy to unseal.
pub fn choose(situation: &Situation) -> Result<Copy, Refusal> {
    if let Some(refusal) = machine_refusal(situation) {
        return Err(refusal);
    }
    if situation.copies.is_empty() {
        return Err(Refusal::NotSealed);
    }
    if !situation.same_owner {
        return Err(Refusal::OtherOwner);
    }
    let counter = situation.counter.ok_or(Refusal::NoCounter)?;
    let Some(copy) = situation.copies.iter().copied().find(|copy| copy.counter == counter) else {
        let sealed: Vec<String> = situation.copies.iter().map(|copy| copy.counter.to_string()).collect();
        return Err(Refusal::CounterMoved { counter, sealed: sealed.join(", ") });
    };
    let version = situation.security_version;
    if copy.generation > version {
        return Err(Refusal::BelowFloor { version, floor: copy.generation });
    }
    if let Some(oldest) = generations(version).next().filter(|oldest| copy.generation < *oldest) {
        return Err(Refusal::TooOld { generation: copy.generation, oldest });
    }
    if !situation.signed.contains(&copy.generation) {
        let pcr7 = situation.pcrs.get(&7).copied().unwrap_or_default();
        return Err(Refusal::NotSigned { pcr7 });
    }
    Ok(copy)
}

/// The copy that is to be made after `opened` has opened the volume: for the release's own generation, to come into
/// force when the counter is raised. None when the release is of that generation or the copy is there.
pub fn next_copy(security_version: u64, opened: Copy, copies: &[Copy]) -> Option<Copy> {
    let next = Copy { generation: security_version, counter: opened.counter.checked_add(1)? };
    (security_version > opened.generation && !copies.contains(&next)).then_some(next)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ashlar_image::state::POLICY_PCRS;

    fn good() -> Situation {
        Situation {
            secure_boot: true,
            pcrs: POLICY_PCRS
                .map(|pcr| (pcr, if pcr < 12 { Digest::of("value") } else { Digest::ZERO }))
                .into(),
            security_version: 9,
            same_owner: true,
            counter: Some(4),
            copies: vec![Copy { generation: 7, counter: 4 }, Copy { generation: 9, counter: 5 }],
            signed: (2..=9).collect(),
        }
    }

    #[test]
    fn the_copy_for_the_counter_is_taken() {
        assert_eq!(choose(&good()), Ok(Copy { generation: 7, counter: 4 }));
        let raised = Situation { counter: Some(5), ..good() };
        assert_eq!(choose(&raised), Ok(Copy { generation: 9, counter: 5 }));
    }

    #[test]
    fn each_refusal_has_its_own_reason() {
        let refused = |change: &dyn Fn(&mut Situation)| {
            let mut situation = good();
            change(&mut situation);
            choose(&situation).unwrap_err()
        };
        let value = Digest::of("x");
        let cases = [
            (refused(&|s| s.secure_boot = false), Refusal::SecureBootOff),
            (
                refused(&|s| {
                    s.pcrs.insert(12, value);
                }),
                Refusal::Measured { pcr: 12, value, what: ZERO[0].1 },
            ),
            (
                refused(&|s| {
                    s.pcrs.insert(15, value);
                }),
                Refusal::Measured { pcr: 15, value, what: ZERO[2].1 },
            ),
            (refused(&|s| s.copies.clear()), Refusal::NotSealed),
            (refused(&|s| s.same_owner = false), Refusal::OtherOwner),
            (refused(&|s| s.counter = None), Refusal::NoCounter),
            (refused(&|s| s.counter = Some(6)), Refusal::CounterMoved { counter: 6, sealed: "4, 5".into() }),
            (
                refused(&|s| {
                    s.counter = Some(5);
                    s.security_version = 8;
                }),
                Refusal::BelowFloor { version: 8, floor: 9 },
            ),
            (refused(&|s| s.security_version = 20), Refusal::TooOld { generation: 7, oldest: 13 }),
            (refused(&|s| s.signed.clear()), Refusal::NotSigned { pcr7: Digest::of("value") }),
        ];
        for (index, (found, wanted)) in cases.iter().enumerate() {
            assert_eq!(found, wanted);
            assert!(cases[index + 1..].iter().all(|(_, other)| other.to_string() != found.to_string()));
            assert!(!found.advice().is_empty());
        }
        assert!(!Refusal::SecureBootOff.recovery_key_helps());
        assert!(Refusal::NoCounter.recovery_key_helps());
    }

    #[test]
    fn a_newer_release_prepares_its_floor_once() {
        let opened = Copy { generation: 7, counter: 4 };
        assert_eq!(next_copy(7, opened, &[opened]), None);
        let next = Copy { generation: 9, counter: 5 };
        assert_eq!(next_copy(9, opened, &[opened]), Some(next));
        assert_eq!(next_copy(9, opened, &[opened, next]), None);
        assert_eq!(next_copy(9, Copy { counter: u64::MAX, ..opened }, &[]), None);
    }
}
