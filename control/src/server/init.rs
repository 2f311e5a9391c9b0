//! PID 1 is asked: one line, one line back, each on a connection of its own.

use super::limits;
use crate::api::Problem;
use ashlar_image::control::{Answer, MAX_LINE, RefusalKind, Reply, Request};
use std::io;
use std::path::{Path, PathBuf};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// PID 1's socket.
#[derive(Debug)]
pub struct Init {
    path: PathBuf,
    turns: Semaphore,
}

impl Init {
    /// The socket at `path`.
    pub fn new(path: PathBuf) -> Self {
        Self { path, turns: Semaphore::new(limits::MAX_ASKED) }
    }

    /// Asks and waits for the answer.
    pub async fn ask(&self, request: &Request) -> Result<Reply, Problem> {
        let mut line =
            serde_json::to_vec(request).map_err(|error| failed("PID 1", 500, &error.to_string()))?;
        line.push(b'\n');
        if line.len() > MAX_LINE {
            let message = format!("the request is longer than {MAX_LINE} bytes for PID 1");
            return Err(Problem::new(413, RefusalKind::Invalid, message, "make the configuration smaller"));
        }
        let Ok(Ok(_turn)) = timeout(limits::TURN, self.turns.acquire()).await else { return Err(busy()) };
        let answer = match timeout(limits::INIT, exchange(&self.path, &line)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => return Err(failed("PID 1", 502, &error.to_string())),
            Err(_) => return Err(failed("PID 1", 504, "it has not answered in time")),
        };
        match serde_json::from_slice(&answer) {
            Ok(Answer::Ok(reply)) => Ok(reply),
            Ok(Answer::Error(refusal)) => Err(refusal.into()),
            Err(error) => Err(failed("PID 1", 502, &format!("its answer cannot be read: {error}"))),
        }
    }
}

async fn exchange(path: &Path, line: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = UnixStream::connect(path).await?;
    stream.write_all(line).await?;
    let mut answer = Vec::new();
    stream.take(MAX_LINE as u64 + 1).read_to_end(&mut answer).await?;
    match answer.pop() {
        Some(b'\n') if answer.len() < MAX_LINE => Ok(answer),
        None => Err(io::Error::other("it has closed the connection")),
        Some(_) => Err(io::Error::other("its answer is cut off or too long")),
    }
}

/// There are too many requests.
pub fn busy() -> Problem {
    Problem::new(503, RefusalKind::Conflict, "too many requests at one time", "try again in a moment")
}

/// `who` does not answer.
pub(super) fn failed(who: &str, status: u16, problem: &str) -> Problem {
    let advice = "the machine may be restarting; try again, and look at the console";
    Problem::new(status, RefusalKind::Failed, format!("{who} does not answer: {problem}"), advice)
}
