//! The update engine: keeps a machine current from a signed channel, and never leaves it without a release that starts.
//!
//! [`machine`] decides and does no I/O. [`engine`] does what it says: it asks the channel, writes the other slot, judges a
//! trial and has the machine restart. [`service`] is the socket on which it is asked.

pub mod channel;
pub mod engine;
mod error;
pub mod hardware;
pub mod health;
pub mod lock;
pub mod machine;
pub mod metrics;
pub mod pid1;
pub mod saved;
pub mod service;
pub mod staging;
pub mod windows;

pub use error::UpdateError;

use std::process::ExitCode;

/// Runs the program with the process's arguments.
pub fn run() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments != ["serve"] {
        eprintln!("usage: ashlar-update serve\n\nPID 1 starts it; `ashlarctl update` asks it.");
        return ExitCode::from(2);
    }
    match service::serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("the update engine ends: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Clock, seconds since 1970.
pub fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
