//! The log on the disk: files `NNNNNNNNNNNNNNNN.jsonl` with ascending numbers in one folder, of bounded size each and
//! together. The one with the highest number is written to, the oldest are removed.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Behind the number in a file's name.
const SUFFIX: &str = ".jsonl";
/// Digits of the number.
const DIGITS: usize = 16;
/// The whole is made of about so many files: when one is full, so much of the log goes with the oldest.
const PARTS: u64 = 8;
/// Smallest and largest file in bytes.
const FILE_SIZES: (u64, u64) = (64 << 10, 16 << 20);
/// How far back from its end a file is searched for the end of its last whole line, in bytes. Longer than any line.
const TAIL: u64 = 64 << 10;
/// Largest number of files: they are also removed when they are small.
const MAX_FILES: usize = 64;

/// The number in a file's name; none if it is no file of the log.
pub fn number(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(SUFFIX)?;
    let well = digits.len() == DIGITS && digits.bytes().all(|byte| byte.is_ascii_digit());
    well.then(|| digits.parse().ok())?
}

fn name(number: u64) -> String {
    format!("{number:0DIGITS$}{SUFFIX}")
}

/// A file of the log that is not written to any more.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Old {
    number: u64,
    size: u64,
}

/// The files.
#[derive(Debug)]
pub struct Store {
    folder: PathBuf,
    file_size: u64,
    bound: u64,
    old: Vec<Old>,
    number: u64,
    file: File,
    size: u64,
    dirty: bool,
}

/// Cuts off what follows the last end of a line: after a power cut a line may be torn, or zeros may follow.
fn repair(file: &mut File) -> io::Result<u64> {
    let length = file.metadata()?.len();
    let from = length.saturating_sub(TAIL);
    file.seek(SeekFrom::Start(from))?;
    let mut tail = Vec::new();
    file.take(TAIL).read_to_end(&mut tail)?;
    // A line of zeros is none.
    let whole = tail.iter().position(|byte| *byte == 0).unwrap_or(tail.len());
    let tail = tail.get(..whole).unwrap_or_default();
    let end = tail.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last as u64 + 1);
    let end = from.saturating_add(end);
    if end != length {
        file.set_len(end)?;
    }
    Ok(end)
}

impl Store {
    /// Opens the log in `folder`, which is made if it is not there, for at most about `bound` bytes. The last line of
    /// the last file is repaired.
    pub fn open(folder: &Path, bound: u64) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let mut old = Vec::new();
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let Some(number) = entry.file_name().to_str().and_then(number) else { continue };
            let metadata = entry.metadata()?;
            if metadata.is_file() {
                old.push(Old { number, size: metadata.len() });
            }
        }
        old.sort_unstable_by_key(|file| file.number);
        let last = old.pop().map_or(0, |file| file.number);
        let file_size = (bound / PARTS).clamp(FILE_SIZES.0, FILE_SIZES.1);
        let mut file = create(folder, last)?;
        let size = repair(&mut file)?;
        let mut store =
            Self { folder: folder.to_owned(), file_size, bound, old, number: last, file, size, dirty: true };
        store.trim()?;
        Ok(store)
    }

    /// Writes lines, each with its end. On a full disk the oldest files make room.
    pub fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        if self.size > 0 && self.size.saturating_add(lines.len() as u64) > self.file_size {
            self.rotate()?;
        }
        loop {
            match self.append(lines) {
                Err(error) if error.kind() == io::ErrorKind::StorageFull && self.remove_oldest()? => {}
                other => return other,
            }
        }
    }

    /// Appends all or nothing.
    fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        self.dirty = true;
        match self.file.write_all(lines) {
            Ok(()) => {
                self.size = self.size.saturating_add(lines.len() as u64);
                Ok(())
            }
            Err(error) => {
                // Half a line must not run into the next.
                self.file.set_len(self.size)?;
                Err(error)
            }
        }
    }

    /// Makes what was written outlast a power cut.
    pub fn sync(&mut self) -> io::Result<()> {
        if self.dirty {
            self.file.sync_data()?;
            self.dirty = false;
        }
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        self.sync()?;
        let next = self.number.saturating_add(1);
        let file = match create(&self.folder, next) {
            Err(error) if error.kind() == io::ErrorKind::StorageFull && self.remove_oldest()? => {
                create(&self.folder, next)?
            }
            other => other?,
        };
        // The file's name must be there after a power cut as well.
        File::open(&self.folder)?.sync_all()?;
        self.old.push(Old { number: self.number, size: self.size });
        (self.number, self.file, self.size) = (next, file, 0);
        self.trim()
    }

    /// Removes files until the rest and one full file are within the bound.
    fn trim(&mut self) -> io::Result<()> {
        let total = |old: &[Old]| old.iter().fold(0u64, |sum, file| sum.saturating_add(file.size));
        while total(&self.old).saturating_add(self.file_size) > self.bound || self.old.len() >= MAX_FILES {
            if !self.remove_oldest()? {
                break;
            }
        }
        Ok(())
    }

    /// Removes the oldest file; false if there is only the one that is written to.
    fn remove_oldest(&mut self) -> io::Result<bool> {
        let Some(oldest) = self.old.first() else { return Ok(false) };
        match fs::remove_file(self.folder.join(name(oldest.number))) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        self.old.remove(0);
        Ok(true)
    }
}

