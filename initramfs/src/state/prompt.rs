//! Asking for the recovery key on the consoles, without echo. There is no other prompt on an Ashlar machine, and this
//! one takes nothing but that key.

use crate::console;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::termios::{LocalModes, OptionalActions, Termios};
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::time::{Duration, Instant};
use zeroize::Zeroizing;

/// Longest line that is read, in bytes.
const MAX_LINE: usize = 256;

/// A console that does not echo until this is dropped.
struct Silent {
    file: File,
    before: Option<Termios>,
    line: Zeroizing<Vec<u8>>,
}

impl Silent {
    fn open(path: &str) -> Option<Self> {
        let flags = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(flags.bits().cast_signed())
            .open(path)
            .ok()?;
        let before = rustix::termios::tcgetattr(&file).ok();
        if let Some(before) = &before {
            let mut quiet = before.clone();
            quiet.local_modes.remove(LocalModes::ECHO);
            quiet.local_modes.insert(LocalModes::ICANON | LocalModes::ECHONL);
            let _ = rustix::termios::tcsetattr(&file, OptionalActions::Flush, &quiet);
        }
        Some(Self { file, before, line: Zeroizing::new(Vec::new()) })
    }

    /// Reads what was typed; the line when it is complete.
    fn read(&mut self) -> Option<Zeroizing<String>> {
        let mut buffer = Zeroizing::new([0; MAX_LINE]);
        let length = self.file.read(&mut buffer[..]).ok()?;
        for byte in buffer.get(..length)? {
            match byte {
                b'\n' | b'\r' => {
                    let line = std::mem::take(&mut *self.line);
                    let text = Zeroizing::new(String::from_utf8_lossy(&line).into_owned());
                    if !text.trim().is_empty() {
                        return Some(text);
                    }
                }
                byte if self.line.len() < MAX_LINE => self.line.push(*byte),
                _ => {}
            }
        }
        None
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            let _ = rustix::termios::tcsetattr(&self.file, OptionalActions::Now, before);
        }
    }
}

/// Writes `question` to every console and gives the first line that somebody types on one of them; none when `limit`
/// passes before.
pub fn ask(question: &str, limit: Duration) -> Option<Zeroizing<String>> {
    let mut consoles: Vec<Silent> = console::paths().iter().filter_map(|path| Silent::open(path)).collect();
    for console in &mut consoles {
        let _ = console::write_within(&mut console.file, question.as_bytes(), Duration::from_secs(2));
        let _ = console.file.flush();
    }
    let end = Instant::now() + limit;
    while !consoles.is_empty() {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return None;
        }
        let mut polled: Vec<PollFd<'_>> =
            consoles.iter().map(|console| PollFd::new(&console.file, PollFlags::IN)).collect();
        let timeout = Timespec::try_from(left).ok();
        if rustix::event::poll(&mut polled, timeout.as_ref()).is_err() {
            continue;
        }
        let events: Vec<PollFlags> = polled.iter().map(PollFd::revents).collect();
        let mut gone = Vec::new();
        for (index, (console, event)) in consoles.iter_mut().zip(&events).enumerate() {
            if event.contains(PollFlags::IN) {
                if let Some(line) = console.read() {
                    return Some(line);
                }
            } else if event.intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL) {
                gone.push(index);
            }
        }
        for index in gone.into_iter().rev() {
            consoles.remove(index);
        }
    }
    std::thread::sleep(end.saturating_duration_since(Instant::now()));
    None
}
