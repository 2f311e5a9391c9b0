//! The kernel's log as records (Linux, `Documentation/ABI/testing/dev-kmsg`).
//!
//! ```text
//! 6,339,5140900,-;NET: Registered protocol family 10
//!  SUBSYSTEM=pci
//! ```
//! Priority and facility, sequence number, microseconds since the start, flags; the message up to the end of the
//! line; lines of properties.

use super::lines::{MAX_LINE, clean};
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;

/// The device.
const DEVICE: &str = "/dev/kmsg";
/// The kernel gives whole records only, of at most 8 KiB (`PRINTKRB_RECORD_MAX` and `CONSOLE_EXT_LOG_MAX`).
const RECORD_SIZE: usize = 16 << 10;
/// Records that are read at once: the loop has other things to do.
pub const BATCH: usize = 256;
/// What init writes before its lines.
const OWN: &str = "ashlar: ";

/// A record of the kernel's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Priority, 0 to 7.
    pub priority: u8,
    /// Who wrote it: 0 is the kernel.
    pub facility: u32,
    /// Number; without gaps unless records were lost.
    pub sequence: u64,
    /// Microseconds since the kernel's start.
    pub time: u64,
    /// The message.
    pub message: String,
}

impl Record {
    /// `init` for what init itself wrote, `kernel` for the rest, with the message.
    pub fn unit(&self) -> (&'static str, &str) {
        match self.message.strip_prefix(OWN).filter(|_| self.facility != 0) {
            Some(message) => ("init", message),
            None => ("kernel", &self.message),
        }
    }
}

/// Reads a record; none if it has another form. A message is cut to [`MAX_LINE`] bytes.
pub fn parse(bytes: &[u8]) -> Option<Record> {
    let semicolon = bytes.iter().position(|byte| *byte == b';')?;
    let (head, rest) = bytes.split_at(semicolon);
    let mut fields = std::str::from_utf8(head).ok()?.split(',');
    let code: u32 = fields.next()?.parse().ok()?;
    let sequence = fields.next()?.parse().ok()?;
    let time = fields.next()?.parse().ok()?;
    let message = rest.get(1..)?.split(|byte| *byte == b'\n').next()?;
    let message = clean(&unescape(message));
    let end = (0..=MAX_LINE.min(message.len())).rev().find(|end| message.is_char_boundary(*end))?;
    Some(Record {
        priority: (code & 7) as u8,
        facility: code >> 3,
        sequence,
        time,
        message: message.get(..end)?.to_owned(),
    })
}

/// Bytes that are not printable come as `\xNN`.
fn unescape(mut text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    while let Some((first, rest)) = text.split_first() {
        let escaped = text.strip_prefix(br"\x").and_then(|rest| {
            let (digits, rest) = rest.split_at_checked(2)?;
            let digits = std::str::from_utf8(digits).ok().filter(|digits| !digits.starts_with('+'))?;
            Some((u8::from_str_radix(digits, 16).ok()?, rest))
        });
        let (byte, rest) = escaped.unwrap_or((*first, rest));
        bytes.push(byte);
        text = rest;
    }
    bytes
}

/// Follows sequence numbers: how many records lie between the last and this one.
#[derive(Debug, Default)]
pub struct Sequence {
    next: Option<u64>,
}

impl Sequence {
    /// How many records were lost before the one with this number.
    pub fn lost_before(&mut self, sequence: u64) -> u64 {
        let lost = self.next.map_or(0, |next| sequence.saturating_sub(next));
        self.next = Some(sequence.saturating_add(1));
        lost
    }
}

/// The kernel's log from its first record that is still there.
#[derive(Debug)]
pub struct Reader {
    file: File,
    sequence: Sequence,
}

/// What a reader gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// A record.
    Record(Record),
    /// So many records were overwritten before they were read.
    Lost(u64),
}

impl Reader {
    /// Opens the log.
    pub fn open() -> io::Result<Self> {
        let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
        let file = OpenOptions::new().read(true).custom_flags(flags).open(DEVICE)?;
        Ok(Self { file, sequence: Sequence::default() })
    }