fn create(folder: &Path, number: u64) -> io::Result<File> {
    OpenOptions::new().read(true).append(true).create(true).mode(0o640).open(folder.join(name(number)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(folder: &Path) -> Vec<u8> {
        let mut names: Vec<PathBuf> =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        names.sort();
        names.iter().flat_map(|path| fs::read(path).unwrap()).collect()
    }

    fn line(number: usize) -> Vec<u8> {
        format!("{{\"n\":{number},\"pad\":\"{}\"}}\n", "x".repeat(1000)).into_bytes()
    }

    #[test]
    fn the_oldest_go_when_it_is_full() {
        let folder = tempfile::tempdir().unwrap();
        let bound = 8 * FILE_SIZES.0;
        let mut store = Store::open(folder.path(), bound).unwrap();
        for number in 0..2000 {
            store.write(&line(number)).unwrap();
        }
        let text = all(folder.path());
        assert!(text.len() as u64 <= bound, "{}", text.len());
        assert!(text.len() as u64 >= bound / 2, "{}", text.len());
        assert!(text.ends_with(&line(1999)));
        let first = text.split(|byte| *byte == b'\n').next().unwrap();
        let first: serde_json::Value = serde_json::from_slice(first).unwrap();
        let kept = text.split(|byte| *byte == b'\n').count() - 1;
        assert_eq!(usize::try_from(first["n"].as_u64().unwrap()).unwrap(), 2000 - kept, "without gaps");
        // It goes on where it was, and foreign files stay.
        fs::write(folder.path().join("note.txt"), "x").unwrap();
        let (number, size) = (store.number, store.size);
        drop(store);
        let store = Store::open(folder.path(), bound).unwrap();
        assert_eq!((store.number, store.size), (number, size));
        drop(store);
        let store = Store::open(folder.path(), 2 * FILE_SIZES.0).unwrap();
        assert!(store.old.len() <= 1, "a smaller bound holds at once");
        assert!(folder.path().join("note.txt").exists());
    }

    #[test]
    fn what_a_power_cut_tore_is_cut_off() {
        for (content, whole) in [
            (&b"{\"a\":1}\n{\"b\":"[..], &b"{\"a\":1}\n"[..]),
            (b"{\"a\":1}\n\0\0\0\0\n\0", b"{\"a\":1}\n"),
            (b"{\"a\":1}", b""),
            (b"", b""),
            (b"{\"a\":1}\n", b"{\"a\":1}\n"),
        ] {
            let folder = tempfile::tempdir().unwrap();
            fs::write(folder.path().join(name(7)), content).unwrap();
            let mut store = Store::open(folder.path(), 1 << 20).unwrap();
            store.write(b"{}\n").unwrap();
            store.sync().unwrap();
            assert_eq!(fs::read(folder.path().join(name(7))).unwrap(), [whole, b"{}\n"].concat());
        }
    }

    #[test]
    fn only_our_names() {
        assert_eq!(number("0000000000000042.jsonl"), Some(42));
        for other in ["42.jsonl", "0000000000000042.json", "+000000000000042.jsonl", "", "x"] {
            assert_eq!(number(other), None, "{other}");
        }
        assert_eq!(number(&name(u64::MAX)), None, "20 digits are none of ours");
    }

    /// A file system that is really full, made by the kernel: a tmpfs of one MiB.
    #[test]
    fn a_full_disk_takes_the_oldest() {
        let folder = tempfile::tempdir().unwrap();
        let flags = rustix::mount::MountFlags::empty();
        if let Err(error) = rustix::mount::mount("tmpfs", folder.path(), "tmpfs", flags, Some(c"size=1m")) {
            eprintln!("skipped: cannot mount a tmpfs ({error}); run as root");
            return;
        }
        let filler = folder.path().join("filler");
        let inside = folder.path().join("log");
        let result = std::panic::catch_unwind(|| {
            let mut store = Store::open(&inside, 16 << 20).unwrap();
            store.file_size = 128 << 10;
            for number in 0..3000 {
                store.write(&line(number)).unwrap();
            }
            assert!(all(&inside).ends_with(&line(2999)));
            // Somebody else takes the rest: it fails with an error, keeps whole lines and goes on when there is room.
            while store.remove_oldest().unwrap() {}
            let mut other = File::create(&filler).unwrap();
            while other.write_all(&[0; 4096]).is_ok() {}
            let mut failed = 0;
            for number in 0..300 {
                failed += i32::from(store.write(&line(number)).is_err());
            }
            assert!(failed > 0);
            assert!(all(&inside).ends_with(b"\"}\n"));
            drop(other);
            fs::remove_file(&filler).unwrap();
            store.write(&line(1)).unwrap();
            assert!(all(&inside).ends_with(&line(1)));
        });
        rustix::mount::unmount(folder.path(), rustix::mount::UnmountFlags::DETACH).unwrap();
        result.unwrap();
    }
}
