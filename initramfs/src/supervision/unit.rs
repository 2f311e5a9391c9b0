//! When a service or container is started, started again and stopped: a state machine of its own for each.
//! Times are since some fixed moment.

use ashlar_image::manifest::Restart;
use std::fmt;
use std::time::Duration;

/// First pause before a new start; it doubles with each failure.
pub const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Longest pause before a new start.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// What has run this long is taken for healthy: the next pause is the first again.
pub const HEALTHY_AFTER: Duration = Duration::from_secs(60);
/// How long a stop may take before the whole control group is killed.
pub const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exit {
    /// It ended by itself with this status.
    Status(i32),
    /// A signal ended it.
    Signal(i32),
    /// It could not be started.
    NotStarted(String),
}

impl Exit {
    /// Whether nothing went wrong.
    pub fn is_success(&self) -> bool {
        *self == Self::Status(0)
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(f, "exit status {status}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
            Self::NotStarted(reason) => write!(f, "not started: {reason}"),
        }
    }
}

/// What happens to a unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Time has passed.
    Tick,
    /// Its main process has ended, or could not be started.
    Ended(Exit),
    /// It must end and not come back.
    Stop,
}

/// What a unit wants done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Start its main process.
    Start,
    /// Ask the main process to end.
    Terminate,
    /// Kill everything in its control group.
    Kill,
}

/// Where a unit is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It will be started.
    Waiting {
        /// When.
        until: Duration,
    },
    /// Its main process runs.
    Running {
        /// Since when.
        since: Duration,
    },
    /// It was asked to end.
    Stopping {
        /// When it is killed.
        kill_at: Duration,
    },
    /// It has ended and is not started again.
    Over,
}

/// A service or container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    /// When it is started again.
    pub restart: Restart,
    /// Where it is.
    pub state: State,
    /// How often it was started.
    pub starts: u32,
    /// How it ended last.
    pub last_exit: Option<Exit>,
    /// The next pause.
    pub pause: Duration,
}

impl Unit {
    /// A unit that is to be started at once.
    pub const fn new(restart: Restart, now: Duration) -> Self {
        Self { restart, state: State::Waiting { until: now }, starts: 0, last_exit: None, pause: FIRST_PAUSE }
    }

    /// When the next [`Event::Tick`] is due.
    pub const fn deadline(&self) -> Option<Duration> {
        match self.state {
            State::Waiting { until } => Some(until),
            State::Stopping { kill_at } => Some(kill_at),
            State::Running { .. } | State::Over => None,
        }
    }

    /// The unit after `event` at the time `now`, and what is to be done.
    #[must_use]
    pub fn step(mut self, event: Event, now: Duration) -> (Self, Option<Action>) {
        let action = match (self.state, event) {
            (State::Waiting { until }, Event::Tick) if now >= until => {
                self.state = State::Running { since: now };
                self.starts = self.starts.saturating_add(1);
                Some(Action::Start)
            }
            (State::Waiting { .. }, Event::Stop) => {
                self.state = State::Over;
                None
            }
            (State::Running { since }, Event::Ended(exit)) => {
                let again = match self.restart {
                    Restart::Always => true,
                    Restart::OnFailure => !exit.is_success(),
                    Restart::Never => false,
                };
                if now.saturating_sub(since) >= HEALTHY_AFTER {
                    self.pause = FIRST_PAUSE;
                }
                self.state = if again {
                    State::Waiting { until: now.saturating_add(self.pause) }
                } else {
                    State::Over
                };
                self.pause = self.pause.saturating_mul(2).min(LONGEST_PAUSE);
                self.last_exit = Some(exit);
                // What it left behind must not run beside its successor.
                Some(Action::Kill)
            }
            (State::Running { .. }, Event::Stop) => {
                self.state = State::Stopping { kill_at: now.saturating_add(STOP_TIMEOUT) };
                Some(Action::Terminate)
            }
            (State::Stopping { .. }, Event::Ended(exit)) => {
                self.state = State::Over;
                self.last_exit = Some(exit);
                Some(Action::Kill)
            }
            (State::Stopping { kill_at }, Event::Tick) if now >= kill_at => {
                self.state = State::Stopping { kill_at: now.saturating_add(STOP_TIMEOUT) };
                Some(Action::Kill)
            }
            _ => None,
        };
        (self, action)
    }

    /// Whether its main process runs.
    pub const fn is_running(&self) -> bool {
        matches!(self.state, State::Running { .. } | State::Stopping { .. })
    }

