//! When a service or container is started, started again and stopped: a state machine of its own for each. What it
//! waits for is the business of [`super::plan`]. Times are since some fixed moment.

use ashlar_image::manifest::{MAX_START_COUNT, Readiness, Restart, StartLimit, Supervision};
use ashlar_image::report::ServicePhase;
use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

/// First pause before a new start; it doubles with each failure.
pub const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Longest pause before a new start.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// What has run this long is taken for healthy: the next pause is the first again.
pub const HEALTHY_AFTER: Duration = Duration::from_secs(60);
/// Starts are remembered this long to tell what is started too often.
const REMEMBERED: Duration = Duration::from_secs(600);
/// So many starts in [`REMEMBERED`] are too many.
const TOO_OFTEN: usize = 3;
/// After so many kills without an end something is said to resist.
const RESISTS: u32 = 2;

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exit {
    /// It ended by itself with this status.
    Status(i32),
    /// A signal ended it.
    Signal(i32),
    /// It could not be started.
    NotStarted(String),
    /// It was ended because it was not ready in time.
    NotReady(Duration),
    /// It was killed because it gave no sign of life in time, or said itself that it hangs.
    Hung,
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
            Self::NotReady(limit) => write!(f, "not ready after {} s", limit.as_secs()),
            Self::Hung => f.write_str("no sign of life"),
        }
    }
}

/// What holds for a unit as long as the machine runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// When it is started again.
    pub restart: Restart,
    /// Whether [`Event::Ready`] tells when it is ready; it is at once otherwise.
    pub waits: bool,
    /// Longest time until it is ready.
    pub start_timeout: Duration,
    /// How long a stop may take before its whole control group is killed.
    pub stop_timeout: Duration,
    /// After so many starts it is given up.
    pub start_limit: Option<StartLimit>,
    /// Longest time between two signs of life.
    pub watchdog: Option<Duration>,
}

impl Rules {
    /// As the manifest says. No time is zero.
    pub fn new(restart: Restart, supervision: &Supervision) -> Self {
        let seconds = |seconds: u32| Duration::from_secs(seconds.max(1).into());
        Self {
            restart,
            waits: supervision.ready != Readiness::Started,
            start_timeout: seconds(supervision.start_timeout),
            stop_timeout: seconds(supervision.stop_timeout),
            start_limit: supervision.start_limit.map(|limit| StartLimit {
                count: limit.count.clamp(1, MAX_START_COUNT),
                interval: limit.interval,
            }),
            watchdog: supervision.watchdog.map(seconds),
        }
    }
}

/// What happens to a unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Time has passed. It is not started unless nothing that it waits for is missing.
    Tick {
        /// Whether it may be started.
        may_start: bool,
    },
    /// It is ready.
    Ready,
    /// It gave a sign of life.
    Alive,
    /// It says itself that it hangs.
    Hangs,
    /// Its main process has ended, or could not be started.
    Ended(Exit),
    /// It must run; failures of the past are forgotten.
    Start,
    /// It must end and not come back.
    Stop,
    /// It must end and come back.
    Restart,
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

/// What follows a stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Nothing.
    Off,
    /// A start at once.
    Start,
    /// What follows a failure.
    Failure,
}

/// Where a unit is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It is not to run.
    Off,
    /// It will be started.
    Waiting {
        /// Not before.
        until: Duration,
    },
    /// Its main process runs and is not ready.
    Starting {
        /// Since when.
        since: Duration,
        /// When it must be ready.
        until: Duration,
    },
    /// Its main process runs and is ready.
    Running {
        /// Since when.
        since: Duration,
        /// Its last sign of life.
        alive: Duration,
    },
    /// It was asked to end, or killed.
    Stopping {
        /// When it is killed.
        kill_at: Duration,
        /// How often it was killed.
        kills: u32,
        /// What follows.
        next: Next,
    },
    /// It has ended and is not started again.
    Ended,
    /// It was started too often.
    Failed,
}

/// A service or container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    /// What holds for it.
    pub rules: Rules,
    /// Where it is.
    pub state: State,
    /// How often it was started.
    pub starts: u32,
    /// How it ended last.
    pub last_exit: Option<Exit>,
    /// The next pause.
    pub pause: Duration,
    /// When it was started lately, the oldest first.
    recent: VecDeque<Duration>,
    /// Why it is being ended, if not by order.
    verdict: Option<Exit>,
}

impl Unit {
    /// A unit that is to be started at once, or one that is off.
    pub fn new(rules: Rules, enabled: bool, now: Duration) -> Self {
        Self {
            rules,
            state: if enabled { State::Waiting { until: now } } else { State::Off },
            starts: 0,
            last_exit: None,
            pause: FIRST_PAUSE,
            recent: VecDeque::new(),
            verdict: None,
        }
    }

