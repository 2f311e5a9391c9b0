//! `lockctl reboot`: asks the update engine of this machine.

use crate::arguments::Problem;
use ashlar_image::control::MAX_LINE;
use ashlar_image::update::{UPDATE_SOCKET, UpdateAnswer, UpdateRequest};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// How long its answer may take; it has only to take the order.
const DEADLINE: Duration = Duration::from_secs(20);

/// Orders a restart under the lock.
pub(crate) fn reboot(reason: &str) -> Result<(), Problem> {
    let fail = |error: std::io::Error| {
        Problem::new(
            3,
            format!("the update engine of this machine (`{UPDATE_SOCKET}`) does not answer: {error}"),
        )
    };
    let mut stream = UnixStream::connect(UPDATE_SOCKET).map_err(fail)?;
    stream.set_read_timeout(Some(DEADLINE)).map_err(fail)?;
    stream.set_write_timeout(Some(DEADLINE)).map_err(fail)?;
    let request = UpdateRequest::Reboot { reason: reason.to_owned() };
    let mut line = serde_json::to_vec(&request).map_err(|error| Problem::new(2, error.to_string()))?;
    line.push(b'\n');
    stream.write_all(&line).map_err(fail)?;
    let mut answer = Vec::new();
    stream.take(MAX_LINE as u64).read_to_end(&mut answer).map_err(fail)?;
    match serde_json::from_slice(&answer) {
        Ok(UpdateAnswer::Ok(_)) => Ok(()),
        Ok(UpdateAnswer::Error(refusal)) => {
            Err(Problem::new(1, format!("{}; {}", refusal.message, refusal.advice)))
        }
        Err(error) => Err(Problem::new(3, format!("the update engine's answer cannot be read: {error}"))),
    }
}
