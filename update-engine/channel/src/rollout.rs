//! When a release opens for which machine.

use ashlar_image::digest::Digest;
use serde::{Deserialize, Serialize};

/// All machines, in the unit of [`Wave::share`]: millionths.
pub const WHOLE: u32 = 1_000_000;

/// A part of all machines that gets a release over a span of time, evenly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wave {
    /// When its first machine gets it, seconds since 1970.
    pub start: i64,
    /// Until its last one may, in seconds after the start.
    #[serde(default)]
    pub duration: u32,
    /// How many machines it has, in millionths of all.
    pub share: u32,
}

/// A machine's seed: follows from its identity.
pub fn seed(machine_id: &str) -> [u8; 32] {
    Digest::of(format!("ashlar rollout {machine_id}")).0
}

/// Where a machine stands in the rollout of a version: spread evenly, and elsewhere for each version, so that not always the
/// same machines are the first.
pub fn position(seed: &[u8; 32], version: &str) -> u64 {
    let mut bytes = seed.to_vec();
    bytes.extend_from_slice(version.as_bytes());
    let mut first = [0; 8];
    first.copy_from_slice(Digest::of(&bytes).0.get(..8).unwrap_or(&[0; 8]));
    u64::from_be_bytes(first)
}

/// When a release opens for the machine at `position`, seconds since 1970; none if the waves do not reach it. Without any
/// wave it is open to all at any time.
pub fn opens_at(waves: &[Wave], position: u64) -> Option<i64> {
    if waves.is_empty() {
        return Some(i64::MIN);
    }
    let scale = |share: u64| u128::from(share).saturating_mul(1 << 64) / u128::from(WHOLE);
    let mut before = 0u64;
    for wave in waves {
        let upto = before.saturating_add(u64::from(wave.share));
        let (low, high) = (scale(before), scale(upto));
        let position = u128::from(position);
        if position >= low && position < high {
            // From the wave's own begin: the first of it comes at the start, whichever wave it is.
            let passed = u128::from(wave.duration).saturating_mul(position - low) / (high - low);
            return wave.start.checked_add(i64::try_from(passed).ok()?);
        }
        before = upto;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_hundred_thousand_machines() {
        let waves = [
            Wave { start: 1000, duration: 1000, share: 10_000 },
            Wave { start: 5000, duration: 10_000, share: 290_000 },
            Wave { start: 20_000, duration: 100, share: 600_000 },
        ];
        let times: Vec<Option<i64>> =
            (0..100_000).map(|n| opens_at(&waves, position(&seed(&format!("machine {n}")), "1.1"))).collect();
        let between =
            |from: i64, to: i64| times.iter().flatten().filter(|time| **time >= from && **time < to).count();
        let near = |count: usize, expected: usize| {
            // Five standard deviations of a binomial distribution.
            let bound = 5 * expected.isqrt() + 5;
            assert!(count.abs_diff(expected) < bound, "{count} machines, not about {expected}");
        };
        near(between(1000, 2000), 1000);
        near(between(5000, 15_000), 29_000);
        near(between(20_000, 20_100), 60_000);
        assert_eq!(
            times.iter().flatten().count(),
            between(1000, 2000) + between(5000, 15_000) + between(20_000, 20_100)
        );
        near(times.iter().filter(|time| time.is_none()).count(), 10_000);
        // Evenly inside each wave.
        for tenth in 0..10 {
            near(between(5000 + tenth * 1000, 6000 + tenth * 1000), 2900);
            near(between(20_000 + tenth * 10, 20_010 + tenth * 10), 6000);
        }
        // The first machines of one version are not those of the next.
        let first = |version: &str| -> Vec<usize> {
            (0..10_000).filter(|n| position(&seed(&n.to_string()), version) < u64::MAX / 100).collect()
        };
        let (one, other) = (first("1.1"), first("1.2"));
        assert!(one.iter().filter(|n| other.contains(n)).count() < one.len() / 10);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn any_waves(shares in prop::collection::vec((0i64..1_000_000, 0u32..100_000, 0u32..400_000), 1..6), seeds in any::<u64>()) {
            let mut left = WHOLE;
            let waves: Vec<Wave> = shares.iter().map(|(start, duration, share)| {
                let share = (*share).min(left);
                left -= share;
                Wave { start: *start, duration: *duration, share }
            }).collect();
            let first = waves.iter().map(|wave| wave.start).min().unwrap();
            let last = waves.iter().map(|wave| wave.start + i64::from(wave.duration)).max().unwrap();
            let mut open = 0u32;
            for n in 0..500u64 {
                let position = seeds.wrapping_add(n.wrapping_mul(u64::MAX / 500));
                if let Some(time) = opens_at(&waves, position) {
                    prop_assert!(time >= first && time <= last, "none early, all by the end");
                    open += 1;
                }
            }
            // The positions are spread evenly: so are those that are reached.
            let expected = f64::from(WHOLE - left) / f64::from(WHOLE) * 500.0;
            prop_assert!((f64::from(open) - expected).abs() <= 8.0, "{open} and {expected}");
        }
    }
}
