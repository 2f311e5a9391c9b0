//! Where bytes come from and go to.

use std::fs::File;
use std::io::{self, Seek as _, SeekFrom};
use std::os::unix::fs::FileExt as _;

/// A source of random bytes, as good as getrandom(2): `|buffer| …`.
pub type Random<'a> = &'a mut dyn FnMut(&mut [u8]) -> io::Result<()>;

/// Something of a fixed size that is read at places.
pub trait ReadAt {
    /// Size in bytes.
    fn size(&self) -> io::Result<u64>;
    /// Fills the buffer from `offset` on, or fails with [`io::ErrorKind::UnexpectedEof`].
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
}

/// Something that is written at places.
///
/// What was written before a flush is on the medium when the flush has returned; until then any part of it, in any
/// order, may be.
pub trait WriteAt: ReadAt {
    /// Writes all of the data at `offset`.
    fn write_at(&mut self, data: &[u8], offset: u64) -> io::Result<()>;
    /// Brings everything that was written to the medium.
    fn flush(&mut self) -> io::Result<()>;
}

impl ReadAt for File {
    /// Works for block devices too, whose metadata says zero.
    fn size(&self) -> io::Result<u64> {
        (&mut &*self).seek(SeekFrom::End(0))
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.read_exact_at(buffer, offset)
    }
}

impl WriteAt for File {
    fn write_at(&mut self, data: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(data, offset)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.sync_data()
    }
}
