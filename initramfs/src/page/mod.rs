//! The status page on the consoles. It is no dialogue: there is nothing to type and nobody to log in.
//!
//! A screen shows the page on its first virtual console and the kernel's messages on its second (Alt-F2). A serial
//! line is a stream that somebody may be recording: there the page is printed when it has changed, not too often, and
//! without control characters.

mod render;

pub use render::{fit, plain, render};

use crate::{console, sys};
use ashlar_image::control::Status;
use rustix::fs::OFlags;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

/// The virtual consoles of the page and of the kernel's messages.
const PAGE: &str = "/dev/tty1";
const MESSAGES: (&str, u8) = ("/dev/tty2", 2);
/// How often the page may change.
const SCREEN_INTERVAL: Duration = Duration::from_secs(1);
const SERIAL_INTERVAL: Duration = Duration::from_secs(30);
/// How long a console may take for a page, and how long one that took longer is left alone.
const WRITE_LIMIT: Duration = Duration::from_millis(200);
const LEFT_ALONE: Duration = Duration::from_secs(600);
/// Columns and rows where the console does not tell.
const SIZE: (usize, usize) = (80, 25);
/// Clear, go to the upper left, hide the cursor, never go dark (console_codes(4)).
const CLEAR: &str = "\x1b[2J\x1b[H\x1b[?25l\x1b[9;0]";

/// When a text is shown: when it has changed, and not sooner than an interval after the one before.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Schedule {
    interval: Duration,
    shown: String,
    wanted: String,
    earliest: Duration,
}

impl Schedule {
    const fn new(interval: Duration) -> Self {
        Self { interval, shown: String::new(), wanted: String::new(), earliest: Duration::ZERO }
    }

    fn want(&mut self, text: String) {
        self.wanted = text;
    }

    /// The text to show now, if it is time.
    fn take(&mut self, now: Duration) -> Option<String> {
        if self.wanted == self.shown || now < self.earliest {
            return None;
        }
        self.shown.clone_from(&self.wanted);
        self.earliest = now.saturating_add(self.interval);
        Some(self.shown.clone())
    }

    /// Puts the next one off: the console did not take this one.
    fn failed(&mut self, now: Duration) {
        self.shown.clear();
        self.earliest = now.saturating_add(LEFT_ALONE);
    }

    fn deadline(&self) -> Duration {
        if self.wanted == self.shown { Duration::MAX } else { self.earliest }
    }
}

/// One console.
#[derive(Debug)]
struct Console {
    file: File,
    is_screen: bool,
    schedule: Schedule,
}

/// The page on all consoles.
#[derive(Debug)]
pub struct Page {
    consoles: Vec<Console>,
    /// Keeps the console of the kernel's messages there.
    _messages: Option<File>,
}

fn open(path: &str) -> Option<File> {
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    OpenOptions::new().write(true).custom_flags(flags.bits().cast_signed()).open(path).ok()
}

/// Whether a console of the kernel is the virtual one in front.
fn is_screen(path: &str) -> bool {
    path == "/dev/tty0"
}

/// Columns and rows.
fn size(file: &File) -> (usize, usize) {
    match rustix::termios::tcgetwinsize(file) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => (size.ws_col.into(), size.ws_row.into()),
        _ => SIZE,
    }
}

impl Page {
    /// The page on the kernel's active consoles. The kernel's messages leave the screen from here on.
    pub fn open() -> Self {
        let mut consoles = Vec::new();
        let mut messages = None;
        for path in console::paths() {
            let is_screen = is_screen(&path);
            let Some(file) = open(if is_screen { PAGE } else { &path }) else { continue };
            if is_screen {
                // The console must be there before messages can go to it.
                messages = open(MESSAGES.0);
                let moved = messages.as_ref().map(|_| sys::send_kernel_messages_to(&file, MESSAGES.1));
                if let Some(Err(error)) = moved {
                    console::warning(format_args!(
                        "the kernel's messages stay on the first console: {error}"
                    ));
                }
            }
            let interval = if is_screen { SCREEN_INTERVAL } else { SERIAL_INTERVAL };
            consoles.push(Console { file, is_screen, schedule: Schedule::new(interval) });
        }
        Self { consoles, _messages: messages }
    }

