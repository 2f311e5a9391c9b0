//! What an update from one release to the next would fetch: the blocks of the new slot that are nowhere in the old
//! one's.

use crate::CompareError;
use crate::folder::ReleaseFolder;
use crate::stream::fill;
use serde::Serialize;
use std::collections::HashSet;
use std::io::Write;

/// Bytes in a block.
const BLOCK: usize = 4096;
/// Level of zstd that the size is told for.
pub const LEVEL: i32 = 9;

/// One partition's share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Part {
    /// File name.
    pub file: String,
    /// Blocks of 4096 bytes in it.
    pub blocks: u64,
    /// Blocks that must be fetched; each content once, in the order of esp, root and verity.
    pub new_blocks: u64,
    /// Size of those together, packed as one zstd frame, in bytes.
    pub packed: u64,
}

/// What an update would fetch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Download {
    /// The partitions.
    pub parts: Vec<Part>,
    /// New blocks in all.
    pub new_blocks: u64,
    /// Their size in bytes.
    pub bytes: u64,
    /// Their size in bytes, packed with zstd at [`LEVEL`].
    pub packed: u64,
}

/// Counts what is written.
struct Count(u64);

impl Write for Count {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Half of a block's SHA-256: half the memory, and still no two contents of an honest image have the same.
fn name(block: &[u8]) -> [u8; 16] {
    let digest = ring::digest::digest(&ring::digest::SHA256, block);
    let mut name = [0; 16];
    name.copy_from_slice(digest.as_ref().get(..16).unwrap_or(&[0; 16]));
    name
}

/// The three files of a slot.
fn files(folder: &ReleaseFolder) -> [String; 3] {
    let slot = &folder.release().slot;
    [slot.esp.file.clone(), slot.root.file.clone(), slot.verity.file.clone()]
}

/// Calls `visit` for each block of a file; the last one is filled up with zeros. Blocks of zeros are passed over: they
/// are never fetched.
fn blocks(
    folder: &ReleaseFolder,
    file: &str,
    mut visit: impl FnMut(&[u8]) -> std::io::Result<()>,
) -> Result<u64, CompareError> {
    let path = folder.path().join(file);
    let fail = |source| CompareError::Read { path: path.clone(), source };
    let (mut stream, _) = folder.file(file)?;
    let mut buffer = vec![0; 64 * BLOCK];
    let mut count = 0;
    loop {
        let length = fill(&mut stream, &mut buffer).map_err(fail)?;
        if length == 0 {
            return Ok(count);
        }
        let whole = length.next_multiple_of(BLOCK);
        buffer[length..whole].fill(0);
        for block in buffer[..whole].chunks_exact(BLOCK) {
            count += 1;
            if block.iter().any(|byte| *byte != 0) {
                visit(block).map_err(fail)?;
            }
        }
    }
}

/// Memory: 16 bytes for each block of the old slot and the new blocks; the packer's window beside.
pub(super) fn download(a: &ReleaseFolder, b: &ReleaseFolder) -> Result<Download, CompareError> {
    // Only asked whether it has something: its order reaches nothing.
    let mut known: HashSet<[u8; 16]> = HashSet::new();
    for file in files(a) {
        blocks(a, &file, |block| {
            known.insert(name(block));
            Ok(())
        })?;
    }
    let mut parts = Vec::new();
    for file in files(b) {
        let fail = |source| CompareError::Read { path: b.path().join(&file), source };
        let mut packer = zstd::stream::write::Encoder::new(Count(0), LEVEL).map_err(fail)?;
        let mut new_blocks = 0;
        let blocks = blocks(b, &file, |block| {
            if known.insert(name(block)) {
                new_blocks += 1;
                packer.write_all(block)?;
            }
            Ok(())
        })?;
        let packed = packer.finish().map_err(fail)?.0;
        parts.push(Part { file, blocks, new_blocks, packed: if new_blocks == 0 { 0 } else { packed } });
    }
    let new_blocks = parts.iter().map(|part| part.new_blocks).sum();
    Ok(Download {
        new_blocks,
        bytes: new_blocks * BLOCK as u64,
        packed: parts.iter().map(|part| part.packed).sum(),
        parts,
    })
}
