//! The entries of a `tar` archive, without their contents: headers are read, contents passed over, and where they
//! lie is remembered. ustar, the GNU extensions for long names and large numbers, and pax (POSIX.1-2008, pax). Read by the packages' reader and by that of archives and image layers.
#![forbid(unsafe_code)]

use ashlar_tree::Metadata;
use std::io::BufRead;

/// Most entries of one archive. The largest packages have some 100 000.
const MAX_ENTRIES: usize = 2_000_000;
/// Largest long name or set of pax records, in bytes.
const MAX_EXTENSION: u64 = 1 << 20;
const BLOCK: usize = 512;

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntryKind {
    /// A directory.
    Directory,
    /// A regular file: its content lies in the archive.
    File {
        /// First byte of the content, from the start of the archive.
        offset: u64,
        /// Length in bytes.
        len: u64,
    },
    /// A symbolic link with its target as stored.
    Symlink(Vec<u8>),
    /// A hard link to an earlier entry, by its path (see [`Entry::path`]).
    HardLink(Vec<u8>),
    /// A character device.
    CharDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
}

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Relative to the root, without `.` and repeated or trailing slashes; empty for the root itself.
    pub path: Vec<u8>,
    /// Owner, mode, time, extended attributes.
    pub metadata: Metadata,
    /// File type.
    pub kind: EntryKind,
}

/// What extension headers say about the entry that follows them.
#[derive(Default)]
struct Extension {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    mtime: Option<i64>,
    uid: Option<u64>,
    gid: Option<u64>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Reads with the position kept.
struct Source<'a, R> {
    reader: &'a mut R,
    position: u64,
}

impl<R: BufRead> Source<'_, R> {
    fn block(&mut self) -> Result<[u8; BLOCK], String> {
        let mut block = [0; BLOCK];
        self.reader.read_exact(&mut block).map_err(|error| failed(self.position, &error))?;
        self.position += BLOCK as u64;
        Ok(block)
    }

    /// Reads `length` bytes and what pads them to whole blocks.
    fn bytes(&mut self, length: u64) -> Result<Vec<u8>, String> {
        if length > MAX_EXTENSION {
            return Err(format!("the extension header before byte {} is too large", self.position));
        }
        let mut bytes = vec![0; (length as usize).next_multiple_of(BLOCK)];
        self.reader.read_exact(&mut bytes).map_err(|error| failed(self.position, &error))?;
        self.position += bytes.len() as u64;
        bytes.truncate(length as usize);
        Ok(bytes)
    }

    /// Passes over `length` bytes and what pads them to whole blocks.
    fn skip(&mut self, length: u64) -> Result<(), String> {
        let padded = length.checked_next_multiple_of(BLOCK as u64).ok_or("an entry is too large")?;
        let end = self.position.checked_add(padded).ok_or("an entry is too large")?;
        while self.position < end {
            let available =
                self.reader.fill_buf().map_err(|error| failed(self.position, &error))?.len() as u64;
            if available == 0 {
                return Err(format!("the archive ends at byte {}, in an entry", self.position));
            }
            let step = available.min(end - self.position);
            self.reader.consume(step as usize);
            self.position += step;
        }
        Ok(())
    }
}

fn failed(position: u64, error: &std::io::Error) -> String {
    if error.kind() == std::io::ErrorKind::UnexpectedEof {
        format!("the archive ends after byte {position}, without an end mark")
    } else {
        format!("the archive cannot be read after byte {position}: {error}")
    }
}

