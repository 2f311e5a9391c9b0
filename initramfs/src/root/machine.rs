//! The loop of PID 1: one poll over everything that can happen, then the one thing that has happened.

use super::care::Care;
use super::now;
use crate::boot::Boot;
use crate::configuration::Configuration;
use crate::control::{self, Control};
use crate::error::Error;
use crate::etc::Etc;
use crate::journal::Journal;
use crate::measure::{Measurer, Phase};
use crate::network::Network;
use crate::shutdown::{self, Request};
use crate::supervision::{self, Supervisor};
use crate::time::Time;
use crate::trial::Trials;
use crate::uevent::Uevents;
use crate::{console, input, state};
use ashlar_image::control::TrialFailure;
use ashlar_image::manifest::Manifest;
use ashlar_tpm::Device;
use rustix::event::{PollFd, PollFlags, Timespec};
use signal_hook::consts::{SIGCHLD, SIGINT, SIGTERM};
use std::convert::Infallible;
use std::fs::File;
use std::io::{self, Read};
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// How long the report waits for addresses.
const ADDRESS_DEADLINE: Duration = Duration::from_secs(10);
/// How often readiness is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);
/// How long an answer may take to reach who asked for the machine's end.
const ANSWER_TIME: Duration = Duration::from_secs(1);
/// How long services and containers may take to stop, all together.
const SHUTDOWN_DEADLINE: Duration = Duration::from_secs(25);

/// Signals as something that poll can wait for.
#[derive(Debug)]
pub struct Signals {
    child: UnixStream,
    reboot: UnixStream,
    power_off: UnixStream,
}

impl Signals {
    /// Begins to receive them: SIGCHLD, SIGINT (Ctrl-Alt-Del: start again), SIGTERM (switch off).
    pub fn new() -> io::Result<Self> {
        let pipe = |signal| -> io::Result<UnixStream> {
            let (read, write) = UnixStream::pair()?;
            read.set_nonblocking(true)?;
            signal_hook::low_level::pipe::register(signal, write)?;
            Ok(read)
        };
        Ok(Self { child: pipe(SIGCHLD)?, reboot: pipe(SIGINT)?, power_off: pipe(SIGTERM)? })
    }
}

/// What has happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Child,
    Reboot,
    PowerOff,
    Uevents,
    Links,
    Packets(u32),
    Clock(usize),
    Button(usize),
    Kernel,
    Unit(supervision::Token),
    Control(control::Token),
}

/// The machine from the end of its set-up to its own end.
#[derive(Debug)]
pub struct Machine {
    /// What the image asks for.
    pub manifest: Manifest,
    /// What the first stage has done.
    pub boot: Boot,
    /// The TPM.
    pub measurer: Measurer<Device>,
    /// The machine configuration.
    pub configuration: Configuration,
    /// The network.
    pub network: Network,
    /// What is generated in `/etc`.
    pub etc: Etc,
    /// The clock.
    pub time: Time,
    /// Who asks PID 1.
    pub control: Control,
    /// News of devices.
    pub uevents: Uevents,
    /// Signals.
    pub signals: Signals,
    /// Services and containers.
    pub supervisor: Supervisor,
    /// The log.
    pub journal: Journal,
    /// What looks after the machine itself.
    pub care: Care,
    /// Whether this boot is a trial.
    pub trial: Trials,
    /// How far it has come.
    pub progress: Progress,
}

/// How far the machine has come.
#[derive(Debug)]
pub struct Progress {
    buttons: Vec<(String, File)>,
    started: Duration,
    /// Whether `ready` was measured.
    pub ready: bool,
    ending: Option<(Request, Duration)>,
    /// The end that somebody has asked for, and when it begins.
    asked: Option<(Request, Duration)>,
    /// Addresses and name servers when the clock was told of them.
    network: (Vec<String>, Vec<IpAddr>),
}

impl Default for Progress {
    fn default() -> Self {
        Self {
            buttons: input::power_buttons(&[]),
            started: now(),
            ready: false,
            ending: None,
            asked: None,
            network: Default::default(),
        }
    }
}

impl Progress {
    /// Has the clock be told of the network again.
    pub fn forget_network(&mut self) {
        self.network = Default::default();
    }
}

