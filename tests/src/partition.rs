//! One partition of a raw disk, for example of a machine that is off (`ashlar_qemu::Stopped::disk`).

use crate::sparse;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

const SECTOR: u64 = 512;

/// A partition of a disk.
#[derive(Debug)]
pub struct Partition {
    disk: PathBuf,
    /// Number in the table, from 1.
    pub number: u32,
    /// Where it lies on the disk, in bytes.
    pub range: Range<u64>,
}

impl Partition {
    /// The partition with this label in the disk's own table (UEFI Specification 2.10, sections 5.3.2 and 5.3.3), which
    /// only one may have.
    pub fn of(disk: &Path, label: &str) -> Self {
        let file = File::open(disk).unwrap();
        let mut header = [0; 92];
        file.read_exact_at(&mut header, SECTOR).unwrap();
        assert_eq!(&header[..8], b"EFI PART", "no partition table on {}", disk.display());
        let number = |bytes: &[u8], at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
        let small = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().unwrap());
        let (table, count, size) = (number(&header, 72) * SECTOR, small(80), small(84));
        assert!((128..=4096).contains(&size) && count <= 1024, "{count} entries of {size} bytes");
        let mut wanted = [0; 72];
        for (place, unit) in wanted.chunks_exact_mut(2).zip(label.encode_utf16()) {
            place.copy_from_slice(&unit.to_le_bytes());
        }
        let mut found = Vec::new();
        for index in 0..count {
            let mut entry = [0; 128];
            file.read_exact_at(&mut entry, table + u64::from(index) * u64::from(size)).unwrap();
            if entry[..16] != [0; 16] && entry[56..] == wanted {
                let range = number(&entry, 32) * SECTOR..(number(&entry, 40) + 1) * SECTOR;
                found.push(Self { disk: disk.to_owned(), number: index + 1, range });
            }
        }
        assert_eq!(found.len(), 1, "{} partitions `{label}` on {}", found.len(), disk.display());
        found.remove(0)
    }

    /// Its size in bytes.
    pub fn len(&self) -> u64 {
        self.range.end - self.range.start
    }

    /// Whether it has no bytes at all.
    pub fn is_empty(&self) -> bool {
        self.range.is_empty()
    }

    fn open(&self) -> File {
        File::options().read(true).write(true).open(&self.disk).unwrap()
    }

    fn place(&self, offset: u64, length: u64) -> u64 {
        assert!(offset + length <= self.len(), "{length} bytes at {offset} are not in the partition");
        self.range.start + offset
    }

    /// Reads `length` bytes from `offset` on.
    pub fn read(&self, offset: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.open().read_exact_at(&mut bytes, self.place(offset, length as u64)).unwrap();
        bytes
    }

    /// Writes bytes from `offset` on.
    pub fn write(&self, offset: u64, bytes: &[u8]) {
        self.open().write_all_at(bytes, self.place(offset, bytes.len() as u64)).unwrap();
    }

    /// Copies all of it to the beginning of a new file, with its holes.
    pub fn copy_to(&self, file: &Path) {
        let to = File::create(file).unwrap();
        to.set_len(self.len()).unwrap();
        sparse::copy_range(&self.open(), self.range.clone(), &to, 0);
    }

    /// Fills it with the content of a file and zeros behind it.
    pub fn copy_from(&self, file: &Path) {
        let from = File::open(file).unwrap();
        let length = from.metadata().unwrap().len();
        assert!(length <= self.len(), "{} has {length} bytes, the partition {}", file.display(), self.len());
        self.zero();
        sparse::copy_range(&from, 0..length, &self.open(), self.range.start);
    }

    /// Fills it with the content of another partition, which is not larger, for example the same one of another disk.
    pub fn copy_of(&self, other: &Self) {
        assert!(other.len() <= self.len());
        self.zero();
        sparse::copy_range(&other.open(), other.range.clone(), &self.open(), self.range.start);
    }

    /// Makes all of it zeros, which take no space.
    pub fn zero(&self) {
        use rustix::fs::{FallocateFlags, fallocate};
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        fallocate(self.open(), flags, self.range.start, self.len()).unwrap();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Run;
    use crate::tools::judge;

    #[test]
    fn a_partition_is_found_read_and_replaced_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let [one, other] = ["one", "other"].map(|name| dir.path().join(name));
        for disk in [&one, &other] {
            crate::disk::empty(disk, 64 << 20);
            let Some(mut sgdisk) = judge("sgdisk", "gdisk") else { return };
            sgdisk.args(["-n", "1:2048:+1M", "-c", "1:esp-a", "-n", "7:8192:+4M", "-c", "7:state"]);
            let _ = Run::of(sgdisk.args(["-n", "3:32768:+8M", "-c", "3:state2"]).arg(disk)).ok();
        }
        let state = Partition::of(&one, "state");
        assert_eq!((state.number, state.range.clone()), (7, 4 << 20..8 << 20));
        state.write(0, b"begin");
        state.write((4 << 20) - 3, b"end");
        assert_eq!(state.read((4 << 20) - 4, 4), b"\0end");
        let theirs = Partition::of(&other, "state2");
        theirs.write(5 << 20, &[7; 4096]);
        theirs.copy_of(&state);
        assert_eq!(theirs.read(0, 5), b"begin");
        assert_eq!(theirs.read(5 << 20, 4096), [0; 4096]);
        let file = dir.path().join("file");
        state.copy_to(&file);
        assert_eq!(std::fs::metadata(&file).unwrap().len(), 4 << 20);
        state.zero();
        assert_eq!(state.read(0, 4 << 20), vec![0; 4 << 20]);
        state.copy_from(&file);
        assert_eq!(
            sparse::difference(&file, &one).map(|_| state.read((4 << 20) - 3, 3)),
            Some(b"end".to_vec())
        );
        for disk in [&one, &other] {
            let run = Run::of(judge("sgdisk", "gdisk").unwrap().arg("-v").arg(disk)).ok();
            assert!(run.stdout.contains("No problems found"), "{run}");
        }
    }

    #[test]
    #[should_panic(expected = "0 partitions `state`")]
    fn a_label_that_is_not_there_fails() {
        let dir = tempfile::tempdir().unwrap();
        let disk = dir.path().join("disk");
        crate::disk::empty(&disk, 64 << 20);
        let mut header = [0; 92];
        header[..8].copy_from_slice(b"EFI PART");
        header[72] = 2;
        header[80] = 128;
        header[84] = 128;
        File::options().write(true).open(&disk).unwrap().write_all_at(&header, SECTOR).unwrap();
        Partition::of(&disk, "state");
    }
}