    /// Takes a new status. What has changed is shown now, or as soon as it may be: then [`Self::tick`] does it.
    pub fn show(&mut self, status: &Status, fingerprint: Option<&str>, now: Duration) {
        for console in &mut self.consoles {
            let (columns, rows) = if console.is_screen { size(&console.file) } else { SIZE };
            let page = render(status, fingerprint, columns);
            console.schedule.want(if console.is_screen {
                format!("{CLEAR}{}", fit(&page, rows).replace('\n', "\r\n"))
            } else {
                // Kernel messages may have left the line half full.
                format!("\n{page}").replace('\n', "\r\n")
            });
        }
        self.tick(now);
    }

    /// Shows what was put off.
    pub fn tick(&mut self, now: Duration) {
        for console in &mut self.consoles {
            let Some(text) = console.schedule.take(now) else { continue };
            if console::write_within(&mut console.file, text.as_bytes(), WRITE_LIMIT).is_err() {
                console.schedule.failed(now);
            }
        }
    }

    /// When [`Self::tick`] has something to do.
    pub fn deadline(&self) -> Duration {
        self.consoles.iter().map(|console| console.schedule.deadline()).min().unwrap_or(Duration::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_page_is_shown_when_it_has_changed_and_not_too_often() {
        let mut schedule = Schedule::new(s(30));
        assert_eq!((schedule.take(s(0)), schedule.deadline()), (None, Duration::MAX));
        schedule.want("a".into());
        assert_eq!(schedule.take(s(1)).as_deref(), Some("a"));
        schedule.want("a".into());
        assert_eq!((schedule.take(s(99)), schedule.deadline()), (None, Duration::MAX));
        schedule.want("b".into());
        assert_eq!(schedule.take(s(99)).as_deref(), Some("b"));
        schedule.want("c".into());
        assert_eq!((schedule.take(s(100)), schedule.deadline()), (None, s(129)));
        schedule.want("d".into());
        assert_eq!(schedule.take(s(129)).as_deref(), Some("d"), "only the latest");
        schedule.want("e".into());
        schedule.want("d".into());
        assert_eq!((schedule.take(s(130)), schedule.deadline()), (None, Duration::MAX), "back in time");
        schedule.failed(s(130));
        assert_eq!((schedule.take(s(131)), schedule.deadline()), (None, s(730)));
        assert_eq!(schedule.take(s(730)).as_deref(), Some("d"));
    }

    fn page(is_screen: bool) -> (Page, tempfile::NamedTempFile) {
        let file = tempfile::NamedTempFile::new().unwrap();
        let interval = if is_screen { SCREEN_INTERVAL } else { SERIAL_INTERVAL };
        let console = Console { file: file.reopen().unwrap(), is_screen, schedule: Schedule::new(interval) };
        (Page { consoles: vec![console], _messages: None }, file)
    }

    fn read(file: &tempfile::NamedTempFile) -> String {
        let mut text = String::new();
        file.reopen().unwrap().read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn a_serial_line_gets_no_tricks_and_a_screen_is_cleared() {
        let status = render::tests::status();
        let (mut serial, file) = page(false);
        serial.show(&status, None, s(1));
        let text = read(&file);
        assert!(text.starts_with("\r\nAshlar container-host 12 on node-7\r\n"), "{text}");
        assert!(!text.contains('\x1b') && !text.to_lowercase().contains("login"), "{text}");
        serial.show(&status, None, s(2));
        let changed = Status { addresses: Vec::new(), ..status.clone() };
        serial.show(&changed, None, s(3));
        assert_eq!(read(&file), text, "not twice in 30 seconds");
        assert_eq!(serial.deadline(), s(31));
        serial.tick(s(31));
        assert!(read(&file).len() > text.len());

        let (mut screen, file) = page(true);
        screen.show(&status, None, s(1));
        assert!(read(&file).starts_with("\x1b[2J\x1b[H"), "{}", read(&file));
        assert_eq!(screen.deadline(), Duration::MAX);
    }
}
