//! The machine's log: messages of the kernel, of init and of services and containers in one order, as lines of JSON
//! ([`LogEntry`]).
//!
//! It begins in memory, before there is a disk, in a queue of bounded size. When the state volume is there a thread of
//! its own writes the queue to it ([`writer`]), with a bound on the whole ([`store`]). PID 1 never waits for the disk,
//! and what is lost is counted and told.

pub mod kmsg;
pub mod lines;
pub mod queue;
pub mod rate;
pub mod store;
pub mod writer;

use crate::error::Error;
use ashlar_image::control::LogEntry;
use kmsg::{News, Reader};
use queue::Line;
use rustix::time::ClockId;
use std::fs;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use writer::Shared;

/// Lines of this priority and more urgent ones are made safe from a power cut at once: errors.
const URGENT: u8 = 3;
/// How long the disk may take for the last lines.
const CLOSE_DEADLINE: Duration = Duration::from_secs(3);

/// The log.
#[derive(Debug)]
pub struct Journal {
    shared: Arc<Shared>,
    boot: String,
    kernel: Option<Reader>,
    kernel_lost: u64,
    trouble: Option<String>,
    persists: bool,
}

/// The kernel's boot id, 32 hexadecimal digits; zeros where there is none.
fn boot_id() -> String {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).take(32).collect();
    if digits.len() == 32 { digits } else { "0".repeat(32) }
}

