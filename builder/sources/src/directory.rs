//! A directory of the build host as a file tree.

use crate::keep::{Devices, Keep, Notes};
use crate::{Error, Source, tree_digest};
use ashlar_tree::{Content, Kind, Metadata, Node, Tree};
use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Files up to this many bytes are held in memory.
const INLINE: u64 = 1024;
/// Deepest directory. Trees are walked by recursion.
pub(crate) const MAX_DEPTH: usize = 255;
/// Largest value of an extended attribute, and largest list of their names (Linux, `limits.h`), in bytes.
pub(crate) const MAX_XATTR: usize = 64 << 10;

/// Who owns the files in the image.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Owner {
    /// Root owns all: what a build by an ordinary user wants.
    #[default]
    Root,
    /// As on the build host.
    Keep,
    /// As on the build host, with numbers replaced; one that is not named is an error.
    Map {
        /// User of the host to user of the image.
        users: BTreeMap<u32, u32>,
        /// Group of the host to group of the image.
        groups: BTreeMap<u32, u32>,
    },
}

/// Times of modification.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Time {
    /// As on the build host, in whole seconds.
    #[default]
    Keep,
    /// As on the build host, but not later than this (seconds since 1970).
    AtMost(i64),
    /// All the same: a fresh checkout gives the same image.
    All(i64),
}

/// How a directory is read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Options {
    /// Owners.
    pub owner: Owner,
    /// Times.
    pub time: Time,
    /// Patterns of paths that are left out, relative to the directory: `*` and `?` stay within a name, `**` does not, and
    /// a directory is left out with all below. A pattern without `/` is for names in any directory (`*.pyc`, `.git`).
    pub exclude: Vec<String>,
    /// Devices and extended attributes.
    pub keep: Keep,
}

/// The state of a file: what changes whenever somebody writes to it.
#[derive(Debug, Clone)]
pub(crate) struct Stamp {
    path: PathBuf,
    state: State,
}

/// Device, inode, mode, links, size, times of modification and of status change with nanoseconds.
type State = (u64, u64, u32, u64, u64, (i64, i64), (i64, i64));

impl Stamp {
    fn new(path: &Path, metadata: &std::fs::Metadata) -> Self {
        Self { path: path.to_owned(), state: state(metadata) }
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        match std::fs::symlink_metadata(&self.path) {
            Ok(metadata) if state(&metadata) == self.state => Ok(()),
            _ => Err(Error::Changed(self.path.clone())),
        }
    }
}

fn state(m: &std::fs::Metadata) -> State {
    let (modified, changed) = ((m.mtime(), m.mtime_nsec()), (m.ctime(), m.ctime_nsec()));
    (m.dev(), m.ino(), m.mode(), m.nlink(), m.size(), modified, changed)
}

/// Reads a directory. Symbolic links are taken as they are and never followed (but `path` itself may be one). Files of the
/// host are read once, for the digest, and again when the image is written; call [`Source::check_unchanged`] after that.
/// Files with several names in the directory become hard links. Sockets are left out with a note.
///
/// # Errors
/// [`Error::Entry`] names what cannot be taken: a device (unless [`Keep::devices`] says otherwise), a file whose owner has no
/// mapping; [`Error::Io`] what cannot be read; [`Error::Changed`] what was changed meanwhile.
pub fn directory(path: &Path, options: &Options) -> Result<Source, Error> {
    let root = path.canonicalize().map_err(Error::io("open the directory", path))?;
    let metadata = std::fs::metadata(&root).map_err(Error::io("open the directory", path))?;
    if !metadata.is_dir() {
        return Err(Error::Entry { path: path.to_owned(), why: "is no directory".into() });
    }
    let mut reader = Reader {
        options,
        exclude: patterns(&options.exclude)?,
        notes: Notes::default(),
        stamps: Vec::new(),
        links: BTreeMap::new(),
    };
    let mut tree = Tree::new(Metadata::default());
    *tree.root_metadata_mut() = reader.metadata(&root, &metadata)?;
    let entries = reader.entries(&root, &mut Vec::new(), &metadata)?;
    for (name, node) in entries {
        // A tree is built from whole nodes: nothing is looked up through the directory's own links.
        tree.insert(&name, node).map_err(|e| Error::Entry { path: root.clone(), why: e.to_string() })?;
    }
    let digest = tree_digest(&tree)?;
    let source = Source { tree, digest, notes: reader.notes.finish(), stamps: reader.stamps };
    // What was hashed is what was listed.
    source.check_unchanged()?;
    Ok(source)
}

/// How many directories lead to a path of the tree.
pub(crate) fn depth(path: &[u8]) -> usize {
    path.split(|&byte| byte == b'/').skip(1).count()
}

fn patterns(list: &[String]) -> Result<GlobSet, Error> {
    let mut set = GlobSetBuilder::new();
    for pattern in list {
        let bad = |error: &globset::Error| Error::Pattern {
            pattern: pattern.clone(),
            why: error.kind().to_string(),
        };
        let text = pattern.trim_end_matches('/');
        let text = match text.strip_prefix('/') {
            Some(rest) => rest.to_owned(),
            None if text.contains('/') => text.to_owned(),
            None => format!("**/{text}"),
        };
        set.add(GlobBuilder::new(&text).literal_separator(true).build().map_err(|e| bad(&e))?);
    }
    set.build().map_err(|error| Error::Pattern { pattern: list.join(" "), why: error.to_string() })
}

struct Reader<'a> {
    options: &'a Options,
    exclude: GlobSet,
    notes: Notes,
    stamps: Vec<Stamp>,
    /// Device and inode of a file with several names, and its first path in the tree.
    links: BTreeMap<(u64, u64), Vec<u8>>,
}

