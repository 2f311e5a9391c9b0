//! A reader of EROFS images, ours and those of mkfs.erofs: Linux, `fs/erofs/erofs_fs.h` (layout on disk),
//! `fs/erofs/zmap.c` (compressed indexes), `Documentation/filesystems/erofs.rst`.
//!
//! It reads inodes of both sizes, flat, inline, chunk-based and compressed data (LZ4 and zstd; full and compact
//! indexes; big physical clusters; inline tails, fragments and deduplicated extents), inline and shared extended
//! attributes and their long prefixes. MicroLZMA, DEFLATE, images of several devices and the 48-bit layout are refused
//! by name.
//!
//! An image is untrusted: every place and length is checked, what would take memory or time without bound is refused
//! ([`ReadError::Limit`]), and nothing panics.

mod data;
mod directory;
mod index;
mod inode;
mod owners;
mod xattr;

pub use data::FileReader;
pub use owners::{Owner, Owners, Part};

use inode::Inode;
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Bytes that can be read at any place, by several readers at once.
pub trait ReadAt {
    /// Fills `buffer` from the byte `offset` on.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
}

impl ReadAt for File {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        FileExt::read_exact_at(self, buffer, offset)
    }
}

impl ReadAt for [u8] {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let part = start.checked_add(buffer.len()).and_then(|end| self.get(start..end));
        buffer.copy_from_slice(part.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

impl ReadAt for Vec<u8> {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.as_slice().read_exact_at(buffer, offset)
    }
}

impl<T: ReadAt + ?Sized> ReadAt for &T {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        (**self).read_exact_at(buffer, offset)
    }
}

