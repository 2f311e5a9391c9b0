//! Unpacked packages in the cache.
//!
//! A package is decompressed once, into an uncompressed `tar` beside a small file with its check value and its control
//! file. Later builds read the `tar` once, in one pass that verifies its hash and scans its headers; contents of files
//! are then ranges of it. Nothing is unpacked into single files, which would take far longer and lose owners.

use crate::Error;
use crate::cache::{Cache, read_if_there, sha256};
use crate::deb::Deb;
use crate::tar_entries::{Entry, read_entries};
use ring::digest::{Context, SHA256};
use std::fs::File;
use std::io::{BufReader, Read, Write};
use std::path::PathBuf;
use std::sync::Arc;

/// Largest data archive, unpacked, in bytes: a bomb ends here.
const MAX_DATA: u64 = 16 << 30;
/// Largest control file with check values, in bytes.
const MAX_SIDECAR: u64 = 2 << 20;
/// Bytes that are read and hashed at once; fits the second-level cache of processors.
const CHUNK: usize = 256 << 10;

/// A package in the cache.
#[derive(Debug, Clone)]
pub(crate) struct Unpacked {
    /// The control file.
    pub(crate) control: String,
    /// What the package brings.
    pub(crate) entries: Vec<Entry>,
    /// The `tar` that the entries' contents lie in.
    pub(crate) data: Arc<PathBuf>,
}

/// Hashes what is read through it, and writes it to `copy`.
struct Hashed<R, W> {
    reader: R,
    copy: W,
    context: Context,
    length: u64,
}

impl<R: Read, W: Write> Hashed<R, W> {
    fn new(reader: R, copy: W) -> Self {
        Self { reader, copy, context: Context::new(&SHA256), length: 0 }
    }
}

impl<R: Read, W: Write> Read for Hashed<R, W> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let length = self.reader.read(buffer)?;
        self.context.update(&buffer[..length]);
        self.copy.write_all(&buffer[..length])?;
        self.length += length as u64;
        Ok(length)
    }
}

/// The control file as it is kept: SHA-256 of all that follows, then hash and size of the data archive.
fn sidecar(data_sha256: &str, data_size: u64, control: &str) -> String {
    let rest = format!("Data-SHA256: {data_sha256}\nData-Size: {data_size}\n\n{control}");
    format!("{}\n{rest}", sha256(rest.as_bytes()))
}

/// Takes a kept control file apart; none when it was changed.
fn parse_sidecar(text: &str) -> Option<(&str, u64, &str)> {
    let (sum, rest) = text.split_once('\n')?;
    if sha256(rest.as_bytes()) != sum {
        return None;
    }
    let (head, control) = rest.split_once("\n\n")?;
    let (hash, size) = head.split_once('\n')?;
    Some((hash.strip_prefix("Data-SHA256: ")?, size.strip_prefix("Data-Size: ")?.parse().ok()?, control))
}

/// What loading a package from the cache came to.
pub(crate) enum Loaded {
    /// Verified.
    Good(Unpacked),
    /// Not there, or not finished.
    Missing,
    /// This file was changed.
    Damaged(PathBuf),
}

/// Loads and verifies the package with this SHA-256.
pub(crate) fn load(cache: &Cache, deb_sha256: &str) -> Result<Loaded, Error> {
    let path = cache.control(deb_sha256);
    let Some(bytes) = read_if_there(&path, MAX_SIDECAR)? else { return Ok(Loaded::Missing) };
    let text = String::from_utf8(bytes).unwrap_or_default();
    let Some((hash, size, control)) = parse_sidecar(&text) else { return Ok(Loaded::Damaged(path)) };
    let path = cache.data(deb_sha256);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Loaded::Missing),
        Err(error) => return Err(Error::io("read", &path)(error)),
    };
    if file.metadata().map_err(Error::io("read", &path))?.len() != size {
        return Ok(Loaded::Damaged(path));
    }
    let mut reader = BufReader::with_capacity(CHUNK, Hashed::new(file, std::io::sink()));
    // The archive was read without an error when it was unpacked: an error now is damage, as a wrong hash is.
    let Ok(entries) = read_entries(&mut reader) else { return Ok(Loaded::Damaged(path)) };
    let got = hex::encode(reader.into_inner().context.finish());
    if got != hash {
        return Ok(Loaded::Damaged(path));
    }
    Ok(Loaded::Good(Unpacked { control: control.to_owned(), entries, data: Arc::new(path) }))
}

/// Unpacks a verified package file into the cache. `package` is its name for errors.
pub(crate) fn unpack(
    cache: &Cache,
    deb_sha256: &str,
    mut file: File,
    package: &str,
) -> Result<Unpacked, Error> {
    let bad = |why| Error::Unpack { package: package.to_owned(), why };
    let deb = Deb::read(&mut file).map_err(bad)?;
    let control = deb.control(&mut file).map_err(bad)?;
    let mut copy = cache.temporary()?;
    let mut full = None;
    let reader = deb.data(&mut file).map_err(bad)?.take(MAX_DATA);
    let note_failure = NoteFailure { file: copy.as_file_mut(), failure: &mut full };
    let mut reader = BufReader::with_capacity(CHUNK, Hashed::new(reader, note_failure));
    let read = read_entries(&mut reader);
    let Hashed { context, length, .. } = reader.into_inner();
    let path = cache.data(deb_sha256);
    if let Some(error) = full {
        return Err(Error::io("write", &path)(error));
    }
    let entries = read.map_err(bad)?;
    if length == MAX_DATA {
        return Err(bad(format!("it has {MAX_DATA} bytes or more when unpacked")));
    }
    Cache::keep(copy, &path)?;
    let sum = hex::encode(context.finish());
    // Last, as it says that the archive is whole.
    cache.write(&cache.control(deb_sha256), sidecar(&sum, length, &control).as_bytes())?;
    Ok(Unpacked { control, entries, data: Arc::new(path) })
}

/// Tells a full disk from a damaged package: both come up while the package is read.
struct NoteFailure<'a> {
    file: &'a mut File,
    failure: &'a mut Option<std::io::Error>,
}

impl Write for NoteFailure<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.file.write(bytes).map_err(|error| {
            let shown = std::io::Error::new(error.kind(), error.to_string());
            *self.failure = Some(error);
            shown
        })
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_sidecar_is_noticed() {
        let text = sidecar("abc", 7, "Package: a\n\nmore");
        assert_eq!(parse_sidecar(&text), Some(("abc", 7, "Package: a\n\nmore")));
        for at in 0..text.len() {
            let mut changed = text.clone().into_bytes();
            changed[at] ^= 1;
            assert_eq!(parse_sidecar(&String::from_utf8(changed).unwrap()), None, "{at}");
            assert_eq!(parse_sidecar(&text[..at]), None, "{at}");
        }
    }
}