/// Reads all entries of an archive in order. The reader is read to its end.
///
/// # Errors
/// Says what is wrong: a damaged header, a path that leads out of the root, an entry of an unknown kind.
pub fn read_entries(reader: &mut impl BufRead) -> Result<Vec<Entry>, String> {
    let mut source = Source { reader, position: 0 };
    let mut entries = Vec::new();
    let mut extension = Extension::default();
    loop {
        let start = source.position;
        let block = source.block()?;
        if block.iter().all(|&byte| byte == 0) {
            break;
        }
        let header = tar::Header::from_byte_slice(&block);
        check_sum(&block, header).ok_or_else(|| format!("the header at byte {start} is damaged"))?;
        let damaged = |error: std::io::Error| format!("the header at byte {start} is damaged: {error}");
        let size = header.entry_size().map_err(damaged)?;
        match header.entry_type() {
            tar::EntryType::GNULongName => extension.path = Some(string(source.bytes(size)?)),
            tar::EntryType::GNULongLink => extension.link = Some(string(source.bytes(size)?)),
            tar::EntryType::XHeader => extension.add(&source.bytes(size)?)?,
            tar::EntryType::XGlobalHeader => {
                // Comments are all that is common there; what would change entries is not known here.
                let records = source.bytes(size)?;
                if pax_records(&records)?.iter().any(|(key, _)| *key != b"comment") {
                    return Err(format!("the global header at byte {start} is of a kind that is not known"));
                }
            }
            _ => {
                let extension = std::mem::take(&mut extension);
                let content = extension.size.unwrap_or(size);
                let entry = entry(header, extension, source.position, content).map_err(|why| match why {
                    Bad::Header(error) => damaged(error),
                    Bad::Entry(why) => why,
                })?;
                source.skip(content)?;
                entries.push(entry);
                if entries.len() > MAX_ENTRIES {
                    return Err(format!("it has more than {MAX_ENTRIES} entries"));
                }
            }
        }
    }
    // What follows the end mark is padding, and part of what is hashed.
    loop {
        let available = source.reader.fill_buf().map_err(|error| failed(source.position, &error))?.len();
        if available == 0 {
            return Ok(entries);
        }
        source.reader.consume(available);
    }
}

/// The sum over the header with blanks in place of the sum itself.
fn check_sum(block: &[u8; BLOCK], header: &tar::Header) -> Option<()> {
    let sum: u32 = block
        .iter()
        .enumerate()
        .map(|(at, &byte)| if (148..156).contains(&at) { 32 } else { u32::from(byte) })
        .sum();
    (header.cksum().ok()? == sum).then_some(())
}

/// Up to the first NUL.
fn string(mut bytes: Vec<u8>) -> Vec<u8> {
    if let Some(end) = bytes.iter().position(|&byte| byte == 0) {
        bytes.truncate(end);
    }
    bytes
}

/// Key and value of a pax record.
type Record<'a> = (&'a [u8], &'a [u8]);

/// `length key=value` and a line feed, the length in decimal and counting itself.
fn pax_records(mut bytes: &[u8]) -> Result<Vec<Record<'_>>, String> {
    let bad = || "a pax header is damaged".to_owned();
    let mut records = Vec::new();
    while !bytes.is_empty() {
        let space = bytes.iter().position(|&byte| byte == b' ').ok_or_else(bad)?;
        let length: usize =
            std::str::from_utf8(&bytes[..space]).ok().and_then(|text| text.parse().ok()).ok_or_else(bad)?;
        let (record, rest) = bytes.split_at_checked(length).ok_or_else(bad)?;
        let record = record.get(space + 1..).and_then(|record| record.strip_suffix(b"\n")).ok_or_else(bad)?;
        let equals = record.iter().position(|&byte| byte == b'=').ok_or_else(bad)?;
        records.push((&record[..equals], &record[equals + 1..]));
        bytes = rest;
    }
    Ok(records)
}

impl Extension {
    /// Takes pax records up. Keys that change nothing here (names of owners, other times) are passed over.
    fn add(&mut self, records: &[u8]) -> Result<(), String> {
        for (key, value) in pax_records(records)? {
            let number = || {
                std::str::from_utf8(value)
                    .ok()
                    .and_then(|text| text.parse::<u64>().ok())
                    .ok_or_else(|| "a number in a pax header is damaged".to_owned())
            };
            match key {
                b"path" => self.path = Some(value.to_vec()),
                b"linkpath" => self.link = Some(value.to_vec()),
                b"size" => self.size = Some(number()?),
                b"uid" => self.uid = Some(number()?),
                b"gid" => self.gid = Some(number()?),
                b"mtime" => {
                    let text = std::str::from_utf8(value).ok();
                    let whole = text.map(|text| text.split_once('.').map_or(text, |(whole, _)| whole));
                    let seconds = whole.and_then(|whole| whole.parse().ok());
                    self.mtime = Some(seconds.ok_or("a time in a pax header is damaged")?);
                }
                _ => {
                    if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                        self.xattrs.push((name.to_vec(), value.to_vec()));
                    } else if key.starts_with(b"GNU.sparse.") {
                        return Err("it has sparse files, which are not supported".into());
                    }
                }
            }
        }
        Ok(())
    }
}

enum Bad {
    Header(std::io::Error),
    Entry(String),
}

impl From<std::io::Error> for Bad {
    fn from(error: std::io::Error) -> Self {
        Self::Header(error)
    }
}

