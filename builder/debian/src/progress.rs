//! What a long operation tells whoever waits for it.

/// Receives progress. Called from several threads at once.
pub trait Progress: Sync {
    /// `what` begins and will take `total_bytes` bytes (0 when that is not known).
    fn begin(&self, what: &str, total_bytes: u64);
    /// `bytes` more are done.
    fn advance(&self, bytes: u64);
    /// What was begun has ended, well or not.
    fn end(&self);
    /// Something that the user should know and that is no error: a damaged cache entry that was repaired.
    fn note(&self, text: &str) {
        let _ = text;
    }
}

/// Tells nobody.
pub struct NoProgress;

impl Progress for NoProgress {
    fn begin(&self, _what: &str, _total_bytes: u64) {}
    fn advance(&self, _bytes: u64) {}
    fn end(&self) {}
}
