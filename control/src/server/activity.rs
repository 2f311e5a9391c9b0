//! What a connection does, and when it has to end.

use super::limits::{HANDSHAKE, IDLE};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::time::Instant;

#[derive(Debug)]
struct State {
    /// Deadlines of the requests in work; none while a follower waits for news.
    requests: BTreeMap<u64, Option<Instant>>,
    next: u64,
    /// When the connection ends if no request comes.
    idle_until: Instant,
}

/// The requests of one connection.
#[derive(Debug, Clone)]
pub struct Activity(Arc<Mutex<State>>);

/// A request in work, until it is dropped.
#[derive(Debug)]
pub struct Request {
    activity: Activity,
    number: u64,
}

impl Activity {
    /// A connection that begins now.
    pub fn new(now: Instant) -> Self {
        Self(Arc::new(Mutex::new(State { requests: BTreeMap::new(), next: 0, idle_until: now + HANDSHAKE })))
    }

    fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A request that must be over at `deadline`.
    pub fn begin(&self, deadline: Instant) -> Request {
        let number = self.with(|state| {
            state.next = state.next.wrapping_add(1);
            state.requests.insert(state.next, Some(deadline));
            state.next
        });
        Request { activity: self.clone(), number }
    }

    /// Whether the connection has to end: it is idle for too long, or one of its requests takes too long.
    pub fn is_over(&self, now: Instant) -> bool {
        self.with(|state| {
            if state.requests.is_empty() {
                return now >= state.idle_until;
            }
            state.requests.values().flatten().any(|deadline| now >= *deadline)
        })
    }
}

impl Request {
    /// Moves or lifts the deadline.
    pub fn set_deadline(&self, deadline: Option<Instant>) {
        self.activity.with(|state| state.requests.insert(self.number, deadline));
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        self.activity.with(|state| {
            state.requests.remove(&self.number);
            state.idle_until = Instant::now() + IDLE;
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn connections_end_when_nothing_moves() {
        let now = Instant::now();
        let activity = Activity::new(now);
        assert!(!activity.is_over(now) && activity.is_over(now + HANDSHAKE));
        let second = Duration::from_secs(1);
        let (first, follower) = (activity.begin(now + second), activity.begin(now + second));
        assert!(!activity.is_over(now) && activity.is_over(now + second));
        follower.set_deadline(None);
        assert!(activity.is_over(now + second));
        drop(first);
        // A follower waits for ever, until it sends.
        assert!(!activity.is_over(now + 1000 * IDLE));
        follower.set_deadline(Some(now + second));
        assert!(activity.is_over(now + second));
        drop(follower);
        assert!(!activity.is_over(now + HANDSHAKE) && activity.is_over(Instant::now() + IDLE));
    }
}
