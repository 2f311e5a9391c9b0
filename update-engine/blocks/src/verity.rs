//! The verity partition, made from the leaves of the root.

use crate::leaves::{Hashing, Leaves};
use crate::{BLOCK, BlocksError};
use ashlar_image::cmdline::VerityRoot;
use ashlar_image::digest::Digest;
use ashlar_image::verity::superblock;

/// The levels above the leaves, and the leaves: each a whole number of blocks, the lowest first; and the root hash.
fn levels(hashing: Hashing, leaves: &Leaves) -> (Vec<Vec<u8>>, Digest) {
    let mut levels = Vec::new();
    let mut digests = leaves.as_bytes().to_vec();
    loop {
        if digests.len() == 32 {
            return (levels, Digest(crate::leaves::array(&digests)));
        }
        digests.resize(digests.len().next_multiple_of(BLOCK), 0);
        let above = digests.chunks(BLOCK).flat_map(|block| hashing.of(block)).collect();
        levels.push(std::mem::replace(&mut digests, above));
    }
}

/// The whole content of the verity partition: superblock, then the levels of the tree, the root's first (as cryptsetup
/// lays them). `wanted` is the root hash of the release.
///
/// # Errors
/// The leaves come to another root hash.
pub fn partition(
    hashing: Hashing,
    uuid: [u8; 16],
    leaves: &Leaves,
    wanted: Digest,
) -> Result<Vec<u8>, BlocksError> {
    let Hashing::Verity { salt } = hashing else { return Err(BlocksError::Index("it is not of a root")) };
    if leaves.is_empty() {
        return Err(BlocksError::Index("it has no leaves"));
    }
    let (levels, root_hash) = levels(hashing, leaves);
    if root_hash != wanted {
        return Err(BlocksError::RootHash { found: root_hash, wanted });
    }
    let mut out = superblock(&VerityRoot { root_hash, data_blocks: leaves.len(), salt }, uuid).to_vec();
    out.resize(BLOCK, 0);
    for level in levels.iter().rev() {
        out.extend_from_slice(level);
    }
    Ok(out)
}

/// The leaves in the content of a verity partition, for a root of `data_blocks` blocks.
pub fn leaves(partition: &[u8], data_blocks: u64) -> Option<Leaves> {
    let above: u64 = ashlar_image::verity::levels(data_blocks).iter().skip(1).sum();
    let start = usize::try_from(above.checked_add(1)?.checked_mul(BLOCK as u64)?).ok()?;
    let length = usize::try_from(data_blocks.checked_mul(32)?).ok()?;
    Leaves::from_bytes(partition.get(start..start.checked_add(length)?)?)
}
