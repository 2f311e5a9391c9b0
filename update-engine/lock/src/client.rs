//! Taking and giving back places: reads, decides, changes if nothing has changed meanwhile, else again.

use crate::attempt::{Attempt, Watch, attempt, gone, watch};
use crate::names::{Group, HolderId};
use crate::now;
use crate::semaphore::{Event, Gate, Holder, Refusal, Semaphore, Stale};
use crate::store::{Change, Snapshot, Store, StoreError};
use std::time::{Duration, Instant};

/// How often a change is tried that others come before.
const MAX_CONFLICTS: u32 = 64;
/// How often the outcome of a change is looked for that got no answer.
const MAX_UNKNOWN: u32 = 3;
/// Longest pause after a conflict.
const MAX_PAUSE: Duration = Duration::from_millis(400);
/// How long somebody who waits stands in the queue after it was heard of last.
pub const QUEUE_TTL: Duration = Duration::from_secs(90);
/// After this at the latest it looks again, whatever the watch says.
const LOOK_AGAIN: Duration = Duration::from_secs(20);

/// Why there is no place, or why a change was not made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LockError {
    /// The semaphore says so.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Others have waited longer.
    #[error("others have waited longer")]
    Behind,
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Others changed it each time.
    #[error("the semaphore was changed by others {MAX_CONFLICTS} times in a row; try again")]
    Contended,
}

impl LockError {
    /// Whether it may pass without anybody doing something.
    #[must_use]
    pub const fn is_waiting(&self) -> bool {
        matches!(self, Self::Refused(Refusal::Full) | Self::Behind | Self::Contended)
    }
}

/// Who wants a place, and what for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Who.
    pub id: HolderId,
    /// Chosen at random for this wish, see [`token`]; with the same one, the wish is the same.
    pub token: String,
    /// Why.
    pub reason: String,
    /// The release that runs.
    pub from: Option<String>,
    /// The release that is started.
    pub to: Option<String>,
    /// How long it will take, in seconds.
    pub seconds: Option<i64>,
}

impl Request {
    /// For a reason, without a release.
    #[must_use]
    pub fn new(id: HolderId, reason: impl Into<String>) -> Self {
        Self { id, token: token(), reason: reason.into(), from: None, to: None, seconds: None }
    }

    fn holder(&self, now: i64) -> Holder {
        Holder {
            id: self.id.to_string(),
            token: self.token.clone(),
            since: now,
            reason: self.reason.clone(),
            from: self.from.clone(),
            to: self.to.clone(),
            deadline: self.seconds.map(|seconds| now.saturating_add(seconds)),
            failure: None,
        }
    }
}

/// 64 random bits in hexadecimal.
#[must_use]
pub fn token() -> String {
    let mut bytes = [0; 8];
    if getrandom::fill(&mut bytes).is_err() {
        // It tells wishes of one machine from each other; it is no secret.
        let time = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        bytes = u64::try_from(time.as_nanos() & u128::from(u64::MAX)).unwrap_or_default().to_be_bytes();
    }
    hex::encode(bytes)
}

/// A place that was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Granted {
    /// With which it was taken.
    pub token: String,
    /// Revision of the store at which it was seen: fencing. What is decided on it is checked again by [`Lock::holds`].
    pub revision: i64,
}

/// When somebody who waits in turn was put into the queue last.
#[derive(Debug, Default)]
pub struct Turn(Option<Instant>);

/// The lock of a group.
#[derive(Debug)]
pub struct Lock<S> {
    store: S,
    group: Group,
    clock: fn() -> i64,
}

/// A pause before the next try, random so that those who collided do not again.
fn pause(conflicts: u32) {
    let most = Duration::from_millis(4 << conflicts.min(7)).min(MAX_PAUSE);
    let random = u32::from_str_radix(&token()[..4], 16).unwrap_or(0);
    std::thread::sleep(most.mul_f64(f64::from(random) / 65_536.0));
}

impl<S: Store> Lock<S> {
    /// Of `group`, kept in `store`.
    pub const fn new(store: S, group: Group) -> Self {
        Self { store, group, clock: now }
    }

    /// With another clock; it only dates what people read.
    #[must_use]
    pub fn with_clock(mut self, clock: fn() -> i64) -> Self {
        self.clock = clock;
        self
    }

    /// The group.
    pub const fn group(&self) -> &Group {
        &self.group
    }

    /// Another group in the same store.
    pub fn set_group(&mut self, group: Group) {
        self.group = group;
    }

    /// The store.
    pub const fn store(&mut self) -> &mut S {
        &mut self.store
    }

    /// What is to be seen.
    pub fn read(&mut self) -> Result<Snapshot, StoreError> {
        self.store.read(&self.group)
    }

