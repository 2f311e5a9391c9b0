//! What a dying kernel left: the records of pstore (Linux, `Documentation/ABI/testing/pstore`).
//!
//! A record is cut to what the firmware takes, so one death is several files. Each begins with a line
//! `Panic#1 Part3`: the reason, how many times this kernel has dumped, and the part; part 1 is the end of the log.
//! The kernel decompresses; what it could not has `.enc.z` at the end of its name.

use crate::console;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Where pstore is mounted.
pub const FOLDER: &str = "/sys/fs/pstore";
/// Most files that are read at one start.
const MAX_FILES: usize = 512;
/// The most that is read of one file, in bytes.
const MAX_FILE: u64 = 256 << 10;
/// The most that is read at one start, in bytes.
const MAX_TOTAL: usize = 4 << 20;
/// Parts of one death are not further apart than this, in seconds.
const ONE_DEATH: u64 = 120;
/// Longest headline in characters.
const MAX_HEADLINE: usize = 200;

/// One file of pstore.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Its name: `dmesg-efi_pstore-170...`, `console-ramoops-0`.
    pub name: String,
    /// When it was written, seconds since 1970.
    pub time: u64,
    /// Its content.
    pub bytes: Vec<u8>,
}

/// What one death left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CrashRecord {
    /// `Panic`, `Oops`, `Emergency` and so on; `console` or `pmsg` for what is no kernel dump.
    pub kind: String,
    /// When, seconds since 1970; the clock of the machine that died.
    pub time: u64,
    /// The end of the kernel's log, oldest line first. Nothing in it but printable characters, tabs and ends of lines.
    pub text: String,
}

/// What was collected, and the files to remove once it is safe elsewhere.
#[derive(Debug, Default)]
pub struct Collected {
    /// What was found, the oldest first.
    pub records: Vec<CrashRecord>,
    files: Vec<PathBuf>,
}

/// Printable text: programs print what comes from afar, and the log ends up on consoles.
fn printable(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes)
        .chars()
        .map(|c| if c.is_control() && c != '\n' && c != '\t' { '?' } else { c })
        .collect()
}

/// `Panic#2 Part13` gives reason, count and part.
fn header(line: &str) -> Option<(&str, u32, u32)> {
    let (reason, rest) = line.split_once('#')?;
    let (count, part) = rest.split_once(" Part")?;
    let plain = !reason.is_empty()
        && reason.len() <= 32
        && reason.bytes().all(|b| b.is_ascii_alphanumeric() || b == b' ');
    Some((plain.then_some(reason)?, count.parse().ok()?, part.trim().parse().ok()?))
}

/// Puts parts together. What has no header is a record of its own.
pub fn assemble(mut parts: Vec<Part>) -> Vec<CrashRecord> {
    /// Parts of one death, as far as they have come together.
    struct Death {
        backend: String,
        reason: String,
        count: u32,
        time: u64,
        parts: Vec<(u32, String)>,
    }
    parts.sort_by(|one, other| (one.time, &one.name).cmp(&(other.time, &other.name)));
    let mut deaths: Vec<Death> = Vec::new();
    let mut records = Vec::new();
    for part in parts {
        let kind = part.name.split('-').next().unwrap_or_default();
        let backend = part.name.split('-').nth(1).unwrap_or_default().to_owned();
        if part.name.ends_with(".enc.z") {
            let text = format!("{} could not be decompressed by the kernel\n", part.name);
            records.push(CrashRecord { kind: printable(kind.as_bytes()), time: part.time, text });
            continue;
        }
        let text = printable(&part.bytes);
        let (first, rest) = text.split_once('\n').unwrap_or((&text, ""));
        let Some((reason, count, number)) = header(first).filter(|_| kind == "dmesg") else {
            records.push(CrashRecord { kind: printable(kind.as_bytes()), time: part.time, text });
            continue;
        };
        let same = deaths.iter_mut().find(|death| {
            death.backend == backend
                && death.reason == reason
                && death.count == count
                && part.time.saturating_sub(death.time) <= ONE_DEATH
                && death.parts.iter().all(|(known, _)| *known != number)
        });
        match same {
            Some(death) => death.parts.push((number, rest.to_owned())),
            None => deaths.push(Death {
                backend,
                reason: reason.to_owned(),
                count,
                time: part.time,
                parts: vec![(number, rest.to_owned())],
            }),
        }
    }
    // An oops has a lower count than the panic that it leads to, and may have the same second.
    deaths.sort_by_key(|death| (death.time, death.count));
    records.extend(deaths.into_iter().map(|mut death| {
        death.parts.sort_by_key(|(number, _)| std::cmp::Reverse(*number));
        let text = death.parts.into_iter().map(|(_, text)| text).collect();
        CrashRecord { kind: death.reason, time: death.time, text }
    }));
    // Stable: an oops stays before its panic.
    records.sort_by_key(|record| record.time);
    records
}

