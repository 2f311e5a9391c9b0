//! Services and containers: started when what they need is ready, watched, started again, stopped in order.
//!
//! What decides is pure: [`unit`] for one of them, [`plan`] for what they wait for. [`process`] does what they want.
//! The loop of PID 1 polls [`Supervisor::sources`], calls [`Supervisor::handle`], [`Supervisor::reap`] after SIGCHLD,
//! and [`Supervisor::tick`] each time around.

mod change;
pub mod command;
pub mod confine;
pub mod notify;
pub mod plan;
pub mod probe;
pub mod process;
#[cfg(test)]
mod tests;
pub mod unit;

use crate::console;
use crate::journal::Journal;
use ashlar_image::manifest::Manifest;
use ashlar_image::report::ServiceState;
use change::Debugging;
use command::Kind;
use plan::{Item, Plan};
use process::{PROBE_INTERVAL, Process};
use rustix::process::Pid;
use std::os::fd::BorrowedFd;
use std::time::Duration;
use unit::{Action, Event, Exit, Next, Rules, State};

/// How long [`Supervisor::has_settled`] waits for what does not settle.
const SETTLE_DEADLINE: Duration = Duration::from_secs(30);
/// Ended processes that are collected at once: thousands of orphans must not hold up everything else.
pub const REAP_BATCH: usize = 256;

/// A descriptor of a unit, by the unit's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Token {
    /// Its output.
    Output(usize),
    /// What it tells about itself.
    Notify(usize),
}

/// Everything that the image asks for.
#[derive(Debug)]
pub struct Supervisor {
    plan: Plan,
    processes: Vec<Process>,
    /// What is wrong with the manifest.
    faults: Vec<String>,
    /// What is wrong with the machine configuration.
    misfits: Vec<String>,
    debugging: Option<Debugging>,
    begun: Duration,
    unreaped: bool,
    ending: bool,
}

impl Supervisor {
    /// All that the manifest names; what is for debugging stays off.
    pub fn new(manifest: &Manifest, now: Duration) -> Self {
        let services =
            manifest.services.iter().map(|(name, service)| (name, Kind::Service(Box::new(service.clone()))));
        let containers = manifest
            .containers
            .iter()
            .map(|(name, container)| (name, Kind::Container(Box::new(container.clone()))));
        let processes: Vec<Process> =
            services.chain(containers).map(|(name, kind)| Process::new(name, kind)).collect();
        let items = processes.iter().map(|process| {
            let supervision = process.kind.supervision();
            Item {
                name: process.name.clone(),
                rules: Rules::new(process.kind.restart(), supervision),
                after: supervision.after.clone(),
                requires: supervision.requires.clone(),
                enabled: process.allowed && !process.kind.is_on_request(),
            }
        });
        let (plan, faults) = Plan::new(items.collect(), now);
        for fault in &faults {
            console::error(fault);
        }
        if let Err(error) = crate::mounts::make_dir(&command::notify_folder(), 0o755) {
            console::error(error);
        }
        Self {
            plan,
            processes,
            faults,
            misfits: Vec::new(),
            debugging: None,
            begun: now,
            unreaped: false,
            ending: false,
        }
    }

    /// What poll has to wait for.
    pub fn sources(&self) -> impl Iterator<Item = (Token, BorrowedFd<'_>)> {
        self.processes.iter().enumerate().flat_map(|(index, process)| {
            let output = process.output().map(|output| (Token::Output(index), output));
            let notify = process.notify().map(|notify| (Token::Notify(index), notify));
            output.into_iter().chain(notify)
        })
    }

    /// A descriptor can be read.
    pub fn handle(&mut self, token: Token, now: Duration, journal: &mut Journal) {
        match token {
            Token::Output(index) => {
                if let Some(process) = self.processes.get_mut(index) {
                    process.read_output(now, journal);
                }
            }
            Token::Notify(index) => self.notified(index, now, journal),
        }
    }