impl Machine {
    /// Runs until the machine ends. Comes back only with an error.
    pub fn run(mut self) -> Result<Infallible, Error> {
        loop {
            let now = now();
            self.network.tick(now);
            self.follow_network(now);
            self.time.tick(now);
            self.control.tick(now);
            self.care.tick(self.progress.ready, now);
            self.supervisor.tick(now, &mut self.journal);
            if let Some((request, _)) = self.progress.asked.take_if(|(_, at)| now >= *at) {
                self.end(request, "somebody asked for it", now);
            }
            if let Some((request, deadline)) = self.progress.ending {
                if self.supervisor.is_over() || now >= deadline {
                    self.time.save();
                    self.care.close(request.title(), request == Request::PowerOff);
                    self.journal.close();
                    shutdown::finish(request);
                }
            } else if !self.progress.ready && self.has_settled(now) && self.care.is_read_back(now) {
                self.become_ready(now)?;
            }
            if self.trial.is_over(now) && self.progress.ending.is_none() {
                self.run_out(now);
            }
            if self.care.wants_status(now) {
                let status = self.status(now);
                self.care.show(&status, now);
            }
            for source in self.wait(now) {
                self.handle(source);
            }
        }
    }

    /// Everything that can happen, and whether it is writing that is waited for.
    fn sources(&self, now: Duration) -> Vec<(Source, BorrowedFd<'_>, PollFlags)> {
        let mut sources: Vec<(Source, BorrowedFd<'_>)> = vec![
            (Source::Child, self.signals.child.as_fd()),
            (Source::Reboot, self.signals.reboot.as_fd()),
            (Source::PowerOff, self.signals.power_off.as_fd()),
            (Source::Uevents, self.uevents.as_fd()),
            (Source::Links, self.network.links()),
        ];
        sources.extend(self.network.sockets().map(|(index, socket)| (Source::Packets(index), socket)));
        sources.extend(self.time.sockets().map(|(number, socket)| (Source::Clock(number), socket)));
        let buttons = self.progress.buttons.iter().enumerate();
        sources.extend(buttons.map(|(n, (_, file))| (Source::Button(n), file.as_fd())));
        sources.extend(self.journal.source().map(|log| (Source::Kernel, log)));
        sources.extend(self.supervisor.sources().map(|(token, source)| (Source::Unit(token), source)));
        let control = self.control.sources(now).map(|(token, source, writes)| {
            (Source::Control(token), source, if writes { PollFlags::OUT } else { PollFlags::IN })
        });
        sources.into_iter().map(|(what, source)| (what, source, PollFlags::IN)).chain(control).collect()
    }

    /// Waits for the next thing to happen, at most until the next deadline.
    fn wait(&self, now: Duration) -> Vec<Source> {
        let sources = self.sources(now);
        let mut polled: Vec<PollFd<'_>> =
            sources.iter().map(|(_, source, flags)| PollFd::from_borrowed_fd(*source, *flags)).collect();
        let left = self.deadline(now).saturating_sub(now);
        // A time too far away for the kernel is no deadline.
        let timeout = Timespec::try_from(left).ok();
        if rustix::event::poll(&mut polled, timeout.as_ref()).is_err() {
            return Vec::new();
        }
        let ready = sources.iter().zip(&polled).filter(|(_, poll)| !poll.revents().is_empty());
        ready.map(|((what, ..), _)| *what).collect()
    }

    fn deadline(&self, now: Duration) -> Duration {
        let look = (!self.progress.ready && self.progress.ending.is_none()).then_some(now + LOOK_INTERVAL);
        let end = self.progress.ending.or(self.progress.asked).map(|(_, deadline)| deadline);
        let parts = [
            self.network.deadline(),
            self.time.deadline(),
            self.control.deadline(),
            self.care.deadline(),
            self.trial.deadline(),
        ];
        self.supervisor
            .deadline()
            .into_iter()
            .chain(look)
            .chain(end)
            .chain(parts)
            .min()
            .unwrap_or(Duration::MAX)
    }

    fn handle(&mut self, source: Source) {
        let now = now();
        match source {
            Source::Child => {
                empty(&self.signals.child);
                self.supervisor.reap(now, &mut self.journal);
            }
            Source::Reboot => {
                empty(&self.signals.reboot);
                self.end(Request::Reboot, "Ctrl-Alt-Del or SIGINT", now);
            }
            Source::PowerOff => {
                empty(&self.signals.power_off);
                self.end(Request::PowerOff, "SIGTERM", now);
            }
            Source::Uevents => {
                let is_input = |event: &crate::uevent::Uevent| {
                    event.fields.get("SUBSYSTEM").is_some_and(|subsystem| subsystem == "input")
                };
                if self.uevents.drain().iter().any(is_input) {
                    let known: Vec<String> =
                        self.progress.buttons.iter().map(|(name, _)| name.clone()).collect();
                    self.progress.buttons.extend(input::power_buttons(&known));
                }
            }
            Source::Links => self.network.handle_links(now),
            Source::Packets(index) => self.network.handle_packets(index, now),
            Source::Clock(number) => self.time.handle(number, now),
            Source::Button(index) => {
                match self.progress.buttons.get(index).map(|(_, file)| input::pressed(file)) {
                    Some(Some(true)) => self.end(Request::PowerOff, "the power button", now),
                    Some(None) => {
                        self.progress.buttons.remove(index);
                    }
                    _ => {}
                }
            }
            Source::Kernel => self.journal.read_kernel(now),
            Source::Unit(token) => self.supervisor.handle(token, now, &mut self.journal),
            Source::Control(token) => {
                for (connection, request) in self.control.handle(token, now) {
                    let answer = self.answer(request, now);
                    self.control.answer(connection, &answer, now);
                }
            }
        }
    }

