//! The GUID partition table, read only (UEFI Specification 2.10, section 5.3).
//!
//! The kernel makes the partitions' devices; this reader adds what the kernel does not tell: the types.

use crate::block::ReadAt;
use crate::guid::Guid;
use std::io;

/// Most entries that a table may have. The specification's minimum of 128 is what everybody writes.
const MAX_ENTRIES: u32 = 1024;
/// Sizes of an entry in bytes that are accepted: 128 is what everybody writes.
const MAX_ENTRY_SIZE: u32 = 512;
/// Size in bytes of the header's defined part.
const HEADER_SIZE: u32 = 92;

/// Why a disk has no readable partition table.
#[derive(Debug, thiserror::Error)]
pub enum GptError {
    /// The table cannot be read.
    #[error("its partition table cannot be read: {0}")]
    Io(#[from] io::Error),
    /// There is no table.
    #[error("it has no GUID partition table")]
    NoTable,
    /// The table is damaged.
    #[error("its partition table is damaged: {0} is wrong")]
    Damaged(&'static str),
}

/// A used entry of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// Number, from 1.
    pub number: u32,
    /// What it is for.
    pub type_guid: Guid,
    /// Its own GUID, `PARTUUID`.
    pub guid: Guid,
    /// First logical block.
    pub first: u64,
    /// Last logical block.
    pub last: u64,
    /// Label; characters that are no Unicode are replaced.
    pub label: String,
}

fn bytes<const N: usize>(data: &[u8], at: usize) -> Option<[u8; N]> {
    data.get(at..)?.first_chunk().copied()
}

fn u32_at(data: &[u8], at: usize) -> Option<u32> {
    bytes(data, at).map(u32::from_le_bytes)
}

fn u64_at(data: &[u8], at: usize) -> Option<u64> {
    bytes(data, at).map(u64::from_le_bytes)
}

/// CRC-32 as in IEEE 802.3, which the specification asks for.
pub(crate) fn crc32(parts: &[&[u8]]) -> u32 {
    let mut crc = u32::MAX;
    for byte in parts.iter().copied().flatten() {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
        }
    }
    !crc
}

struct Header {
    first_usable: u64,
    last_usable: u64,
    entries_at: u64,
    entries: u32,
    entry_size: u32,
    entries_crc: u32,
}

fn header(block: &[u8]) -> Result<Header, GptError> {
    if block.get(..8) != Some(b"EFI PART".as_slice()) {
        return Err(GptError::NoTable);
    }
    let short = || GptError::Damaged("the header's size");
    let size = u32_at(block, 12).filter(|size| *size >= HEADER_SIZE).ok_or_else(short)?;
    let covered = block.get(..size as usize).ok_or_else(short)?;
    let (head, rest) = covered.split_at_checked(16).ok_or_else(short)?;
    let (crc, tail) = rest.split_at_checked(4).ok_or_else(short)?;
    if u32_at(crc, 0) != Some(crc32(&[head, &[0; 4], tail])) {
        return Err(GptError::Damaged("the header's checksum"));
    }
    if u64_at(block, 24) != Some(1) {
        return Err(GptError::Damaged("the header's place"));
    }
    let field = |at| u64_at(block, at).ok_or_else(short);
    let word = |at| u32_at(block, at).ok_or_else(short);
    let header = Header {
        first_usable: field(40)?,
        last_usable: field(48)?,
        entries_at: field(72)?,
        entries: word(80)?,
        entry_size: word(84)?,
        entries_crc: word(88)?,
    };
    if header.entries > MAX_ENTRIES {
        return Err(GptError::Damaged("the number of entries"));
    }
    if header.entry_size < 128 || header.entry_size > MAX_ENTRY_SIZE || !header.entry_size.is_power_of_two() {
        return Err(GptError::Damaged("the size of an entry"));
    }
    Ok(header)
}

