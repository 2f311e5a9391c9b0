//! Where everything lies, decided before anything is written.

use super::directory::{self, Name};
use super::inode::{self, FLAT_INLINE, FLAT_PLAIN};
use super::{BLOCK, ErofsError, Options, SLOT, SUPERBLOCK_OFFSET, SUPERBLOCK_SIZE};
use ashlar_tree::{Kind, Node, Tree};
use std::collections::BTreeMap;

/// One inode and its place.
#[derive(Debug)]
pub(super) struct Planned<'a> {
    pub path: Vec<u8>,
    pub node: &'a Node,
    /// Sorted names, for a directory.
    pub names: Vec<Name<'a>>,
    pub size: u64,
    pub links: u32,
    pub xattrs: Vec<u8>,
    /// Offset of the inode in bytes.
    pub offset: u64,
    pub inode_size: u64,
    pub layout: u16,
    pub first_block: u32,
}

impl Planned<'_> {
    /// Whole blocks of the content in the data area, and bytes that follow the inode.
    pub fn split(&self) -> (u64, u64) {
        match self.layout {
            FLAT_INLINE => (self.size / BLOCK, self.size % BLOCK),
            _ => (self.size.div_ceil(BLOCK), 0),
        }
    }

    /// The number by which directories refer to it.
    pub fn nid(&self) -> u64 {
        self.offset / SLOT
    }
}

/// The layout of a file system.
#[derive(Debug)]
pub struct Plan<'a> {
    pub(super) inodes: Vec<Planned<'a>>,
    pub(super) options: Options,
    /// Blocks of superblock and inodes.
    pub(super) metadata_blocks: u64,
    pub(super) blocks: u32,
}

impl<'a> Plan<'a> {
    /// Lays out `tree`.
    pub fn new(tree: &'a Tree, options: Options) -> Result<Self, ErofsError> {
        if options.volume_name.len() > 15 {
            return Err(ErofsError::TooLarge);
        }
        let mut inodes = collect(tree)?;
        let mut offset = (SUPERBLOCK_OFFSET + SUPERBLOCK_SIZE) as u64;
        for planned in &mut inodes {
            place(planned, &mut offset, options.build_time);
        }
        let metadata_blocks = offset.div_ceil(BLOCK);
        let mut next = metadata_blocks;
        for planned in &mut inodes {
            let (blocks, _) = planned.split();
            if blocks != 0 {
                planned.first_block = u32::try_from(next).map_err(|_| ErofsError::TooLarge)?;
                next = next.checked_add(blocks).ok_or(ErofsError::TooLarge)?;
            }
        }
        let blocks = u32::try_from(next).map_err(|_| ErofsError::TooLarge)?;
        Ok(Self { inodes, options, metadata_blocks, blocks })
    }

    /// Size of the file system in bytes.
    pub fn size(&self) -> u64 {
        u64::from(self.blocks) * BLOCK
    }

    /// Number of inodes.
    pub fn inode_count(&self) -> usize {
        self.inodes.len()
    }
}

/// Gives an inode its place at or after `offset`.
///
/// An inode and the tail that follows it never cross a block, which the kernel would refuse; a tail that
/// leaves no room for that goes into a data block of its own.
fn place(planned: &mut Planned<'_>, offset: &mut u64, build_time: i64) {
    planned.inode_size =
        if inode::fits_compact(&planned.node.metadata, planned.size, planned.links, build_time) {
            32
        } else {
            64
        };
    let head = planned.inode_size + planned.xattrs.len() as u64;
    let tail = planned.size % BLOCK;
    let inline = tail != 0 && head + tail <= BLOCK;
    planned.layout = if inline { FLAT_INLINE } else { FLAT_PLAIN };
    let unbroken = if inline { head + tail } else { planned.inode_size };
    if *offset % BLOCK + unbroken > BLOCK {
        *offset = offset.next_multiple_of(BLOCK);
    }
    planned.offset = *offset;
    *offset = (*offset + head + if inline { tail } else { 0 }).next_multiple_of(SLOT);
}

/// All inodes in the order of the tree, the root first, with their names and numbers of links.
fn collect(tree: &Tree) -> Result<Vec<Planned<'_>>, ErofsError> {
    let mut index: BTreeMap<Vec<u8>, usize> = BTreeMap::new();
    let mut inodes: Vec<Planned<'_>> = Vec::new();
    let mut failure = None;
    tree.walk(|path, node| {
        if matches!(node.kind, Kind::HardLink(_)) {
            return;
        }
        let fail = |why| ErofsError::Unfit { path: String::from_utf8_lossy(path).into_owned(), why };
        let xattrs = inode::xattrs(&node.metadata.xattrs).unwrap_or_else(|why| {
            failure.get_or_insert(fail(why));
            Vec::new()
        });
        if let Kind::CharDevice { major, minor } | Kind::BlockDevice { major, minor } = node.kind
            && (major > 0xfff || minor > 0xf_ffff)
        {
            failure.get_or_insert(fail("its device number is too large"));
        }
        let size = match &node.kind {
            Kind::File(content) => content.len(),
            Kind::Symlink(target) => target.len() as u64,
            _ => 0,
        };
        index.insert(path.to_vec(), inodes.len());
        inodes.push(Planned {
            path: path.to_vec(),
            node,
            names: Vec::new(),
            size,
            links: 1,
            xattrs,
            offset: 0,
            inode_size: 0,
            layout: FLAT_PLAIN,
            first_block: 0,
        });
    });
    if let Some(failure) = failure {
        return Err(failure);
    }
    let mut links = vec![0_u32; inodes.len()];
    for at in 0..inodes.len() {
        let Kind::Directory(entries) = &inodes[at].node.kind else { continue };
        let path = if inodes[at].path == b"/" { Vec::new() } else { inodes[at].path.clone() };
        let parent = match path.iter().rposition(|&b| b == b'/') {
            Some(0) | None => 0,
            Some(slash) => index.get(&path[..slash]).copied().unwrap_or(0),
        };
        let mut names = vec![
            Name { text: b".", node: at, file_type: 2 },
            Name { text: b"..", node: parent, file_type: 2 },
        ];
        links[at] += 1;
        links[parent] += 1;
        for (name, child) in entries {
            let child_path = [path.as_slice(), b"/", name].concat();
            let target = if let Kind::HardLink(target) = &child.kind { target } else { &child_path };
            let node = index.get(target).copied().filter(|&node| {
                child_path == *target || !matches!(inodes[node].node.kind, Kind::Directory(_))
            });
            let Some(node) = node else {
                let path = String::from_utf8_lossy(&child_path).into_owned();
                return Err(ErofsError::Unfit {
                    path,
                    why: "it is a hard link to nothing or to a directory",
                });
            };
            let kind = &inodes[node].node.kind;
            if !matches!(kind, Kind::Directory(_)) {
                links[node] += 1;
            }
            names.push(Name { text: name, node, file_type: directory::file_type(kind) });
        }
        // `.` and `..` take part in the order: a name may begin with a byte below the dot.
        names.sort_by_key(|name| name.text);
        inodes[at].size = directory::size(&names);
        inodes[at].names = names;
    }
    // A directory counts its own `.`, its name in the parent and each child's `..`; the root's `..` is
    // its own, which stands for the name that it does not have.
    for (at, (planned, count)) in inodes.iter_mut().zip(links).enumerate() {
        let named = u32::from(at != 0 && matches!(planned.node.kind, Kind::Directory(_)));
        planned.links = count + named;
    }
    Ok(inodes)
}
