//! Compressing all files into a temporary file, in parallel, in bounded memory, and in an order that does not depend on
//! the number of cores.

use super::codec::{Codec, Extent, WINDOW};
use super::source::Source;
use super::{BLOCK, ErofsError, Options};
use ashlar_tree::Content;
use rayon::prelude::*;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Input that is compressed before the results are written, in bytes; what bounds the memory.
const BATCH: u64 = 32 << 20;
/// Windows in a batch.
const BATCH_WINDOWS: usize = 1024;

/// A file's compressed content.
#[derive(Debug)]
pub struct Stored {
    /// Its extents in order.
    pub extents: Vec<Extent>,
    /// First byte in the temporary file.
    pub offset: u64,
    /// Blocks of all extents.
    pub blocks: u64,
}

/// The temporary file.
#[derive(Debug)]
pub struct Spool {
    file: File,
    end: u64,
}

/// A file to be compressed.
pub struct Input<'a> {
    /// Its number in the caller's list.
    pub number: usize,
    pub path: &'a [u8],
    pub content: &'a Content,
}

/// A part of an input.
struct Window<'i, 'a> {
    input: &'i Input<'a>,
    start: u64,
    length: u64,
}

impl Spool {
    /// An empty one.
    pub fn new(options: &Options) -> Result<Self, ErofsError> {
        let file = match &options.spool_folder {
            Some(folder) => tempfile::tempfile_in(folder),
            None => tempfile::tempfile(),
        };
        Ok(Self { file: file.map_err(ErofsError::Spool)?, end: 0 })
    }

    /// Fills `buffer` from `offset` on.
    pub fn read(&self, buffer: &mut [u8], offset: u64) -> Result<(), ErofsError> {
        self.file.read_exact_at(buffer, offset).map_err(ErofsError::Spool)
    }

    /// Compresses `inputs`, and tells `done` of each that gets smaller by at least one block.
    pub fn compress(
        &mut self,
        inputs: &[Input<'_>],
        options: &Options,
        mut done: impl FnMut(usize, Stored),
    ) -> Result<(), ErofsError> {
        let mut windows = inputs.iter().flat_map(|input| {
            let size = input.content.len();
            let cut = move |start: u64| Window { input, start, length: WINDOW.min(size - start) };
            (0..size).step_by(WINDOW as usize).map(cut)
        });
        let mut open: Option<Stored> = None;
        loop {
            let mut batch = Vec::new();
            let mut bytes = 0;
            while bytes < BATCH && batch.len() < BATCH_WINDOWS {
                let Some(window) = windows.next() else { break };
                bytes += window.length;
                batch.push(window);
            }
            if batch.is_empty() {
                return Ok(());
            }
            let results: Vec<_> = batch
                .par_iter()
                .with_max_len(1)
                .map_init(Source::default, |source, window| compress(window, options, source))
                .collect::<Result<_, _>>()?;
            for (window, (extents, blocks)) in batch.iter().zip(results) {
                let stored =
                    open.get_or_insert_with(|| Stored { extents: Vec::new(), offset: self.end, blocks: 0 });
                self.file.write_all_at(&blocks, self.end).map_err(ErofsError::Spool)?;
                self.end += blocks.len() as u64;
                stored.blocks += blocks.len() as u64 / BLOCK;
                stored.extents.extend(extents);
                let size = window.input.content.len();
                if window.start + window.length < size {
                    continue;
                }
                let Some(stored) = open.take() else { continue };
                if stored.blocks < size.div_ceil(BLOCK) {
                    done(window.input.number, stored);
                } else {
                    // It is read from its source again; the space is for the next.
                    self.end = stored.offset;
                }
            }
        }
    }
}

/// The extents and blocks of one window.
fn compress<'a>(
    window: &Window<'_, 'a>,
    options: &Options,
    source: &mut Source<'a>,
) -> Result<(Vec<Extent>, Vec<u8>), ErofsError> {
    let input = window.input;
    let read = |source| ErofsError::Read { path: String::from_utf8_lossy(input.path).into_owned(), source };
    let bytes = source.read(input.content, window.start, window.length).map_err(read)?;
    // A new one for each window: what a used one holds must not be able to show in the result.
    let codec = Codec::new(options.compression, options.cluster_size).map_err(ErofsError::Spool)?;
    let mut codec = codec.ok_or_else(|| ErofsError::Spool(io::Error::other("there is no compressor")))?;
    let (mut extents, mut blocks) = (Vec::new(), Vec::new());
    codec.window(&bytes, &mut extents, &mut blocks).map_err(ErofsError::Spool)?;
    blocks.shrink_to_fit();
    Ok((extents, blocks))
}
