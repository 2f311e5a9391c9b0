//! Putting the entries of archives into a tree: one archive, or the layers of an image with their whiteouts (OCI
//! image-spec 1.1, `layer.md`).
//!
//! No entry leaves the tree: `..` and absolute paths are refused, and links are followed inside the tree only.

use crate::directory::{MAX_DEPTH, MAX_XATTR, depth};
use crate::keep::{Devices, Keep, Notes};
use ashlar_tar::{Entry, EntryKind};
use ashlar_tree::{Content, Kind, Metadata, Node, Tree};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

/// Longest path and longest target of a link (Linux, `PATH_MAX` without the NUL).
const MAX_PATH: usize = 4095;
/// Longest name of an extended attribute.
const MAX_XATTR_NAME: usize = 255;
/// Most bytes of extended attributes in a tree: a few bytes of an archive can name many of them again.
const MAX_XATTRS: usize = 64 << 20;
/// Most nodes of a tree, counted generously: one entry can make a directory for each part of its path.
const MAX_NODES: usize = 8_000_000;
/// Marks the names of one file while layers are applied: a whiteout of one name must not take the others away. No real
/// attribute has a NUL in its name.
const LINK_MARK: &[u8] = b"\0link";

/// How entries that meet what is there already are treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// An archive by itself: what comes later replaces what came before, but never a directory a file or the other way.
    Archive,
    /// A layer over others: whiteouts count, and anything replaces anything.
    Layer,
}

/// A tree that grows by archives.
pub(crate) struct Layers<'a> {
    tree: Tree,
    keep: &'a Keep,
    pub(crate) notes: Notes,
    links: u64,
    /// Upper bound of the nodes that were made.
    nodes: usize,
    /// Bytes of extended attributes that were taken, those of hard links counted each time.
    xattr_bytes: usize,
}

impl<'a> Layers<'a> {
    pub(crate) fn new(keep: &'a Keep) -> Self {
        Self {
            tree: Tree::new(Metadata::root(0o755, 0)),
            keep,
            notes: Notes::default(),
            links: 0,
            nodes: 0,
            xattr_bytes: 0,
        }
    }

    /// Puts the entries of one archive, whose contents lie in the file `blob`, into the tree.
    ///
    /// # Errors
    /// Says which entry cannot be taken and why.
    pub(crate) fn apply(
        &mut self,
        entries: Vec<Entry>,
        blob: &Arc<PathBuf>,
        mode: Mode,
    ) -> Result<(), String> {
        // Whiteouts are for the layers below, wherever in the layer they stand.
        if mode == Mode::Layer {
            for entry in &entries {
                self.whiteout(&entry.path).map_err(|why| named(&entry.path, &why))?;
            }
        }
        for entry in entries {
            if mode == Mode::Layer && entry.path.split(|&b| b == b'/').any(|name| name.starts_with(b".wh.")) {
                continue;
            }
            let path = entry.path.clone();
            self.entry(entry, blob, mode).map_err(|why| named(&path, &why))?;
        }
        Ok(())
    }

    /// Takes away what the entry is a whiteout of.
    fn whiteout(&mut self, path: &[u8]) -> Result<(), String> {
        let (folder, name) = match path.iter().rposition(|&b| b == b'/') {
            Some(at) => (&path[..at], &path[at + 1..]),
            None => (&path[..0], path),
        };
        if folder.split(|&b| b == b'/').any(|name| name.starts_with(b".wh.")) {
            // Bookkeeping of AUFS has whole directories with such names.
            self.notes.left_out("files below reserved names", path);
            return Ok(());
        }
        let Some(hidden) = name.strip_prefix(b".wh.") else { return Ok(()) };
        if hidden == b".wh..opq" {
            let real = self.tree.get_followed(folder).map(|(real, _)| real);
            if let Some(Node { kind: Kind::Directory(entries), .. }) =
                real.and_then(|real| self.tree.get_mut(&real))
            {
                entries.clear();
            }
        } else if hidden.starts_with(b".wh.") {
            self.notes.left_out("files with reserved names", path);
        } else if matches!(hidden, b"" | b"." | b"..") {
            return Err("it is a whiteout of no file's name".into());
        } else {
            self.tree.remove(&[folder, b"/", hidden].concat());
        }
        Ok(())
    }

