//! Reads the log's files forwards from where the wanted lines begin, over rotations, with bounded memory.
//!
//! Files are numbered and only the highest is written to. A file that has a successor grows no more; so it is read
//! once more to its end after the successor was seen, and then left. A file that was removed while it was read is read
//! to its end all the same.

use super::query::{Boot, Filter, Query, boot_of};
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::ops::ControlFlow;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Bytes read at a time.
const BLOCK: usize = 64 << 10;
/// Longest line in bytes; a longer one is no entry and is passed over.
pub const MAX_ENTRY: usize = 64 << 10;
/// Digits of a file's number.
const DIGITS: usize = 16;

/// Some of the wanted lines.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// Whole lines as they lie in the file, at most [`BLOCK`] + [`MAX_ENTRY`] bytes.
    pub lines: Vec<u8>,
    /// Whether there are no more for now.
    pub at_end: bool,
}

/// A file that is read.
#[derive(Debug)]
struct Open {
    number: u64,
    file: File,
    offset: u64,
}

/// A place in the log.
#[derive(Debug)]
pub struct Reader {
    folder: PathBuf,
    filter: Filter,
    open: Option<Open>,
    /// Beginning of the line that is not complete yet.
    begun: Vec<u8>,
    /// Whether the line that has begun is too long, so that its rest is passed over.
    skipping: bool,
}

impl Reader {
    /// A place before the first wanted line. `current` is the id of the boot that runs.
    ///
    /// # Errors
    /// The folder cannot be listed or a file not be read. A file that was removed meanwhile is no error.
    pub fn new(folder: &Path, query: &Query, current: &str) -> io::Result<Self> {
        let numbers = numbers(folder)?;
        let boot = match &query.boot {
            Boot::Any => None,
            Boot::Current => Some(current.to_owned()),
            // Of none there is nothing: no boot has an empty id.
            Boot::Previous => Some(previous(folder, &numbers, current)?.unwrap_or_default()),
            Boot::Id(id) => Some(id.clone()),
        };
        let mut reader = Self {
            folder: folder.to_owned(),
            filter: Filter::new(query, boot),
            open: None,
            begun: Vec::new(),
            skipping: false,
        };
        reader.open = match query.lines {
            Some(count) => reader.last_lines(&numbers, count)?,
            None => reader.first_file(&numbers, query.since)?,
        };
        Ok(reader)
    }

    /// The first file that may have wanted lines: one that was last written to before `since` has none.
    fn first_file(&self, numbers: &[u64], since: Option<u64>) -> io::Result<Option<Open>> {
        for number in numbers {
            let Some(open) = Open::new(&self.folder, *number, 0)? else { continue };
            let written = u64::try_from(open.file.metadata()?.mtime()).unwrap_or(0);
            // In whole seconds, and one more for clocks of file systems, which are coarse.
            if since.is_none_or(|since| since / 1_000_000 <= written.saturating_add(1)) {
                return Ok(Some(open));
            }
        }
        Ok(None)
    }

    /// Where the last `count` wanted lines begin.
    fn last_lines(&self, numbers: &[u64], count: u64) -> io::Result<Option<Open>> {
        let (mut found, mut place) = (0_u64, None);
        for number in numbers.iter().rev() {
            let Some(open) = Open::new(&self.folder, *number, 0)? else { continue };
            let end = complete_end(&open.file)?;
            if place.is_none() {
                place = Some((*number, end));
            }
            if found >= count {
                break;
            }
            let _ = backwards(&open.file, end, |offset, line| {
                if self.filter.wants(line) {
                    found += 1;
                    place = Some((*number, offset));
                }
                if found >= count { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })?;
        }
        match place {
            Some((number, offset)) => Open::new(&self.folder, number, offset),
            None => Ok(None),
        }
    }

    /// The next wanted lines. At the end it may be asked again when there are more.
    pub fn next_batch(&mut self) -> io::Result<Batch> {
        let mut block = vec![0; BLOCK];
        loop {
            let Some(open) = &mut self.open else {
                match self.successor(None)? {
                    Some(next) => self.open = Some(next),
                    None => return Ok(Batch { lines: Vec::new(), at_end: true }),
                }
                continue;
            };
            if let Some(bytes) = open.read(&mut block)? {
                return Ok(Batch { lines: self.take(bytes), at_end: false });
            }
            let number = open.number;
            let Some(next) = self.successor(Some(number))? else {
                return Ok(Batch { lines: Vec::new(), at_end: true });
            };
            // What was written between the read and the rotation.
            let rest = self.open.as_mut().map(|open| open.read(&mut block)).transpose()?.flatten();
            if let Some(bytes) = rest {
                return Ok(Batch { lines: self.take(bytes), at_end: false });
            }
            // Half a line in a file that grows no more is what a power cut left.
            self.begun.clear();
            self.skipping = false;
            self.open = Some(next);
        }
    }

    /// The file after `number`, or the first.
    fn successor(&self, number: Option<u64>) -> io::Result<Option<Open>> {
        let numbers = match numbers(&self.folder) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            numbers => numbers?,
        };
        for next in numbers.into_iter().filter(|next| number.is_none_or(|number| *next > number)) {
            if let Some(open) = Open::new(&self.folder, next, 0)? {
                return Ok(Some(open));
            }
        }
        Ok(None)
    }

