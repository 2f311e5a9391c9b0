//! How many lines a unit may write to the log.

use std::time::Duration;

/// Length of the window.
pub const WINDOW: Duration = Duration::from_secs(10);
/// Lines in a window.
pub const LINES: u32 = 1000;

/// Lets so many lines through in each window of time, and counts the others.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Limiter {
    since: Duration,
    passed: u32,
    suppressed: u64,
    total: u64,
}

impl Limiter {
    /// Whether a line may be written now.
    pub fn pass(&mut self, now: Duration) -> bool {
        if now.saturating_sub(self.since) >= WINDOW && self.suppressed == 0 {
            self.since = now;
            self.passed = 0;
        }
        if self.passed < LINES {
            self.passed += 1;
            return true;
        }
        self.suppressed = self.suppressed.saturating_add(1);
        self.total = self.total.saturating_add(1);
        false
    }

    /// How many lines were not written in a window that is over; none if all were or it is not over. To be asked
    /// before each line and at [`Self::deadline`].
    pub fn report(&mut self, now: Duration) -> Option<u64> {
        if self.suppressed == 0 || now.saturating_sub(self.since) < WINDOW {
            return None;
        }
        self.since = now;
        self.passed = 0;
        Some(std::mem::take(&mut self.suppressed))
    }

    /// When [`Self::report`] has something to say.
    pub fn deadline(&self) -> Option<Duration> {
        (self.suppressed > 0).then(|| self.since.saturating_add(WINDOW))
    }

    /// How many lines were not written since the unit is known.
    pub const fn total(&self) -> u64 {
        self.total
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_flood_is_counted() {
        let mut limiter = Limiter::default();
        let at = Duration::from_secs;
        let passed = (0..5000).filter(|_| limiter.pass(at(20))).count();
        assert_eq!(passed, LINES as usize);
        assert_eq!(limiter.report(at(29)), None);
        assert_eq!(limiter.deadline(), Some(at(30)));
        assert_eq!(limiter.report(at(30)), Some(4000));
        assert_eq!((limiter.deadline(), limiter.total()), (None, 4000));
        assert!(limiter.pass(at(30)));
    }

    proptest! {
        /// Every line is written or counted, and no window has more lines than it may.
        #[test]
        fn nothing_is_lost_silently(bursts in proptest::collection::vec((0u64..15, 0u32..1800), 1..20)) {
            let mut limiter = Limiter::default();
            let (mut now, mut written, mut counted, mut all) = (Duration::ZERO, 0u64, 0u64, 0u64);
            let mut times = Vec::new();
            for (passed, lines) in bursts {
                now += Duration::from_secs(passed);
                for _ in 0..lines {
                    counted += limiter.report(now).unwrap_or_default();
                    all += 1;
                    if limiter.pass(now) {
                        written += 1;
                        times.push(now);
                    }
                }
            }
            counted += limiter.report(now + WINDOW).unwrap_or_default();
            prop_assert_eq!(written + counted, all);
            prop_assert_eq!(counted, limiter.total());
            // A window that begins anywhere sees at most the end of one and the beginning of the next.
            for start in &times {
                let within = times.iter().filter(|time| *time >= start && **time < *start + WINDOW).count();
                prop_assert!(within <= 2 * LINES as usize);
            }
        }
    }
}