fn entry(header: &tar::Header, extension: Extension, offset: u64, size: u64) -> Result<Entry, Bad> {
    let name = extension.path.unwrap_or_else(|| header.path_bytes().into_owned());
    let shown = String::from_utf8_lossy(&name).into_owned();
    let bad = |why: &str| Bad::Entry(format!("`{shown}`: {why}"));
    let path = clean(&name).map_err(bad)?;
    let number = |value: u64| u32::try_from(value).map_err(|_| bad("its owner is out of range"));
    let mtime = match extension.mtime {
        Some(mtime) => mtime,
        None => i64::try_from(header.mtime()?).map_err(|_| bad("its time is out of range"))?,
    };
    let metadata = Metadata {
        mode: header.mode()? & 0o7777,
        uid: number(extension.uid.map_or_else(|| header.uid(), Ok)?)?,
        gid: number(extension.gid.map_or_else(|| header.gid(), Ok)?)?,
        mtime,
        xattrs: extension.xattrs.into_iter().collect(),
    };
    let link = || extension.link.or_else(|| header.link_name_bytes().map(std::borrow::Cow::into_owned));
    let device = || -> Result<(u32, u32), Bad> {
        Ok((header.device_major()?.unwrap_or(0), header.device_minor()?.unwrap_or(0)))
    };
    let kind = match header.entry_type() {
        tar::EntryType::Regular | tar::EntryType::Continuous => {
            if path.is_empty() || name.ends_with(b"/") {
                return Err(bad("a file cannot have this name"));
            }
            EntryKind::File { offset, len: size }
        }
        tar::EntryType::Directory => EntryKind::Directory,
        tar::EntryType::Symlink => {
            let target = link().filter(|target| !target.is_empty() && !target.contains(&0));
            EntryKind::Symlink(target.ok_or_else(|| bad("a symbolic link without a usable target"))?)
        }
        tar::EntryType::Link => {
            let target = link().ok_or_else(|| bad("a hard link without a target"))?;
            EntryKind::HardLink(clean(&target).map_err(bad)?)
        }
        tar::EntryType::Char => device().map(|(major, minor)| EntryKind::CharDevice { major, minor })?,
        tar::EntryType::Block => device().map(|(major, minor)| EntryKind::BlockDevice { major, minor })?,
        tar::EntryType::Fifo => EntryKind::Fifo,
        tar::EntryType::GNUSparse => return Err(bad("sparse files are not supported")),
        other => {
            let code = char::from(other.as_byte());
            return Err(bad(&format!("an entry of kind `{}` is not known", code.escape_default())));
        }
    };
    if size != 0 && !matches!(kind, EntryKind::File { .. }) {
        return Err(bad("only files can have content"));
    }
    Ok(Entry { path, metadata, kind })
}

