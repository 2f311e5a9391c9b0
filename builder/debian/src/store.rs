//! Unpacked packages in the cache.
//!
//! A package is decompressed once, into an uncompressed `tar` beside a small file with its check value and the files of its
//! control archive (the sidecar). Later builds read the `tar` once, in one pass that verifies its hash and scans its
//! headers; contents of files are then ranges of it. Nothing is unpacked into single files, which would take far longer
//! and lose owners.

use crate::Error;
use crate::deb::{ControlFiles, Deb, is_control_name};
use ashlar_cache::{Cache, Room, read_if_there, sha256};
use ashlar_tar::{Entry, read_entries};
use ring::digest::{Context, SHA256};
use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Largest data archive, unpacked, in bytes: a bomb ends here.
const MAX_DATA: u64 = 16 << 30;
/// Largest sidecar, in bytes: all of a control archive and some lines.
const MAX_SIDECAR: u64 = crate::MAX_CONTROL + (1 << 20);
/// Bytes that are read and hashed at once; fits the second-level cache of processors.
const CHUNK: usize = 256 << 10;
/// Second line of a sidecar. Caches of older versions have another one there and are done again.
const FORMAT: &str = "Ashlar-Unpacked: 2";

/// A package in the cache.
#[derive(Debug, Clone)]
pub(crate) struct Unpacked {
    /// The files of the control archive.
    pub(crate) control: Arc<ControlFiles>,
    /// What the package brings.
    pub(crate) entries: Vec<Entry>,
    /// The `tar` that the entries' contents lie in.
    pub(crate) data: Arc<PathBuf>,
}

/// Where the uncompressed files of the package with this SHA-256 lie.
fn data_path(cache: &Cache, deb_sha256: &str) -> PathBuf {
    cache.path(Room::Unpacked, &format!("{deb_sha256}.tar"))
}

/// Where the sidecar of the package with this SHA-256 lies.
fn sidecar_path(cache: &Cache, deb_sha256: &str) -> PathBuf {
    cache.path(Room::Unpacked, &format!("{deb_sha256}.control"))
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

/// What a sidecar says.
#[derive(Debug, PartialEq, Eq)]
struct Sidecar {
    data_sha256: String,
    data_size: u64,
    control: ControlFiles,
}

impl Sidecar {
    /// SHA-256 of all that follows; the format; hash and size of the data archive; then each file of the control archive:
    /// a line with its name and length in bytes (`-` for one that is no text), its bytes, and a line feed.
    fn write(&self) -> String {
        let mut rest =
            format!("{FORMAT}\nData-SHA256: {}\nData-Size: {}\n", self.data_sha256, self.data_size);
        for (name, content) in &self.control {
            // Writing to a string cannot fail.
            let _ = match content {
                Some(content) => writeln!(rest, "{name} {}\n{content}", content.len()),
                None => writeln!(rest, "{name} -"),
            };
        }
        format!("{}\n{rest}", sha256(rest.as_bytes()))
    }

    /// None when it was changed.
    fn parse(text: &str) -> Option<Self> {
        let (sum, rest) = text.split_once('\n')?;
        if sha256(rest.as_bytes()) != sum {
            return None;
        }
        let mut rest = rest.strip_prefix(FORMAT)?.strip_prefix('\n')?;
        let mut line = || {
            let (line, after) = rest.split_once('\n')?;
            rest = after;
            Some(line)
        };
        let data_sha256 = line()?.strip_prefix("Data-SHA256: ")?.to_owned();
        let data_size = line()?.strip_prefix("Data-Size: ")?.parse().ok()?;
        let mut control = ControlFiles::new();
        while !rest.is_empty() {
            let (line, after) = rest.split_once('\n')?;
            let (name, length) = line.split_once(' ')?;
            if !is_control_name(name) {
                return None;
            }
            rest = after;
            let content = match length {
                "-" => None,
                length => {
                    let content = rest.get(..length.parse().ok()?)?;
                    rest = rest.get(content.len()..)?.strip_prefix('\n')?;
                    Some(content.to_owned())
                }
            };
            control.insert(name.to_owned(), content);
        }
        Some(Self { data_sha256, data_size, control })
    }
}

/// Whether this is a whole sidecar of the first version, which had the control file only.
fn is_outdated(text: &str) -> bool {
    text.split_once('\n')
        .is_some_and(|(sum, rest)| rest.starts_with("Data-SHA256: ") && sha256(rest.as_bytes()) == sum)
}

/// What loading a package from the cache came to.
pub(crate) enum Loaded {
    /// Verified.
    Good(Unpacked),
    /// Not there, not finished, or of an older version.
    Missing,
    /// This file was changed.
    Damaged(PathBuf),
}

/// Loads and verifies the package with this SHA-256, and records its use.
pub(crate) fn load(cache: &Cache, deb_sha256: &str) -> Result<Loaded, Error> {
    let path = sidecar_path(cache, deb_sha256);
    let Some(bytes) = read_if_there(&path, MAX_SIDECAR)? else { return Ok(Loaded::Missing) };
    let text = String::from_utf8(bytes).unwrap_or_default();
    let Some(sidecar) = Sidecar::parse(&text) else {
        return Ok(if is_outdated(&text) { Loaded::Missing } else { Loaded::Damaged(path) });
    };
    cache.touch(&path);
    let path = data_path(cache, deb_sha256);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Loaded::Missing),
        Err(error) => return Err(Error::io("read", &path)(error)),
    };
    if file.metadata().map_err(Error::io("read", &path))?.len() != sidecar.data_size {
        return Ok(Loaded::Damaged(path));
    }
    let mut reader = BufReader::with_capacity(CHUNK, Hashed::new(file, std::io::sink()));
    // The archive was read without an error when it was unpacked: an error now is damage, as a wrong hash is.
    let Ok(entries) = read_entries(&mut reader) else { return Ok(Loaded::Damaged(path)) };
    let got = hex::encode(reader.into_inner().context.finish());
    if got != sidecar.data_sha256 {
        return Ok(Loaded::Damaged(path));
    }
    Ok(Loaded::Good(Unpacked { control: Arc::new(sidecar.control), entries, data: Arc::new(path) }))
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
    let control = deb.control_files(&mut file).map_err(bad)?;
    if !matches!(control.get("control"), Some(Some(_))) {
        return Err(bad("it has no control file, or one that is not UTF-8".into()));
    }
    let mut copy = cache.temporary()?;
    let mut full = None;
    let reader = deb.data(&mut file).map_err(bad)?.take(MAX_DATA);
    let note_failure = NoteFailure { file: copy.as_file_mut(), failure: &mut full };
    let mut reader = BufReader::with_capacity(CHUNK, Hashed::new(reader, note_failure));
    let read = read_entries(&mut reader);
    let Hashed { context, length, .. } = reader.into_inner();
    let path = data_path(cache, deb_sha256);
    if let Some(error) = full {
        return Err(Error::io("write", &path)(error));
    }
    let entries = read.map_err(bad)?;
    if length == MAX_DATA {
        return Err(bad(format!("it has {MAX_DATA} bytes or more when unpacked")));
    }
    cache.keep(copy, &path)?;
    let data_sha256 = hex::encode(context.finish());
    let sidecar = Sidecar { data_sha256, data_size: length, control };
    // Last, as it says that the archive is whole.
    write_sidecar(cache, &sidecar_path(cache, deb_sha256), &sidecar)?;
    Ok(Unpacked { control: Arc::new(sidecar.control), entries, data: Arc::new(path) })
}