/// Why an image could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The image file cannot be read, or ends before this place.
    #[error("cannot read the erofs image at byte {offset}: {source}")]
    Io {
        /// Where, in bytes from the start of the image.
        offset: u64,
        /// Why.
        source: io::Error,
    },
    /// There is no EROFS superblock.
    #[error("this is no erofs image: there is no superblock at byte 1024")]
    NotErofs,
    /// The superblock's checksum is wrong.
    #[error("the erofs superblock is damaged: its checksum is wrong; make or fetch the image again")]
    Checksum,
    /// The image uses something that this reader does not know.
    #[error("the erofs image uses {0}, which this program does not read")]
    Unsupported(String),
    /// An inode, or what belongs to it, contradicts the format.
    #[error("the erofs image is damaged at inode {nid}: {what}; make or fetch the image again")]
    Damaged {
        /// Number of the inode.
        nid: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// More than this reader is ready to hold in memory.
    #[error("the erofs image has too many or too long {0} to be read")]
    Limit(&'static str),
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntryKind {
    /// A directory.
    Directory,
    /// A regular file.
    File,
    /// A symbolic link and its target.
    Symlink(Vec<u8>),
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
    /// A socket.
    Socket,
}

/// One name in the file system. Names of the same file have the same [`nid`](Self::nid).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Absolute path; `/` for the root.
    pub path: Vec<u8>,
    /// Number of the inode.
    pub nid: u64,
    /// Type, and what belongs to it.
    pub kind: EntryKind,
    /// Permission bits including setuid, setgid and sticky (`0o7777`).
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time, seconds since 1970.
    pub mtime: i64,
    /// The part of the modification time below a second, in nanoseconds.
    pub mtime_nanoseconds: u32,
    /// Length of the content in bytes.
    pub size: u64,
    /// Number of links as stored.
    pub nlink: u32,
    /// Extended attributes by full name.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// How much memory one listing may take.
#[derive(Debug, Clone, Copy)]
struct Limits {
    /// Names in the file system.
    entries: usize,
    /// Bytes of paths, targets and attributes together.
    bytes: usize,
}

const LIMITS: Limits = Limits { entries: 1 << 24, bytes: 1 << 31 };

/// `EROFS_FEATURE_INCOMPAT_*`.
mod feature {
    /// Compressed data ends at the end of its physical cluster.
    pub const ZERO_PADDING: u32 = 1;
    /// The packed inode holds the tails of files.
    pub const FRAGMENTS: u32 = 0x20;
    /// All that this reader knows.
    pub const KNOWN: u32 = 0x7f;
}

/// Reads a little-endian number; 0 behind the end, which callers exclude by the length of what they read.
fn number<const N: usize>(bytes: &[u8], at: usize) -> u64 {
    let mut value = [0; 8];
    if let (Some(from), Some(to)) = (bytes.get(at..at + N), value.get_mut(..N)) {
        to.copy_from_slice(from);
    }
    u64::from_le_bytes(value)
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    number::<2>(bytes, at) as u16
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    number::<4>(bytes, at) as u32
}

/// An opened image.
#[derive(Debug)]
pub struct Reader<S> {
    source: S,
    size: u64,
    block_bits: u32,
    features: u32,
    root: u64,
    packed: u64,
    meta: u64,
    shared_xattrs: u64,
    prefixes: (u8, u64),
    uuid: [u8; 16],
    volume_name: Vec<u8>,
    build_time: (i64, u32),
}

impl<S: ReadAt> Reader<S> {
    /// Reads and checks the superblock of an image of `size` bytes.
    pub fn open(source: S, size: u64) -> Result<Self, ReadError> {
        let mut head = [0; 128];
        if size < 1024 + 128 {
            return Err(ReadError::NotErofs);
        }
        source.read_exact_at(&mut head, 1024).map_err(|source| ReadError::Io { offset: 1024, source })?;
        if u32_at(&head, 0) != 0xe0f5_e1e2 {
            return Err(ReadError::NotErofs);
        }
        let block_bits = u32::from(head[12]);
        if !(9..=16).contains(&block_bits) {
            return Err(ReadError::Unsupported(format!("blocks of 2^{block_bits} bytes")));
        }
        let features = u32_at(&head, 80);
        if features & !feature::KNOWN != 0 {
            return Err(ReadError::Unsupported(format!("the features {:#x}", features & !feature::KNOWN)));
        }
        if head[90] != 0 {
            return Err(ReadError::Unsupported("directory blocks larger than blocks".into()));
        }
        if u16_at(&head, 86) != 0 {
            return Err(ReadError::Unsupported("more than one device".into()));
        }
        let name: Vec<u8> = head[64..80].iter().copied().take_while(|&byte| byte != 0).collect();
        let mut uuid = [0; 16];
        uuid.copy_from_slice(&head[48..64]);
        let reader = Self {
            size,
            block_bits,
            features,
            root: u64::from(u16_at(&head, 14)),
            packed: if features & feature::FRAGMENTS == 0 { 0 } else { number::<8>(&head, 96) },
            meta: u64::from(u32_at(&head, 40)) << block_bits,
            shared_xattrs: u64::from(u32_at(&head, 44)) << block_bits,
            prefixes: (head[91], u64::from(u32_at(&head, 92)) * 4),
            uuid,
            volume_name: name,
            build_time: (number::<8>(&head, 24).cast_signed(), u32_at(&head, 32)),
            source,
        };
        if u32_at(&head, 8) & 1 != 0 {
            // The sum covers the rest of the superblock's block with the sum's own field as zeros.
            let block = 1 << block_bits;
            let mut covered = reader.bytes(1024, if block > 1024 { block - 1024 } else { block })?;
            let stored = u32_at(&covered, 4);
            covered[4..8].fill(0);
            if !crc32c::crc32c(&covered) != stored {
                return Err(ReadError::Checksum);
            }
        }
        Ok(reader)
    }

    /// Size of a block in bytes.
    pub fn block_size(&self) -> u64 {
        1 << self.block_bits
    }

    /// UUID in the order of its text.
    pub fn uuid(&self) -> [u8; 16] {
        self.uuid
    }

    /// Volume name, as stored.
    pub fn volume_name(&self) -> &[u8] {
        &self.volume_name
    }

    /// `length` bytes from `offset` of the image. Lengths are bounded by the callers.
    fn bytes(&self, offset: u64, length: usize) -> Result<Vec<u8>, ReadError> {
        let mut bytes = vec![0; length];
        self.fill(&mut bytes, offset)?;
        Ok(bytes)
    }

    fn fill(&self, buffer: &mut [u8], offset: u64) -> Result<(), ReadError> {
        let inside = offset.checked_add(buffer.len() as u64).is_some_and(|end| end <= self.size);
        let read = if inside {
            self.source.read_exact_at(buffer, offset)
        } else {
            Err(io::ErrorKind::UnexpectedEof.into())
        };
        read.map_err(|source| ReadError::Io { offset, source })
    }

    /// All names in path order: a directory before what is in it, names by their bytes.
    pub fn entries(&self) -> Result<Vec<Entry>, ReadError> {
        self.entries_within(LIMITS)
    }

    /// The content of a regular file, or of a directory or symbolic link as it is stored.
    pub fn open_entry(&self, entry: &Entry) -> Result<FileReader<'_, S>, ReadError> {
        FileReader::new(self, self.inode(entry.nid)?)
    }

    /// Reads from the content of `entry` at `offset`; 0 at its end. For more than one piece of a file,
    /// [`open_entry`](Self::open_entry) saves decompressing the same cluster again.
    pub fn read(&self, entry: &Entry, offset: u64, buffer: &mut [u8]) -> Result<usize, ReadError> {
        self.open_entry(entry)?.read_at(offset, buffer)
    }

    fn damaged<T>(inode: &Inode, what: &'static str) -> Result<T, ReadError> {
        Err(ReadError::Damaged { nid: inode.nid, what })
    }
}

/// Opens `bytes` as an image and looks at everything in it: all entries and attributes, the first megabyte and the end
/// of files up to 16 MiB in all, and who owns each block. For fuzzing: time and memory are bounded whatever the bytes
/// are; the result only says how far it came.
pub fn walk(bytes: &[u8]) -> Result<usize, ReadError> {
    let reader = Reader::open(bytes, bytes.len() as u64)?;
    let entries = reader.entries_within(Limits { entries: 1 << 16, bytes: 1 << 24 })?;
    let mut left = 16_usize << 20;
    let mut buffer = vec![0; 1 << 16];
    for entry in entries.iter().filter(|entry| entry.kind == EntryKind::File) {
        // A byte may cost as much as a cluster.
        let Some(after) = left.checked_sub(1 << 18) else { break };
        left = after;
        let Ok(mut file) = reader.open_entry(entry) else { continue };
        let mut offset = 0;
        while let Ok(length @ 1..) = file.read_at(offset, &mut buffer[..left.min(1 << 16)]) {
            left -= length;
            offset += length as u64;
            if offset >= 1 << 20 {
                break;
            }
        }
        let _ = file.read_at(entry.size.saturating_sub(1), &mut buffer[..1]);
    }
    let owners = reader.owners_of(&entries, 1 << 18)?;
    for offset in (0..bytes.len() as u64).step_by(512) {
        let _ = owners.locate(offset);
    }
    Ok(entries.len())
}