    /// Tells the clock when there is another way to its servers, and of those that DHCP names where the configuration
    /// names none.
    pub(super) fn follow_network(&mut self, now: Duration) {
        let found = (self.network.addresses(), self.network.name_servers());
        if found == self.progress.network {
            return;
        }
        let configured = self.configuration.config().map_or(&[][..], |config| &config.time.servers);
        let servers = if configured.is_empty() {
            self.network.time_servers().iter().map(ToString::to_string).collect()
        } else {
            configured.to_vec()
        };
        self.time.set_servers(&servers, now);
        self.time.network_changed(&found.1, now);
        self.progress.network = found;
    }

    /// Begins the end of the machine in a moment: who asked for it through the control service gets the answer before
    /// that service is stopped.
    pub(super) fn end_soon(&mut self, request: Request, now: Duration) {
        self.progress.asked = Some((request, now + ANSWER_TIME));
    }

    /// Begins the end of the machine.
    pub(super) fn end(&mut self, request: Request, reason: &str, now: Duration) {
        if self.progress.ending.is_some() {
            return;
        }
        console::info(format_args!("{}: {reason}", request.title()));
        self.progress.ending = Some((request, now + SHUTDOWN_DEADLINE));
        self.care.end(now);
        self.supervisor.stop_all(now, &mut self.journal);
    }

    /// Whether everything was started and the addresses are there, or has been waited for long enough.
    fn has_settled(&self, now: Duration) -> bool {
        let passed = now.saturating_sub(self.progress.started);
        // Links are news: the first of them come a moment after the start.
        let network = passed >= LOOK_INTERVAL && !self.network.is_waiting();
        self.supervisor.has_settled(now) && (network || passed >= ADDRESS_DEADLINE)
    }

    /// Measures that the machine is ready, commits the boot if it is a good one, then tells about it.
    fn become_ready(&mut self, now: Duration) -> Result<(), Error> {
        self.measurer.phase(Phase::Ready)?;
        self.progress.ready = true;
        // A trial is committed by the update engine, after its checks.
        if !self.trial.is_trial() && self.problems(now).is_empty() {
            self.commit()?;
        }
        self.tell_ready(now)
    }

    /// What must still be before the machine is ready, for people.
    pub(super) fn waits_for(&self, now: Duration) -> Vec<String> {
        if self.progress.ready {
            return Vec::new();
        }
        let mut list: Vec<String> = self.supervisor.unsettled(now);
        if self.network.is_waiting() {
            list.push("addresses".into());
        }
        if list.is_empty() {
            list.push("the hardening to be read back".into());
        }
        list
    }

    /// A trial that nobody has committed in time has failed.
    fn run_out(&mut self, now: Duration) {
        let problems = self.problems(now);
        let (check, reason) = if !self.progress.ready {
            let all: Vec<String> = self.waits_for(now).into_iter().chain(problems).collect();
            ("start", format!("not ready in time: {}", all.join("; ")))
        } else if problems.is_empty() {
            ("update", "the update engine has not come to a result in time".into())
        } else {
            ("machine", problems.join("; "))
        };
        self.give_up(check, &reason, now);
    }

    /// Ends a trial: the reason is left for the old release, which the firmware starts next.
    pub(super) fn give_up(&mut self, check: &str, reason: &str, now: Duration) {
        let version = self.manifest.image_version.clone();
        self.trial.fail(&TrialFailure { version, check: check.into(), reason: reason.into() });
        self.end(Request::Reboot, &format!("the trial of this release has failed: {check}: {reason}"), now);
    }

    /// The boot is good: releases of a lower security version do not open the state volume any more.
    pub(super) fn commit(&mut self) -> Result<(), Error> {
        if let Some(floor) = state::raise_floor(&mut self.boot.state, self.measurer.tpm())? {
            console::info(format_args!("the rollback floor is {floor} now"));
        }
        Ok(())
    }
}

/// Reads away what a signal handler wrote.
fn empty(mut pipe: &UnixStream) {
    let mut buffer = [0; 64];
    while matches!(pipe.read(&mut buffer), Ok(length) if length > 0) {}
}
