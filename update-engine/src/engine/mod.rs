//! The engine: one thread that does one thing at a time, and what others may see of it meanwhile.

mod locking;
mod trial;
mod work;

use crate::channel::ARCHITECTURE;
use crate::error::UpdateError;
use crate::hardware::Hardware;
use crate::lock::Locker;
use crate::machine::{self, Boot, Next, Start};
use crate::metrics::Counters;
use crate::pid1::Pid1;
use crate::saved::{Files, PlacePhase, Saved};
use ashlar_channel::Machine;
use ashlar_image::control::{Request, Status};
use ashlar_image::layout::Slot;
use ashlar_image::machine::MachineConfig;
use ashlar_image::report::ServicePhase;
use ashlar_image::update::{
    Choice, HistoryEntry, LockPhase, LockStatus, UpdatePhase, UpdateReply, UpdateStatus, WhyEntry,
};
use ashlar_slots::entries::Entries;
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How often the engine looks whether something is due.
const TICK: Duration = Duration::from_secs(1);
/// How often the machine configuration is read.
const CONFIGURATION: Duration = Duration::from_secs(30);
/// Decisions are remembered for so long, in seconds.
const REMEMBERED: i64 = 24 * 3600;
/// Most decisions that are remembered.
const MAX_WHYS: usize = 1000;

/// What somebody wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Look at the channel.
    Check,
    /// Say what staging would do.
    Plan(Choice),
    /// Stage.
    Stage(Choice),
    /// Stage and restart.
    Apply(Choice),
    /// Stage from a bundle, and restart if asked to.
    Bundle(PathBuf, bool),
    /// Take a staged release back.
    Cancel,
    /// Restart into the other slot.
    Rollback,
    /// Put off the restart, in seconds.
    Postpone(u64),
    /// Forget that a release has failed.
    Unbar(String),
    /// Restart without an update, for this reason.
    Reboot(String),
    /// Tell by what etcd knows the machine.
    Identity,
}

/// The answer to a command.
pub type Outcome = Result<UpdateReply, UpdateError>;
/// A command and where its answer goes.
pub type Order = (Command, SyncSender<Outcome>);

/// What is seen from outside.
#[derive(Debug, Default)]
pub struct Shared {
    status: Mutex<UpdateStatus>,
    whys: Mutex<VecDeque<WhyEntry>>,
    history: Mutex<Vec<HistoryEntry>>,
    counters: Mutex<Counters>,
    lock: Mutex<Option<(Locker, LockPhase, Option<String>)>>,
    /// Set by whoever wants the work under way to end.
    pub cancel: AtomicBool,
    /// Whether something long is done.
    pub busy: AtomicBool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// The state.
    pub fn status(&self) -> UpdateStatus {
        let mut status = lock(&self.status).clone();
        let locker = lock(&self.lock).clone();
        status.lock = locker.map(|(locker, phase, detail)| {
            let seen = locker.status();
            LockStatus { phase, detail: detail.or_else(|| seen.detail.clone()), ..seen }
        });
        status
    }

    /// The state without the lock.
    fn status_alone(&self) -> UpdateStatus {
        lock(&self.status).clone()
    }

    /// Decisions of the last day, the oldest first.
    pub fn whys(&self) -> Vec<WhyEntry> {
        lock(&self.whys).iter().cloned().collect()
    }

    /// What was done, the oldest first.
    pub fn history(&self) -> Vec<HistoryEntry> {
        lock(&self.history).clone()
    }

    /// OpenMetrics text.
    pub fn metrics(&self) -> String {
        crate::metrics::render(&lock(&self.status), &lock(&self.counters))
    }

    fn change(&self, change: impl FnOnce(&mut UpdateStatus)) {
        change(&mut lock(&self.status));
    }

    fn count(&self, change: impl FnOnce(&mut Counters)) {
        change(&mut lock(&self.counters));
    }

    /// Remembers a decision, and logs it when it is a new one.
    fn decide(&self, decision: String, now: i64) {
        let mut whys = lock(&self.whys);
        while whys.front().is_some_and(|why| why.time < now - REMEMBERED) || whys.len() >= MAX_WHYS {
            whys.pop_front();
        }
        match whys.back_mut() {
            Some(last) if last.decision == decision => {
                last.time = now;
                last.times = last.times.saturating_add(1);
            }
            _ => {
                println!("{decision}");
                whys.push_back(WhyEntry { time: now, times: 1, decision });
            }
        }
    }
}