    /// When the next [`Event::Tick`] is due. A start that nothing may follow yet has no time.
    pub fn deadline(&self, may_start: bool) -> Option<Duration> {
        match self.state {
            State::Waiting { until } => may_start.then_some(until),
            State::Starting { until, .. } => Some(until),
            State::Running { alive, .. } => Some(alive.saturating_add(self.rules.watchdog?)),
            State::Stopping { kill_at, .. } => Some(kill_at),
            State::Off | State::Ended | State::Failed => None,
        }
    }

    /// The unit after `event` at the time `now`, and what is to be done.
    #[must_use]
    pub fn step(mut self, event: Event, now: Duration) -> (Self, Option<Action>) {
        let action = match (self.state, event) {
            (State::Waiting { until }, Event::Tick { may_start: true }) if now >= until => self.start(now),
            (State::Starting { until, .. }, Event::Tick { .. }) if now >= until => {
                self.verdict = Some(Exit::NotReady(self.rules.start_timeout));
                Some(self.stop(Next::Failure, now))
            }
            (State::Starting { .. }, Event::Ready) => {
                self.state = State::Running { since: now, alive: now };
                None
            }
            (State::Running { alive, .. }, Event::Tick { .. })
                if self.rules.watchdog.is_some_and(|limit| now >= alive.saturating_add(limit)) =>
            {
                Some(self.give_up_on(now))
            }
            (State::Starting { .. } | State::Running { .. }, Event::Hangs) => Some(self.give_up_on(now)),
            (State::Running { since, .. }, Event::Alive) => {
                self.state = State::Running { since, alive: now };
                None
            }
            (State::Starting { .. } | State::Running { .. }, Event::Ended(exit)) => {
                Some(self.ended(exit, now))
            }
            (State::Starting { .. } | State::Running { .. }, Event::Stop) => Some(self.stop(Next::Off, now)),
            (State::Starting { .. } | State::Running { .. }, Event::Restart) => {
                self.forget();
                Some(self.stop(Next::Start, now))
            }
            (State::Stopping { next, .. }, Event::Ended(exit)) => {
                let exit = self.verdict.take().unwrap_or(exit);
                match next {
                    Next::Failure => self.fail(exit, now),
                    Next::Off | Next::Start => {
                        self.last_exit = Some(exit);
                        self.state =
                            if next == Next::Off { State::Off } else { State::Waiting { until: now } };
                    }
                }
                Some(Action::Kill)
            }
            (State::Stopping { kill_at, kills, next }, Event::Tick { .. }) if now >= kill_at => {
                let kill_at = now.saturating_add(self.rules.stop_timeout);
                self.state = State::Stopping { kill_at, kills: kills.saturating_add(1), next };
                Some(Action::Kill)
            }
            (State::Stopping { kill_at, kills, .. }, Event::Stop) => {
                self.state = State::Stopping { kill_at, kills, next: Next::Off };
                None
            }
            (State::Stopping { kill_at, kills, .. }, Event::Start | Event::Restart) => {
                self.forget();
                self.state = State::Stopping { kill_at, kills, next: Next::Start };
                None
            }
            (State::Off | State::Waiting { .. } | State::Ended | State::Failed, Event::Stop) => {
                self.state = State::Off;
                None
            }
            (
                State::Off | State::Waiting { .. } | State::Ended | State::Failed,
                Event::Start | Event::Restart,
            ) => {
                self.forget();
                self.state = State::Waiting { until: now };
                None
            }
            _ => None,
        };
        (self, action)
    }

    /// Forgets the failures of the past: somebody has looked after it.
    fn forget(&mut self) {
        self.pause = FIRST_PAUSE;
        self.recent.clear();
    }

    fn start(&mut self, now: Duration) -> Option<Action> {
        if let Some(limit) = self.rules.start_limit
            && self.starts_within(Duration::from_secs(limit.interval.into()), now) >= limit.count as usize
        {
            self.state = State::Failed;
            return None;
        }
        self.recent.push_back(now);
        let kept = self.rules.start_limit.map_or(0, |limit| limit.count as usize).max(TOO_OFTEN);
        while self.recent.len() > kept {
            self.recent.pop_front();
        }
        self.starts = self.starts.saturating_add(1);
        self.verdict = None;
        self.state = if self.rules.waits {
            State::Starting { since: now, until: now.saturating_add(self.rules.start_timeout) }
        } else {
            State::Running { since: now, alive: now }
        };
        Some(Action::Start)
    }

    fn stop(&mut self, next: Next, now: Duration) -> Action {
        let kill_at = now.saturating_add(self.rules.stop_timeout);
        self.state = State::Stopping { kill_at, kills: 0, next };
        Action::Terminate
    }