    /// Whether its first start is behind it: it has run for `moment`, or it has ended at least once.
    pub fn has_settled(&self, now: Duration, moment: Duration) -> bool {
        match self.state {
            State::Running { since } => self.last_exit.is_some() || now.saturating_sub(since) >= moment,
            State::Waiting { .. } => self.last_exit.is_some(),
            State::Stopping { .. } | State::Over => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn started(restart: Restart) -> Unit {
        let (unit, action) = Unit::new(restart, at(0)).step(Event::Tick, at(0));
        assert_eq!(action, Some(Action::Start));
        unit
    }

    fn ended(unit: Unit, exit: Exit, now: Duration) -> Unit {
        let (unit, action) = unit.step(Event::Ended(exit), now);
        assert_eq!(action, Some(Action::Kill));
        unit
    }

    #[test]
    fn pauses_double_up_to_a_minute_and_fall_back() {
        let mut unit = started(Restart::Always);
        let mut now = at(0);
        let mut pauses = Vec::new();
        for _ in 0..8 {
            unit = ended(unit, Exit::Status(1), now);
            let next = unit.deadline().unwrap();
            pauses.push(next.saturating_sub(now).as_secs());
            let (same, action) = unit.step(Event::Tick, next.saturating_sub(Duration::from_nanos(1)));
            assert_eq!(action, None, "too early");
            let (again, action) = same.step(Event::Tick, next);
            assert_eq!(action, Some(Action::Start));
            (unit, now) = (again, next);
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(unit.starts, 9);
        let unit = ended(unit, Exit::Signal(11), now + at(60));
        assert_eq!(unit.deadline(), Some(now + at(61)));
    }

    #[test]
    fn the_policy_decides() {
        for (restart, exit, again) in [
            (Restart::Always, Exit::Status(0), true),
            (Restart::OnFailure, Exit::Status(0), false),
            (Restart::OnFailure, Exit::Signal(9), true),
            (Restart::OnFailure, Exit::NotStarted("x".into()), true),
            (Restart::Never, Exit::Status(1), false),
        ] {
            let unit = ended(started(restart), exit.clone(), at(1));
            assert_eq!(matches!(unit.state, State::Waiting { .. }), again, "{restart:?} {exit}");
            assert_eq!(unit.last_exit, Some(exit));
        }
    }

    #[test]
    fn stopping_asks_first_and_kills_then() {
        let (unit, action) = started(Restart::Always).step(Event::Stop, at(5));
        assert_eq!(action, Some(Action::Terminate));
        assert_eq!(unit.clone().step(Event::Tick, at(14)).1, None);
        let (killed, action) = unit.clone().step(Event::Tick, at(15));
        assert_eq!(action, Some(Action::Kill));
        assert_eq!(killed.deadline(), Some(at(25)), "it is tried again");
        let unit = ended(unit, Exit::Signal(15), at(6));
        assert_eq!(unit.state, State::Over);
        assert_eq!(unit.step(Event::Tick, at(100)).1, None);
    }

    #[test]
    fn settled_is_up_for_a_moment_or_seen_to_fail() {
        let moment = at(2);
        assert!(!Unit::new(Restart::Always, at(0)).has_settled(at(9), moment));
        let unit = started(Restart::Always);
        assert!(!unit.has_settled(at(1), moment));
        assert!(unit.has_settled(at(2), moment));
        assert!(ended(unit, Exit::Status(1), at(1)).has_settled(at(1), moment));
    }

    proptest! {
        /// Starts and ends alternate, and after a stop nothing is started.
        #[test]
        fn any_history(events in proptest::collection::vec((0u8..4, 0u64..70), 1..80)) {
            let mut unit = Unit::new(Restart::Always, at(0));
            let (mut now, mut alive, mut stopped) = (at(0), false, false);
            for (what, passed) in events {
                now += at(passed);
                let event = match what {
                    0 if alive => Event::Ended(Exit::Status(1)),
                    1 => Event::Stop,
                    _ => Event::Tick,
                };
                if matches!(event, Event::Ended(_)) {
                    alive = false;
                }
                stopped |= event == Event::Stop;
                let (next, action) = unit.step(event, now);
                unit = next;
                if action == Some(Action::Start) {
                    prop_assert!(!alive && !stopped);
                    alive = true;
                }
                prop_assert_eq!(unit.is_running(), alive);
                prop_assert!(!stopped || alive || unit.state == State::Over);
            }
        }
    }
}