/// The engine.
#[derive(Debug)]
pub struct Engine {
    hardware: Box<dyn Hardware>,
    pid1: Arc<dyn Pid1>,
    folder: PathBuf,
    files: Files,
    saved: Saved,
    config: MachineConfig,
    config_at: Option<Instant>,
    /// Whether `config` is what PID 1 has said: until then nobody knows whether there is a lock.
    config_known: bool,
    trial: Option<trial::Trial>,
    hook: Option<trial::Running>,
    locker: Option<(ashlar_image::machine::Lock, Locker)>,
    shared: Arc<Shared>,
    seed: String,
    clock: fn() -> i64,
    built: i64,
}

impl Engine {
    /// An engine that keeps its files in `folder`. What a trial has come to is found out here. `built` is when the release that
    /// runs was built, seconds since 1970: no clock that is right is before it.
    pub fn new(
        hardware: Box<dyn Hardware>,
        pid1: Arc<dyn Pid1>,
        folder: &Path,
        shared: Arc<Shared>,
        clock: fn() -> i64,
        built: i64,
    ) -> Result<Self, UpdateError> {
        let files = Files::open(folder)?;
        let saved = files.state()?;
        *lock(&shared.history) = files.history()?;
        let mut engine = Self {
            hardware,
            pid1,
            folder: folder.to_owned(),
            files,
            saved,
            config: MachineConfig::empty(0),
            config_at: None,
            config_known: false,
            trial: None,
            hook: None,
            locker: None,
            shared,
            seed: String::new(),
            clock,
            built,
        };
        engine.begin()?;
        Ok(engine)
    }

    fn now(&self) -> i64 {
        (self.clock)()
    }

