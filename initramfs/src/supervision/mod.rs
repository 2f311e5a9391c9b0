//! Services and containers: started, watched, started again, stopped.

pub mod process;
pub mod unit;

use crate::console;
use crate::journal::Journal;
use ashlar_image::manifest::Manifest;
use ashlar_image::report::ServiceState;
use process::Supervised;
use rustix::process::Pid;
use std::os::fd::BorrowedFd;
use std::time::Duration;
use unit::{Action, Event, Exit, State};

/// How long something must run before it counts as started.
const MOMENT: Duration = Duration::from_secs(2);
/// How long [`Supervisor::has_settled`] waits for what does not settle.
const SETTLE_DEADLINE: Duration = Duration::from_secs(30);

/// A descriptor of a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Token {
    /// The output of the unit with this number.
    Output(usize),
}

/// Everything that the image asks for.
#[derive(Debug)]
pub struct Supervisor {
    units: Vec<Supervised>,
    begun: Duration,
}

impl Supervisor {
    /// All that the manifest names.
    pub fn new(manifest: &Manifest, now: Duration) -> Self {
        Self { units: process::from_manifest(manifest, now), begun: now }
    }

    /// What poll has to wait for.
    pub fn sources(&self) -> impl Iterator<Item = (Token, BorrowedFd<'_>)> {
        self.units.iter().enumerate().filter_map(|(index, unit)| Some((Token::Output(index), unit.output()?)))
    }

    /// A descriptor can be read.
    pub fn handle(&mut self, token: Token, now: Duration, journal: &mut Journal) {
        let Token::Output(index) = token;
        if let Some(unit) = self.units.get_mut(index) {
            unit.read_output(now, journal);
        }
    }

    /// Collects processes that have ended, after SIGCHLD. Those that are none of the units' come back.
    pub fn reap(&mut self, now: Duration, journal: &mut Journal) -> Vec<(Pid, Exit)> {
        let mut others = Vec::new();
        for (pid, exit) in process::reap() {
            match self.units.iter().position(|unit| unit.pid == Some(pid)) {
                Some(index) => self.ended(index, exit, now, journal),
                None => others.push((pid, exit)),
            }
        }
        others
    }

    /// Does what time makes due.
    pub fn tick(&mut self, now: Duration, journal: &mut Journal) {
        for index in 0..self.units.len() {
            self.step(index, Event::Tick, now, journal);
        }
    }

    /// When [`Self::tick`] is due.
    pub fn deadline(&self) -> Option<Duration> {
        self.units.iter().filter_map(|unit| unit.unit.deadline()).min()
    }

    /// Begins to stop everything; nothing is started any more.
    pub fn stop_all(&mut self, now: Duration, journal: &mut Journal) {
        for index in 0..self.units.len() {
            self.step(index, Event::Stop, now, journal);
        }
    }

    /// Whether nothing runs and nothing will be started.
    pub fn is_over(&self) -> bool {
        self.units.iter().all(|unit| unit.unit.state == State::Over)
    }

    /// Whether the first start of everything is behind it, or was waited for long enough.
    pub fn has_settled(&self, now: Duration) -> bool {
        now.saturating_sub(self.begun) >= SETTLE_DEADLINE
            || self.units.iter().all(|unit| unit.unit.has_settled(now, MOMENT))
    }

    /// All units, for reports.
    pub fn states(&self) -> Vec<ServiceState> {
        self.units.iter().map(Supervised::state).collect()
    }

    /// Gives an event to a unit and does what it wants.
    fn step(&mut self, index: usize, event: Event, now: Duration, journal: &mut Journal) {
        let Some(unit) = self.units.get_mut(index) else { return };
        let (next, action) = unit.unit.clone().step(event, now);
        unit.unit = next;
        match action {
            None => {}
            Some(Action::Terminate) => unit.terminate(),
            Some(Action::Kill) => unit.kill(),
            Some(Action::Start) => match unit.start() {
                Ok(()) => console::info(format_args!("started {}", unit.title())),
                Err(error) => self.ended(index, Exit::NotStarted(error.to_string()), now, journal),
            },
        }
    }

    fn ended(&mut self, index: usize, exit: Exit, now: Duration, journal: &mut Journal) {
        if let Some(unit) = self.units.get_mut(index) {
            unit.tell_end(&exit, now, journal);
        }
        self.step(index, Event::Ended(exit), now, journal);
    }
}