/// A path relative to the root, see [`Entry::path`].
fn clean(path: &[u8]) -> Result<Vec<u8>, &'static str> {
    if path.starts_with(b"/") {
        return Err("the path is absolute");
    }
    if path.is_empty() || path.contains(&0) {
        return Err("the path is empty or has a NUL byte");
    }
    let mut clean = Vec::with_capacity(path.len());
    for part in path.split(|&byte| byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => return Err("the path leads out of the root"),
            _ => {
                if !clean.is_empty() {
                    clean.push(b'/');
                }
                clean.extend_from_slice(part);
            }
        }
    }
    Ok(clean)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    fn header(kind: u8, size: u64) -> tar::Header {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::new(kind));
        header.set_size(size);
        header.set_mode(0o644);
        header.set_uid(1);
        header.set_gid(2);
        header.set_mtime(3);
        header
    }

    /// An archive of one entry with this raw name; the `tar` crate would refuse some of them.
    fn raw(kind: u8, name: &[u8], link: &[u8], content: &[u8]) -> Vec<u8> {
        let mut header = header(kind, content.len() as u64);
        header.as_old_mut().name[..name.len()].copy_from_slice(name);
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link);
        header.set_cksum();
        let mut out = header.as_bytes().to_vec();
        out.extend_from_slice(content);
        out.resize(out.len().next_multiple_of(BLOCK), 0);
        out
    }

    fn end(mut archive: Vec<u8>) -> Vec<u8> {
        archive.resize(archive.len() + 2 * BLOCK, 0);
        archive
    }

    fn read(archive: &[u8]) -> Result<Vec<Entry>, String> {
        read_entries(&mut Cursor::new(archive))
    }

    fn pax(records: &[(&str, &[u8])]) -> Vec<u8> {
        let mut out = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let length =
                (rest + 1..rest + 9).find(|length| length.to_string().len() + rest == *length).unwrap();
            out.extend_from_slice(format!("{length} {key}=").as_bytes());
            out.extend_from_slice(value);
            out.push(b'\n');
        }
        out
    }

    fn usual() -> Vec<u8> {
        let long = vec![b'n'; 300];
        let records = pax(&[
            ("path", b"./with/pax"),
            ("size", b"5"),
            ("mtime", b"1234.5"),
            ("uid", b"70000"),
            ("SCHILY.xattr.security.capability", b"a\n=\0b"),
            ("comment", b"x"),
        ]);
        let mut with_pax_size = raw(b'0', b"short", b"", b"hello");
        let mut header = header(b'0', 0);
        header.as_old_mut().name[..5].copy_from_slice(b"short");
        header.set_cksum();
        with_pax_size[..BLOCK].copy_from_slice(header.as_bytes());
        end([
            raw(b'5', b"./", b"", b""),
            raw(b'0', b"./a", b"", b"content of a"),
            raw(b'L', b"././@LongLink", b"", &[&long[..], b"\0"].concat()),
            raw(b'K', b"././@LongLink", b"", b"a/long/target\0"),
            raw(b'2', b"nn", b"a", b""),
            raw(b'x', b"pax", b"", &records),
            with_pax_size,
            raw(b'1', b"./hard", b"./a", b""),
            raw(b'6', b"pipe", b"", b""),
        ]
        .concat())
    }

    #[test]
    fn all_kinds() {
        let archive = usual();
        let entries = read(&archive).unwrap();
        assert_eq!(entries.len(), 6);
        assert_eq!((&entries[0].path[..], &entries[0].kind), (&b""[..], &EntryKind::Directory));
        let EntryKind::File { offset, len } = entries[1].kind else { panic!("{:?}", entries[1]) };
        assert_eq!(&archive[offset as usize..][..len as usize], b"content of a");
        assert_eq!((entries[1].metadata.uid, entries[1].metadata.gid, entries[1].metadata.mtime), (1, 2, 3));
        assert_eq!(entries[2].path.len(), 300);
        assert_eq!(entries[2].kind, EntryKind::Symlink(b"a/long/target".to_vec()));
        assert_eq!(entries[3].path, b"with/pax");
        let EntryKind::File { offset, len } = entries[3].kind else { panic!("{:?}", entries[3]) };
        assert_eq!(&archive[offset as usize..][..len as usize], b"hello");
        assert_eq!((entries[3].metadata.uid, entries[3].metadata.mtime), (70000, 1234));
        assert_eq!(entries[3].metadata.xattrs[&b"security.capability"[..]], b"a\n=\0b");
        assert_eq!(entries[4].kind, EntryKind::HardLink(b"a".to_vec()));
        assert_eq!(entries[5].kind, EntryKind::Fifo);
    }

    #[test]
    fn what_is_refused_is_named() {
        let error = |archive: Vec<u8>| read(&end(archive)).unwrap_err();
        assert_eq!(error(raw(b'0', b"a/../../b", b"", b"")), "`a/../../b`: the path leads out of the root");
        assert_eq!(error(raw(b'0', b"/etc/passwd", b"", b"")), "`/etc/passwd`: the path is absolute");
        assert_eq!(error(raw(b'1', b"a", b"../b", b"")), "`a`: the path leads out of the root");
        assert_eq!(error(raw(b'S', b"a", b"", b"")), "`a`: sparse files are not supported");
        assert_eq!(error(raw(b'V', b"a", b"", b"")), "`a`: an entry of kind `V` is not known");
        assert_eq!(error(raw(b'5', b"a", b"", b"x")), "`a`: only files can have content");
        assert_eq!(error(raw(b'0', b"a/", b"", b"")), "`a/`: a file cannot have this name");
        let sparse = raw(b'x', b"p", b"", &pax(&[("GNU.sparse.major", b"1")]));
        assert!(error(sparse).contains("sparse"));
        assert!(error(raw(b'x', b"p", b"", b"99 a=b\n")).contains("pax header is damaged"));
        let mut huge = header(b'L', 1 << 40);
        huge.set_cksum();
        assert!(error(huge.as_bytes().to_vec()).contains("too large"));
        let mut flipped = usual();
        flipped[700] ^= 1;
        assert!(read(&flipped).unwrap_err().contains("the header at byte 512 is damaged"));
    }

    #[test]
    fn damage_never_panics() {
        let good = usual();
        for cut in (0..good.len() - 2 * BLOCK).step_by(7) {
            assert!(read(&good[..cut]).is_err(), "{cut}");
        }
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] = bad[at].wrapping_add(1);
            let _ = read(&bad);
        }
    }
}