    /// What is seen from outside.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    fn begin(&mut self) -> Result<(), UpdateError> {
        let status = self.pid1.status()?;
        let entries = Entries::read(&*self.hardware.variables())?;
        let now = self.now();
        self.seed = status.machine_id.clone().unwrap_or_default();
        let note = status.trial_failure.as_ref().or(self.saved.failure.as_ref());
        let start = Start {
            slot: self.hardware.running().letter(),
            trial: status.trial.is_some(),
            failure: note,
            last_boot: status.last_boot.as_deref(),
            last_release: status.last_boot_release.as_deref(),
            next_is_set: entries.next.is_some_and(|number| entries.slot_of(number).is_some()),
            now,
        };
        let boot = machine::boot(&self.saved, &start);
        if let Some(place) = &mut self.saved.place {
            place.phase = machine::place_after_boot(place, &boot);
            self.save()?;
        }
        self.shared.change(|seen| {
            seen.running.clone_from(&status.image_version);
            status.slot.rsplit('-').next().unwrap_or_default().clone_into(&mut seen.slot);
        });
        match boot {
            Boot::Plain => {}
            Boot::Trial(staged) => {
                self.note(&staged.version, "started", "its trial begins");
                self.trial = Some(trial::Trial::begin(staged));
            }
            Boot::Committed(staged) => self.committed(&staged.version)?,
            Boot::Failed(staged, barred) => {
                let text = format!("{}: {}", barred.check, barred.reason);
                self.shared
                    .decide(format!("release {} has failed and is barred: {text}", staged.version), now);
                self.note(&staged.version, "failed", &text);
                self.shared.count(|counters| *counters.failures.entry("trial").or_default() += 1);
                self.shared.change(|seen| {
                    seen.last_error = Some(format!("release {} has failed: {text}", staged.version));
                });
                self.saved.bar(barred);
                self.saved.staged = None;
                self.saved.failure = None;
                self.save()?;
                self.report(&staged.version, "failed", &text);
            }
        }
        if status.trial.is_some() && self.trial.is_none() {
            // The engine's files are gone, or somebody else has ordered this boot: it is judged all the same.
            self.trial = Some(trial::Trial::begin(crate::saved::Staged {
                version: status.image_version.clone(),
                slot: self.hardware.running().letter(),
                armed: true,
                back: false,
                time: now,
                now: false,
            }));
        }
        self.show();
        Ok(())
    }

    fn save(&mut self) -> Result<(), UpdateError> {
        self.files.set_state(&self.saved)
    }

    fn note(&mut self, version: &str, what: &str, detail: &str) {
        let entry = HistoryEntry {
            time: self.now(),
            version: version.into(),
            what: what.into(),
            detail: detail.into(),
        };
        println!("release {version}: {what}: {detail}");
        if let Err(error) = self.files.note(entry.clone()) {
            eprintln!("the history cannot be kept: {error}");
        }
        lock(&self.shared.history).push(entry);
    }

    /// Makes the state that is seen follow the one that is.
    fn show(&self) {
        let saved = &self.saved;
        let config = &self.config;
        self.shared.change(|seen| {
            seen.phase = if self.trial.is_some() {
                UpdatePhase::Trial
            } else if saved.place.as_ref().is_some_and(|place| place.phase == PlacePhase::Wanted) {
                UpdatePhase::Locking
            } else if saved.staged.is_some() {
                UpdatePhase::Staged
            } else if seen.phase == UpdatePhase::Available {
                UpdatePhase::Available
            } else {
                UpdatePhase::Idle
            };
            if let Some(staged) = &saved.staged {
                seen.target = Some(staged.version.clone());
            } else if seen.phase == UpdatePhase::Idle {
                seen.target = None;
            }
            seen.progress = None;
            seen.barred.clone_from(&saved.barred);
            seen.last_check = saved.last_check;
            seen.last_result.clone_from(&saved.last_result);
            seen.channel = config
                .channel
                .as_ref()
                .map(|channel| format!("{} at {}", channel.name, channel.url.as_str()));
            seen.policy = serde_json::to_value(config.update.policy)
                .ok()
                .and_then(|value| value.as_str().map(str::to_owned))
                .unwrap_or_default();
        });
    }

    /// Runs until the orders end.
    pub fn run(&mut self, orders: &Receiver<Order>) {
        loop {
            match orders.recv_timeout(TICK) {
                Ok((command, answer)) => {
                    self.shared.busy.store(true, Ordering::Relaxed);
                    self.refresh_configuration();
                    self.obey(command, &answer);
                    self.shared.cancel.store(false, Ordering::Relaxed);
                    self.shared.busy.store(false, Ordering::Relaxed);
                }
                Err(RecvTimeoutError::Timeout) => self.tick(),
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn obey(&mut self, command: Command, answer: &SyncSender<Outcome>) {
        let reply = |engine: &Self| Ok(UpdateReply::Status(Box::new(engine.shared.status())));
        // Who asks for something long gets the answer that it has begun.
        let begun = |engine: &Self| {
            let _ = answer.send(reply(engine));
        };
        let result = match command {
            Command::Check => self.check(&ashlar_channel::Options::default()).map(|_| ()),
            Command::Plan(choice) => {
                let plan = self.plan(&choice).map(|plan| UpdateReply::Plan(Box::new(plan)));
                let _ = answer.send(plan);
                self.show();
                return;
            }
            // What cannot be had is refused before it begins.
            Command::Stage(choice) => self.wanted(&choice).and_then(|(opened, offer)| {
                begun(self);
                self.stage_offer(opened, &offer, true, true)
            }),
            Command::Apply(choice) => self.wanted(&choice).and_then(|(opened, offer)| {
                begun(self);
                self.stage_offer(opened, &offer, true, false)?;
                self.restart_now()
            }),
            Command::Bundle(path, restart) => {
                begun(self);
                self.stage_bundle(&path, !restart)
                    .and_then(|()| if restart { self.restart_now() } else { Ok(()) })
            }
            Command::Cancel => self.cancel(),
            Command::Rollback => self.roll_back(),
            Command::Postpone(seconds) => self.postpone(seconds),
            Command::Unbar(version) => self.unbar(&version),
            Command::Reboot(reason) => self.order_reboot(&reason),
            Command::Identity => {
                let _ = answer.send(self.identity());
                return;
            }
        };
        match result {
            Ok(()) => {
                self.show();
                let _ = answer.send(reply(self));
            }
            Err(error) => {
                eprintln!("{error}");
                self.shared.change(|seen| seen.last_error = Some(error.to_string()));
                self.show();
                let _ = answer.send(Err(error));
            }
        }
    }

    /// Reads the machine configuration, now and then.
    fn refresh_configuration(&mut self) {
        if self.config_at.is_some_and(|at| at.elapsed() < CONFIGURATION) {
            return;
        }
        match self.pid1.configuration() {
            Ok(state) => {
                let parsed = state.text.as_deref().map(MachineConfig::parse);
                match parsed {
                    None => (self.config, self.config_known) = (MachineConfig::empty(0), true),
                    Some(Ok(config)) => (self.config, self.config_known) = (config, true),
                    // PID 1 has taken it: this program is of another release.
                    Some(Err(_)) => eprintln!(
                        "the machine configuration cannot be read; the one before stays in force here"
                    ),
                }
                self.config_at = Some(Instant::now());
            }
            Err(error) => eprintln!("{error}"),
        }
    }

    /// Does what is due, once.
    pub fn tick(&mut self) {
        self.refresh_configuration();
        if self.config_at.is_none() {
            // Without it, nothing is known of windows and of the lock.
            return;
        }
        self.tend_place();
        if self.trial.is_some() {
            if let Err(error) = self.judge_trial() {
                eprintln!("{error}");
            }
            return;
        }
        self.tend_hook();
        let now = self.now();
        let session = self.session();
        let jitter = self.jitter();
        match machine::next(
            &self.saved,
            &self.config.update,
            self.config.channel.is_some(),
            session,
            jitter,
            now,
        ) {
            Next::Wait(at, what) => {
                self.want_no_place();
                let when = if at == i64::MAX { String::new() } else { format!("at {}: ", work::time(at)) };
                self.shared.change(|seen| seen.next = format!("{when}{what}"));
                self.show();
            }
            Next::PutOff => {
                self.saved.postponed_until = now + machine::POSTPONEMENT;
                self.saved.postponements += 1;
                self.shared.decide("the restart is put off: a session is active".into(), now);
                let _ = self.save();
            }
            Next::Check => self.automatic(),
            Next::Restart => {
                let to = self.saved.staged.as_ref().map(|staged| staged.version.clone());
                let reason = to.as_ref().map(|to| format!("update to release {to}")).unwrap_or_default();
                if self.has_place(to, &reason)
                    && let Err(error) = self.automatic_restart()
                {
                    self.failed("restart", &error);
                }
            }
            Next::Reboot(reason) => {
                // What the firmware was told to start is what it will be about.
                let armed = self.saved.staged.as_ref().filter(|staged| staged.armed);
                let to = armed.map(|staged| staged.version.clone());
                if self.has_place(to, &reason)
                    && let Err(error) = self.reboot(&reason)
                {
                    self.saved.reboot = None;
                    self.failed("restart", &error);
                }
            }
        }
    }

    /// The same pause for this machine each time, other than those of others.
    fn jitter(&self) -> i64 {
        let most = i64::try_from(self.config.update.jitter.0).unwrap_or(0);
        let part = ashlar_channel::position(&ashlar_channel::seed(&self.seed), "jitter") >> 32;
        i64::try_from((u128::from(most.unsigned_abs()) * u128::from(part)) >> 32).unwrap_or(0)
    }

    /// Whether somebody is at work on the machine: the debug container runs.
    fn session(&self) -> bool {
        let Some(debug) = &self.config.debug else { return false };
        let states = self.pid1.status().map(|status| status.services).unwrap_or_default();
        states.iter().any(|state| state.name == debug.container && state.phase == ServicePhase::Running)
    }

    fn machine(&self, status: &Status) -> Machine {
        Machine {
            image_id: status.image_id.clone(),
            architecture: ARCHITECTURE.into(),
            version: status.image_version.clone(),
            floor: status.rollback_floor.unwrap_or(0),
            barred: self.saved.barred.iter().map(|barred| barred.version.clone()).collect(),
            seed: ashlar_channel::seed(status.machine_id.as_deref().unwrap_or_default()),
        }
    }

    fn failed(&mut self, what: &'static str, error: &UpdateError) {
        eprintln!("{error}");
        let now = self.now();
        self.shared.count(|counters| *counters.failures.entry(what).or_default() += 1);
        self.shared.change(|seen| seen.last_error = Some(error.to_string()));
        let version = self.shared.status().target.unwrap_or_default();
        self.saved.failures = machine::fail(&self.saved.failures, &version, random(), now);
        let next = work::time(self.saved.failures.not_before);
        self.shared.decide(format!("{error}; the next attempt is at {next}"), now);
        if let Err(error) = self.save() {
            eprintln!("{error}");
        }
        self.show();
    }

    fn tell(&self, request: &Request) -> Result<(), UpdateError> {
        self.pid1.ask(request).map(|_| ())
    }

    fn other(&self) -> Slot {
        self.hardware.running().other()
    }
}

/// A random number.
fn random() -> u32 {
    let mut bytes = [0; 4];
    let _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    u32::from_le_bytes(bytes)
}