/// A line of the log without level and time: `<0>[   12.345678][   T1] Kernel panic` gives `Kernel panic`.
fn message(line: &str) -> &str {
    let mut rest = line.trim_start();
    if let Some((level, after)) = rest.strip_prefix('<').and_then(|rest| rest.split_once('>'))
        && level.bytes().all(|b| b.is_ascii_digit())
    {
        rest = after;
    }
    while let Some((stamp, after)) = rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        let is_stamp = stamp.bytes().all(|b| b.is_ascii_digit() || b" .TC".contains(&b));
        if !is_stamp {
            break;
        }
        rest = after.trim_start();
    }
    rest
}

impl CrashRecord {
    /// The line that says why the kernel died; none in a record that is no death.
    pub fn headline(&self) -> Option<String> {
        const SIGNS: [&str; 8] = [
            "BUG:",
            "kernel BUG at",
            "Oops",
            "general protection fault",
            "Unable to handle",
            "watchdog: BUG",
            "NMI watchdog:",
            "Kernel panic - not syncing",
        ];
        let found =
            self.text.lines().map(message).find(|line| SIGNS.iter().any(|sign| line.starts_with(sign)));
        let line = match found {
            Some(line) => line,
            None if matches!(self.kind.as_str(), "Panic" | "Oops") => "the record does not say why",
            None => return None,
        };
        Some(line.chars().take(MAX_HEADLINE).collect())
    }
}

/// Why the kernel of the boot before died, from its records: the first oops, or the panic without one.
pub fn cause(records: &[CrashRecord]) -> Option<String> {
    records
        .iter()
        .filter(|record| matches!(record.kind.as_str(), "Panic" | "Oops"))
        .find_map(CrashRecord::headline)
}

/// Reads what is in `folder`. Nothing is removed yet: see [`Collected::remove`].
pub fn collect(folder: &Path) -> Collected {
    let mut parts = Vec::new();
    let mut files = Vec::new();
    let mut total = 0usize;
    for entry in fs::read_dir(folder).into_iter().flatten().flatten().take(MAX_FILES) {
        let path = entry.path();
        let read = || -> std::io::Result<Part> {
            let file = File::open(&path)?;
            let status = file.metadata()?;
            let mut bytes = Vec::new();
            if status.is_file() {
                file.take(MAX_FILE).read_to_end(&mut bytes)?;
            }
            let time = u64::try_from(status.mtime()).unwrap_or(0);
            Ok(Part { name: entry.file_name().to_string_lossy().into_owned(), time, bytes })
        };
        match read() {
            Ok(part) => {
                total = total.saturating_add(part.bytes.len());
                // More than this has never been seen; it goes too, or the firmware's memory stays full.
                if total <= MAX_TOTAL {
                    parts.push(part);
                }
                files.push(path);
            }
            Err(error) => console::warning(format_args!("cannot read {}: {error}", path.display())),
        }
    }
    Collected { records: assemble(parts), files }
}

