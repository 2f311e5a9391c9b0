//! Where everything lies, decided before anything is written.

use super::directory::{self, Name};
use super::inode::{self, COMPRESSED_COMPACT, FLAT_INLINE, FLAT_PLAIN};
use super::spool::{Input, Spool, Stored};
use super::{
    BLOCK, Compression, ErofsError, MAX_CLUSTER, Options, SLOT, SUPERBLOCK_OFFSET, SUPERBLOCK_SIZE, index,
    write,
};
use ashlar_tree::{Kind, Node, Tree};
use std::collections::BTreeMap;

/// How an inode's content is stored.
#[derive(Debug)]
pub(super) enum Body {
    /// In whole blocks.
    Flat,
    /// In whole blocks, and the rest behind the inode.
    Tail,
    /// Compressed.
    Compressed(Stored),
}

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
    pub body: Body,
    pub first_block: u32,
}

impl Planned<'_> {
    /// Whole blocks of the content in the data area, and bytes that follow the inode.
    pub fn split(&self) -> (u64, u64) {
        match &self.body {
            Body::Flat => (self.size.div_ceil(BLOCK), 0),
            Body::Tail => (self.size / BLOCK, self.size % BLOCK),
            Body::Compressed(stored) => (stored.blocks, 0),
        }
    }

    /// The number by which directories refer to it.
    pub fn nid(&self) -> u64 {
        self.offset / SLOT
    }

    /// `EROFS_INODE_*`.
    pub fn layout(&self) -> u16 {
        match &self.body {
            Body::Flat => FLAT_PLAIN,
            Body::Tail => FLAT_INLINE,
            Body::Compressed(_) => COMPRESSED_COMPACT,
        }
    }

    pub fn unreadable(&self, source: std::io::Error) -> ErofsError {
        ErofsError::Read { path: String::from_utf8_lossy(&self.path).into_owned(), source }
    }

    fn is_file(&self) -> bool {
        matches!(self.node.kind, Kind::File(_))
    }

    /// Length of inode and attributes.
    fn head(&self, build_time: i64) -> u64 {
        let compact = inode::fits_compact(&self.node.metadata, self.size, self.links, build_time);
        (if compact { 32 } else { 64 }) + self.xattrs.len() as u64
    }

    /// Gives it its place at or after `offset`, which goes behind it.
    ///
    /// An inode and the content that follows it never cross a block, which the kernel would refuse.
    fn place(&mut self, offset: &mut u64, build_time: i64) {
        let head = self.head(build_time);
        let (_, tail) = self.split();
        let unbroken = if tail == 0 { head - self.xattrs.len() as u64 } else { head + tail };
        if *offset % BLOCK + unbroken > BLOCK {
            *offset = offset.next_multiple_of(BLOCK);
        }
        self.offset = *offset;
        let end = match &self.body {
            Body::Compressed(_) => index::end(*offset + head, self.size),
            _ => *offset + head + tail,
        };
        *offset = end.next_multiple_of(SLOT);
    }
}

/// The layout of a file system, and its compressed content in a temporary file.
#[derive(Debug)]
pub struct Plan<'a> {
    /// In the order of the tree.
    pub(super) inodes: Vec<Planned<'a>>,
    /// Their numbers in the order of their places.
    pub(super) inode_order: Vec<usize>,
    pub(super) options: Options,
    pub(super) spool: Option<Spool>,
    /// Blocks of superblock and inodes.
    pub(super) metadata_blocks: u64,
    pub(super) blocks: u32,
}

fn check(options: &Options) -> Result<(), ErofsError> {
    if options.volume_name.len() > 15 {
        return Err(ErofsError::TooLarge);
    }
    let size = options.cluster_size;
    match options.compression {
        Compression::None => Ok(()),
        _ if !size.is_power_of_two() || u64::from(size) < BLOCK || size > MAX_CLUSTER => {
            Err(ErofsError::Options("the cluster size must be a power of two from 4 KiB to 1 MiB"))
        }
        Compression::Lz4hc { level } if !(3..=12).contains(&level) => {
            Err(ErofsError::Options("the level of LZ4HC must be 3 to 12"))
        }
        Compression::Zstd { level } if !(1..=22).contains(&level) => {
            Err(ErofsError::Options("the level of zstd must be 1 to 22"))
        }
        _ => Ok(()),
    }
}

