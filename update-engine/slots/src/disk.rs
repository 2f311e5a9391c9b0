//! Partitions as the swap sees them.

use std::fmt::Debug;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// A place for bytes.
pub trait Disk: Debug + Send {
    /// Size in bytes.
    fn size(&self) -> u64;

    /// Reads; what was written and not flushed is seen.
    fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;

    /// Writes. It is safe from a power cut after [`Self::flush`] only, and until then in any order with other writes.
    fn write(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Makes all writes durable.
    fn flush(&mut self) -> io::Result<()>;

    /// Reads what the device has, not what memory remembers of it. `offset` and length are multiples of 4096.
    fn read_back(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;
}

/// Alignment that every device takes for direct access, in bytes.
const ALIGNMENT: usize = 4096;
/// Most bytes of one direct read.
const STEP: usize = 1 << 20;

/// A partition of a block device, or a file in its place.
#[derive(Debug)]
pub struct Partition {
    file: File,
    direct: Option<File>,
    size: u64,
    bounce: Mutex<Vec<u8>>,
}

impl Partition {
    /// Opens for reading, and for writing where `write` says so.
    pub fn open(path: &Path, write: bool) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(write).open(path)?;
        let size = io::Seek::seek(&mut &file, io::SeekFrom::End(0))?;
        let flag = i32::try_from(rustix::fs::OFlags::DIRECT.bits()).unwrap_or(0);
        // Not every file system has it; then the cache is asked to forget.
        let direct = OpenOptions::new().read(true).custom_flags(flag).open(path).ok();
        Ok(Self { file, direct, size, bounce: Mutex::new(vec![0; STEP + ALIGNMENT]) })
    }

    fn forget(&self) {
        let _ = rustix::fs::fadvise(&self.file, 0, None, rustix::fs::Advice::DontNeed);
    }
}

impl Disk for Partition {
    fn size(&self) -> u64 {
        self.size
    }

    fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let end = offset.checked_add(bytes.len() as u64).filter(|end| *end <= self.size);
        end.ok_or(io::ErrorKind::StorageFull)?;
        self.file.write_all_at(bytes, offset)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.sync_all()
    }

    fn read_back(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let Some(direct) = &self.direct else {
            self.forget();
            return self.file.read_exact_at(buffer, offset);
        };
        // The device writes into memory that is aligned as it is: a part of a longer buffer.
        let mut bounce = self.bounce.lock().unwrap_or_else(PoisonError::into_inner);
        let skip = bounce.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT);
        let mut at = offset;
        for part in buffer.chunks_mut(STEP) {
            let place = bounce.get_mut(skip..skip + part.len()).ok_or(io::ErrorKind::InvalidInput)?;
            if let Err(error) = direct.read_exact_at(place, at) {
                if error.kind() != io::ErrorKind::InvalidInput {
                    return Err(error);
                }
                // This file has another alignment, or its end is not aligned.
                self.forget();
                self.file.read_exact_at(part, at)?;
            } else {
                part.copy_from_slice(place);
            }
            at += part.len() as u64;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_back_is_what_was_written() {
        let folder = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let path = folder.path().join("partition");
        std::fs::write(&path, vec![1; 3 << 20]).unwrap();
        let mut partition = Partition::open(&path, true).unwrap();
        partition.write(4096, &[7; 8192]).unwrap();
        partition.flush().unwrap();
        let mut back = vec![0; 2 << 20];
        partition.read_back(0, &mut back).unwrap();
        assert!(
            back[..4096].iter().all(|byte| *byte == 1) && back[4096..12288].iter().all(|byte| *byte == 7)
        );
        assert!(partition.write(3 << 20, &[0]).is_err(), "no byte behind the end");
        assert!(partition.read_back(3 << 20, &mut [0; 4096]).is_err());
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 3 << 20);
    }
}
