//! What people see. Lines go to the kernel's log, which shows them on every console and keeps them; blocks
//! that nobody may miss go to the consoles themselves.

use rustix::event::{PollFd, PollFlags, Timespec};
use std::fmt::Display;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// The kernel's log takes about 1000 bytes a line.
const MAX_LINE: usize = 900;
/// How long a console may take for a block: a serial line that nobody reads must not hold up the machine.
const CONSOLE_DEADLINE: Duration = Duration::from_secs(2);

/// Facility `daemon` (3) in the upper bits, so that the kernel does not take the lines for its own.
const INFO: u8 = 3 * 8 + 6;
const WARNING: u8 = 3 * 8 + 4;
const ERROR: u8 = 3 * 8 + 3;
const DEBUG: u8 = 3 * 8 + 7;

fn line(priority: u8, text: &impl Display) {
    static KMSG: OnceLock<Option<File>> = OnceLock::new();
    let Some(mut kmsg) = KMSG.get_or_init(|| OpenOptions::new().write(true).open("/dev/kmsg").ok()).as_ref()
    else {
        return;
    };
    for part in text.to_string().lines() {
        // One write is one record. A log that cannot be written to must not stop the machine.
        let _ = kmsg.write_all(format!("<{priority}>ashlar: {}\n", bounded(part)).as_bytes());
    }
}

/// The front of `text` that fits into one record, cut between characters.
fn bounded(text: &str) -> &str {
    let mut end = text.len().min(MAX_LINE);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// Logs what happened.
pub fn info(text: impl Display) {
    line(INFO, &text);
}

/// Logs what is not as it should be, while the machine goes on.
pub fn warning(text: impl Display) {
    line(WARNING, &text);
}

/// Logs a failure.
pub fn error(text: impl Display) {
    line(ERROR, &text);
}

/// Keeps in the log, for the dump that a dying kernel leaves, what the consoles show otherwise.
pub fn keep(text: impl Display) {
    line(DEBUG, &text);
}

/// Names of the consoles in `/sys/class/tty/console/active`, as file names in `/dev`.
fn active(text: &str) -> Vec<String> {
    let mut names: Vec<String> = text
        .split_whitespace()
        // `tty0` is whichever virtual console is in front.
        .filter(|name| name.bytes().all(|b| b.is_ascii_alphanumeric()))
        .map(|name| format!("/dev/{name}"))
        .collect();
    if names.is_empty() {
        names.push("/dev/console".into());
    }
    names
}

/// The files of the active consoles.
pub fn paths() -> Vec<String> {
    active(&std::fs::read_to_string("/sys/class/tty/console/active").unwrap_or_default())
}

/// Writes `block` to every console. What a console does not take within two seconds is lost on it.
pub fn announce(block: &str) {
    for path in paths() {
        let flags = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY;
        let opened = OpenOptions::new().write(true).custom_flags(flags.bits().cast_signed()).open(path);
        if let Ok(mut console) = opened {
            let _ = write_within(&mut console, block.as_bytes(), CONSOLE_DEADLINE);
        }
    }
}

/// Writes all of `bytes` to a file that does not block.
pub fn write_within(file: &mut File, mut bytes: &[u8], limit: Duration) -> std::io::Result<()> {
    let end = Instant::now() + limit;
    while !bytes.is_empty() {
        match file.write(bytes) {
            Ok(0) => return Err(std::io::ErrorKind::WriteZero.into()),
            Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                let left = end.saturating_duration_since(Instant::now());
                let timeout = Timespec::try_from(left).map_err(|_| std::io::ErrorKind::InvalidInput)?;
                match rustix::event::poll(&mut [PollFd::new(file, PollFlags::OUT)], Some(&timeout)) {
                    Ok(0) => return Err(std::io::ErrorKind::TimedOut.into()),
                    Ok(_) | Err(rustix::io::Errno::INTR) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn consoles_are_named_by_the_kernel() {
        assert_eq!(active("tty0 ttyS0\n"), ["/dev/tty0", "/dev/ttyS0"]);
        assert_eq!(active(""), ["/dev/console"]);
        assert_eq!(active("../etc/passwd"), ["/dev/console"]);
    }

    #[test]
    fn long_lines_are_cut_between_characters() {
        let text = "ä".repeat(MAX_LINE);
        assert_eq!(bounded(&text).len(), MAX_LINE);
        assert_eq!(bounded(&format!("a{text}")).len(), MAX_LINE - 1);
        assert_eq!(bounded("short"), "short");
    }
}
