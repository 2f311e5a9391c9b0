//! The dm-verity superblock (cryptsetup's on-disk format, version 1) and the shape of the tree.

use crate::cmdline::{BLOCK_SIZE, VerityRoot};

/// Size of the superblock in bytes; it is padded with zeros to a hash block.
pub const SUPERBLOCK_SIZE: usize = 512;
/// Digests of 32 bytes in one hash block.
pub const DIGESTS_PER_BLOCK: u64 = BLOCK_SIZE / 32;

/// Why a superblock was refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SuperblockError {
    /// Fewer than 512 bytes.
    #[error("a verity superblock is 512 bytes long; there are only {0}")]
    Short(usize),
    /// A field is not what the signed command line says.
    #[error("the verity superblock's {0} is not what the signed command line says")]
    Differs(&'static str),
}

/// The superblock for `root`. `uuid` is 16 bytes in the order that they are stored.
pub fn superblock(root: &VerityRoot, uuid: [u8; 16]) -> [u8; SUPERBLOCK_SIZE] {
    let mut block = [0; SUPERBLOCK_SIZE];
    block[0..8].copy_from_slice(b"verity\0\0");
    block[8..12].copy_from_slice(&1u32.to_le_bytes());
    block[12..16].copy_from_slice(&1u32.to_le_bytes());
    block[16..32].copy_from_slice(&uuid);
    block[32..38].copy_from_slice(b"sha256");
    block[64..68].copy_from_slice(&(BLOCK_SIZE as u32).to_le_bytes());
    block[68..72].copy_from_slice(&(BLOCK_SIZE as u32).to_le_bytes());
    block[72..80].copy_from_slice(&root.data_blocks.to_le_bytes());
    block[80..82].copy_from_slice(&32u16.to_le_bytes());
    block[88..120].copy_from_slice(&root.salt);
    block
}

/// Compares a superblock that was read from a disk with the signed `root`; the UUID may be any.
pub fn check_superblock(block: &[u8], root: &VerityRoot) -> Result<(), SuperblockError> {
    let block = block.get(..SUPERBLOCK_SIZE).ok_or(SuperblockError::Short(block.len()))?;
    let mut uuid = [0; 16];
    uuid.copy_from_slice(&block[16..32]);
    let wanted = superblock(root, uuid);
    for (name, range) in [
        ("signature", 0..8),
        ("version or hash type", 8..16),
        ("algorithm", 32..64),
        ("block size", 64..72),
        ("number of blocks", 72..80),
        ("salt", 80..344),
        ("padding", 344..SUPERBLOCK_SIZE),
    ] {
        if block[range.clone()] != wanted[range] {
            return Err(SuperblockError::Differs(name));
        }
    }
    Ok(())
}

/// Number of hash blocks in each level of the tree, from the one above the data up to the root's one
/// block. Empty for fewer than two data blocks, where the root hash is that of the data block itself.
pub fn levels(data_blocks: u64) -> Vec<u64> {
    let mut levels = Vec::new();
    let mut blocks = data_blocks;
    while blocks > 1 {
        blocks = blocks.div_ceil(DIGESTS_PER_BLOCK);
        levels.push(blocks);
    }
    levels
}

/// Bytes that superblock and tree take on the verity partition.
pub fn size(data_blocks: u64) -> u64 {
    (1 + levels(data_blocks).iter().sum::<u64>()) * BLOCK_SIZE
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;

    #[test]
    fn a_superblock_is_compared_field_by_field() {
        let root = VerityRoot { root_hash: Digest::ZERO, data_blocks: 5, salt: [1; 32] };
        let good = superblock(&root, [7; 16]);
        assert_eq!(check_superblock(&good, &root), Ok(()));
        for (at, name) in [
            (0, "signature"),
            (32, "algorithm"),
            (64, "block size"),
            (72, "number of blocks"),
            (88, "salt"),
            (500, "padding"),
        ] {
            let mut bad = good;
            bad[at] ^= 1;
            assert_eq!(check_superblock(&bad, &root), Err(SuperblockError::Differs(name)));
        }
        assert_eq!(check_superblock(&good[..511], &root), Err(SuperblockError::Short(511)));
    }

    #[test]
    fn levels_shrink_by_128() {
        assert_eq!(levels(1), Vec::<u64>::new());
        assert_eq!(levels(128), vec![1]);
        assert_eq!(levels(129), vec![2, 1]);
        assert_eq!(levels(128 * 128 + 1), vec![129, 2, 1]);
        assert_eq!(size(129), 4 * 4096);
    }
}