    /// Nobody listens: it is killed at once.
    fn give_up_on(&mut self, now: Duration) -> Action {
        self.verdict = Some(Exit::Hung);
        self.stop(Next::Failure, now);
        Action::Kill
    }

    fn ended(&mut self, exit: Exit, now: Duration) -> Action {
        let (was_ready, since) = match self.state {
            State::Running { since, .. } => (true, since),
            _ => (false, now),
        };
        if was_ready && now.saturating_sub(since) >= HEALTHY_AFTER {
            self.pause = FIRST_PAUSE;
        }
        if was_ready && exit.is_success() && self.rules.restart != Restart::Always {
            self.last_exit = Some(exit);
            self.state = State::Ended;
        } else {
            self.fail(exit, now);
        }
        // What it left behind must not run beside its successor.
        Action::Kill
    }

    /// It has ended though it should not have.
    fn fail(&mut self, exit: Exit, now: Duration) {
        self.state = match self.rules.restart {
            Restart::Always | Restart::OnFailure => State::Waiting { until: now.saturating_add(self.pause) },
            Restart::Never => State::Ended,
        };
        self.pause = self.pause.saturating_mul(2).min(LONGEST_PAUSE);
        self.last_exit = Some(exit);
    }

    fn starts_within(&self, interval: Duration, now: Duration) -> usize {
        self.recent.iter().filter(|start| now.saturating_sub(**start) < interval).count()
    }

    /// Why it is being ended, if not by order.
    pub const fn verdict(&self) -> Option<&Exit> {
        self.verdict.as_ref()
    }

    /// Whether its main process runs.
    pub const fn is_running(&self) -> bool {
        matches!(self.state, State::Starting { .. } | State::Running { .. } | State::Stopping { .. })
    }

    /// Whether its main process runs and nobody has asked it to end.
    pub const fn is_up(&self) -> bool {
        matches!(self.state, State::Starting { .. } | State::Running { .. })
    }

    /// Whether what depends on it may start: it is ready, or it has done what it had to do.
    pub fn is_ready(&self) -> bool {
        match self.state {
            State::Running { .. } => true,
            State::Ended => self.last_exit.as_ref().is_some_and(Exit::is_success),
            _ => false,
        }
    }

    /// Whether it will not be started by itself.
    pub const fn is_over(&self) -> bool {
        matches!(self.state, State::Off | State::Ended | State::Failed)
    }

    /// Whether its first start is behind it: it is ready for `moment`, or it has ended at least once.
    pub fn has_settled(&self, now: Duration, moment: Duration) -> bool {
        match self.state {
            State::Running { since, .. } => self.last_exit.is_some() || now.saturating_sub(since) >= moment,
            State::Waiting { .. } | State::Starting { .. } => self.last_exit.is_some(),
            State::Stopping { .. } | State::Off | State::Ended | State::Failed => true,
        }
    }

    /// Where it is, for reports.
    pub const fn phase(&self) -> ServicePhase {
        match self.state {
            State::Off => ServicePhase::Off,
            State::Waiting { .. } => ServicePhase::Waiting,
            State::Starting { .. } => ServicePhase::Starting,
            State::Running { .. } => ServicePhase::Running,
            State::Stopping { .. } => ServicePhase::Stopping,
            State::Ended => ServicePhase::Ended,
            State::Failed => ServicePhase::Failed,
        }
    }

    /// What is wrong with it, for people; none if nothing is.
    pub fn problem(&self, now: Duration) -> Option<String> {
        let failure = self.last_exit.as_ref().filter(|exit| !exit.is_success());
        let recent = self.starts_within(REMEMBERED, now);
        match self.state {
            State::Failed => {
                let last = self.last_exit.as_ref().map(|exit| format!(", the last time: {exit}"));
                Some(format!("given up after {} starts{}", self.starts, last.unwrap_or_default()))
            }
            State::Ended => failure.map(|exit| format!("failed: {exit}")),
            State::Waiting { .. } if recent > 0 => {
                self.last_exit.as_ref().map(|exit| format!("{exit} after start {}", self.starts))
            }
            State::Starting { .. } if recent > 1 => {
                failure.map(|exit| format!("not ready at start {}; before: {exit}", self.starts))
            }
            State::Running { .. } if recent >= TOO_OFTEN => Some(format!(
                "started {recent} times and more within {} minutes{}",
                REMEMBERED.as_secs() / 60,
                self.last_exit.as_ref().map(|exit| format!("; the last end: {exit}")).unwrap_or_default()
            )),
            State::Stopping { kills, .. } if kills >= RESISTS => {
                Some("it does not end though it was killed: the kernel holds it".into())
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