/// The clock, microseconds since 1970.
fn clock() -> u64 {
    let time = rustix::time::clock_gettime(ClockId::Realtime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    seconds.saturating_mul(1_000_000).saturating_add(u64::try_from(time.tv_nsec / 1000).unwrap_or_default())
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// A line of the log, with its end.
fn line(boot: &str, unit: &str, priority: u8, message: &str, time: u64, uptime: u64) -> Vec<u8> {
    let entry =
        LogEntry { time, uptime, boot: boot.into(), unit: unit.into(), priority, message: message.into() };
    let mut text = serde_json::to_vec(&entry).unwrap_or_default();
    text.push(b'\n');
    text
}

impl Journal {
    /// A log that keeps about `memory` bytes of lines that are not on a disk. It begins with what the kernel has kept
    /// since its start.
    pub fn new(memory: usize) -> Self {
        let (kernel, trouble) = match Reader::open() {
            Ok(reader) => (Some(reader), None),
            Err(error) => (None, Some(format!("the kernel's log cannot be read: {error}"))),
        };
        let shared = Shared::new(memory);
        Self { shared, boot: boot_id(), kernel, kernel_lost: 0, trouble, persists: false }
    }

    /// The kernel's log, for poll.
    pub fn source(&self) -> Option<BorrowedFd<'_>> {
        self.kernel.as_ref().map(AsFd::as_fd)
    }

    /// The kernel has written something. At most [`kmsg::BATCH`] records are taken; poll tells if there are more.
    pub fn read_kernel(&mut self, now: Duration) {
        let Some(reader) = &mut self.kernel else { return };
        let news = match reader.read() {
            Ok(news) => news,
            Err(error) => {
                self.kernel = None;
                self.trouble = Some(format!("the kernel's log cannot be read any more: {error}"));
                return;
            }
        };
        for news in news {
            match news {
                News::Lost(count) => {
                    self.kernel_lost = self.kernel_lost.saturating_add(count);
                    let message =
                        format!("{count} lines of the kernel were overwritten before they were read");
                    self.line("init", 4, &message, now);
                }
                News::Record(record) => {
                    // The record is older than now, and its time on the clock is so much earlier.
                    let age = micros(now).saturating_sub(record.time);
                    let (unit, message) = record.unit();
                    let time = clock().saturating_sub(age);
                    let text = line(&self.boot, unit, record.priority, message, time, record.time);
                    self.shared.push(Line { text, urgent: record.priority <= URGENT });
                }
            }
        }
    }

    /// Adds a line of `unit`. It must be clean ([`lines::clean`]); init's own go to the kernel's log instead and come
    /// from there.
    pub fn line(&mut self, unit: &str, priority: u8, message: &str, now: Duration) {
        let text = line(&self.boot, unit, priority, message, clock(), micros(now));
        self.shared.push(Line { text, urgent: priority <= URGENT });
    }

    /// Writes the log to files in `folder` from now on, about `bound` bytes in all. What was kept in memory comes first.
    pub fn persist(&mut self, folder: &Path, bound: u64) -> Result<(), Error> {
        if self.persists {
            return Ok(());
        }
        let boot = self.boot.clone();
        let told = move |lost: u64| {
            let uptime = rustix::time::clock_gettime(ClockId::Boottime);
            let uptime = micros(Duration::try_from(uptime).unwrap_or_default());
            let message = format!("{lost} lines of the log were lost: the disk did not take them in time");
            line(&boot, "init", 4, &message, clock(), uptime)
        };
        writer::start(self.shared.clone(), folder, bound, told)
            .map_err(Error::io("write the log to", folder))?;
        self.persists = true;
        Ok(())
    }

    /// What is wrong with the log, one line each.
    pub fn problems(&self) -> Vec<String> {
        let (lost, failure) = self.shared.trouble();
        let failure = failure.map(|failure| format!("the log cannot be written: {failure}"));
        let lost = (lost > 0).then(|| format!("{lost} lines of the log are lost"));
        let kernel =
            (self.kernel_lost > 0).then(|| format!("{} lines of the kernel are lost", self.kernel_lost));
        self.trouble.clone().into_iter().chain(failure).chain(lost).chain(kernel).collect()
    }

    /// The lines that are in memory only, the oldest first.
    pub fn waiting(&self) -> Vec<LogEntry> {
        self.shared.waiting().iter().filter_map(|line| serde_json::from_slice(line).ok()).collect()
    }

    /// Has everything written, before the file system goes. Later lines stay in memory. False if the disk takes too
    /// long.
    pub fn close(&mut self) -> bool {
        let closed = !self.persists || self.shared.close(CLOSE_DEADLINE);
        self.persists = false;
        closed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_go_to_the_disk_when_there_is_one() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let mut journal = Journal::new(1 << 20);
        let at = Duration::from_millis;
        journal.line("web", 6, "hello \"you\"", at(1500));
        assert_eq!(journal.waiting().len(), 1);
        journal.persist(&log, 1 << 20).unwrap();
        journal.line("web", 3, "bad", at(1600));
        assert!(journal.close());
        let file = log.join("0000000000000000.jsonl");
        let read = || -> Vec<LogEntry> {
            let text = fs::read_to_string(&file).unwrap();
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
        };
        let entries = read();
        assert_eq!(entries.len(), 2);
        assert_eq!((entries[0].unit.as_str(), entries[0].message.as_str()), ("web", "hello \"you\""));
        assert_eq!((entries[1].priority, entries[1].uptime), (3, 1_600_000));
        assert!(entries[0].time > 1_600_000_000_000_000 && entries[0].boot.len() == 32);
        assert!(
            journal.problems().iter().all(|problem| problem.contains("kernel")),
            "{:?}",
            journal.problems()
        );
        // The next boot goes on in the same file.
        let mut journal = Journal::new(1 << 20);
        journal.persist(&log, 1 << 20).unwrap();
        journal.line("web", 6, "again", at(1));
        assert!(journal.close());
        assert_eq!(read().len(), 3);
    }

    #[test]
    fn what_does_not_fit_is_counted_and_told() {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = Journal::new(2000);
        for number in 0..100 {
            journal.line("web", 6, &number.to_string(), Duration::ZERO);
        }
        let kept = journal.waiting();
        assert!(kept.len() < 20 && kept.last().unwrap().message == "99", "{kept:?}");
        journal.persist(folder.path(), 1 << 20).unwrap();
        assert!(journal.close());
        let lost = 100 - kept.len();
        assert!(journal.problems().contains(&format!("{lost} lines of the log are lost")));
        let text = fs::read_to_string(folder.path().join("0000000000000000.jsonl")).unwrap();
        let first: LogEntry = serde_json::from_str(text.lines().next().unwrap()).unwrap();
        assert!(first.unit == "init" && first.message.starts_with(&format!("{lost} lines")), "{first:?}");
        assert_eq!(text.lines().count(), kept.len() + 1);
    }

    /// The disk is full and stays so: the machine goes on and says what is lost.
    #[test]
    fn a_disk_without_room_stops_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let flags = rustix::mount::MountFlags::empty();
        if let Err(error) = rustix::mount::mount("tmpfs", folder.path(), "tmpfs", flags, Some(c"size=64k")) {
            eprintln!("skipped: cannot mount a tmpfs ({error}); run as root");
            return;
        }
        let mut journal = Journal::new(1 << 20);
        let started = journal.persist(folder.path(), 1 << 20);
        for number in 0..100 {
            journal.line("web", 6, &format!("{number} {}", "x".repeat(3000)), Duration::ZERO);
        }
        let closed = journal.close();
        let problems = journal.problems();
        rustix::mount::unmount(folder.path(), rustix::mount::UnmountFlags::DETACH).unwrap();
        started.unwrap();
        assert!(closed);
        assert!(
            problems.iter().any(|problem| problem.starts_with("the log cannot be written: ")),
            "{problems:?}"
        );
        assert!(
            problems.iter().any(|problem| problem.ends_with("lines of the log are lost")),
            "{problems:?}"
        );
    }

    #[test]
    fn the_kernels_log_comes_first() {
        let mut journal = Journal::new(64 << 20);
        if journal.source().is_none() {
            eprintln!("skipped: /dev/kmsg cannot be read; run as root");
            return;
        }
        let mut before = 0;
        loop {
            journal.read_kernel(crate::root::now());
            let count = journal.waiting().len();
            if count == before {
                break;
            }
            before = count;
        }
        let entries = journal.waiting();
        assert!(entries.iter().all(|entry| ["kernel", "init"].contains(&entry.unit.as_str())));
        assert!(
            entries
                .iter()
                .filter(|entry| entry.unit == "kernel")
                .is_sorted_by_key(|entry| entry.time / 1_000_000)
        );
    }
}