    /// The history, numbered, the oldest first.
    pub fn history(&mut self) -> Result<Vec<(u64, Event)>, StoreError> {
        self.store.history(&self.group)
    }

    /// Makes `decide`'s change of what is there. It is asked again when others were first; the second argument is whether a
    /// change of its own may have been made without an answer. None of it: nothing to be done. `first` saves the first look.
    fn change(
        &mut self,
        mut first: Option<Snapshot>,
        mut decide: impl FnMut(&Snapshot, bool) -> Result<Option<Change>, LockError>,
    ) -> Result<Snapshot, LockError> {
        let (mut conflicts, mut unknown) = (0, 0);
        loop {
            let read = first.take().map_or_else(|| self.store.read(&self.group), Ok);
            let seen = match read {
                Ok(seen) => seen,
                Err(StoreError::Unavailable(_)) if (1..MAX_UNKNOWN).contains(&unknown) => {
                    unknown += 1;
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            let Some(change) = decide(&seen, unknown > 0)? else { return Ok(seen) };
            match self.store.commit(&self.group, &change) {
                Ok(Some(revision)) => {
                    return Ok(Snapshot { semaphore: change.semaphore, changed: revision, revision, ..seen });
                }
                Ok(None) => {
                    conflicts += 1;
                    if conflicts >= MAX_CONFLICTS {
                        return Err(LockError::Contended);
                    }
                    pause(conflicts);
                }
                // It may have been made: what is there then tells.
                Err(StoreError::Unavailable(_)) if unknown < MAX_UNKNOWN => unknown += 1,
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn setting(
        &mut self,
        mut set: impl FnMut(&mut Semaphore, i64) -> Result<Event, Refusal>,
    ) -> Result<Semaphore, LockError> {
        let clock = self.clock;
        let seen = self.change(None, |seen, _| {
            let mut semaphore = seen.semaphore.clone();
            let event = set(&mut semaphore, clock())?;
            Ok(Some(Change::of(seen, semaphore, event)))
        })?;
        Ok(seen.semaphore)
    }

    /// Takes a place now, or tells why there is none. Who has one keeps it. `in_turn`: after those that wait.
    pub fn try_lock(&mut self, request: &Request, in_turn: bool) -> Result<Granted, LockError> {
        let seen = self.read()?;
        self.try_from(request, in_turn, seen)
    }

    fn try_from(&mut self, request: &Request, in_turn: bool, seen: Snapshot) -> Result<Granted, LockError> {
        let clock = self.clock;
        let decide = |seen: &Snapshot| {
            let now = clock();
            match attempt(seen, &request.holder(now), in_turn, now) {
                Attempt::Take(change) => Ok(Some(*change)),
                Attempt::Have => Ok(None),
                Attempt::Wait(refusal) => Err(LockError::from(refusal)),
                Attempt::Behind => Err(LockError::Behind),
            }
        };
        // What is refused needs nothing else.
        decide(&seen)?;
        // Before it holds: a holder that was never heard of would be gone.
        let counted = seen.semaphore.stale;
        self.say_alive(&request.id, counted)?;
        let seen = self.change(Some(seen), |seen, _| decide(seen))?;
        if counted.is_none() {
            // Set a moment ago. Whoever is faster frees the place, and then `holds` says so.
            let _ = self.say_alive(&request.id, seen.semaphore.stale);
        }
        Ok(Granted { token: request.token.clone(), revision: seen.revision })
    }

    /// Takes a place in turn; waits for it until `until`. The error is that of the last try; after one of the store, the wish
    /// stands in the queue for [`QUEUE_TTL`], and asking again goes on there.
    pub fn lock(&mut self, request: &Request, until: Instant) -> Result<Granted, LockError> {
        let mut turn = Turn::default();
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match self.step(request, &mut turn, left.min(LOOK_AGAIN)) {
                Err(error) if error.is_waiting() && !left.is_zero() => {}
                Err(LockError::Store(error)) => return Err(error.into()),
                Err(error) => {
                    self.leave(&request.id)?;
                    return Err(error);
                }
                Ok(granted) => return Ok(granted),
            }
        }
    }

    /// One step of waiting in turn, for who has other things to do too: tries, and if there is no place, stands in the queue and
    /// waits for a change for at most `slice`.
    pub fn step(
        &mut self,
        request: &Request,
        turn: &mut Turn,
        slice: Duration,
    ) -> Result<Granted, LockError> {
        let seen = self.read()?;
        let (revision, mut on) = (seen.revision, watch(&seen, request.id.as_str()));
        match self.try_from(request, true, seen) {
            Err(error) if error.is_waiting() => {
                let renew = turn.0.is_none_or(|last| last.elapsed() > QUEUE_TTL / 3);
                if renew {
                    self.store.enqueue(&self.group, &request.id, QUEUE_TTL)?;
                    // Once it stands there, it must look again at once: it may be its turn.
                    if turn.0.replace(Instant::now()).is_none() {
                        on = Watch::All;
                    }
                }
                self.store.wait(&self.group, &on, revision, slice)?;
                Err(error)
            }
            other => other,
        }
    }

    /// No longer waits.
    pub fn leave(&mut self, id: &HolderId) -> Result<(), StoreError> {
        self.store.leave(&self.group, id)
    }

    /// Whether the place that was taken with `granted` still is; tells the store that the machine is there.
    pub fn holds(&mut self, id: &HolderId, granted: &Granted) -> Result<bool, LockError> {
        let seen = self.read()?;
        let held = seen.revision >= granted.revision
            && seen.semaphore.holder(id.as_str()).is_some_and(|own| own.token == granted.token);
        if held {
            self.say_alive(id, seen.semaphore.stale)?;
        }
        Ok(held)
    }

    /// The machine is there, if the group counts how long it is silent.
    fn say_alive(&mut self, id: &HolderId, stale: Option<Stale>) -> Result<(), StoreError> {
        let Some(stale) = stale else { return Ok(()) };
        self.store.keep_alive(&self.group, id, Duration::from_secs(stale.after.into()))
    }

    /// Gives a place back; with a token, only the one that was taken with it. Also leaves the queue.
    pub fn unlock(
        &mut self,
        id: &HolderId,
        token: Option<&str>,
        good: bool,
        by: &str,
    ) -> Result<Semaphore, LockError> {
        let clock = self.clock;
        let seen = self.change(None, |seen, perhaps_done| {
            let mut semaphore = seen.semaphore.clone();
            match semaphore.unlock(id.as_str(), token, good, by, clock()) {
                Ok(event) => {
                    let served = Some(id.to_string());
                    Ok(Some(Change { served, ..Change::of(seen, semaphore, event) }))
                }
                Err(Refusal::NotHeld) if perhaps_done => Ok(None),
                Err(refusal) => Err(refusal.into()),
            }
        })?;
        Ok(seen.semaphore)
    }

    /// Gives a place back if it is held: for who does not know.
    pub fn unlock_if_held(&mut self, id: &HolderId, good: bool, by: &str) -> Result<(), LockError> {
        match self.unlock(id, None, good, by) {
            Err(LockError::Refused(Refusal::NotHeld)) => Ok(()),
            other => other.map(drop),
        }
    }

    /// Notes that the release has failed for which the place was taken. The place stays taken.
    pub fn fail(&mut self, id: &HolderId, token: &str, reason: &str) -> Result<Semaphore, LockError> {
        let clock = self.clock;
        let seen = self.change(None, |seen, _| {
            let mut semaphore = seen.semaphore.clone();
            let event = semaphore.fail(id.as_str(), token, reason, clock())?;
            Ok(event.map(|event| Change::of(seen, semaphore, event)))
        })?;
        Ok(seen.semaphore)
    }

    /// Sets how many may be down: the old number and the new one.
    pub fn set_max(&mut self, max: u32) -> Result<(u32, u32), LockError> {
        let mut old = 0;
        let semaphore = self.setting(|semaphore, now| {
            old = semaphore.max;
            semaphore.set_max(max, now)
        })?;
        Ok((old, semaphore.max))
    }

    /// Sets what becomes of holders whose machines are gone. Those that hold have the whole time from now on.
    pub fn set_stale(&mut self, stale: Option<Stale>) -> Result<Semaphore, LockError> {
        if let Some(stale) = stale {
            let ttl = Duration::from_secs(stale.after.into());
            for holder in self.read()?.semaphore.holders {
                if let Ok(id) = holder.id.parse() {
                    self.store.keep_alive(&self.group, &id, ttl)?;
                }
            }
        }
        self.setting(|semaphore, now| semaphore.set_stale(stale, now))
    }

    /// Sets when a release is stopped.
    pub fn set_gate(&mut self, gate: Option<Gate>) -> Result<Semaphore, LockError> {
        self.setting(|semaphore, now| semaphore.set_gate(gate, now))
    }

    /// Lets a stopped release go on, or all.
    pub fn resume(&mut self, release: Option<&str>) -> Result<Semaphore, LockError> {
        self.setting(|semaphore, now| semaphore.resume(release, now))
    }

    /// Holders whose machines are gone.
    pub fn gone(&mut self) -> Result<Vec<Holder>, StoreError> {
        let seen = self.read()?;
        Ok(gone(&seen).cloned().collect())
    }
}
