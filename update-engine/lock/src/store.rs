//! Where semaphores are kept, as [`crate::client`] needs it.

use crate::attempt::Watch;
use crate::names::{Group, HolderId};
use crate::semaphore::{Event, Semaphore};
use std::time::Duration;

/// What is to be seen of a group at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// The semaphore; what a group has that nobody has written to is the default.
    pub semaphore: Semaphore,
    /// Revision at which it was changed last; 0 if it is not there.
    pub changed: i64,
    /// Revision of the store at the moment.
    pub revision: i64,
    /// The first that wait, in the order of coming; at least [`WAITERS`] if so many do.
    pub waiting: Vec<String>,
    /// Those whose lease runs: of machines that are not gone.
    pub alive: Vec<String>,
}

/// How many of those that wait are read.
pub const WAITERS: usize = 64;

/// A change of a semaphore, together with all that belongs to it: it is made whole or not at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Revision of the semaphore that it was made from; 0 if there was none.
    pub from: i64,
    /// The new semaphore.
    pub semaphore: Semaphore,
    /// For the history.
    pub events: Vec<Event>,
    /// Stops waiting.
    pub served: Option<String>,
    /// Must have no lease.
    pub gone: Vec<String>,
}

impl Change {
    /// Of what was seen to this semaphore, with what happened to it.
    #[must_use]
    pub fn of(seen: &Snapshot, semaphore: Semaphore, event: Event) -> Self {
        Self { from: seen.changed, semaphore, events: vec![event], served: None, gone: Vec::new() }
    }
}

/// Why the store did not do as asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// No answer, or no majority: it may come back.
    #[error("the lock's store does not answer: {0}")]
    Unavailable(String),
    /// It answers, and refuses.
    #[error("the lock's store refuses: {0}")]
    Refused(String),
    /// What is stored cannot be read.
    #[error("the semaphore of group `{group}`: {problem}")]
    Damaged {
        /// Which.
        group: String,
        /// Why.
        problem: String,
    },
}

/// Keeps semaphores. All reads are linearizable.
pub trait Store {
    /// Reads a group.
    fn read(&mut self, group: &Group) -> Result<Snapshot, StoreError>;

    /// Makes a change, if the semaphore is still the one that it was made from: the new revision, or none. After an error
    /// it is not known whether it was made.
    fn commit(&mut self, group: &Group, change: &Change) -> Result<Option<i64>, StoreError>;

    /// Puts `id` at the end of the queue, or keeps its place there, for `ttl` from now.
    fn enqueue(&mut self, group: &Group, id: &HolderId, ttl: Duration) -> Result<(), StoreError>;

    /// Takes `id` out of the queue.
    fn leave(&mut self, group: &Group, id: &HolderId) -> Result<(), StoreError>;

    /// Says that the machine of `id` is there, for `ttl` from now.
    fn keep_alive(&mut self, group: &Group, id: &HolderId, ttl: Duration) -> Result<(), StoreError>;

    /// Waits until what is watched has changed after `revision`, or for `timeout`: whether it has.
    fn wait(
        &mut self,
        group: &Group,
        watch: &Watch,
        revision: i64,
        timeout: Duration,
    ) -> Result<bool, StoreError>;

    /// The last events of the group with the numbers of the changes, the oldest first.
    fn history(&mut self, group: &Group) -> Result<Vec<(u64, Event)>, StoreError>;
}
