//! What builder and init agree on about the sealed state volume.
//!
//! The volume's key is sealed under `PolicyAuthorize(the owner's PCR key, policy_ref(g))` followed by
//! `PolicyNV(counter at COUNTER_INDEX == c)`. A release of security version v carries signatures for each generation
//! g from v - GENERATIONS + 1 to v. When a release of a higher security version has opened the volume, init seals the
//! key a second time, for generation v and counter c + 1; committing the boot increments the counter, which ends the
//! older copy for good.

use crate::digest::Digest;

/// The PCRs of a signed policy, in ascending order: Secure Boot, UKI and phase, configuration, system extensions, volume.
pub const POLICY_PCRS: [u32; 5] = [7, 11, 12, 13, 15];
/// How many generations a release signs for: its own and those before.
pub const GENERATIONS: u64 = 8;
/// The counter of the rollback floor, in the range that the owner may use (TCG registry of reserved handles, section 2.2.2).
pub const COUNTER_INDEX: u32 = 0x0180_a541;
/// Where the storage root key is persisted (TCG TPM v2.0 Provisioning Guidance, section 7.8).
pub const SRK_HANDLE: u32 = 0x8100_0001;
/// The PCR of the volume's key and of the machine's identity.
pub const VOLUME_PCR: u32 = 15;
/// The PCR of the machine configuration.
pub const CONFIGURATION_PCR: u32 = 12;
/// Name of the mapped device, and of the volume in what is measured.
pub const VOLUME_NAME: &str = "ashlar-state";

/// The `policyRef` of generation `generation`.
pub fn policy_ref(generation: u64) -> Digest {
    Digest::of(format!("ashlar state volume v1 generation {generation}"))
}

/// The generations that a release of `security_version` signs for, ascending.
pub fn generations(security_version: u64) -> impl Iterator<Item = u64> {
    security_version.saturating_sub(GENERATIONS - 1)..=security_version
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generations_end_with_the_release() {
        assert_eq!(generations(1).collect::<Vec<_>>(), [0, 1]);
        assert_eq!(generations(20).collect::<Vec<_>>(), (13..=20).collect::<Vec<_>>());
        assert_ne!(policy_ref(1), policy_ref(2));
    }
}