impl Collected {
    /// Removes the files, when their content is safe: the firmware's memory is small and wears out.
    pub fn remove(self) {
        for path in self.files {
            if let Err(error) = fs::remove_file(&path) {
                console::warning(format_args!("cannot remove {}: {error}", path.display()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn part(name: &str, time: u64, text: &str) -> Part {
        Part { name: name.into(), time, bytes: text.as_bytes().to_vec() }
    }

    /// A kernel that died of an oops: the oops in two parts, then the panic that it led to.
    fn death() -> Vec<Part> {
        vec![
            part(
                "dmesg-efi_pstore-170000000102001",
                1000,
                "Panic#2 Part1\n<0>[    9.2][    T7] Kernel panic - not syncing: Fatal exception\n",
            ),
            part(
                "dmesg-efi_pstore-170000000101001",
                1000,
                "Oops#1 Part1\n<1>[    9.1] BUG: kernel NULL pointer dereference, address: 0000\n<4>RIP: \u{1b}[2J\n",
            ),
            part("dmesg-efi_pstore-170000000102002", 1000, "Oops#1 Part2\n<6>[    8.0] ashlar: ready\n"),
        ]
    }

    #[test]
    fn parts_come_together() {
        let records = assemble(death());
        assert_eq!(records.len(), 2);
        assert_eq!((records[0].kind.as_str(), records[0].time), ("Oops", 1000));
        assert_eq!(
            records[0].text,
            "<6>[    8.0] ashlar: ready\n<1>[    9.1] BUG: kernel NULL pointer dereference, address: 0000\n<4>RIP: ?[2J\n"
        );
        assert_eq!(records[1].kind, "Panic");
        assert_eq!(cause(&records).unwrap(), "BUG: kernel NULL pointer dereference, address: 0000");
        assert_eq!(cause(&records[1..]).unwrap(), "Kernel panic - not syncing: Fatal exception");
        assert_eq!(cause(&[]), None);
    }

    #[test]
    fn two_deaths_with_the_same_header_stay_two() {
        let again = |time| part(&format!("dmesg-erst-{time}"), time, "Panic#1 Part1\nx\n");
        assert_eq!(assemble(vec![again(1000), again(1001)]).len(), 2, "the same part twice");
        let late = part("dmesg-erst-9", 5000, "Panic#1 Part2\ny\n");
        assert_eq!(assemble(vec![again(1000), late]).len(), 2, "more than an hour apart");
        let other = part("dmesg-ramoops-0", 1000, "Panic#1 Part2\ny\n");
        assert_eq!(assemble(vec![again(1000), other]).len(), 2, "kept in two places");
    }

    #[test]
    fn what_is_no_dump_is_kept_as_it_is() {
        let records = assemble(vec![
            part("console-ramoops-0", 1, "a\nb\n"),
            part("dmesg-efi_pstore-1.enc.z", 2, "\u{1}\u{2}"),
            part("dmesg-efi_pstore-2", 3, "cut"),
            part("", 4, ""),
        ]);
        let kinds: Vec<&str> = records.iter().map(|record| record.kind.as_str()).collect();
        assert_eq!(kinds, ["console", "dmesg", "dmesg", ""]);
        assert_eq!(records[0].text, "a\nb\n");
        assert!(records[1].text.contains("could not be decompressed"), "{}", records[1].text);
        assert!(records.iter().all(|record| record.headline().is_none()));
        assert_eq!(cause(&records), None);
        let bare = CrashRecord { kind: "Panic".into(), time: 0, text: String::new() };
        assert_eq!(cause(&[bare]).unwrap(), "the record does not say why");
    }

    #[test]
    fn levels_and_times_are_taken_off() {
        for (line, expected) in [
            ("<0>[   12.345678] Kernel panic", "Kernel panic"),
            ("<4>[    1.2][  T123] x", "x"),
            ("[drm] x", "[drm] x"),
            ("<x> y", "<x> y"),
            ("", ""),
        ] {
            assert_eq!(message(line), expected);
        }
    }

    #[test]
    fn files_are_read_then_removed() {
        let folder = tempfile::tempdir().unwrap();
        for part in death() {
            fs::write(folder.path().join(&part.name), &part.bytes).unwrap();
        }
        fs::write(folder.path().join("dmesg-efi_pstore-9"), vec![b'x'; 300 << 10]).unwrap();
        let collected = collect(folder.path());
        assert_eq!(collected.records.len(), 3);
        assert!(collected.records.iter().all(|record| record.text.len() <= 256 << 10));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 4, "nothing is removed before it is safe");
        collected.remove();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        assert!(collect(&folder.path().join("none")).records.is_empty());
    }

    proptest! {
        #[test]
        fn anything(files in prop::collection::vec(("[a-z-]{0,20}", 0u64..3, prop::collection::vec(any::<u8>(), 0..60)), 0..8)) {
            let count = files.len();
            let records = assemble(files.into_iter().map(|(name, time, bytes)| Part { name, time, bytes }).collect());
            prop_assert!(records.len() <= count);
            prop_assert!(records.is_empty() == (count == 0));
            for record in &records {
                let _ = record.headline();
                prop_assert!(record.text.chars().all(|c| !c.is_control() || c == '\n' || c == '\t'));
            }
        }

        #[test]
        fn headers(reason in "[A-Za-z]{1,9}", count in any::<u32>(), part in any::<u32>()) {
            let line = format!("{reason}#{count} Part{part}");
            prop_assert_eq!(header(&line), Some((reason.as_str(), count, part)));
        }
    }
}
