//! The content of files.

use super::index::{Coding, Extent, Index, Place};
use super::inode::{Inode, Layout};
use super::{ReadAt, ReadError, Reader, feature, u16_at, u32_at};
use std::io;

/// Reads the content of one inode, at any place or from the beginning to the end ([`io::Read`]). It holds at most one
/// decompressed cluster: 12 MiB.
#[derive(Debug)]
pub struct FileReader<'r, S> {
    reader: &'r Reader<S>,
    inode: Inode,
    body: Body,
    /// The extent that was decompressed last and its bytes.
    decoded: Option<(u64, Vec<u8>)>,
    /// The packed inode, once it is needed.
    packed: Option<Box<FileReader<'r, S>>>,
    /// For [`io::Read`].
    position: u64,
}

#[derive(Debug)]
enum Body {
    /// In whole blocks from this byte of the image on; the rest from the second one on.
    Flat {
        first: u64,
        tail: u64,
        tail_at: u64,
    },
    /// `bits`: size of a chunk; `indexes`: whether entries have 8 bytes; `at`: where the entries begin.
    Chunks {
        bits: u32,
        indexes: bool,
        at: u64,
    },
    Compressed(Box<Index>),
}

impl<'r, S: ReadAt> FileReader<'r, S> {
    pub(super) fn new(reader: &'r Reader<S>, inode: Inode) -> Result<Self, ReadError> {
        let block = reader.block_size();
        let body = match inode.layout {
            Layout::Plain | Layout::Inline => {
                let tail = if inode.layout == Layout::Inline { inode.size % block } else { 0 };
                let first = u64::from(inode.union) << reader.block_bits;
                if inode.end() % block + tail > block && tail != 0 {
                    return Reader::<S>::damaged(&inode, "its inline data crosses a block");
                }
                Body::Flat { first, tail, tail_at: inode.end() }
            }
            Layout::Chunks => {
                let format = inode.union as u16;
                if format & !0x3f != 0 {
                    return Err(ReadError::Unsupported(format!("the chunk format {format:#x}")));
                }
                let indexes = format & 0x20 != 0;
                let at = inode.end().next_multiple_of(if indexes { 8 } else { 4 });
                Body::Chunks { bits: reader.block_bits + u32::from(format & 0x1f), indexes, at }
            }
            _ => Body::Compressed(Box::new(Index::read(reader, &inode)?)),
        };
        Ok(Self { reader, inode, body, decoded: None, packed: None, position: 0 })
    }

    /// Length of the content in bytes.
    pub fn size(&self) -> u64 {
        self.inode.size
    }

    /// Where the index of a compressed file or of chunks lies in the image.
    pub(super) fn index_range(&self) -> Option<(u64, u64)> {
        match &self.body {
            Body::Flat { .. } => None,
            Body::Chunks { bits, indexes, at } => {
                let length = self.inode.size.div_ceil(1 << bits) * if *indexes { 8 } else { 4 };
                Some((*at, at + length))
            }
            Body::Compressed(index) => Some(index.range),
        }
    }

    /// The extent that holds the byte `at`, which is in the file.
    pub(super) fn extent(&mut self, at: u64) -> Result<Extent, ReadError> {
        let size = self.inode.size;
        match &mut self.body {
            Body::Flat { first, tail, tail_at } => {
                let whole = size - *tail;
                let (start, length, offset) =
                    if at < whole { (0, whole, *first) } else { (whole, *tail, *tail_at) };
                Ok(Extent { start, length, place: Place::Image(offset, length, Coding::Raw) })
            }
            Body::Chunks { bits, indexes, at: entries } => {
                let number = at >> *bits;
                let width = if *indexes { 8 } else { 4 };
                let entry = self.reader.bytes(*entries + number * width, width as usize)?;
                let (device, block) =
                    if *indexes { (u16_at(&entry, 2), u32_at(&entry, 4)) } else { (0, u32_at(&entry, 0)) };
                let start = number << *bits;
                let length = (size - start).min(1 << *bits);
                let place = match block {
                    u32::MAX => Place::Hole,
                    _ if device != 0 => return Err(ReadError::Unsupported("more than one device".into())),
                    _ => Place::Image(u64::from(block) << self.reader.block_bits, length, Coding::Raw),
                };
                Ok(Extent { start, length, place })
            }
            Body::Compressed(index) => match index.packed {
                Some(offset) => Ok(Extent { start: 0, length: size, place: Place::Packed(offset) }),
                None => index.extent(self.reader, at),
            },
        }
    }

    /// Reads at `offset`: as much as `buffer` holds, less at the end of the file, 0 behind it.
    pub fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<usize, ReadError> {
        let left = self.inode.size.saturating_sub(offset);
        let wanted = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
        let mut done = 0;
        while done < wanted {
            done += self.piece(offset + done as u64, &mut buffer[done..wanted])?;
        }
        Ok(done)
    }

    /// Fills `buffer` or fails.
    pub(super) fn read_full(&mut self, offset: u64, buffer: &mut [u8]) -> Result<(), ReadError> {
        match self.read_at(offset, buffer)? {
            length if length == buffer.len() => Ok(()),
            _ => Reader::<S>::damaged(&self.inode, "its content is shorter than what refers to it"),
        }
    }

