//! The reboot lock beside the engine: a thread that waits for a place, keeps it, gives it back, and knows who is down. What
//! it has to do is a [`Duty`]; it does it until it is done or another one comes.

mod identity;
mod place;

pub use identity::Identity;
pub use place::{Backend, open};

use ashlar_image::update::{LockHolder, LockStatus};
use ashlar_lock::Request;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How often one that holds a place says that it is there.
const ALIVE: Duration = Duration::from_secs(20);
/// How often it is looked who is down, while nobody asks.
const LOOK: Duration = Duration::from_secs(300);
/// How old an answer to who is down may be.
const FRESH: Duration = Duration::from_secs(3);
/// Longest time for the last check before a restart.
const CHECK: Duration = Duration::from_secs(30);
/// How long at once a change is waited for.
const SLICE: Duration = Duration::from_secs(10);
/// Pauses after the lock's server did not answer.
const PAUSES: [u64; 5] = [1, 2, 5, 10, 30];

/// What the thread has to do.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Duty {
    /// Know who is down.
    #[default]
    Look,
    /// Have a place.
    Want(Request),
    /// Keep the place with this token.
    Keep(String),
    /// Give it back.
    Leave {
        /// Its token.
        token: String,
        /// Whether the release that it was for is good.
        good: bool,
    },
    /// Tell that the release has failed that it was for, and keep it.
    Fail {
        /// Its token.
        token: String,
        /// Why.
        reason: String,
    },
}

/// What became of it.
#[derive(Debug, Clone, Default)]
pub struct State {
    /// The place with this token is held.
    pub held: Option<String>,
    /// It is held no more: given back, or freed by somebody.
    pub over: Option<String>,
    /// Why there is no place yet, for people.
    pub waits: Option<String>,
    /// What is wrong with the server, and since when (seconds since 1970).
    pub problem: Option<(String, i64)>,
    /// Who is down.
    pub view: Option<View>,
}

/// Who is down.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct View {
    /// Places that are free.
    pub available: u32,
    /// Places in all.
    pub max: u32,
    /// Who is down.
    pub holders: Vec<LockHolder>,
    /// Releases that are stopped.
    pub stopped: Vec<String>,
}

#[derive(Debug, Default)]
struct Inside {
    duty: Duty,
    /// Counts changes of the duty, so that a wait ends.
    version: u64,
    state: State,
    looked: Option<Instant>,
    wanted: bool,
    check: Option<(String, SyncSender<Result<bool, String>>)>,
    ended: bool,
}

#[derive(Debug, Default)]
struct Common {
    inside: Mutex<Inside>,
    changed: Condvar,
}

impl Common {
    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for another duty, a question or the end, at most so long.
    fn rest(&self, version: u64, most: Duration) {
        let inside = self.lock();
        let idle = |inside: &mut Inside| {
            inside.version == version && !inside.wanted && inside.check.is_none() && !inside.ended
        };
        drop(self.changed.wait_timeout_while(inside, most, idle).unwrap_or_else(PoisonError::into_inner));
    }
}

/// The thread, from outside. It ends with this value.
#[derive(Debug, Clone)]
pub struct Locker {
    common: Arc<Common>,
    group: String,
    _end: Arc<End>,
}

/// Ends the thread with the last of its users.
#[derive(Debug)]
struct End(Arc<Common>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.lock().ended = true;
        self.0.changed.notify_all();
    }
}

impl Locker {
    /// Starts the thread. `clock` dates problems.
    pub fn start(backend: Box<dyn Backend>, group: &str, clock: fn() -> i64) -> Self {
        let common = Arc::new(Common::default());
        let worker = common.clone();
        std::thread::spawn(move || Worker { backend, common: worker, clock, pauses: 0, alive: None }.run());
        Self { common: common.clone(), group: group.to_owned(), _end: Arc::new(End(common)) }
    }

    /// Gives it something to do; the same again changes nothing.
    pub fn set(&self, duty: Duty) {
        let mut inside = self.common.lock();
        if inside.duty != duty {
            inside.duty = duty;
            inside.version += 1;
            inside.state.waits = None;
            self.common.changed.notify_all();
        }
    }

    /// What became of it.
    pub fn state(&self) -> State {
        self.common.lock().state.clone()
    }

    /// Asks the server once more whether the place is held: the fence before a restart.
    ///
    /// # Errors
    /// A text for people, when that cannot be known.
    pub fn check(&self, token: &str) -> Result<bool, String> {
        let (sender, receiver) = sync_channel(1);
        self.common.lock().check = Some((token.to_owned(), sender));
        self.common.changed.notify_all();
        receiver.recv_timeout(CHECK).unwrap_or_else(|_| Err("it was not answered in time".into()))
    }

