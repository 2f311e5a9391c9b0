//! Bytes of a channel, wherever they lie: on a web server, in a folder (a USB stick), in an offline bundle.
//!
//! Nothing that comes from here is believed: who asks bounds the length and verifies the content.

mod bundle;
mod folder;
mod http;
mod limit;
mod ranges;
mod resolve;
mod retry;

pub use bundle::{Bundle, BundleError};
pub use folder::Folder;
pub use http::{Http, HttpOptions};
pub use limit::{Bandwidth, Bucket};
pub use ranges::content_range;
pub use resolve::{Names, lookup};
pub use retry::Backoff;

use std::fmt::Debug;
use std::io::Read;

/// Which bytes of a file: from `start`, at most `length` of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Range {
    /// Offset of the first byte.
    pub start: u64,
    /// How many bytes; more than 0.
    pub length: u64,
}

/// A file, or a part of it, as it arrives.
pub struct Body {
    /// Offset in the file of the first byte of `reader`: that of the range that was asked for, or 0 from a server that
    /// knows no ranges and sends the whole file.
    pub start: u64,
    /// Bytes that will come, where the source says so.
    pub length: Option<u64>,
    /// The bytes. It ends with an error after [`Request::max`] bytes, when the source stalls, and when fewer bytes come
    /// than were announced.
    pub reader: Box<dyn Read + Send>,
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Path below the source's root: segments of RFC 3986, already encoded, joined by `/`; never `..`.
    pub path: String,
    /// Which part; the whole file without one.
    pub range: Option<Range>,
    /// No more bytes are read, in bytes of the body.
    pub max: u64,
}

/// Why bytes cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// There is no such file (HTTP 404, 403 or 410; no such entry).
    #[error("`{0}` does not exist")]
    NotFound(String),
    /// More bytes than were asked for.
    #[error("`{path}` is longer than {max} bytes")]
    TooLong {
        /// Which file.
        path: String,
        /// What was allowed, in bytes.
        max: u64,
    },
    /// Everything else, with a reason for people; trying again may help.
    #[error("`{path}` cannot be fetched: {reason}")]
    Failed {
        /// Which file.
        path: String,
        /// Why.
        reason: String,
    },
}

/// Where files are.
pub trait Source: Send + Sync + Debug {
    /// Opens a file or a part of it.
    fn open(&self, request: &Request) -> Result<Body, FetchError>;

    /// For people: the address or the folder.
    fn name(&self) -> String;
}

impl Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Body")
            .field("start", &self.start)
            .field("length", &self.length)
            .finish_non_exhaustive()
    }
}

/// Whether a path stays below the root of a source: segments without `..`, `.` and empty ones.
fn is_inside(path: &str) -> bool {
    !path.is_empty()
        && path.len() <= 4096
        && !path.contains(['\\', '\0', '?', '#'])
        && path.split('/').all(|segment| !matches!(segment, "" | "." | ".."))
}