fn write_sidecar(cache: &Cache, path: &Path, sidecar: &Sidecar) -> Result<(), Error> {
    Ok(cache.write(path, sidecar.write().as_bytes())?)
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
        let file = |name: &str, content: Option<&str>| (name.to_owned(), content.map(str::to_owned));
        let sidecar = Sidecar {
            data_sha256: "abc".into(),
            data_size: 7,
            control: [
                file("control", Some("Package: a\n\nmore")),
                file("preinst", None),
                file("postinst", Some("#!/bin/sh\n\u{fc}\n")),
                file("conffiles", Some("")),
            ]
            .into(),
        };
        let text = sidecar.write();
        assert_eq!(Sidecar::parse(&text), Some(sidecar));
        for at in (0..text.len()).filter(|at| text.is_char_boundary(*at)) {
            let mut changed = text.clone().into_bytes();
            changed[at] ^= 1;
            let changed = String::from_utf8(changed).unwrap_or_default();
            assert_eq!(Sidecar::parse(&changed), None, "{at}");
            assert_eq!(Sidecar::parse(&text[..at]), None, "{at}");
        }
        // Well hashed, and still not a sidecar.
        for rest in [
            "",
            "x",
            "Ashlar-Unpacked: 3\nData-SHA256: a\nData-Size: 1\n",
            "Ashlar-Unpacked: 2\nData-SHA256: a\nData-Size: -1\n",
            "Ashlar-Unpacked: 2\nData-SHA256: a\nData-Size: 1\ncontrol 9\nshort\n",
            "Ashlar-Unpacked: 2\nData-SHA256: a\nData-Size: 1\ncontrol 18446744073709551615\nshort\n",
            "Ashlar-Unpacked: 2\nData-SHA256: a\nData-Size: 1\n../x 1\nx\n",
            "Ashlar-Unpacked: 2\nData-SHA256: a\nData-Size: 1\na 1\n\u{fc}\n",
        ] {
            assert_eq!(Sidecar::parse(&format!("{}\n{rest}", sha256(rest.as_bytes()))), None, "{rest}");
        }
    }

    #[test]
    fn a_sidecar_of_the_first_version_is_done_again_and_not_misread() {
        let rest = "Data-SHA256: abc\nData-Size: 7\n\nPackage: a\n";
        let old = format!("{}\n{rest}", sha256(rest.as_bytes()));
        assert!(is_outdated(&old) && Sidecar::parse(&old).is_none());
        assert!(!is_outdated(&old.replace("Package", "Qackage")));
    }
}