    /// What one extent has for `buffer`: at least a byte.
    fn piece(&mut self, at: u64, buffer: &mut [u8]) -> Result<usize, ReadError> {
        if let Some((start, bytes)) = &self.decoded
            && let Some(from) = at.checked_sub(*start).and_then(|from| usize::try_from(from).ok())
            && let Some(rest) = bytes.get(from..).filter(|rest| !rest.is_empty())
        {
            let length = rest.len().min(buffer.len());
            buffer[..length].copy_from_slice(&rest[..length]);
            return Ok(length);
        }
        let extent = self.extent(at)?;
        let skip = at - extent.start;
        let length =
            usize::try_from(extent.length - skip).map_or(buffer.len(), |left| left.min(buffer.len()));
        let part = &mut buffer[..length];
        match extent.place {
            Place::Hole => part.fill(0),
            Place::Image(offset, stored, Coding::Raw) => {
                if extent.length > stored {
                    return Reader::<S>::damaged(&self.inode, "a stored extent is longer than its room");
                }
                let from = offset.checked_add(skip);
                let Some(from) = from else {
                    return Reader::<S>::damaged(&self.inode, "its content lies outside of the image");
                };
                self.reader.fill(part, from)?;
            }
            Place::Image(offset, stored, coding) => {
                let bytes = self.decode(&extent, offset, stored, coding)?;
                self.decoded = Some((extent.start, bytes));
                return self.piece(at, buffer);
            }
            Place::Packed(offset) => {
                let nid = self.reader.packed;
                if nid == 0 || nid == self.inode.nid {
                    return Reader::<S>::damaged(&self.inode, "it refers to a packed inode that is none");
                }
                let packed = match &mut self.packed {
                    Some(packed) => packed,
                    none => none.insert(Box::new(FileReader::new(self.reader, self.reader.inode(nid)?)?)),
                };
                let from = offset.checked_add(skip);
                let Some(from) = from else {
                    return Reader::<S>::damaged(&self.inode, "its content lies outside of the packed inode");
                };
                packed.read_full(from, part)?;
            }
        }
        Ok(length)
    }

    fn decode(
        &self,
        extent: &Extent,
        offset: u64,
        stored: u64,
        coding: Coding,
    ) -> Result<Vec<u8>, ReadError> {
        // At most 1 MiB and 12 MiB, or one block: the index has seen to it.
        let input = self.reader.bytes(offset, stored as usize)?;
        let mut output = vec![0; extent.length as usize];
        let done = match coding {
            Coding::Raw | Coding::Interlaced => {
                // The bytes lie in their block where they would lie in the page, and go on at its beginning.
                let turn = (extent.start % self.reader.block_size()) as usize;
                if output.len() > input.len() || turn > input.len() {
                    None
                } else {
                    let right = output.len().min(input.len() - turn);
                    let (one, two) = output.split_at_mut(right);
                    one.copy_from_slice(&input[turn..turn + right]);
                    two.copy_from_slice(&input[..two.len()]);
                    Some(())
                }
            }
            Coding::Compressed { algorithm, partial } => {
                let padded = self.reader.features & feature::ZERO_PADDING != 0;
                let padding = if padded { input.iter().take_while(|&&byte| byte == 0).count() } else { 0 };
                let input = &input[padding..];
                match algorithm {
                    0 if partial || !padded => lz4_partial(input, &mut output),
                    0 => lzzzz::lz4::decompress(input, &mut output)
                        .ok()
                        .filter(|&n| n == output.len())
                        .map(|_| ()),
                    3 => zstd_decode(input, &mut output),
                    1 => return Err(ReadError::Unsupported("MicroLZMA".into())),
                    2 => return Err(ReadError::Unsupported("DEFLATE".into())),
                    other => return Err(ReadError::Unsupported(format!("the compression {other}"))),
                }
            }
        };
        match done {
            Some(()) => Ok(output),
            None => Reader::<S>::damaged(&self.inode, "a compressed extent cannot be decompressed"),
        }
    }
}

/// Decompresses the beginning of a block.
fn lz4_partial(input: &[u8], output: &mut [u8]) -> Option<()> {
    let wanted = output.len();
    lzzzz::lz4::decompress_partial(input, output, wanted).ok().filter(|&length| length == wanted).map(|_| ())
}

/// Decompresses the beginning of a zstd frame with a window of at most 1 MiB (`Z_EROFS_ZSTD_MAX_DICT_SIZE`).
fn zstd_decode(input: &[u8], output: &mut [u8]) -> Option<()> {
    let mut decoder = zstd::stream::read::Decoder::with_buffer(input).ok()?;
    decoder.window_log_max(20).ok()?;
    io::Read::read_exact(&mut decoder, output).ok()
}

impl<S: ReadAt> io::Read for FileReader<'_, S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.read_at(self.position, buffer).map_err(io::Error::other)?;
        self.position += length as u64;
        Ok(length)
    }
}
