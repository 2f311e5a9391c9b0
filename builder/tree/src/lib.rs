//! A file tree as metadata: what packages unpack into and what file systems are written from.
//!
//! Nothing here touches the host's file system: owners, modes, device numbers and extended attributes are
//! values, so that an ordinary user can compose a tree owned by root. File contents are referred to by a
//! range of a file on the host (a member of an unpacked package in the cache, say) and are read once, when
//! a file system is written.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

mod edit;

pub use edit::TreeError;

/// Where the bytes of a regular file come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// Bytes in memory: what the builder generates.
    Inline(Arc<[u8]>),
    /// `len` bytes at `offset` of a file on the host.
    Range {
        /// The file on the host; shared between all members of one package.
        path: Arc<PathBuf>,
        /// First byte of the content, in bytes from the start of the file.
        offset: u64,
        /// Length of the content in bytes.
        len: u64,
    },
}

impl Content {
    /// Length in bytes.
    pub fn len(&self) -> u64 {
        match self {
            Self::Inline(bytes) => bytes.len() as u64,
            Self::Range { len, .. } => *len,
        }
    }

    /// Whether the content has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Reads the whole content into memory.
    ///
    /// # Errors
    /// Fails when the file cannot be opened or is shorter than the range.
    pub fn read(&self) -> std::io::Result<Vec<u8>> {
        use std::os::unix::fs::FileExt;
        match self {
            Self::Inline(bytes) => Ok(bytes.to_vec()),
            Self::Range { path, offset, len } => {
                let len = usize::try_from(*len).map_err(std::io::Error::other)?;
                let mut bytes = vec![0; len];
                std::fs::File::open(path.as_path())?.read_exact_at(&mut bytes, *offset)?;
                Ok(bytes)
            }
        }
    }
}

/// What a node is, beside its metadata.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A directory; the names are single components, never empty, `.` or `..`.
    Directory(BTreeMap<Vec<u8>, Node>),
    /// A regular file.
    File(Content),
    /// A symbolic link and its target, as stored.
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
    /// Another name of the file at this absolute path in the tree (`/usr/bin/perl`). The path names a
    /// node that is not itself a hard link.
    HardLink(Vec<u8>),
}

/// Permission bits (the low 12 bits of `st_mode`), owner, time and extended attributes of a node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Metadata {
    /// Permission bits including setuid, setgid and sticky (`0o7777`).
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time, seconds since 1970.
    pub mtime: i64,
    /// Extended attributes by full name (`security.capability`), values as the kernel stores them.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Metadata {
    /// Root-owned, with this mode and time and no extended attributes.
    pub fn root(mode: u32, mtime: i64) -> Self {
        Self { mode, mtime, ..Self::default() }
    }
}

/// One node of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Owner, mode, time, extended attributes.
    pub metadata: Metadata,
    /// File type and content.
    pub kind: Kind,
}

impl Node {
    /// An empty directory.
    pub fn directory(metadata: Metadata) -> Self {
        Self { metadata, kind: Kind::Directory(BTreeMap::new()) }
    }

    /// A regular file with these bytes.
    pub fn file(metadata: Metadata, bytes: impl Into<Arc<[u8]>>) -> Self {
        Self { metadata, kind: Kind::File(Content::Inline(bytes.into())) }
    }

    /// A symbolic link.
    pub fn symlink(metadata: Metadata, target: impl Into<Vec<u8>>) -> Self {
        Self { metadata, kind: Kind::Symlink(target.into()) }
    }

    /// The entries, if this is a directory.
    pub fn entries(&self) -> Option<&BTreeMap<Vec<u8>, Node>> {
        match &self.kind {
            Kind::Directory(entries) => Some(entries),
            _ => None,
        }
    }
}

/// A whole tree; the root is a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    /// The node `/`; always of kind [`Kind::Directory`].
    root: Node,
}