    fn entry(&mut self, entry: Entry, blob: &Arc<PathBuf>, mode: Mode) -> Result<(), String> {
        let path = entry.path;
        if path.len() > MAX_PATH {
            return Err(format!("the path is longer than {MAX_PATH} bytes"));
        }
        let real = self.tree.resolve(&path).map_err(|e| e.to_string())?;
        if depth(&real) > MAX_DEPTH {
            return Err(format!("it lies deeper than {MAX_DEPTH} directories"));
        }
        let parent = real.iter().rposition(|&byte| byte == b'/').and_then(|at| real.get(..at));
        let parent_is_new = parent.is_some_and(|parent| self.tree.get(parent).is_none());
        self.nodes += if parent_is_new { depth(&real) } else { 1 };
        if self.nodes > MAX_NODES {
            return Err(format!("more than {MAX_NODES} files and directories lead to it"));
        }
        let metadata = self.metadata(entry.metadata)?;
        let node = match entry.kind {
            EntryKind::Directory => Node::directory(metadata),
            EntryKind::File { len: 0, .. } => Node::file(metadata, *b""),
            EntryKind::File { offset, len } => {
                Node { metadata, kind: Kind::File(Content::Range { path: blob.clone(), offset, len }) }
            }
            EntryKind::Symlink(target) if target.len() > MAX_PATH => {
                return Err(format!("the target is longer than {MAX_PATH} bytes"));
            }
            EntryKind::Symlink(target) => Node::symlink(metadata, target),
            EntryKind::Fifo => Node { metadata, kind: Kind::Fifo },
            EntryKind::HardLink(target) => self.linked(&target)?,
            EntryKind::CharDevice { major, minor } => {
                if !self.device(&path)? {
                    return Ok(());
                }
                Node { metadata, kind: Kind::CharDevice { major, minor } }
            }
            EntryKind::BlockDevice { major, minor } => {
                if !self.device(&path)? {
                    return Ok(());
                }
                Node { metadata, kind: Kind::BlockDevice { major, minor } }
            }
        };
        let is_directory = |node: &Node| matches!(node.kind, Kind::Directory(_));
        if let Some(there) = self.tree.get(&path).filter(|_| real != b"/")
            && !(is_directory(there) && is_directory(&node))
        {
            if mode == Mode::Archive && is_directory(there) != is_directory(&node) {
                return Err("the archive has it as a directory and as something else".into());
            }
            self.tree.remove(&path);
        }
        let xattrs = &node.metadata.xattrs;
        self.xattr_bytes += xattrs.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
        if self.xattr_bytes > MAX_XATTRS {
            return Err(format!("more than {MAX_XATTRS} bytes of extended attributes lead to it"));
        }
        self.tree.insert(&path, node).map_err(|e| e.to_string())
    }

    /// Whether a device is taken.
    fn device(&mut self, path: &[u8]) -> Result<bool, String> {
        match self.keep.devices {
            Devices::Take => Ok(true),
            Devices::Skip => {
                self.notes.left_out("devices", path);
                Ok(false)
            }
            Devices::Refuse => Err("it is a device; allow devices, or make the archive without it".into()),
        }
    }

    fn metadata(&mut self, mut metadata: Metadata) -> Result<Metadata, String> {
        for (name, value) in &metadata.xattrs {
            if name.is_empty() || name.len() > MAX_XATTR_NAME || name.contains(&0) {
                return Err("it has an extended attribute with a name that cannot be".into());
            }
            if value.len() > MAX_XATTR {
                return Err(format!("it has an extended attribute of more than {MAX_XATTR} bytes"));
            }
            if !self.keep.takes(name) {
                self.notes.xattr(name);
            }
        }
        metadata.xattrs.retain(|name, _| self.keep.takes(name));
        Ok(metadata)
    }

    /// Another name of the file at `target`: the node with a mark that both names have from now on.
    fn linked(&mut self, target: &[u8]) -> Result<Node, String> {
        let shown = String::from_utf8_lossy(target).into_owned();
        let next = self.links;
        let node = self
            .tree
            .get_mut(target)
            .ok_or_else(|| format!("it is a hard link to `{shown}`, which is not there before it"))?;
        match node.kind {
            Kind::Directory(_) => return Err(format!("it is a hard link to the directory `{shown}`")),
            Kind::File(_) => {
                node.metadata.xattrs.entry(LINK_MARK.to_vec()).or_insert_with(|| {
                    self.links += 1;
                    next.to_le_bytes().to_vec()
                });
            }
            // Links and devices have no content to share: they are the same twice.
            _ => {}
        }
        Ok(node.clone())
    }

    /// The tree and the notes, with hard links in place of marks: the first name in the tree's order has the content.
    pub(crate) fn finish(mut self) -> (Tree, Notes) {
        let mut first: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
        self.tree.walk(|path, node| {
            if let Some(mark) = node.metadata.xattrs.get(LINK_MARK) {
                first.entry(mark.clone()).or_insert_with(|| path.to_vec());
            }
        });
        let mut seen = BTreeSet::new();
        // Both walks go in the same order.
        self.tree.walk_mut(|node| {
            let Some(mark) = node.metadata.xattrs.remove(LINK_MARK) else { return };
            let path = first.get(&mark).cloned();
            if let (false, Some(path)) = (seen.insert(mark), path) {
                node.kind = Kind::HardLink(path);
            }
        });
        (self.tree, self.notes)
    }
}

fn named(path: &[u8], why: &str) -> String {
    format!("`{}`: {why}", String::from_utf8_lossy(path))
}