    /// Cuts bytes into lines and keeps the wanted ones.
    fn take(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut wanted = Vec::new();
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let Some(end) = piece.strip_suffix(b"\n") else {
                self.begin(piece);
                continue;
            };
            self.begin(end);
            if !self.skipping && self.filter.wants(&self.begun) {
                wanted.extend_from_slice(&self.begun);
                wanted.push(b'\n');
            }
            self.begun.clear();
            self.skipping = false;
        }
        wanted
    }

    fn begin(&mut self, piece: &[u8]) {
        if self.skipping || self.begun.len().saturating_add(piece.len()) > MAX_ENTRY {
            self.begun.clear();
            self.skipping = true;
        } else {
            self.begun.extend_from_slice(piece);
        }
    }
}

impl Open {
    /// None where there is no such file any more.
    fn new(folder: &Path, number: u64, offset: u64) -> io::Result<Option<Self>> {
        match File::open(folder.join(format!("{number:0DIGITS$}.jsonl"))) {
            Ok(file) => Ok(Some(Self { number, file, offset })),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The next bytes; none at the end.
    fn read<'a>(&mut self, block: &'a mut [u8]) -> io::Result<Option<&'a [u8]>> {
        let length = loop {
            match self.file.read_at(block, self.offset) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                result => break result?,
            }
        };
        self.offset = self.offset.saturating_add(length as u64);
        Ok(block.get(..length).filter(|bytes| !bytes.is_empty()))
    }
}

/// The numbers of the log's files, ascending.
fn numbers(folder: &Path) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        let digits = name.to_str().and_then(|name| name.strip_suffix(".jsonl"));
        let digits =
            digits.filter(|digits| digits.len() == DIGITS && digits.bytes().all(|b| b.is_ascii_digit()));
        numbers.extend(digits.and_then(|digits| digits.parse::<u64>().ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// The id of the last boot with entries before the one that runs.
fn previous(folder: &Path, numbers: &[u64], current: &str) -> io::Result<Option<String>> {
    for number in numbers.iter().rev() {
        let Some(open) = Open::new(folder, *number, 0)? else { continue };
        let mut found = None;
        let _ = backwards(&open.file, complete_end(&open.file)?, |_, line| match boot_of(line) {
            Some(boot) if boot != current => {
                found = Some(boot);
                ControlFlow::Break(())
            }
            _ => ControlFlow::Continue(()),
        })?;
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

/// The end of the last complete line of a file.
fn complete_end(file: &File) -> io::Result<u64> {
    let mut end = file.metadata()?.len();
    let mut block = vec![0; BLOCK];
    while end > 0 {
        let start = end.saturating_sub(BLOCK as u64);
        let block = block.get_mut(..usize::try_from(end - start).unwrap_or(BLOCK)).unwrap_or_default();
        file.read_exact_at(block, start)?;
        if let Some(last) = block.iter().rposition(|byte| *byte == b'\n') {
            return Ok(start + last as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

/// Gives each line before `end`, which is the end of one, from the last to the first, with its offset.
fn backwards(
    file: &File,
    end: u64,
    mut each: impl FnMut(u64, &[u8]) -> ControlFlow<()>,
) -> io::Result<ControlFlow<()>> {
    // The rest of the line that begins before `start`, its end of line included.
    let mut rest: Vec<u8> = Vec::new();
    let mut start = end;
    while start > 0 {
        let size = start.min(BLOCK as u64);
        start -= size;
        let mut bytes = vec![0; usize::try_from(size).unwrap_or(BLOCK)];
        file.read_exact_at(&mut bytes, start)?;
        bytes.append(&mut rest);
        // Up to here a line goes on that has begun before; the beginning of the file begins one.
        let first = if start == 0 {
            0
        } else {
            // The last byte ends the last line, and is not the end of the one before.
            let body = bytes.get(..bytes.len().saturating_sub(1)).unwrap_or_default();
            body.iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |end| end + 1)
        };
        let mut line_end = bytes.len();
        let lines = bytes.get(first..).unwrap_or_default();
        for line in lines.split_inclusive(|byte| *byte == b'\n').rev() {
            line_end -= line.len();
            let text = line.strip_suffix(b"\n").unwrap_or(line);
            if text.len() <= MAX_ENTRY && each(start + line_end as u64, text).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        bytes.truncate(first);
        // Longer than any entry: its end is enough to know that. Two bytes more, one of them the end of the line.
        if bytes.len() > MAX_ENTRY + 2 {
            bytes.drain(..bytes.len() - (MAX_ENTRY + 2));
        }
        rest = bytes;
    }
    Ok(ControlFlow::Continue(()))
}