    /// Reads up to [`BATCH`] records. An error means that nothing more can be read.
    pub fn read(&mut self) -> io::Result<Vec<News>> {
        let mut news = Vec::new();
        let mut buffer = [0; RECORD_SIZE];
        for _ in 0..BATCH {
            match self.file.read(&mut buffer) {
                Ok(0) => break,
                Ok(length) => {
                    let Some(record) = buffer.get(..length).and_then(parse) else { continue };
                    let lost = self.sequence.lost_before(record.sequence);
                    if lost > 0 {
                        news.push(News::Lost(lost));
                    }
                    news.push(News::Record(record));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // The record was overwritten (EPIPE): the next one tells by its number how many were.
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::Interrupted) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(news)
    }
}

impl AsFd for Reader {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::process::Command;

    #[test]
    fn records_of_the_kernels_documentation() {
        let record =
            parse(b"7,160,424069,-;pci_root PNP0A03:00: host bridge\n SUBSYSTEM=acpi\n DEVICE=+acpi\n")
                .unwrap();
        assert_eq!((record.priority, record.facility, record.sequence, record.time), (7, 0, 160, 424_069));
        assert_eq!(record.unit(), ("kernel", "pci_root PNP0A03:00: host bridge"));
        let own = parse(b"30,5,1,c,caller=T1;ashlar: started service x; more\n").unwrap();
        assert_eq!((own.priority, own.unit()), (6, ("init", "started service x; more")));
        assert_eq!(parse(b"4,5,1,-;ashlar: said by the kernel\n").unwrap().unit().0, "kernel");
        assert_eq!(parse(br"6,1,2,-;a\x0ab\xc3\xa4\x5cx\xzz").unwrap().message, "a\u{fffd}bä\\x\\xzz");
        for bad in [&b""[..], b"6,1,2,-", b"6,1;x", b"x,1,2,-;y", b"99999999999,1,2,-;y", b"6,-1,2,-;y"] {
            assert_eq!(parse(bad), None);
        }
        let long = [b"6,1,2,-;".as_slice(), "ä".repeat(MAX_LINE).as_bytes()].concat();
        assert_eq!(parse(&long).unwrap().message.len(), MAX_LINE);
    }

    #[test]
    fn gaps_are_counted() {
        let mut sequence = Sequence::default();
        let lost: Vec<u64> =
            [7, 8, 12, 13, 5].into_iter().map(|number| sequence.lost_before(number)).collect();
        assert_eq!(lost, [0, 0, 3, 0, 0]);
    }

    /// What `dmesg` of util-linux shows is what we read.
    #[test]
    fn dmesg_reads_the_same_messages() {
        let skip = |why: &str| {
            eprintln!("skipped: {why}");
        };
        let Ok(mut reader) = Reader::open() else { return skip("/dev/kmsg cannot be read; run as root") };
        let mut ours = Vec::new();
        loop {
            let news = reader.read().unwrap();
            if news.is_empty() {
                break;
            }
            ours.extend(news.into_iter().filter_map(|news| match news {
                News::Record(record) => Some(record),
                News::Lost(_) => None,
            }));
        }
        let Ok(output) = Command::new("dmesg").args(["--kernel", "--notime", "--nopager"]).output() else {
            return skip("dmesg is not installed (package util-linux)");
        };
        let theirs = String::from_utf8_lossy(&output.stdout).into_owned();
        let theirs: Vec<&str> = theirs.lines().collect();
        let ours: Vec<Record> = ours.into_iter().filter(|record| record.facility == 0).collect();
        if ours.is_empty() || theirs.is_empty() {
            return skip("the kernel's log is empty");
        }
        // Either may have lost or gained some; the messages that both have are the same.
        let plain = |text: &&str| text.is_ascii() && !text.contains('\\');
        let known: std::collections::BTreeSet<&str> =
            ours.iter().map(|record| record.message.as_str()).collect();
        let common = theirs.iter().filter(|line| plain(line) && known.contains(**line)).count();
        assert!(common * 10 >= theirs.len() * 9, "{common} of {}", theirs.len());
    }

    proptest! {
        #[test]
        fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
            let record = [b"6,1,2,-;".as_slice(), &bytes].concat();
            let record = parse(&record).unwrap();
            prop_assert!(!record.message.chars().any(|c| c.is_control() && c != '\t'));
        }
    }
}
