//! The output of services and containers: one file each in `/run/ashlar/log`, of bounded size, with the
//! kernel's time before each line so that it can be read beside the kernel's log.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where the files lie.
pub const FOLDER: &str = "/run/ashlar/log";
/// Size in bytes at which a file becomes `NAME.log.1`; two of them are kept.
pub const MAX_SIZE: u64 = 256 << 10;
/// Longest line; what is longer goes on in the next.
const MAX_LINE: usize = 4096;

/// Cuts a stream of bytes into lines.
#[derive(Debug, Default)]
pub struct Lines {
    begun: Vec<u8>,
}

impl Lines {
    /// Takes more bytes and gives the lines that are complete now.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        for byte in bytes {
            if *byte == b'\n' {
                lines.push(self.take());
                continue;
            }
            self.begun.push(*byte);
            if self.begun.len() == MAX_LINE {
                lines.push(self.take());
            }
        }
        lines
    }

    /// The last line, if it has no end.
    pub fn finish(&mut self) -> Option<String> {
        (!self.begun.is_empty()).then(|| self.take())
    }

    /// Control characters are replaced: the file is read on a terminal, and the line may come from a container.
    fn take(&mut self) -> String {
        let line = std::mem::take(&mut self.begun);
        let text = String::from_utf8_lossy(&line);
        text.trim_end_matches('\r')
            .chars()
            .map(|c| if c.is_control() && c != '\t' { char::REPLACEMENT_CHARACTER } else { c })
            .collect()
    }
}

/// A log file.
#[derive(Debug)]
pub struct LogFile {
    path: PathBuf,
    max_size: u64,
    file: File,
    size: u64,
}

impl LogFile {
    /// Opens the log `NAME.log` in `folder`, at its end.
    pub fn open(folder: &Path, name: &str, max_size: u64) -> io::Result<Self> {
        let path = folder.join(format!("{name}.log"));
        let file = OpenOptions::new().append(true).create(true).open(&path)?;
        let size = file.metadata()?.len();
        Ok(Self { path, max_size, file, size })
    }

    /// Adds a line with the time since the kernel's start.
    pub fn line(&mut self, time: Duration, text: &str) -> io::Result<()> {
        let line = format!("[{:5}.{:06}] {text}\n", time.as_secs(), time.subsec_micros());
        if self.size + line.len() as u64 > self.max_size && self.size > 0 {
            fs::rename(&self.path, self.path.with_extension("log.1"))?;
            self.file = OpenOptions::new().append(true).create(true).open(&self.path)?;
            self.size = 0;
        }
        self.file.write_all(line.as_bytes())?;
        self.size += line.len() as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_become_lines() {
        let mut lines = Lines::default();
        assert_eq!(lines.push(b"one\ntw"), ["one"]);
        assert_eq!(lines.push(b"o\r\n\x1b[2Jthree\xff\n"), ["two", "\u{fffd}[2Jthree\u{fffd}"]);
        assert_eq!(lines.finish(), None);
        assert_eq!(lines.push(&[b'x'; MAX_LINE + 1]), ["x".repeat(MAX_LINE)]);
        assert_eq!(lines.finish().as_deref(), Some("x"));
    }

    #[test]
    fn the_file_stays_small() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = LogFile::open(folder.path(), "web", 200).unwrap();
        for number in 0..100 {
            log.line(Duration::from_millis(1500 + number), &format!("line {number}")).unwrap();
        }
        let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
        let (old, new) = (read("web.log.1"), read("web.log"));
        assert!(old.len() <= 200 && new.len() <= 200);
        assert!(new.ends_with("[    1.599000] line 99\n"), "{new}");
        assert!(!old.is_empty());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
        // Opened again it goes on.
        LogFile::open(folder.path(), "web", 200).unwrap().line(Duration::ZERO, "more").unwrap();
        assert!(read("web.log").ends_with("line 99\n[    0.000000] more\n"));
    }
}
