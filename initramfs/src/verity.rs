//! Whether a partition pair holds the root: superblock, the path of the tree from the root hash down to the
//! first data block, and that block. Everything else the kernel checks when it is read.

use crate::block::ReadAt;
use ashlar_image::cmdline::{BLOCK_SIZE, VerityRoot};
use ashlar_image::digest::Digest;
use ashlar_image::verity::{SuperblockError, check_superblock, levels};
use sha2::{Digest as _, Sha256};
use std::io;

/// Why a pair does not hold the root.
#[derive(Debug, thiserror::Error)]
pub enum VerityError {
    /// It cannot be read.
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
    /// The superblock is another's.
    #[error(transparent)]
    Superblock(#[from] SuperblockError),
    /// A block does not have the hash that the block above it, or the command line, gives.
    #[error("{0} does not have the signed hash")]
    Hash(&'static str),
}

fn block(source: &(impl ReadAt + ?Sized), number: u64) -> Result<Vec<u8>, VerityError> {
    let offset = number.checked_mul(BLOCK_SIZE).ok_or(io::Error::from(io::ErrorKind::UnexpectedEof))?;
    let mut bytes = vec![0; BLOCK_SIZE as usize];
    source.read_exact_at(&mut bytes, offset)?;
    Ok(bytes)
}

/// The hash of a block: type 1 puts the salt before it.
fn hash(root: &VerityRoot, bytes: &[u8]) -> Digest {
    let mut hash = Sha256::new();
    hash.update(root.salt);
    hash.update(bytes);
    Digest(hash.finalize().into())
}

/// Compares the superblock and the root's block of the tree on `tree` with what is signed.
pub fn check_tree(root: &VerityRoot, tree: &(impl ReadAt + ?Sized)) -> Result<(), VerityError> {
    check_superblock(&block(tree, 0)?, root)?;
    if levels(root.data_blocks).is_empty() || hash(root, &block(tree, 1)?) == root.root_hash {
        Ok(())
    } else {
        Err(VerityError::Hash("the top of the tree"))
    }
}

/// Follows the tree to the first block of `data`, which holds the erofs superblock and so is different in
/// every image.
pub fn check_data(
    root: &VerityRoot,
    tree: &(impl ReadAt + ?Sized),
    data: &(impl ReadAt + ?Sized),
) -> Result<(), VerityError> {
    let mut wanted = root.root_hash;
    let mut at = 1;
    for count in levels(root.data_blocks).into_iter().rev() {
        let bytes = block(tree, at)?;
        if hash(root, &bytes) != wanted {
            return Err(VerityError::Hash("the tree"));
        }
        wanted = Digest(bytes.first_chunk().copied().unwrap_or_default());
        at = at.saturating_add(count);
    }
    if hash(root, &block(data, 0)?) == wanted { Ok(()) } else { Err(VerityError::Hash("the first block")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ashlar_image::verity::superblock;
    use std::process::Command;

    /// Data of `blocks` blocks and its tree, hashed the straight way.
    fn image(blocks: u64) -> (VerityRoot, Vec<u8>, Vec<u8>) {
        let mut root = VerityRoot { root_hash: Digest::ZERO, data_blocks: blocks, salt: [5; 32] };
        let data: Vec<u8> = (0..blocks * BLOCK_SIZE).map(|n| (n / 1000) as u8).collect();
        let mut levels: Vec<Vec<u8>> = Vec::new();
        let mut below = data.clone();
        while below.len() > BLOCK_SIZE as usize {
            let mut level: Vec<u8> =
                below.chunks(BLOCK_SIZE as usize).flat_map(|block| hash(&root, block).0).collect();
            level.resize(level.len().next_multiple_of(BLOCK_SIZE as usize), 0);
            levels.push(level.clone());
            below = level;
        }
        root.root_hash = hash(&root, &below);
        let mut tree = superblock(&root, [1; 16]).to_vec();
        tree.resize(BLOCK_SIZE as usize, 0);
        tree.extend(levels.into_iter().rev().flatten());
        (root, data, tree)
    }

    #[test]
    fn the_path_to_the_first_block() {
        for blocks in [1, 2, 128, 129, 128 * 128 + 1] {
            let (root, data, tree) = image(blocks);
            check_tree(&root, tree.as_slice()).unwrap();
            check_data(&root, tree.as_slice(), data.as_slice()).unwrap();

            let mut other = data.clone();
            other[1024] ^= 1;
            assert!(matches!(
                check_data(&root, tree.as_slice(), other.as_slice()),
                Err(VerityError::Hash("the first block"))
            ));
            let mut other = tree.clone();
            other[0] ^= 1;
            assert!(matches!(check_tree(&root, other.as_slice()), Err(VerityError::Superblock(_))));
            assert!(matches!(check_tree(&root, &tree[..4095]), Err(VerityError::Io(_))));
            if blocks > 1 {
                let mut other = tree.clone();
                other[4096] ^= 1;
                assert!(matches!(check_tree(&root, other.as_slice()), Err(VerityError::Hash(_))));
                assert!(check_data(&root, other.as_slice(), data.as_slice()).is_err());
            }
        }
    }

    #[test]
    fn veritysetup_makes_what_we_accept() {
        let folder = tempfile::tempdir().unwrap();
        let (data, tree) = (folder.path().join("data"), folder.path().join("tree"));
        std::fs::write(&data, vec![7; 300 * 4096]).unwrap();
        let Ok(output) = Command::new("veritysetup")
            .args(["format", "--salt", &hex::encode([3; 32])])
            .args([&data, &tree])
            .output()
        else {
            eprintln!("skipped: veritysetup is not installed (package cryptsetup-bin)");
            return;
        };
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        let line = text.lines().find(|line| line.starts_with("Root hash:")).unwrap();
        let root_hash = line.split_whitespace().last().unwrap().parse().unwrap();
        let root = VerityRoot { root_hash, data_blocks: 300, salt: [3; 32] };
        let (data, tree) = (std::fs::read(data).unwrap(), std::fs::read(tree).unwrap());
        check_tree(&root, tree.as_slice()).unwrap();
        check_data(&root, tree.as_slice(), data.as_slice()).unwrap();
    }
}
