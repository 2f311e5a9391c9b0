//! Directory blocks: entries of 12 bytes (`struct erofs_dirent`), then their names, in byte order.

use super::BLOCK;
use ashlar_tree::Kind;

/// Length of an entry without its name in bytes.
const ENTRY: usize = 12;

/// One name in a directory.
#[derive(Debug)]
pub struct Name<'a> {
    /// The name.
    pub text: &'a [u8],
    /// Index of the node in the plan.
    pub node: usize,
    /// `EROFS_FT_*`.
    pub file_type: u8,
}

/// `EROFS_FT_*` of a node that is no hard link.
pub const fn file_type(kind: &Kind) -> u8 {
    match kind {
        Kind::File(_) | Kind::HardLink(_) => 1,
        Kind::Directory(_) => 2,
        Kind::CharDevice { .. } => 3,
        Kind::BlockDevice { .. } => 4,
        Kind::Fifo => 5,
        Kind::Socket => 6,
        Kind::Symlink(_) => 7,
    }
}

/// Splits sorted names into those that share a block.
fn blocks<'a, 'n>(names: &'a [Name<'n>]) -> Vec<&'a [Name<'n>]> {
    let mut blocks = Vec::new();
    let (mut start, mut used) = (0, 0);
    for (index, name) in names.iter().enumerate() {
        let length = ENTRY + name.text.len();
        if used + length > BLOCK as usize {
            blocks.push(&names[start..index]);
            (start, used) = (index, 0);
        }
        used += length;
    }
    blocks.push(&names[start..]);
    blocks
}

/// Length of the directory's content in bytes; all blocks but the last count as full.
pub fn size(names: &[Name<'_>]) -> u64 {
    let blocks = blocks(names);
    let last: usize = blocks.last().into_iter().copied().flatten().map(|name| ENTRY + name.text.len()).sum();
    (blocks.len() as u64 - 1) * BLOCK + last as u64
}

/// The content; `nid` gives the number of each node.
pub fn content(names: &[Name<'_>], nid: impl Fn(usize) -> u64) -> Vec<u8> {
    let mut content = Vec::new();
    for block in blocks(names) {
        content.resize(content.len().next_multiple_of(BLOCK as usize), 0);
        let mut offset = block.len() * ENTRY;
        for name in block {
            content.extend_from_slice(&nid(name.node).to_le_bytes());
            content.extend_from_slice(&(offset as u16).to_le_bytes());
            content.extend_from_slice(&[name.file_type, 0]);
            offset += name.text.len();
        }
        for name in block {
            content.extend_from_slice(name.text);
        }
    }
    content
}
