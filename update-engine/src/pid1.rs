//! PID 1, which is asked and told.

use crate::error::UpdateError;
use ashlar_image::control::{Answer, ConfigurationState, MAX_LINE, Measurements, Reply, Request, Status};
use std::fmt::Debug;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long an answer may take.
const DEADLINE: Duration = Duration::from_secs(65);

/// PID 1.
pub trait Pid1: Debug + Send + Sync {
    /// Asks.
    fn ask(&self, request: &Request) -> Result<Reply, UpdateError>;

    /// The machine's state.
    fn status(&self) -> Result<Box<Status>, UpdateError> {
        match self.ask(&Request::Status)? {
            Reply::Status(status) => Ok(status),
            other => Err(unexpected(&other)),
        }
    }

    /// The machine configuration in force.
    fn configuration(&self) -> Result<ConfigurationState, UpdateError> {
        match self.ask(&Request::Configuration)? {
            Reply::Configuration(state) => Ok(state),
            other => Err(unexpected(&other)),
        }
    }

    /// What was measured.
    fn measurements(&self) -> Result<Measurements, UpdateError> {
        match self.ask(&Request::Measurements)? {
            Reply::Measurements(measurements) => Ok(measurements),
            other => Err(unexpected(&other)),
        }
    }
}

fn unexpected(reply: &Reply) -> UpdateError {
    UpdateError::Pid1(format!("it answers something else: {reply:?}"))
}

/// PID 1's socket.
#[derive(Debug, Clone)]
pub struct Socket(PathBuf);

impl Socket {
    /// The one at `path`.
    pub fn new(path: &Path) -> Self {
        Self(path.to_owned())
    }
}

impl Pid1 for Socket {
    fn ask(&self, request: &Request) -> Result<Reply, UpdateError> {
        let fail = |error: std::io::Error| UpdateError::Pid1(error.to_string());
        let mut stream = UnixStream::connect(&self.0).map_err(fail)?;
        stream.set_read_timeout(Some(DEADLINE)).map_err(fail)?;
        stream.set_write_timeout(Some(DEADLINE)).map_err(fail)?;
        let mut line = serde_json::to_vec(request).map_err(|error| UpdateError::Pid1(error.to_string()))?;
        line.push(b'\n');
        stream.write_all(&line).map_err(fail)?;
        let mut answer = Vec::new();
        stream.take(MAX_LINE as u64).read_to_end(&mut answer).map_err(fail)?;
        match serde_json::from_slice(&answer) {
            Ok(Answer::Ok(reply)) => Ok(reply),
            Ok(Answer::Error(refusal)) => Err(UpdateError::Pid1(refusal.message)),
            Err(error) => Err(UpdateError::Pid1(format!("its answer cannot be read: {error}"))),
        }
    }
}