    fn notified(&mut self, index: usize, now: Duration, journal: &mut Journal) {
        let messages = self.processes.get_mut(index).map(Process::read_notify).unwrap_or_default();
        for message in messages {
            // Readiness by `notify` only: else something else tells.
            let waits = self.processes.get(index).is_some_and(|process| process.probe_at.is_none());
            for (told, event) in [
                (message.ready && waits, Event::Ready),
                (message.alive, Event::Alive),
                (message.hangs, Event::Hangs),
            ] {
                if told {
                    self.event(index, event, now, journal);
                }
            }
        }
    }

    /// Collects processes that have ended, after SIGCHLD: at most [`REAP_BATCH`], the next with [`Self::tick`]. Those that
    /// are none of the units' come back; orphans are among them.
    pub fn reap(&mut self, now: Duration, journal: &mut Journal) -> Vec<(Pid, Exit)> {
        let (ended, more) = process::reap(REAP_BATCH);
        self.unreaped = more;
        ended.into_iter().filter(|(pid, exit)| !self.reaped(*pid, exit, now, journal)).collect()
    }

    /// A process has ended and was collected. False if it is none of the units'.
    pub fn reaped(&mut self, pid: Pid, exit: &Exit, now: Duration, journal: &mut Journal) -> bool {
        let Some(index) = self.processes.iter().position(|process| process.pid == Some(pid)) else {
            return false;
        };
        self.ended(index, exit.clone(), now, journal);
        true
    }

    /// Does what time makes due.
    pub fn tick(&mut self, now: Duration, journal: &mut Journal) {
        if self.unreaped {
            self.reap(now, journal);
        }
        self.end_debugging(now);
        for index in 0..self.processes.len() {
            self.probe(index, now, journal);
        }
        for process in &mut self.processes {
            process.tell_suppressed(now, journal);
        }
        // Each unit does a few things at most before something must happen or time pass.
        for _ in 0..self.processes.len().saturating_mul(4) {
            let Some((index, action)) = self.plan.next(now) else { break };
            self.act(index, action, now, journal);
        }
    }

    /// Looks whether something is ready that does not say so itself.
    fn probe(&mut self, index: usize, now: Duration, journal: &mut Journal) {
        let starting = self.plan.unit(index).is_some_and(|unit| matches!(unit.state, State::Starting { .. }));
        let Some(process) = self.processes.get_mut(index) else { return };
        if !starting || process.probe_at.is_none_or(|at| at > now) {
            return;
        }
        process.probe_at = Some(now.saturating_add(PROBE_INTERVAL));
        if process.probe() {
            self.event(index, Event::Ready, now, journal);
        }
    }

    /// When [`Self::tick`] is due.
    pub fn deadline(&self) -> Option<Duration> {
        let unreaped = self.unreaped.then_some(Duration::ZERO);
        let lines = self.processes.iter().filter_map(Process::deadline);
        let probes = self.processes.iter().enumerate().filter_map(|(index, process)| {
            let starting = matches!(self.plan.unit(index)?.state, State::Starting { .. });
            process.probe_at.filter(|_| starting)
        });
        let debugging = self.debugging.as_ref().map(Debugging::deadline);
        unreaped.into_iter().chain(self.plan.deadline()).chain(lines).chain(probes).chain(debugging).min()
    }

    /// Begins to stop everything, what depends on others first; nothing is started any more. [`Self::tick`] goes on
    /// with it.
    pub fn stop_all(&mut self, now: Duration, journal: &mut Journal) {
        self.ending = true;
        self.debugging = None;
        self.plan.stop_all();
        self.tick(now, journal);
    }

    /// Whether nothing runs and nothing will be started.
    pub fn is_over(&self) -> bool {
        self.plan.is_over()
    }

    /// Whether the first start of everything is behind it, or was waited for long enough.
    pub fn has_settled(&self, now: Duration) -> bool {
        now.saturating_sub(self.begun) >= SETTLE_DEADLINE || self.plan.has_settled(now)
    }

