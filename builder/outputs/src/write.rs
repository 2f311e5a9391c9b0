//! Writing at places of a file.

use crate::Error;
use crate::extents::is_zero;
use std::fs::File;
use std::os::unix::fs::FileExt;

/// Bytes that are a hole or are written, as a whole.
const PIECE: usize = 4096;

/// Writes `bytes` at `offset`.
pub fn write(out: &File, bytes: &[u8], offset: u64) -> Result<(), Error> {
    out.write_all_at(bytes, offset).map_err(Error::Write)
}

/// Writes `bytes` at `offset` of a file that is empty there, leaving holes for zeros.
pub fn write_sparse(out: &File, bytes: &[u8], offset: u64) -> Result<(), Error> {
    let mut at = 0;
    for run in bytes.chunk_by_pieces() {
        if !is_zero(run.get(..PIECE.min(run.len())).unwrap_or_default()) {
            write(out, run, offset + at)?;
        }
        at += run.len() as u64;
    }
    Ok(())
}

/// Cutting into runs of pieces that are all zeros or all not.
trait Runs {
    fn chunk_by_pieces(&self) -> impl Iterator<Item = &[u8]>;
}

impl Runs for [u8] {
    fn chunk_by_pieces(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = self;
        std::iter::from_fn(move || {
            let first = is_zero(rest.chunks(PIECE).next()?);
            let pieces = rest.chunks(PIECE).take_while(|piece| is_zero(piece) == first);
            let length = pieces.map(<[u8]>::len).sum();
            let (run, after) = rest.split_at(length);
            rest = after;
            Some(run)
        })
    }
}

/// A buffer of fixed size that fields are put into. Offsets are those of a format's description, never of an input.
pub struct Fields(Vec<u8>);

impl Fields {
    pub fn zeros(length: usize) -> Self {
        Self(vec![0; length])
    }

    /// Puts `bytes` at `offset`.
    #[must_use]
    pub fn put(mut self, offset: usize, bytes: &[u8]) -> Self {
        if let Some(place) = self.0.get_mut(offset..offset + bytes.len()) {
            place.copy_from_slice(bytes);
        }
        self
    }

    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}
