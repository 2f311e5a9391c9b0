//! Digests of blocks.

use crate::{BLOCK, BlocksError};
use ashlar_image::digest::Digest;
use ring::digest::{Context, SHA256, digest};

/// How a block is hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hashing {
    /// SHA-256 of the block.
    Plain,
    /// SHA-256 of the salt and the block: a leaf of dm-verity (version 1).
    Verity {
        /// The salt.
        salt: [u8; 32],
    },
}

impl Hashing {
    /// The digest of a block; a short one counts as filled up with zeros.
    pub fn of(&self, block: &[u8]) -> [u8; 32] {
        let mut context = Context::new(&SHA256);
        if let Self::Verity { salt } = self {
            context.update(salt);
        }
        context.update(block);
        if let Some(missing) = BLOCK.checked_sub(block.len()).filter(|missing| *missing > 0) {
            context.update(&vec![0; missing]);
        }
        array(context.finish().as_ref())
    }
}

pub(crate) fn array(bytes: &[u8]) -> [u8; 32] {
    bytes.try_into().unwrap_or([0; 32])
}

/// The digests of all blocks of an image, in order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Leaves(Vec<[u8; 32]>);

impl Leaves {
    /// From their bytes: 32 for each.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (leaves, []) = bytes.as_chunks::<32>() else { return None };
        Some(Self(leaves.to_vec()))
    }

    /// Hashes `blocks` blocks that `read` gives: by number, into the buffer.
    pub fn of(
        hashing: Hashing,
        blocks: u64,
        mut read: impl FnMut(u64, &mut [u8]) -> std::io::Result<()>,
    ) -> Result<Self, BlocksError> {
        let mut leaves = Vec::new();
        let mut buffer = vec![0; BLOCK];
        for block in 0..blocks {
            read(block, &mut buffer).map_err(|e| BlocksError::Running { block, reason: e.to_string() })?;
            leaves.push(hashing.of(&buffer));
        }
        Ok(Self(leaves))
    }

    /// The digest of a block.
    pub fn get(&self, block: u64) -> Option<&[u8; 32]> {
        self.0.get(usize::try_from(block).ok()?)
    }

    /// How many there are.
    pub fn len(&self) -> u64 {
        self.0.len() as u64
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &[u8; 32]> {
        self.0.iter()
    }

    pub(crate) fn as_slice(&self) -> &[[u8; 32]] {
        &self.0
    }

    /// SHA-256 over all of them.
    pub fn digest(&self) -> Digest {
        Digest(array(digest(&SHA256, self.0.as_flattened()).as_ref()))
    }

    /// Their bytes.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_flattened()
    }
}

/// Longest run of leaves.
const MAX_RUN: usize = 512;

/// Cuts leaves into runs whose ends follow from the leaves themselves: where blocks were moved, the runs move along.
pub(crate) fn runs(leaves: &[[u8; 32]]) -> impl Iterator<Item = &[[u8; 32]]> {
    let mut rest = leaves;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        // One leaf in 64 ends a run.
        let end = rest.iter().take(MAX_RUN).position(|leaf| leaf[0].trailing_zeros() >= 6);
        let length = end.map_or(rest.len().min(MAX_RUN), |end| end + 1);
        let (run, tail) = rest.split_at(length);
        rest = tail;
        Some(run)
    })
}

/// The short name of a run. It need not be unique: what comes of it is verified.
pub(crate) fn run_id(run: &[[u8; 32]]) -> [u8; 8] {
    let hash = digest(&SHA256, run.as_flattened());
    let mut id = [0; 8];
    id.copy_from_slice(hash.as_ref().get(..8).unwrap_or(&[0; 8]));
    id
}