    /// Names of what must still start before everything has settled.
    pub fn unsettled(&self, now: Duration) -> Vec<String> {
        self.plan.unsettled(now)
    }

    /// All units, for reports.
    pub fn states(&self, now: Duration) -> Vec<ServiceState> {
        let mut problems = self.unit_problems(now).into_iter();
        let state = |(index, process): (usize, &Process)| {
            let problem = problems.next().flatten();
            let unit = self.plan.unit(index)?;
            Some(ServiceState {
                name: process.name.clone(),
                container: matches!(process.kind, Kind::Container(_)),
                phase: unit.phase(),
                running: unit.is_running(),
                ready: unit.is_ready(),
                starts: unit.starts,
                last_exit: unit.last_exit.as_ref().map(ToString::to_string),
                ended_well: unit.last_exit.as_ref().map(Exit::is_success),
                status: process.status(),
                problem,
                usage: process.usage(),
                suppressed_lines: process.suppressed(),
            })
        };
        self.processes.iter().enumerate().filter_map(state).collect()
    }

    fn unit_problems(&self, now: Duration) -> Vec<Option<String>> {
        // How something ends that was asked for is the business of who has asked; that it cannot be ended is not.
        let is_asked = |index: usize| {
            let on_request = self.processes.get(index).is_some_and(|process| process.kind.is_on_request());
            on_request
                && !self.plan.unit(index).is_some_and(|unit| matches!(unit.state, State::Stopping { .. }))
        };
        let own = self.plan.problems(now).into_iter().enumerate();
        let own = own.map(|(index, problem)| problem.filter(|_| !is_asked(index)));
        let both = own.zip(&self.processes).map(|(own, process)| match (own, process.problem(now)) {
            (Some(own), Some(process)) => Some(format!("{own}; {process}")),
            (own, process) => own.or_else(|| process.map(str::to_owned)),
        });
        both.collect()
    }

    /// What fails, is started too often, is not ready or cannot be as it should, one line each.
    pub fn problems(&self, now: Duration) -> Vec<String> {
        let units = self.processes.iter().zip(self.unit_problems(now));
        let units = units.filter_map(|(process, problem)| Some(format!("{}: {}", process.title(), problem?)));
        self.faults.iter().chain(&self.misfits).cloned().chain(units).collect()
    }

    /// Gives an event to a unit and does what it wants.
    fn event(&mut self, index: usize, event: Event, now: Duration, journal: &mut Journal) {
        if let Some(action) = self.plan.event(index, event, now) {
            self.act(index, action, now, journal);
        }
    }

    fn act(&mut self, index: usize, action: Action, now: Duration, journal: &mut Journal) {
        let Some(process) = self.processes.get_mut(index) else { return };
        let fails = self.plan.unit(index).and_then(|unit| match unit.state {
            State::Stopping { next: Next::Failure, kills: 0, .. } => unit.verdict(),
            _ => None,
        });
        if let Some(verdict) = fails {
            console::error(format_args!("{}: {verdict}; it is ended", process.title()));
        }
        match action {
            Action::Terminate => process.terminate(),
            Action::Kill => process.kill(),
            Action::Start => match process.start(now) {
                Ok(()) => console::info(format_args!("started {}", process.title())),
                Err(error) => self.ended(index, Exit::NotStarted(error.to_string()), now, journal),
            },
        }
    }

    fn ended(&mut self, index: usize, exit: Exit, now: Duration, journal: &mut Journal) {
        let Some(unit) = self.plan.unit(index) else { return };
        let was_stopping = matches!(unit.state, State::Stopping { next: Next::Off | Next::Start, .. });
        if let Some(process) = self.processes.get_mut(index) {
            process.tell_end(&exit, was_stopping, now, journal);
        }
        self.event(index, Event::Ended(exit), now, journal);
    }
}
