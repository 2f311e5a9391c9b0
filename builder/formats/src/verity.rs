//! The dm-verity hash tree (Linux, `Documentation/admin-guide/device-mapper/verity.rst`; cryptsetup's
//! on-disk format, hash type 1): SHA-256, blocks of 4096 bytes, the salt hashed before each block.
//!
//! The file is: superblock in a block of its own, then the levels from the root's one block down to the
//! one above the data. Blocks are hashed in parallel; the tree of a 4 GiB root takes 32 MiB of memory.

use ashlar_image::cmdline::{BLOCK_SIZE, VerityRoot};
use ashlar_image::digest::Digest;
use ashlar_image::verity::{DIGESTS_PER_BLOCK, SUPERBLOCK_SIZE, superblock};
use rayon::prelude::*;
use ring::digest::{Context, SHA256};
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;

/// Data blocks that one task reads at once: 128 KiB, which stay in a core's own cache until they are hashed.
const CHUNK_BLOCKS: u64 = 32;

/// Why the tree could not be made.
#[derive(Debug, thiserror::Error)]
pub enum VerityError {
    /// The data is empty or no whole number of blocks.
    #[error("verity data must be a whole number of 4096-byte blocks and at least one; it is {0} bytes")]
    Length(u64),
    /// The data cannot be read or the tree cannot be written.
    #[error("cannot {0}: {1}")]
    Io(&'static str, #[source] std::io::Error),
}

/// The digests of consecutive blocks.
fn hash_blocks(salted: &Context, blocks: &[u8]) -> Vec<u8> {
    let mut digests = Vec::with_capacity(blocks.len() / BLOCK_SIZE as usize * 32);
    for block in blocks.chunks(BLOCK_SIZE as usize) {
        let mut context = salted.clone();
        context.update(block);
        digests.extend_from_slice(context.finish().as_ref());
    }
    digests
}

/// Pads digests with zeros to whole hash blocks.
fn pad(mut level: Vec<u8>) -> Vec<u8> {
    level.resize(level.len().next_multiple_of(BLOCK_SIZE as usize), 0);
    level
}

/// The salt as the beginning of every hash.
fn salted(salt: &[u8; 32]) -> Context {
    let mut context = Context::new(&SHA256);
    context.update(salt);
    context
}

/// The digests of the data's blocks, from which the tree is made.
#[derive(Clone, PartialEq, Eq)]
pub struct Leaves {
    salt: [u8; 32],
    digests: Vec<u8>,
}

impl std::fmt::Debug for Leaves {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Leaves").field("blocks", &self.blocks()).finish_non_exhaustive()
    }
}

impl Leaves {
    /// Hashes `length` bytes of `data`.
    pub fn of_file(data: &File, length: u64, salt: [u8; 32]) -> Result<Self, VerityError> {
        if length == 0 || !length.is_multiple_of(BLOCK_SIZE) {
            return Err(VerityError::Length(length));
        }
        let data_blocks = length / BLOCK_SIZE;
        let salted = salted(&salt);
        let chunks: Vec<Vec<u8>> = (0..data_blocks.div_ceil(CHUNK_BLOCKS))
            .into_par_iter()
            .map_init(Vec::new, |buffer: &mut Vec<u8>, chunk| {
                let start = chunk * CHUNK_BLOCKS;
                let blocks = CHUNK_BLOCKS.min(data_blocks - start);
                buffer.resize((blocks * BLOCK_SIZE) as usize, 0);
                data.read_exact_at(buffer, start * BLOCK_SIZE)?;
                Ok(hash_blocks(&salted, buffer))
            })
            .collect::<Result<_, std::io::Error>>()
            .map_err(|error| VerityError::Io("read the verity data", error))?;
        Ok(Self { salt, digests: chunks.concat() })
    }

    /// Number of blocks of data.
    pub fn blocks(&self) -> u64 {
        self.digests.len() as u64 / 32
    }

    /// The SHA-256 of salt and block for each block of data, in order.
    pub fn digests(&self) -> impl Iterator<Item = Digest> {
        self.digests.as_chunks().0.iter().map(|digest| Digest(*digest))
    }