fn entry(number: u32, data: &[u8], header: &Header) -> Result<Option<Partition>, GptError> {
    let short = || GptError::Damaged("an entry");
    let type_guid = Guid::from_disk(bytes(data, 0).ok_or_else(short)?);
    if type_guid.is_zero() {
        return Ok(None);
    }
    let first = u64_at(data, 32).ok_or_else(short)?;
    let last = u64_at(data, 40).ok_or_else(short)?;
    if first < header.first_usable || first > last || last > header.last_usable {
        return Err(GptError::Damaged("the place of a partition"));
    }
    let name: Vec<u16> = data
        .get(56..128)
        .ok_or_else(short)?
        .chunks_exact(2)
        .filter_map(|pair| bytes(pair, 0).map(u16::from_le_bytes))
        .take_while(|unit| *unit != 0)
        .collect();
    Ok(Some(Partition {
        number,
        type_guid,
        guid: Guid::from_disk(bytes(data, 16).ok_or_else(short)?),
        first,
        last,
        label: String::from_utf16_lossy(&name),
    }))
}

/// Reads the primary table of `disk`, whose logical blocks have `block_size` bytes (512 to 4096).
pub fn read(disk: &(impl ReadAt + ?Sized), block_size: u32) -> Result<Vec<Partition>, GptError> {
    if !(512..=4096).contains(&block_size) {
        return Err(GptError::Damaged("the size of a block"));
    }
    let mut block = vec![0; block_size as usize];
    disk.read_exact_at(&mut block, block_size.into())?;
    let header = header(&block)?;
    let start = header
        .entries_at
        .checked_mul(block_size.into())
        .filter(|_| header.entries_at >= 2)
        .ok_or(GptError::Damaged("the place of the entries"))?;
    // At most 1024 * 512 bytes.
    let mut entries = vec![0; header.entries as usize * header.entry_size as usize];
    disk.read_exact_at(&mut entries, start)?;
    if crc32(&[&entries]) != header.entries_crc {
        return Err(GptError::Damaged("the checksum of the entries"));
    }
    let mut partitions = Vec::new();
    for (number, data) in (1..).zip(entries.chunks_exact(header.entry_size as usize)) {
        partitions.extend(entry(number, data, &header)?);
    }
    Ok(partitions)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use ashlar_image::layout::{PARTITIONS, TYPE_ROOT};
    use proptest::prelude::*;
    use std::process::Command;

    /// The order on the disk. Doing what `from_disk` does twice changes nothing.
    fn to_disk(guid: Guid) -> [u8; 16] {
        let bytes = |guid: Guid| {
            let mut bytes = [0; 16];
            hex::decode_to_slice(guid.to_string().replace('-', ""), &mut bytes).unwrap();
            bytes
        };
        bytes(Guid::from_disk(bytes(guid)))
    }

    /// A disk of 1 MiB with the seven partitions of the layout, each of ten blocks.
    pub(crate) fn disk() -> Vec<u8> {
        let mut disk = vec![0; 1 << 20];
        for (index, partition) in PARTITIONS.iter().enumerate() {
            let at = 1024 + index * 128;
            let mut entry = [0; 128];
            entry[0..16].copy_from_slice(&to_disk(partition.type_guid.parse().unwrap()));
            entry[16..32].fill(index as u8 + 1);
            entry[32..40].copy_from_slice(&(64 + index as u64 * 10).to_le_bytes());
            entry[40..48].copy_from_slice(&(73 + index as u64 * 10).to_le_bytes());
            for (unit, byte) in partition.label.bytes().enumerate() {
                entry[56 + 2 * unit] = byte;
            }
            disk[at..at + 128].copy_from_slice(&entry);
        }
        let mut header = [0; 92];
        header[0..8].copy_from_slice(b"EFI PART");
        header[8..12].copy_from_slice(&0x0001_0000u32.to_le_bytes());
        header[12..16].copy_from_slice(&92u32.to_le_bytes());
        header[24..32].copy_from_slice(&1u64.to_le_bytes());
        header[32..40].copy_from_slice(&2047u64.to_le_bytes());
        header[40..48].copy_from_slice(&34u64.to_le_bytes());
        header[48..56].copy_from_slice(&2014u64.to_le_bytes());
        header[72..80].copy_from_slice(&2u64.to_le_bytes());
        header[80..84].copy_from_slice(&128u32.to_le_bytes());
        header[84..88].copy_from_slice(&128u32.to_le_bytes());
        let crc = crc32(&[&disk[1024..1024 + 128 * 128]]);
        header[88..92].copy_from_slice(&crc.to_le_bytes());
        let crc = crc32(&[&header]);
        header[16..20].copy_from_slice(&crc.to_le_bytes());
        disk[512..604].copy_from_slice(&header);
        disk
    }

    #[test]
    fn crc_of_the_standard_check_string() {
        assert_eq!(crc32(&[b"1234", b"56789"]), 0xcbf4_3926);
    }

    #[test]
    fn the_layout_is_read() {
        let partitions = read(disk().as_slice(), 512).unwrap();
        assert_eq!(partitions.len(), 7);
        assert_eq!(partitions[1].label, "root-a");
        assert_eq!(partitions[1].type_guid, TYPE_ROOT.parse().unwrap());
        assert_eq!((partitions[6].first, partitions[6].last), (124, 133));
    }

    #[test]
    fn every_changed_byte_is_noticed_or_harmless() {
        let good = disk();
        let wanted = read(good.as_slice(), 512).unwrap();
        for at in (512..604).chain(1024..1024 + 128 * 128) {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            assert!(read(bad.as_slice(), 512).is_err(), "byte {at} changed");
        }
        for length in (0..1024 + 128 * 128).step_by(97) {
            assert!(read(&good[..length], 512).is_err(), "cut to {length}");
        }
        assert_eq!(read(good.as_slice(), 512).unwrap(), wanted);
        assert!(read(good.as_slice(), 0).is_err());
        assert!(read(good.as_slice(), 1 << 31).is_err());
    }

    proptest! {
        /// Also with good checksums no field leads out of bounds.
        #[test]
        fn hostile_tables_never_panic(fields in proptest::collection::vec((0usize..92, any::<u8>()), 1..12), entry in proptest::collection::vec(any::<u8>(), 128)) {
            let mut bytes = disk();
            bytes[1024..1152].copy_from_slice(&entry);
            for (at, value) in fields {
                bytes[512 + at] = value;
            }
            let crc = crc32(&[&bytes[1024..1024 + 128 * 128]]);
            bytes[600..604].copy_from_slice(&crc.to_le_bytes());
            bytes[528..532].fill(0);
            let crc = crc32(&[&bytes[512..604]]);
            bytes[528..532].copy_from_slice(&crc.to_le_bytes());
            let _ = read(bytes.as_slice(), 512);
        }
    }

    #[test]
    fn sgdisk_writes_what_we_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk");
        std::fs::File::create(&path).unwrap().set_len(8 << 20).unwrap();
        let made = Command::new("sgdisk")
            .args([
                "-n",
                "1:2048:4095",
                "-t",
                "1:ef00",
                "-c",
                "1:esp-a",
                "-u",
                "1:0fc63daf-8483-4772-8e79-3d69d8477de4",
            ])
            .args(["-n", "5:6144:8191", "-c", "5:grün"])
            .arg(&path)
            .output();
        let Ok(output) = made else {
            eprintln!("skipped: sgdisk is not installed (package gdisk)");
            return;
        };
        assert!(output.status.success(), "{output:?}");
        let partitions = read(&std::fs::File::open(&path).unwrap(), 512).unwrap();
        assert_eq!(partitions.len(), 2);
        assert_eq!(partitions[0].guid.to_string(), "0fc63daf-8483-4772-8e79-3d69d8477de4");
        assert_eq!(partitions[0].label, "esp-a");
        assert_eq!(
            (partitions[1].number, partitions[1].first, partitions[1].label.as_str()),
            (5, 6144, "grün")
        );
    }
}
