//! What comes out of a machine: console, report and control messages, gathered by one thread each. The
//! guest decides what and how much it writes, so everything that is kept has a limit.

use crate::config::ConsoleCopy;
use crate::error::QemuError;
use crate::process::Ended;
use crate::qmp::{LINE_LIMIT, Message, parse_message};
use crate::terminal::Plain;
use ashlar_image::report::Report;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// Longest report that is read, in bytes.
pub const REPORT_LIMIT: usize = 16 << 20;
/// Console text that is kept in memory, in bytes; the older half goes when it is full.
const CONSOLE_LIMIT: usize = 16 << 20;
/// Size of the console file, in bytes; what comes after is not written.
const CONSOLE_FILE_LIMIT: usize = 64 << 20;

/// Reads a report: one line of JSON.
pub fn parse_report(line: &[u8]) -> Result<Report, QemuError> {
    if line.len() > REPORT_LIMIT {
        return Err(QemuError::Report(format!("it is longer than {REPORT_LIMIT} bytes")));
    }
    serde_json::from_slice(line).map_err(|error| QemuError::Report(error.to_string()))
}

/// What is known of a machine.
#[derive(Debug, Default)]
pub struct State {
    /// Plain text of the console.
    pub console: String,
    /// The report's line, once it is whole or too long.
    pub report: Option<Vec<u8>>,
    /// Answers on the control socket that were not fetched yet.
    pub answers: VecDeque<Message>,
    /// Why the control socket cannot be read any more.
    pub control_failed: Option<String>,
    /// Reason of the shutdown.
    pub shutdown: Option<String>,
    /// Number of resets.
    pub resets: u32,
    /// How often the watchdog was not fed.
    pub watchdog: u32,
    /// How the emulator ended.
    pub ended: Option<Ended>,
    /// Number of streams that are still read.
    pub open: u32,
}

/// The state with its condition variable.
#[derive(Debug, Default)]
pub struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    /// The state as it is.
    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state and wakes all who wait.
    pub fn update(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }

    /// Waits until `found` finds something; none when `limit` is over.
    pub fn wait<T>(&self, limit: Duration, mut found: impl FnMut(&mut State) -> Option<T>) -> Option<T> {
        let mut result = None;
        let search = |state: &mut State| {
            result = found(state);
            result.is_none()
        };
        let outcome = self.changed.wait_timeout_while(self.lock(), limit, search);
        drop(outcome);
        result
    }
}

