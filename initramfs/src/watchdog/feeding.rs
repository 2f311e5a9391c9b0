//! When to feed the watchdog, without a watchdog.

use std::time::Duration;

/// Meals in one timeout: three may fail before the device fires.
const MEALS: u32 = 4;

/// What to do with the device now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// It is not time yet, or it has been said already.
    Nothing,
    /// Feed it.
    Feed,
    /// The machine has just become unhealthy: it is not fed, and fires in `left`.
    Hold {
        /// Time until then.
        left: Duration,
    },
}

/// The times of one watchdog.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Feeding {
    timeout: Duration,
    fed: Duration,
    next: Duration,
    holding: bool,
}

impl Feeding {
    /// A watchdog that was fed at `now` and fires `timeout` later.
    pub fn new(timeout: Duration, now: Duration) -> Self {
        Self { timeout, fed: now, next: now.saturating_add(timeout / MEALS), holding: false }
    }

    /// How long it waits.
    pub const fn timeout(&self) -> Duration {
        self.timeout
    }

    /// When [`Self::step`] has something to do.
    pub const fn deadline(&self) -> Duration {
        self.next
    }

    /// What to do at `now`. A machine that becomes healthy again in time is fed again, at once.
    pub fn step(&mut self, now: Duration, healthy: bool) -> Action {
        match (healthy, self.holding) {
            (true, true) => self.feed(now),
            (true, false) if now >= self.next => self.feed(now),
            (true, false) => Action::Nothing,
            (false, holding) => {
                if now >= self.next {
                    self.next = now.saturating_add(self.timeout / MEALS);
                }
                self.holding = true;
                let left = self.fed.saturating_add(self.timeout).saturating_sub(now);
                if holding { Action::Nothing } else { Action::Hold { left } }
            }
        }
    }

    fn feed(&mut self, now: Duration) -> Action {
        *self = Self::new(self.timeout, now);
        Action::Feed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_healthy_machine_feeds_four_times_in_a_timeout() {
        let mut feeding = Feeding::new(s(60), s(100));
        assert_eq!(feeding.deadline(), s(115));
        assert_eq!(feeding.step(s(114), true), Action::Nothing);
        assert_eq!(feeding.step(s(115), true), Action::Feed);
        assert_eq!(feeding.deadline(), s(130));
    }

    #[test]
    fn an_ill_machine_does_not_and_says_so_once() {
        let mut feeding = Feeding::new(s(60), s(100));
        assert_eq!(feeding.step(s(110), false), Action::Hold { left: s(50) });
        assert_eq!(feeding.step(s(115), false), Action::Nothing);
        assert_eq!(feeding.deadline(), s(130), "the loop does not spin");
        assert_eq!(feeding.step(s(131), true), Action::Feed, "well again");
        assert_eq!(feeding.step(s(300), false), Action::Hold { left: s(0) });
    }

    proptest! {
        /// Whoever calls at each deadline feeds a healthy machine's watchdog in time, and never an ill one's.
        #[test]
        fn deadlines_are_enough(timeout in 1u64..600, health in prop::collection::vec(any::<bool>(), 1..50)) {
            let mut feeding = Feeding::new(s(timeout), s(0));
            let mut fed = s(0);
            let mut was_healthy = true;
            for healthy in health {
                let now = feeding.deadline();
                let action = feeding.step(now, healthy);
                prop_assert_eq!(action == Action::Feed, healthy);
                // Between two meals in a row less than the timeout passes.
                prop_assert!(!healthy || !was_healthy || now < fed + s(timeout));
                if healthy {
                    fed = now;
                }
                was_healthy = healthy;
                prop_assert!(feeding.deadline() > now && feeding.deadline() < now + s(timeout));
            }
        }
    }
}