    /// For people, not older than a few seconds if the server answers.
    pub fn status(&self) -> LockStatus {
        let until = Instant::now() + Duration::from_secs(2);
        let fresh = |inside: &Inside| inside.looked.is_some_and(|at| at.elapsed() < FRESH);
        let mut inside = self.common.lock();
        if !fresh(&inside) && inside.state.problem.is_none() {
            inside.wanted = true;
            self.common.changed.notify_all();
            while !fresh(&inside) && inside.state.problem.is_none() && Instant::now() < until {
                let most = Duration::from_millis(50);
                inside =
                    self.common.changed.wait_timeout(inside, most).unwrap_or_else(PoisonError::into_inner).0;
            }
        }
        let state = inside.state.clone();
        drop(inside);
        let view = state.view;
        LockStatus {
            group: self.group.clone(),
            problem: state.problem.as_ref().map(|(text, _)| text.clone()),
            problem_since: state.problem.map(|(_, since)| since),
            available: view.as_ref().map(|view| view.available),
            max: view.as_ref().map(|view| view.max),
            stopped: view.as_ref().map(|view| view.stopped.clone()).unwrap_or_default(),
            holders: view.map(|view| view.holders).unwrap_or_default(),
            detail: state.waits,
            ..LockStatus::default()
        }
    }
}

struct Worker {
    backend: Box<dyn Backend>,
    common: Arc<Common>,
    clock: fn() -> i64,
    pauses: usize,
    /// When it was said last that the machine is there.
    alive: Option<Instant>,
}

impl Worker {
    fn run(mut self) {
        loop {
            let (duty, version, check, ended) = {
                let mut inside = self.common.lock();
                inside.wanted = false;
                (inside.duty.clone(), inside.version, inside.check.take(), inside.ended)
            };
            if ended {
                return;
            }
            if let Some((token, sender)) = check {
                let held = self.backend.holds(&token);
                self.note(held.as_ref().err().cloned());
                let _ = sender.send(held);
                continue;
            }
            let result = self.act(&duty).and_then(|rest| self.look().map(|()| rest));
            let rest = match result {
                Ok(rest) => {
                    self.note(None);
                    rest
                }
                Err(problem) => {
                    self.note(Some(problem));
                    let pause = PAUSES[self.pauses.min(PAUSES.len() - 1)];
                    self.pauses += 1;
                    Duration::from_secs(pause)
                }
            };
            self.common.rest(version, rest);
        }
    }

    /// Remembers that the server answers, or that it does not.
    fn note(&mut self, problem: Option<String>) {
        let now = (self.clock)();
        let mut inside = self.common.lock();
        match problem {
            None => {
                inside.state.problem = None;
                self.pauses = 0;
            }
            Some(text) => {
                let since = inside.state.problem.as_ref().map_or(now, |(_, since)| *since);
                if inside.state.problem.is_none() {
                    eprintln!("the reboot lock: {text}");
                }
                inside.state.problem = Some((text, since));
            }
        }
        drop(inside);
        self.common.changed.notify_all();
    }

    fn set(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.common.lock().state);
    }

    fn look(&mut self) -> Result<(), String> {
        let view = self.backend.view()?;
        let mut inside = self.common.lock();
        inside.state.view = view;
        inside.looked = Some(Instant::now());
        drop(inside);
        self.common.changed.notify_all();
        Ok(())
    }

    /// Does something for the duty, and tells how long it may rest then.
    fn act(&mut self, duty: &Duty) -> Result<Duration, String> {
        match duty {
            Duty::Look => {
                self.backend.leave_queue()?;
                Ok(LOOK)
            }
            Duty::Want(request) => {
                if self.common.lock().state.held.as_ref() == Some(&request.token) {
                    return self.keep(&request.token);
                }
                match self.backend.step(request, SLICE)? {
                    None => {
                        self.set(|state| (state.held, state.waits) = (Some(request.token.clone()), None));
                        Ok(Duration::ZERO)
                    }
                    Some((why, rest)) => {
                        self.set(|state| state.waits = Some(why));
                        Ok(rest)
                    }
                }
            }
            Duty::Keep(token) => self.keep(token),
            Duty::Leave { token, good } => {
                if self.common.lock().state.over.as_ref() != Some(token) {
                    self.backend.leave(token, *good)?;
                    self.set(|state| (state.held, state.over) = (None, Some(token.clone())));
                }
                Ok(LOOK)
            }
            Duty::Fail { token, reason } => {
                if self.alive.is_none() && !self.backend.fail(token, reason)? {
                    self.set(|state| state.over = Some(token.clone()));
                    return Ok(LOOK);
                }
                self.keep(token)
            }
        }
    }

    /// Says that the machine is there, and sees whether its place still is.
    fn keep(&mut self, token: &str) -> Result<Duration, String> {
        if self.alive.is_none_or(|at| at.elapsed() >= ALIVE) {
            let held = self.backend.holds(token)?;
            self.alive = Some(Instant::now());
            self.set(|state| {
                if held {
                    state.held = Some(token.to_owned());
                } else {
                    (state.held, state.over) = (None, Some(token.to_owned()));
                }
            });
        }
        Ok(ALIVE)
    }
}
