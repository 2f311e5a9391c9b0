//! Where a sparse file holds data (lseek(2), `SEEK_DATA` and `SEEK_HOLE`).

use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;

/// Finds the data of a file, front to back.
pub struct Extents<'a> {
    file: &'a File,
    size: u64,
    /// The extent that was found last.
    last: Range<u64>,
}

impl<'a> Extents<'a> {
    pub fn new(file: &'a File, size: u64) -> Self {
        Self { file, size, last: 0..0 }
    }

    /// The first data at or after byte `from`: its place and how far it goes. None when only holes follow.
    pub fn next(&mut self, from: u64) -> std::io::Result<Option<Range<u64>>> {
        if from >= self.size {
            return Ok(None);
        }
        if !self.last.contains(&from) {
            let start = match seek(self.file, SeekFrom::Data(from)) {
                Ok(start) => start,
                Err(Errno::NXIO) => return Ok(None),
                // A file system that does not know: all may be data.
                Err(Errno::INVAL | Errno::OPNOTSUPP) => from,
                Err(error) => return Err(error.into()),
            };
            let end = match seek(self.file, SeekFrom::Hole(start)) {
                Ok(end) if end > start => end,
                Ok(_) | Err(Errno::INVAL | Errno::OPNOTSUPP | Errno::NXIO) => self.size,
                Err(error) => return Err(error.into()),
            };
            self.last = start..end.min(self.size);
        }
        let found = from.max(self.last.start)..self.last.end;
        Ok(Some(found).filter(|found| !found.is_empty()))
    }
}

/// Gives the blocks of a file that are not only zeros, in order.
pub struct Blocks<'a> {
    extents: Extents<'a>,
    block: u64,
    next: u64,
}

impl<'a> Blocks<'a> {
    /// Blocks of `block` bytes; the last one may reach past the end and is filled up with zeros.
    pub fn new(file: &'a File, size: u64, block: u64) -> Self {
        Self { extents: Extents::new(file, size), block, next: 0 }
    }

    /// Reads the next block with anything but zeros into `buffer`, which has the length of a block, and gives its number.
    pub fn next(&mut self, buffer: &mut [u8]) -> std::io::Result<Option<u64>> {
        while let Some(data) = self.extents.next(self.next)? {
            let number = data.start / self.block;
            let start = number * self.block;
            let length = self.block.min(self.extents.size - start) as usize;
            let (head, tail) = buffer.split_at_mut(length);
            self.extents.file.read_exact_at(head, start)?;
            tail.fill(0);
            self.next = start + self.block;
            if !is_zero(head) {
                return Ok(Some(number));
            }
        }
        Ok(None)
    }
}

/// Whether there are only zeros. Works through whole pieces, which the compiler makes wide instructions of.
pub fn is_zero(bytes: &[u8]) -> bool {
    bytes.chunks(1024).all(|piece| piece.iter().fold(0, |all, byte| all | byte) == 0)
}