    /// Writes superblock and tree to `out`, from its current position. `uuid` is in the order that is stored. Returns
    /// what the command line must say.
    pub fn write(self, uuid: [u8; 16], out: &mut impl Write) -> Result<VerityRoot, VerityError> {
        let data_blocks = self.blocks();
        if data_blocks == 0 {
            return Err(VerityError::Length(0));
        }
        let salted = salted(&self.salt);
        let mut digests = self.digests;
        // From the data upwards; the file wants the root first.
        let mut levels = Vec::new();
        while digests.len() > 32 {
            let level = pad(digests);
            digests = level
                .par_chunks((BLOCK_SIZE * DIGESTS_PER_BLOCK) as usize)
                .map(|blocks| hash_blocks(&salted, blocks))
                .collect::<Vec<_>>()
                .concat();
            levels.push(level);
        }
        let mut root_hash = [0; 32];
        root_hash.copy_from_slice(&digests);
        let root = VerityRoot { root_hash: Digest(root_hash), data_blocks, salt: self.salt };
        let mut head = superblock(&root, uuid).to_vec();
        debug_assert_eq!(head.len(), SUPERBLOCK_SIZE);
        head.resize(BLOCK_SIZE as usize, 0);
        for part in std::iter::once(&head).chain(levels.iter().rev()) {
            out.write_all(part).map_err(|error| VerityError::Io("write the verity tree", error))?;
        }
        Ok(root)
    }
}

/// Hashes `length` bytes of `data` and writes superblock and tree to `out`, from its current position.
/// `uuid` is in the order that is stored. Returns what the command line must say.
pub fn write(
    data: &File,
    length: u64,
    salt: [u8; 32],
    uuid: [u8; 16],
    out: &mut impl Write,
) -> Result<VerityRoot, VerityError> {
    Leaves::of_file(data, length, salt)?.write(uuid, out)
}

/// What is known of data that was written through [`Hashing`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hashes {
    /// SHA-256 of all of it.
    pub sha256: Digest,
    /// Length in bytes.
    pub length: u64,
    /// The digests of its blocks.
    pub leaves: Leaves,
}

/// Passes what is written on to `inner` and hashes it meanwhile: the whole on one core, the blocks on the others. It
/// holds 4 MiB and 32 bytes for each block.
pub struct Hashing<W> {
    inner: W,
    pending: Vec<u8>,
    salt: [u8; 32],
    salted: Context,
    whole: Context,
    digests: Vec<u8>,
    length: u64,
}

/// Bytes that are hashed at once.
const PENDING: usize = 4 << 20;

impl<W: Write> Hashing<W> {
    /// With the salt of the tree.
    pub fn new(inner: W, salt: [u8; 32]) -> Self {
        Self {
            inner,
            pending: Vec::with_capacity(PENDING),
            salt,
            salted: salted(&salt),
            whole: Context::new(&SHA256),
            digests: Vec::new(),
            length: 0,
        }
    }

    /// Hashes what is pending and passes it on.
    fn pass(&mut self) -> std::io::Result<()> {
        let Self { inner, pending, salted, whole, digests, .. } = self;
        let hash = |chunk: &[u8]| hash_blocks(salted, chunk);
        let (parts, ()) = rayon::join(
            || pending.par_chunks((CHUNK_BLOCKS * BLOCK_SIZE) as usize).map(hash).collect::<Vec<_>>(),
            || whole.update(pending),
        );
        for part in parts {
            digests.extend(part);
        }
        inner.write_all(pending)?;
        pending.clear();
        Ok(())
    }

    /// The inner writer, flushed, and the hashes.
    ///
    /// # Errors
    /// [`VerityError::Length`] when what was written is empty or no whole number of blocks.
    pub fn finish(mut self) -> Result<(W, Hashes), VerityError> {
        if self.length == 0 || !self.length.is_multiple_of(BLOCK_SIZE) {
            return Err(VerityError::Length(self.length));
        }
        let failed = |error| VerityError::Io("write the verity data", error);
        self.pass().and_then(|()| self.inner.flush()).map_err(failed)?;
        let mut sha256 = [0; 32];
        sha256.copy_from_slice(self.whole.finish().as_ref());
        let leaves = Leaves { salt: self.salt, digests: self.digests };
        Ok((self.inner, Hashes { sha256: Digest(sha256), length: self.length, leaves }))
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let length = bytes.len().min(PENDING - self.pending.len());
        self.pending.extend_from_slice(&bytes[..length]);
        self.length += length as u64;
        if self.pending.len() == PENDING {
            self.pass()?;
        }
        Ok(length)
    }

    /// Does nothing: blocks are hashed whole, so that the end waits for [`finish`](Hashing::finish).
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
