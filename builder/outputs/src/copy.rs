//! Copying a sparse file by the cheapest means that the file systems have.

use crate::Error;
use crate::extents::Extents;
use rustix::fs::{copy_file_range, ioctl_ficlone};
use rustix::io::Errno;
use std::fs::File;
use std::os::unix::fs::FileExt;

/// Bytes that are copied through memory at once.
const CHUNK: usize = 1 << 20;

/// How a file was copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Copied {
    /// Both files share their blocks until one is changed (`FICLONE`).
    Shared,
    /// By the kernel (`copy_file_range`), holes kept.
    InKernel,
    /// Through memory, holes kept.
    Through,
}

/// Makes `to` the same as `from`, holes included. `to` is emptied first. The position of `from` as an open file changes.
///
/// # Errors
/// [`Error::Read`] and [`Error::Write`] when a file fails; what is in `to` is of no use then.
pub fn copy_sparse(from: &File, to: &File) -> Result<Copied, Error> {
    to.set_len(0).map_err(Error::Write)?;
    // Any failure only says that blocks cannot be shared here.
    if ioctl_ficlone(to, from).is_ok() {
        return Ok(Copied::Shared);
    }
    let size = from.metadata().map_err(Error::Read)?.len();
    to.set_len(size).map_err(Error::Write)?;
    let mut extents = Extents::new(from, size);
    let mut at = 0;
    let mut in_kernel = true;
    while let Some(data) = extents.next(at).map_err(Error::Read)? {
        at = data.start;
        while in_kernel && at < data.end {
            in_kernel = kernel_step(from, to, &mut at, data.end)?;
        }
        if at < data.end {
            copy_through(from, to, at, data.end)?;
        }
        at = data.end;
    }
    Ok(if in_kernel { Copied::InKernel } else { Copied::Through })
}

/// Copies some bytes from `at` on inside the kernel. False when it cannot do that with these files.
fn kernel_step(from: &File, to: &File, at: &mut u64, end: u64) -> Result<bool, Error> {
    let (mut source, mut target) = (*at, *at);
    let length = usize::try_from(end - *at).unwrap_or(usize::MAX).min(1 << 30);
    match copy_file_range(from, Some(&mut source), to, Some(&mut target), length) {
        // Nothing copied before the end: a file system that only pretends.
        Ok(0) | Err(Errno::XDEV | Errno::NOSYS | Errno::OPNOTSUPP | Errno::INVAL | Errno::PERM) => Ok(false),
        Ok(copied) => {
            *at += copied as u64;
            Ok(true)
        }
        Err(Errno::INTR) => Ok(true),
        Err(error) => Err(Error::Write(error.into())),
    }
}

fn copy_through(from: &File, to: &File, mut at: u64, end: u64) -> Result<(), Error> {
    let mut buffer = vec![0; CHUNK];
    while at < end {
        let length = (end - at).min(CHUNK as u64);
        let piece = buffer.get_mut(..length as usize).unwrap_or_default();
        from.read_exact_at(piece, at).map_err(Error::Read)?;
        to.write_all_at(piece, at).map_err(Error::Write)?;
        at += length;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn holes_stay_holes_and_bytes_stay_bytes() {
        let mut from = tempfile::tempfile().unwrap();
        from.write_all(b"first").unwrap();
        from.write_all_at(b"last", (64 << 20) - 4).unwrap();
        from.set_len((64 << 20) + 77).unwrap();
        let mut to = tempfile::tempfile().unwrap();
        to.write_all(&vec![7; 1 << 20]).unwrap();
        copy_sparse(&from, &to).unwrap();
        let through = tempfile::tempfile().unwrap();
        through.set_len((64 << 20) + 77).unwrap();
        copy_through(&from, &through, 0, (64 << 20) + 77).unwrap();
        let (a, b) = (to.metadata().unwrap(), from.metadata().unwrap());
        assert_eq!(a.len(), b.len());
        assert!(a.blocks() * 512 < 1 << 20, "{} blocks", a.blocks());
        for copy in [&to, &through] {
            for (at, text) in [(0, &b"first"[..]), ((64 << 20) - 4, b"last"), (1000, &[0; 8])] {
                let mut read = vec![0; text.len()];
                copy.read_exact_at(&mut read, at).unwrap();
                assert_eq!(read, text);
            }
        }
    }
}
