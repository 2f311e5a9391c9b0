//! The thread that writes the log. A disk may take seconds to answer, and forever when it dies; PID 1 must not wait
//! for it. They share the bounded [`Queue`] and nothing else.

use super::queue::{Line, Queue};
use super::store::Store;
use std::io;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// Longest time until a line is safe from a power cut.
pub const SYNC_INTERVAL: Duration = Duration::from_secs(5);
/// Bytes that are written at once.
const BATCH: usize = 64 << 10;
/// After a failure the next attempt is so much later.
const RETRY: Duration = Duration::from_secs(1);

/// What PID 1 and the thread share.
#[derive(Debug, Default)]
pub struct Shared {
    state: Mutex<State>,
    news: Condvar,
    done: Condvar,
}

#[derive(Debug, Default)]
struct State {
    queue: Queue,
    /// The last failure, while it lasts.
    failure: Option<String>,
    /// Lines that are lost for good.
    lost: u64,
    /// What was lost and is not told in the log yet.
    untold: u64,
    /// Whether the thread is to end when the queue is empty.
    closing: bool,
    /// Whether it has ended.
    closed: bool,
}

impl Shared {
    /// Room for so many bytes.
    pub fn new(limit: usize) -> Arc<Self> {
        let state = State { queue: Queue::new(limit), ..State::default() };
        Arc::new(Self { state: Mutex::new(state), ..Self::default() })
    }

    /// No code that holds the lock panics; if it did, the state is still a state.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Adds a line.
    pub fn push(&self, line: Line) {
        self.lock().queue.push(line);
        self.news.notify_one();
    }

    /// How many lines are lost for good, and the failure that lasts.
    pub fn trouble(&self) -> (u64, Option<String>) {
        let state = self.lock();
        (state.lost, state.failure.clone())
    }

    /// The lines that are not on the disk, the oldest first.
    pub fn waiting(&self) -> Vec<Vec<u8>> {
        self.lock().queue.lines().map(<[u8]>::to_vec).collect()
    }

    /// Has the thread write what is there, make it safe and end. False if that takes longer than `limit`.
    pub fn close(&self, limit: Duration) -> bool {
        let mut state = self.lock();
        state.closing = true;
        self.news.notify_one();
        let end = Instant::now() + limit;
        while !state.closed {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            state = match self.done.wait_timeout(state, left) {
                Ok((state, _)) => state,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
        true
    }
}

/// Starts the thread. `told` makes the line of the log that says how many lines were lost.
pub fn start(
    shared: Arc<Shared>,
    folder: &Path,
    bound: u64,
    told: impl Fn(u64) -> Vec<u8> + Send + 'static,
) -> io::Result<()> {
    let store = Store::open(folder, bound)?;
    std::thread::Builder::new()
        .name("log".into())
        .stack_size(256 << 10)
        .spawn(move || write_all(&shared, store, &told))
        .map(|_| ())
}

fn write_all(shared: &Shared, mut store: Store, told: &dyn Fn(u64) -> Vec<u8>) {
    let mut sync_at = None;
    loop {
        let (lines, lost, closing) = {
            let mut state = shared.lock();
            while state.queue.is_empty() && !state.closing {
                let left = sync_at.map(|at: Instant| at.saturating_duration_since(Instant::now()));
                if left.is_some_and(|left| left.is_zero()) {
                    break;
                }
                let waited = shared.news.wait_timeout(state, left.unwrap_or(Duration::MAX));
                state = waited.map_or_else(|poisoned| poisoned.into_inner().0, |(state, _)| state);
            }
            let (lines, lost) = state.queue.take(BATCH);
            state.lost = state.lost.saturating_add(lost);
            state.untold = state.untold.saturating_add(lost);
            (lines, state.untold, state.closing)
        };
        let urgent = closing || lines.iter().any(|line| line.urgent);
        let mut result = Ok(());
        if !lines.is_empty() || lost > 0 {
            let mut text = if lost > 0 { told(lost) } else { Vec::new() };
            for line in &lines {
                text.extend_from_slice(&line.text);
            }
            result = store.write(&text);
            let mut state = shared.lock();
            if result.is_ok() {
                state.untold = state.untold.saturating_sub(lost);
            } else {
                let count = lines.len() as u64;
                state.lost = state.lost.saturating_add(count);
                state.untold = state.untold.saturating_add(count);
            }
        }
        let now = Instant::now();
        let sync = *sync_at.get_or_insert(now + SYNC_INTERVAL);
        if result.is_ok() && (urgent || now >= sync) {
            result = store.sync();
            sync_at = None;
        }
        if lines.is_empty() && result.is_ok() {
            sync_at = None;
        }
        let failed = result.is_err();
        let mut state = shared.lock();
        state.failure = result.err().map(|error| error.to_string());
        if closing && (state.queue.is_empty() || failed) {
            drop(state);
            // The file is closed before anybody hears of it: its file system may be unmounted then.
            drop(store);
            shared.lock().closed = true;
            shared.done.notify_all();
            return;
        }
        drop(state);
        if failed {
            std::thread::sleep(RETRY);
        }
    }
}
