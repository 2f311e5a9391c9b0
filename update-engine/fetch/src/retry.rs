//! When to try again.

use std::time::Duration;

/// Pauses that double, each lengthened at random. Pure: randomness is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The first pause.
    pub first: Duration,
    /// The longest one.
    pub longest: Duration,
    /// Attempts after the first.
    pub attempts: u32,
}

impl Backoff {
    /// The pause before attempt `number`, 1 for the first repetition; none when it is enough. `random` lengthens it by up
    /// to a half, so that many machines do not come at once.
    pub fn pause(&self, number: u32, random: u32) -> Option<Duration> {
        if number > self.attempts {
            return None;
        }
        let doubled =
            self.first.saturating_mul(1u32.checked_shl(number.saturating_sub(1).min(31)).unwrap_or(u32::MAX));
        let pause = doubled.min(self.longest);
        let part = pause.as_nanos().saturating_mul(u128::from(random)) / u128::from(u32::MAX) / 2;
        Some(pause.saturating_add(Duration::from_nanos(u64::try_from(part).unwrap_or(u64::MAX))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_to_a_bound() {
        let backoff =
            Backoff { first: Duration::from_secs(1), longest: Duration::from_secs(5), attempts: 40 };
        let pauses: Vec<u64> = (1..=4).map(|n| backoff.pause(n, 0).unwrap().as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 5]);
        assert_eq!(backoff.pause(40, 0), Some(Duration::from_secs(5)));
        assert_eq!(backoff.pause(41, 0), None);
        assert_eq!(backoff.pause(1, u32::MAX), Some(Duration::from_millis(1500)));
    }
}