impl Reader<'_> {
    /// Reads the directory at `path`, which is at `inside` in the tree, in the order of its names.
    fn entries(
        &mut self,
        path: &Path,
        inside: &mut Vec<u8>,
        metadata: &std::fs::Metadata,
    ) -> Result<BTreeMap<Vec<u8>, Node>, Error> {
        if depth(inside) >= MAX_DEPTH {
            let why = format!("lies deeper than {MAX_DEPTH} directories");
            return Err(Error::Entry { path: path.to_owned(), why });
        }
        self.stamps.push(Stamp::new(path, metadata));
        let list = || -> std::io::Result<Vec<Vec<u8>>> {
            std::fs::read_dir(path)?.map(|entry| Ok(entry?.file_name().into_vec())).collect()
        };
        let mut names = list().map_err(Error::io("read the directory", path))?;
        names.sort();
        let mut entries = BTreeMap::new();
        for name in names {
            let length = inside.len();
            inside.push(b'/');
            inside.extend_from_slice(&name);
            let relative = Path::new(OsStr::from_bytes(inside.get(1..).unwrap_or_default()));
            if !self.exclude.is_match(relative)
                && let Some(node) = self.node(&path.join(OsStr::from_bytes(&name)), inside)?
            {
                entries.insert(name, node);
            }
            inside.truncate(length);
        }
        Ok(entries)
    }

    /// The node at `path`; none for what is left out.
    fn node(&mut self, path: &Path, inside: &mut Vec<u8>) -> Result<Option<Node>, Error> {
        let host = std::fs::symlink_metadata(path).map_err(Error::io("read", path))?;
        let kind = host.file_type();
        if kind.is_socket() {
            self.notes.left_out("sockets", inside);
            return Ok(None);
        }
        let device = kind.is_char_device() || kind.is_block_device();
        if device {
            match self.options.keep.devices {
                Devices::Take => {}
                Devices::Skip => {
                    self.notes.left_out("devices", inside);
                    return Ok(None);
                }
                Devices::Refuse => {
                    let why = "is a device; exclude it, or allow devices".to_owned();
                    return Err(Error::Entry { path: path.to_owned(), why });
                }
            }
        }
        let metadata = self.metadata(path, &host)?;
        if !kind.is_dir() {
            self.stamps.push(Stamp::new(path, &host));
        }
        let kind = if kind.is_dir() {
            Kind::Directory(self.entries(path, inside, &host)?)
        } else if kind.is_symlink() {
            let target = std::fs::read_link(path).map_err(Error::io("read the link", path))?;
            Kind::Symlink(target.into_os_string().into_vec())
        } else if device {
            let (major, minor) = (rustix::fs::major(host.rdev()), rustix::fs::minor(host.rdev()));
            if kind.is_char_device() {
                Kind::CharDevice { major, minor }
            } else {
                Kind::BlockDevice { major, minor }
            }
        } else if kind.is_fifo() {
            Kind::Fifo
        } else {
            if host.nlink() > 1 {
                if let Some(first) = self.links.get(&(host.dev(), host.ino())) {
                    return Ok(Some(Node { metadata, kind: Kind::HardLink(first.clone()) }));
                }
                self.links.insert((host.dev(), host.ino()), inside.clone());
            }
            Kind::File(content(path, &host)?)
        };
        Ok(Some(Node { metadata, kind }))
    }

    fn metadata(&mut self, path: &Path, host: &std::fs::Metadata) -> Result<Metadata, Error> {
        let mapped = |map: &BTreeMap<u32, u32>, what: &str, id: u32| {
            map.get(&id).copied().ok_or_else(|| Error::Entry {
                path: path.to_owned(),
                why: format!("belongs to {what} {id}, for which the recipe maps no {what} of the image"),
            })
        };
        let (uid, gid) = match &self.options.owner {
            Owner::Root => (0, 0),
            Owner::Keep => (host.uid(), host.gid()),
            Owner::Map { users, groups } => {
                (mapped(users, "user", host.uid())?, mapped(groups, "group", host.gid())?)
            }
        };
        let mtime = match self.options.time {
            Time::Keep => host.mtime(),
            Time::AtMost(limit) => host.mtime().min(limit),
            Time::All(time) => time,
        };
        let mut xattrs = BTreeMap::new();
        for name in xattr_names(path)? {
            if !self.options.keep.takes(&name) {
                self.notes.xattr(&name);
                continue;
            }
            let mut value = vec![0; MAX_XATTR];
            match rustix::fs::lgetxattr(path, name.as_slice(), &mut value) {
                Ok(length) => {
                    value.truncate(length);
                    xattrs.insert(name, value);
                }
                Err(error) => return Err(Error::io("read extended attributes of", path)(error.into())),
            }
        }
        Ok(Metadata { mode: host.mode() & 0o7777, uid, gid, mtime, xattrs })
    }
}

fn xattr_names(path: &Path) -> Result<Vec<Vec<u8>>, Error> {
    let mut list = vec![0; MAX_XATTR];
    let length = match rustix::fs::llistxattr(path, &mut list) {
        Ok(length) => length,
        // A file system without them.
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => 0,
        Err(error) => return Err(Error::io("read extended attributes of", path)(error.into())),
    };
    let list = list.get(..length).unwrap_or_default();
    Ok(list.split(|&byte| byte == 0).filter(|name| !name.is_empty()).map(<[u8]>::to_vec).collect())
}

fn content(path: &Path, host: &std::fs::Metadata) -> Result<Content, Error> {
    if host.len() > INLINE {
        return Ok(Content::Range { path: Arc::new(path.to_owned()), offset: 0, len: host.len() });
    }
    let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
    if bytes.len() as u64 != host.len() {
        return Err(Error::Changed(path.to_owned()));
    }
    Ok(Content::Inline(bytes.into()))
}