/// Starts a thread that reads `stream` to its end.
fn gather(
    shared: &Arc<Shared>,
    mut stream: UnixStream,
    mut take: impl FnMut(&Shared, &[u8]) + Send + 'static,
) -> std::io::Result<JoinHandle<()>> {
    let shared = Arc::clone(shared);
    shared.update(|state| state.open += 1);
    std::thread::Builder::new().name("machine output".into()).spawn(move || {
        let mut buffer = vec![0; 64 << 10];
        loop {
            match stream.read(&mut buffer) {
                Ok(0) => break,
                Ok(length) => take(&shared, buffer.get(..length).unwrap_or_default()),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        shared.update(|state| state.open -= 1);
    })
}

/// Gathers the console into memory, into `file` and for `copy`.
pub fn console(
    shared: &Arc<Shared>,
    stream: UnixStream,
    mut file: File,
    copy: Option<ConsoleCopy>,
) -> std::io::Result<JoinHandle<()>> {
    let mut plain = Plain::default();
    let mut left = CONSOLE_FILE_LIMIT;
    gather(shared, stream, move |shared, bytes| {
        let kept = bytes.get(..bytes.len().min(left)).unwrap_or_default();
        left -= kept.len();
        // A full disk costs the log file, not the machine: the console is in memory as well.
        let _ = file.write_all(kept);
        if let Some(ConsoleCopy(copy)) = &copy {
            copy(bytes);
        }
        let text = plain.push(bytes);
        shared.update(|state| {
            state.console.push_str(&text);
            if state.console.len() > CONSOLE_LIMIT {
                let mut half = CONSOLE_LIMIT / 2;
                while !state.console.is_char_boundary(half) {
                    half += 1;
                }
                state.console.drain(..half);
            }
        });
    })
}

/// Gathers the report's line.
pub fn report(shared: &Arc<Shared>, stream: UnixStream) -> std::io::Result<JoinHandle<()>> {
    let mut line = Vec::new();
    let mut whole = false;
    gather(shared, stream, move |shared, bytes| {
        if whole {
            return;
        }
        let end = bytes.iter().position(|byte| *byte == b'\n');
        line.extend_from_slice(bytes.get(..end.unwrap_or(bytes.len())).unwrap_or_default());
        if end.is_some() || line.len() > REPORT_LIMIT {
            whole = true;
            let line = std::mem::take(&mut line);
            shared.update(|state| state.report = Some(line));
        }
    })
}

/// Gathers what the control socket says.
pub fn control(shared: &Arc<Shared>, stream: UnixStream) -> std::io::Result<JoinHandle<()>> {
    let mut pending: Vec<u8> = Vec::new();
    gather(shared, stream, move |shared, bytes| {
        pending.extend_from_slice(bytes);
        while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = pending.drain(..=end).collect();
            let message = parse_message(line.trim_ascii());
            shared.update(|state| match message {
                Ok(Message::Reset) => state.resets = state.resets.saturating_add(1),
                Ok(Message::Watchdog) => state.watchdog = state.watchdog.saturating_add(1),
                Ok(Message::Shutdown(reason)) => state.shutdown = Some(reason),
                Ok(Message::Event(_)) => {}
                Ok(message) => state.answers.push_back(message),
                Err(error) => state.control_failed = Some(error.to_string()),
            });
        }
        if pending.len() > LINE_LIMIT {
            pending = Vec::new();
            shared.update(|state| state.control_failed = Some("an endless line".into()));
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds pieces to a gathering thread and gives the state at the end.
    fn fed(
        start: impl FnOnce(&Arc<Shared>, UnixStream) -> std::io::Result<JoinHandle<()>>,
        pieces: &[&[u8]],
    ) -> Arc<Shared> {
        let shared = Arc::new(Shared::default());
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let thread = start(&shared, theirs).unwrap();
        for piece in pieces {
            ours.write_all(piece).unwrap();
        }
        drop(ours);
        thread.join().unwrap();
        assert_eq!(shared.lock().open, 0);
        shared
    }

    #[test]
    fn a_report_is_one_line_and_no_more() {
        let state = fed(report, &[b"{\"a\":", b"1}\nmore", b"\nand more\n"]);
        assert_eq!(state.lock().report.as_deref(), Some(&b"{\"a\":1}"[..]));
        assert!(fed(report, &[b"no end"]).lock().report.is_none());
        assert!(matches!(parse_report(b"{\"a\":1}"), Err(QemuError::Report(_))));
    }

    #[test]
    fn an_endless_report_is_an_error_not_a_full_memory() {
        let piece = vec![b'x'; 1 << 20];
        let state = fed(report, &[piece.as_slice(); 20]);
        let line = state.lock().report.clone().unwrap();
        assert!(line.len() <= REPORT_LIMIT + (1 << 20));
        assert!(parse_report(&line).unwrap_err().to_string().contains("longer than"));
    }

    #[test]
    fn an_endless_console_keeps_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("console.log");
        let file = File::create(&path).unwrap();
        let piece = vec![b'x'; 1 << 20];
        let mut pieces = vec![piece.as_slice(); 70];
        pieces.push(b"the end\n");
        let state = fed(|shared, stream| console(shared, stream, file, None), &pieces);
        let state = state.lock();
        assert!(state.console.len() <= CONSOLE_LIMIT && state.console.ends_with("the end\n"));
        assert_eq!(std::fs::metadata(path).unwrap().len(), CONSOLE_FILE_LIMIT as u64);
    }

    #[test]
    fn control_lines_may_come_in_any_pieces() {
        let state = fed(
            control,
            &[b"{\"ret", b"urn\": {}}\r\n{\"event\": \"RESET\"}\n{\"event\": \"SHUT", b"DOWN\"}\nnonsense\n"],
        );
        let state = state.lock();
        assert_eq!(state.answers, [Message::Done(None)]);
        assert_eq!((state.resets, state.shutdown.as_deref()), (1, Some("unknown")));
        assert!(state.control_failed.is_some());
    }
}
