//! The `newc` cpio archive that the kernel unpacks as its initramfs (Linux,
//! `Documentation/driver-api/early-userspace/buffer-format.rst`).
//!
//! Inode numbers count from 1 in the order of the tree, so the same tree gives the same bytes. The format
//! holds no extended attributes and no file of 4 GiB or more; both are refused, not dropped.

use ashlar_tree::{Kind, Node, Tree};
use std::collections::BTreeMap;
use std::io::Write;

/// Why a tree cannot be an archive.
#[derive(Debug, thiserror::Error)]
pub enum CpioError {
    /// The format cannot hold this node.
    #[error("`{path}` cannot be in an initramfs: {why}")]
    Unfit {
        /// The node.
        path: String,
        /// Why.
        why: &'static str,
    },
    /// A content cannot be read or the archive not written.
    #[error("cannot {what} `{path}`: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// With which node.
        path: String,
        /// Why not.
        source: std::io::Error,
    },
}

/// One entry's header fields.
struct Entry<'a> {
    inode: u32,
    mode: u32,
    links: u32,
    device: (u32, u32),
    node: &'a Node,
    name: &'a [u8],
    data: &'a [u8],
}

/// The bytes up to the next multiple of four.
fn padding(length: usize) -> &'static [u8] {
    &[0; 3][..length.next_multiple_of(4) - length]
}

fn write_entry(out: &mut impl Write, entry: &Entry<'_>) -> std::io::Result<()> {
    let metadata = &entry.node.metadata;
    let size = |length: usize| u32::try_from(length).map_err(std::io::Error::other);
    let fields = [
        entry.inode,
        entry.mode | metadata.mode,
        metadata.uid,
        metadata.gid,
        entry.links,
        // Before 1970 there is no time in the format.
        u32::try_from(metadata.mtime.max(0)).map_err(std::io::Error::other)?,
        size(entry.data.len())?,
        0,
        0,
        entry.device.0,
        entry.device.1,
        size(entry.name.len() + 1)?,
        0,
    ];
    out.write_all(b"070701")?;
    for field in fields {
        write!(out, "{field:08x}")?;
    }
    out.write_all(entry.name)?;
    out.write_all(&[0])?;
    // The header has 110 bytes; name and data each end on a multiple of four.
    out.write_all(padding(110 + entry.name.len() + 1))?;
    out.write_all(entry.data)?;
    out.write_all(padding(entry.data.len()))
}

/// Writes `tree` without its root directory. Hard links are written as the kernel wants them: each name
/// has the same inode number and only the first has the data.
pub fn write(tree: &Tree, out: &mut impl Write) -> Result<(), CpioError> {
    let mut entries: Vec<(Vec<u8>, &Node)> = Vec::new();
    tree.walk(|path, node| entries.push((path.strip_prefix(b"/").unwrap_or(path).to_vec(), node)));
    entries.remove(0);
    // Names of each linked file: the inode's number of links.
    let mut links: BTreeMap<Vec<u8>, u32> = BTreeMap::new();
    for (_, node) in &entries {
        if let Kind::HardLink(target) = &node.kind {
            *links.entry(target.strip_prefix(b"/").unwrap_or(target).to_vec()).or_insert(1) += 1;
        }
    }
    let by_path: BTreeMap<&[u8], &Node> =
        entries.iter().map(|(path, node)| (path.as_slice(), *node)).collect();
    let mut linked_inodes: BTreeMap<Vec<u8>, u32> = BTreeMap::new();
    let mut next_inode = 0;
    for (path, node) in &entries {
        let shown = || String::from_utf8_lossy(path).into_owned();
        let unfit = |why| CpioError::Unfit { path: shown(), why };
        let (real_path, real) = match &node.kind {
            Kind::HardLink(target) => {
                let target = target.strip_prefix(b"/").unwrap_or(target);
                let real = by_path.get(target).ok_or_else(|| unfit("it is a hard link to nothing"))?;
                (target, *real)
            }
            _ => (path.as_slice(), *node),
        };
        if !real.metadata.xattrs.is_empty() {
            return Err(unfit("it has extended attributes"));
        }
        let count = links.get(real_path).copied();
        let seen = linked_inodes.get(real_path).copied();
        let inode = seen.unwrap_or_else(|| {
            next_inode += 1;
            next_inode
        });
        if count.is_some() {
            linked_inodes.insert(real_path.to_vec(), inode);
        }
        let (mode, links, device) = match &real.kind {
            Kind::Directory(_) => (0o040_000, 2, (0, 0)),
            Kind::File(_) => (0o100_000, count.unwrap_or(1), (0, 0)),
            Kind::Symlink(_) => (0o120_000, 1, (0, 0)),
            Kind::CharDevice { major, minor } => (0o020_000, 1, (*major, *minor)),
            Kind::BlockDevice { major, minor } => (0o060_000, 1, (*major, *minor)),
            Kind::Fifo => (0o010_000, 1, (0, 0)),
            Kind::Socket => return Err(unfit("it is a socket")),
            Kind::HardLink(_) => return Err(unfit("it is a hard link to a hard link")),
        };
        let data = match &real.kind {
            Kind::File(content) if seen.is_none() => {
                if u32::try_from(content.len()).is_err() {
                    return Err(unfit("it has 4 GiB or more"));
                }
                content.read().map_err(|source| CpioError::Io { what: "read", path: shown(), source })?
            }
            Kind::Symlink(target) => target.clone(),
            _ => Vec::new(),
        };
        write_entry(out, &Entry { inode, mode, links, device, node: real, name: path, data: &data })
            .map_err(|source| CpioError::Io { what: "write", path: shown(), source })?;
    }
    let end = Node::directory(ashlar_tree::Metadata::default());
    let trailer =
        Entry { inode: 0, mode: 0, links: 1, device: (0, 0), node: &end, name: b"TRAILER!!!", data: b"" };
    write_entry(out, &trailer).map_err(|source| CpioError::Io {
        what: "write",
        path: "trailer".into(),
        source,
    })
}