impl<'a> Plan<'a> {
    /// Lays out `tree`; compresses its files if they are to be, which takes most of the time. The size is exact then.
    pub fn new(tree: &'a Tree, options: Options) -> Result<Self, ErofsError> {
        check(&options)?;
        let mut inodes = collect(tree)?;
        for planned in &mut inodes {
            let tail = planned.size % BLOCK;
            let fits = tail != 0 && planned.head(options.build_time) + tail <= BLOCK;
            // A tail behind a larger file's inode would move with every change before it.
            if fits && (!planned.is_file() || planned.size == tail) {
                planned.body = Body::Tail;
            }
        }
        let spool = match options.compression {
            Compression::None => None,
            _ => Some(compress(&mut inodes, &options)?),
        };
        // Small files last: what else lies between would change their blocks.
        let small = |planned: &Planned<'_>| planned.is_file() && matches!(planned.body, Body::Tail);
        let mut inode_order: Vec<usize> = (0..inodes.len()).collect();
        inode_order.sort_by_key(|&number| small(&inodes[number]));
        let config = write::compression_config(options.compression, options.cluster_size);
        let mut offset = ((SUPERBLOCK_OFFSET + SUPERBLOCK_SIZE + config.len()) as u64).next_multiple_of(SLOT);
        let mut aligned = false;
        for &number in &inode_order {
            let planned = &mut inodes[number];
            if small(planned) && !aligned {
                offset = offset.next_multiple_of(BLOCK);
                aligned = true;
            }
            planned.place(&mut offset, options.build_time);
        }
        let metadata_blocks = offset.div_ceil(BLOCK);
        let mut plan = Self { inodes, inode_order, options, spool, metadata_blocks, blocks: 0 };
        let mut next = metadata_blocks;
        for number in plan.data_numbers() {
            let planned = &mut plan.inodes[number];
            let (blocks, _) = planned.split();
            if blocks != 0 {
                planned.first_block = u32::try_from(next).map_err(|_| ErofsError::TooLarge)?;
                next = next.checked_add(blocks).ok_or(ErofsError::TooLarge)?;
            }
        }
        plan.blocks = u32::try_from(next).map_err(|_| ErofsError::TooLarge)?;
        Ok(plan)
    }

    /// Numbers of the inodes in the order of their blocks: those that change with every release first.
    fn data_numbers(&self) -> Vec<usize> {
        let mut numbers: Vec<usize> = (0..self.inodes.len()).collect();
        numbers.sort_by_key(|&number| self.inodes[number].is_file());
        numbers
    }

    /// The inodes in the order of their blocks.
    pub(super) fn data_order(&self) -> impl Iterator<Item = &Planned<'a>> {
        self.data_numbers().into_iter().map(|number| &self.inodes[number])
    }

    /// Exact size of the file system in bytes.
    pub fn size(&self) -> u64 {
        u64::from(self.blocks) * BLOCK
    }

    /// Number of inodes.
    pub fn inode_count(&self) -> usize {
        self.inodes.len()
    }
}

/// Compresses the files that are larger than a block.
fn compress(inodes: &mut [Planned<'_>], options: &Options) -> Result<Spool, ErofsError> {
    let mut spool = Spool::new(options)?;
    let mut results = Vec::new();
    let inputs: Vec<Input<'_>> = inodes
        .iter()
        .enumerate()
        .filter_map(|(number, planned)| match &planned.node.kind {
            Kind::File(content) if planned.size > BLOCK => {
                Some(Input { number, path: &planned.path, content })
            }
            _ => None,
        })
        .collect();
    spool.compress(&inputs, options, |number, stored| results.push((number, stored)))?;
    for (number, stored) in results {
        inodes[number].body = Body::Compressed(stored);
    }
    Ok(spool)
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
            body: Body::Flat,
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
