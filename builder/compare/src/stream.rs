//! Comparing streams piece by piece.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

/// Bytes that are compared at a time.
const PIECE: usize = 256 << 10;

/// Reads until `buffer` is full or the stream ends.
pub(crate) fn fill(stream: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        match stream.read(&mut buffer[done..]) {
            Ok(0) => break,
            Ok(length) => done += length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

/// Where two slices first differ; the shorter one's end when it begins the longer one.
pub(crate) fn first_byte(a: &[u8], b: &[u8]) -> Option<usize> {
    if a == b {
        return None;
    }
    Some(a.iter().zip(b).position(|(a, b)| a != b).unwrap_or(a.len().min(b.len())))
}

/// Where two streams first differ.
pub(crate) fn first_difference(a: &mut impl Read, b: &mut impl Read) -> io::Result<Option<u64>> {
    let (mut of_a, mut of_b) = (vec![0; PIECE], vec![0; PIECE]);
    let mut offset = 0;
    loop {
        let (in_a, in_b) = (fill(a, &mut of_a)?, fill(b, &mut of_b)?);
        if let Some(at) = first_byte(&of_a[..in_a], &of_b[..in_b]) {
            return Ok(Some(offset + at as u64));
        }
        if in_a == 0 {
            return Ok(None);
        }
        offset += in_a as u64;
    }
}

/// Ranges of a sparse file that hold data, merged; at most `limit` of them, then the rest as one.
fn data_ranges(file: &File, size: u64, limit: usize) -> Vec<(u64, u64)> {
    use rustix::fs::{SeekFrom, seek};
    let mut ranges = Vec::new();
    let mut at = 0;
    while at < size {
        if ranges.len() >= limit {
            ranges.push((at, size));
            break;
        }
        // No data behind `at`, or a file system that does not know holes: the former ends the list.
        let start = match seek(file, SeekFrom::Data(at)) {
            Ok(start) => start,
            Err(rustix::io::Errno::NXIO) => break,
            Err(_) => at,
        };
        let end = seek(file, SeekFrom::Hole(start)).unwrap_or(size).clamp(start + 1, size.max(start + 1));
        ranges.push((start, end));
        at = end;
    }
    ranges
}

/// Where two files of the same size first differ, without reading what is a hole in both; from `from` on.
pub(crate) fn first_difference_sparse(a: &File, b: &File, size: u64, from: u64) -> io::Result<Option<u64>> {
    let mut ranges = data_ranges(a, size, 4096);
    ranges.extend(data_ranges(b, size, 4096));
    ranges.sort_unstable();
    let (mut of_a, mut of_b) = (vec![0; PIECE], vec![0; PIECE]);
    let mut at = from;
    for (start, end) in ranges {
        at = at.max(start);
        while at < end.min(size) {
            let length = usize::try_from(end.min(size) - at).unwrap_or(PIECE).min(PIECE);
            a.read_exact_at(&mut of_a[..length], at)?;
            b.read_exact_at(&mut of_b[..length], at)?;
            if let Some(byte) = first_byte(&of_a[..length], &of_b[..length]) {
                return Ok(Some(at + byte as u64));
            }
            at += length as u64;
        }
    }
    Ok(None)
}
