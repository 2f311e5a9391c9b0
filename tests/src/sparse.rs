//! Large files that are mostly holes.

use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

const PIECE: u64 = 4 << 20;

/// Where a file has data, in bytes, in order. All the rest is zeros.
pub fn data(file: &File) -> Vec<Range<u64>> {
    let length = file.metadata().unwrap().len();
    let mut ranges = Vec::new();
    let mut at = 0;
    while at < length {
        let start = match seek(file, SeekFrom::Data(at)) {
            Ok(start) => start,
            // No data behind `at`.
            Err(Errno::NXIO) => break,
            Err(error) => panic!("cannot look for data: {error}"),
        };
        at = seek(file, SeekFrom::Hole(start)).unwrap();
        ranges.push(start..at);
    }
    ranges
}

fn pieces(ranges: &[Range<u64>]) -> impl Iterator<Item = Range<u64>> {
    ranges.iter().flat_map(|range| {
        let range = range.clone();
        let starts = (range.start..range.end).step_by(usize::try_from(PIECE).unwrap());
        starts.map(move |start| start..range.end.min(start + PIECE))
    })
}

/// Copies a file with its holes.
pub fn copy(from: &Path, to: &Path) {
    let (from, to) = (File::open(from).unwrap(), File::create(to).unwrap());
    let length = from.metadata().unwrap().len();
    to.set_len(length).unwrap();
    copy_range(&from, 0..length, &to, 0);
}

/// Copies what is data in a range of `from` to `to`, where the range begins at `at`. Holes are left as `to` has them.
pub fn copy_range(from: &File, range: Range<u64>, to: &File, at: u64) {
    let mut buffer = Vec::new();
    for piece in pieces(&data(from)) {
        let (start, end) = (piece.start.max(range.start), piece.end.min(range.end));
        if start < end {
            buffer.resize(usize::try_from(end - start).unwrap(), 0);
            from.read_exact_at(&mut buffer, start).unwrap();
            to.write_all_at(&buffer, at + (start - range.start)).unwrap();
        }
    }
}

/// The first byte in which two files differ, or the length of the shorter one; none if they are the same.
pub fn difference(one: &Path, other: &Path) -> Option<u64> {
    let (one, other) = (File::open(one).unwrap(), File::open(other).unwrap());
    let (length, other_length) = (one.metadata().unwrap().len(), other.metadata().unwrap().len());
    let mut ranges = [data(&one), data(&other)].concat();
    ranges.sort_by_key(|range| range.start);
    let (mut left, mut right) = (Vec::new(), Vec::new());
    for piece in pieces(&ranges) {
        let end = piece.end.min(length).min(other_length);
        let size = usize::try_from(end.saturating_sub(piece.start)).unwrap();
        left.resize(size, 0);
        right.resize(size, 0);
        one.read_exact_at(&mut left, piece.start).unwrap();
        other.read_exact_at(&mut right, piece.start).unwrap();
        if let Some(at) = left.iter().zip(&right).position(|(a, b)| a != b) {
            return Some(piece.start + at as u64);
        }
    }
    (length != other_length).then_some(length.min(other_length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_are_the_same_and_one_byte_shows() {
        let dir = tempfile::tempdir().unwrap();
        let (one, other) = (dir.path().join("one"), dir.path().join("other"));
        let file = File::create(&one).unwrap();
        file.set_len(1 << 30).unwrap();
        for at in [5, 100 << 20, (1 << 30) - 1] {
            file.write_all_at(b"x", at).unwrap();
        }
        copy(&one, &other);
        assert_eq!(difference(&one, &other), None);
        for at in [5, 200 << 20, (100 << 20) + 1] {
            copy(&one, &other);
            File::options().write(true).open(&other).unwrap().write_all_at(b"y", at).unwrap();
            assert_eq!(difference(&one, &other), Some(at));
            assert_eq!(difference(&other, &one), Some(at));
        }
        copy(&one, &other);
        File::options().write(true).open(&other).unwrap().set_len((1 << 30) + 7).unwrap();
        assert_eq!(difference(&one, &other), Some(1 << 30));
    }
}
