//! Bounds on how fast and how much is read.

use crate::{FetchError, Range};
use std::io::{self, Read};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A token bucket: how long to wait before so many bytes may be taken. Pure: the time is given.
#[derive(Debug, Clone, PartialEq)]
pub struct Bucket {
    rate: u64,
    /// Bytes that may be taken at once; less than 0 when more were taken than there were.
    tokens: i128,
    at: Duration,
}

impl Bucket {
    /// A bucket of `rate` bytes per second, which holds what comes in one second.
    pub fn new(rate: u64) -> Self {
        Self { rate: rate.max(1), tokens: i128::from(rate.max(1)), at: Duration::ZERO }
    }

    /// Takes `bytes` at `now`, a time since any fixed moment, and says how long to wait for them.
    pub fn take(&mut self, bytes: u64, now: Duration) -> Duration {
        let passed = now.saturating_sub(self.at).as_micros();
        let gained =
            i128::try_from(passed).unwrap_or(i128::MAX).saturating_mul(i128::from(self.rate)) / 1_000_000;
        if gained > 0 {
            self.tokens = self.tokens.saturating_add(gained).min(i128::from(self.rate));
            self.at = now;
        }
        self.tokens = self.tokens.saturating_sub(i128::from(bytes));
        if self.tokens >= 0 {
            return Duration::ZERO;
        }
        let micros = self.tokens.unsigned_abs().saturating_mul(1_000_000) / u128::from(self.rate);
        Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX))
    }
}

/// A bandwidth limit that all connections share.
#[derive(Debug, Clone)]
pub struct Bandwidth(Arc<(Mutex<Bucket>, Instant)>);

impl Bandwidth {
    /// A limit of `rate` bytes per second.
    pub fn new(rate: u64) -> Self {
        Self(Arc::new((Mutex::new(Bucket::new(rate)), Instant::now())))
    }

    fn wait(&self, bytes: usize) {
        let (bucket, start) = &*self.0;
        let pause = bucket.lock().unwrap_or_else(PoisonError::into_inner).take(bytes as u64, start.elapsed());
        if !pause.is_zero() {
            std::thread::sleep(pause);
        }
    }
}

/// The slowest that a server may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pace {
    /// Bytes per second, on the average of a window.
    pub rate: u64,
    /// The window.
    pub window: Duration,
}

/// A body within its bounds: neither longer nor shorter than it may be, not too slow for us, not too fast for the network.
pub(crate) struct Bounded {
    pub path: String,
    pub inner: Box<dyn Read + Send>,
    /// No more than this comes, in bytes.
    pub max: u64,
    /// What was announced and must come, in bytes.
    pub expected: Option<u64>,
    pub taken: u64,
    pub bandwidth: Option<Bandwidth>,
    pub pace: Option<Pace>,
    /// Begin of the window, and what was taken then.
    pub window: (Instant, u64),
}

impl Bounded {
    fn fail(&self, reason: String) -> io::Error {
        io::Error::other(FetchError::Failed { path: self.path.clone(), reason })
    }
}

impl Read for Bounded {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let limit = self.expected.map_or(self.max, |expected| expected.min(self.max));
        // One byte beyond the limit tells that there is more.
        let most = usize::try_from(limit.saturating_sub(self.taken).saturating_add(1)).unwrap_or(usize::MAX);
        // Small steps, so that a limit of the bandwidth does not come in lumps.
        let length = buffer.len().min(most).min(64 << 10);
        let part = buffer.get_mut(..length).unwrap_or_default();
        let read = self.inner.read(part).map_err(|error| {
            let text = error.to_string();
            self.fail(if text.contains("timeout") {
                format!("the server has stalled ({text})")
            } else {
                text
            })
        })?;
        if read == 0 {
            return match self.expected {
                Some(expected) if self.taken < expected => {
                    Err(self.fail(format!("it ended after {} of {expected} bytes", self.taken)))
                }
                _ => Ok(0),
            };
        }
        self.taken = self.taken.saturating_add(read as u64);
        if self.taken > limit {
            return Err(io::Error::other(FetchError::TooLong { path: self.path.clone(), max: limit }));
        }
        if let Some(bandwidth) = &self.bandwidth {
            bandwidth.wait(read);
        } else if let Some(pace) = self.pace {
            // With a limit of our own, slowness says nothing of the server.
            let passed = self.window.0.elapsed();
            if passed >= pace.window {
                let got = self.taken.saturating_sub(self.window.1);
                if got < pace.rate.saturating_mul(passed.as_secs().max(1)) {
                    return Err(self
                        .fail(format!("the server sends {got} bytes in {} s: too slow", passed.as_secs())));
                }
                self.window = (Instant::now(), self.taken);
            }
        }
        Ok(read)
    }
}

/// The end of a range, exclusive.
pub(crate) fn end(range: Range) -> Option<u64> {
    range.start.checked_add(range.length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_lets_through_its_rate() {
        let mut bucket = Bucket::new(1000);
        assert_eq!(bucket.take(1000, Duration::ZERO), Duration::ZERO, "what one second brings is there");
        assert_eq!(bucket.take(500, Duration::ZERO), Duration::from_millis(500));
        assert_eq!(bucket.take(500, Duration::from_millis(500)), Duration::from_millis(500));
        assert_eq!(
            bucket.take(1, Duration::from_secs(1000)),
            Duration::ZERO,
            "no more than one second is saved up"
        );
        assert_eq!(bucket.take(1999, Duration::from_secs(1000)), Duration::from_secs(1));
        let mut bucket = Bucket::new(0);
        assert!(bucket.take(u64::MAX, Duration::ZERO) > Duration::from_secs(3600));
    }
}
