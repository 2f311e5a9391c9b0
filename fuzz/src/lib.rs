//! Checksums put right: a changed byte would otherwise end at the first check, and nothing behind it would be tested.
#![forbid(unsafe_code)]

use sha2::Digest as _;

/// Size of a block of a tar archive, and of a disk's sector, in bytes.
const BLOCK: usize = 512;

/// A tar archive with the sums of its headers put right, as far as headers follow each other.
pub fn tar(data: &[u8]) -> Vec<u8> {
    let mut archive = data.to_vec();
    let mut at: usize = 0;
    while let Some(header) = archive.get_mut(at..).and_then(|rest| rest.first_chunk_mut::<BLOCK>()) {
        if header.iter().all(|byte| *byte == 0) {
            break;
        }
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        let size = header[124..136].iter().take_while(|byte| (b'0'..=b'7').contains(byte));
        let size = size.fold(0_usize, |size, digit| size * 8 + usize::from(digit - b'0'));
        at += BLOCK + size.next_multiple_of(BLOCK);
    }
    archive
}

/// A disk of sectors of 512 bytes whose GUID partition tables have the right checksums, as far as there are such tables.
pub fn gpt(data: &[u8]) -> Vec<u8> {
    let mut disk = data.to_vec();
    let other = number(&disk, BLOCK + 32, 8).and_then(|sector| sector.checked_mul(BLOCK));
    let other = other.filter(|at| *at < disk.len());
    for header in [Some(BLOCK), other].into_iter().flatten() {
        let entries = || {
            let start = number(&disk, header.checked_add(72)?, 8)?.checked_mul(BLOCK)?;
            let length = number(&disk, header + 80, 4)?.checked_mul(number(&disk, header + 84, 4)?)?;
            disk.get(start..start.checked_add(length)?).map(crc32fast::hash)
        };
        if let Some(sum) = entries() {
            put(&mut disk, header + 88, sum);
        }
        if let Some(length) = header.checked_add(12).and_then(|at| number(&disk, at, 4)) {
            put(&mut disk, header + 16, 0);
            let sum = header.checked_add(length).and_then(|end| disk.get(header..end)).map(crc32fast::hash);
            put(&mut disk, header + 16, sum.unwrap_or(0));
        }
    }
    disk
}

/// The start of a LUKS2 volume whose two headers of 16 KiB have the right checksums, as far as they are there.
pub fn luks2(data: &[u8]) -> Vec<u8> {
    let mut start = data.to_vec();
    for header in start.chunks_exact_mut(16 * 1024).take(2) {
        header[448..512].fill(0);
        let sum = sha2::Sha256::digest(&*header);
        header[448..480].copy_from_slice(&sum);
    }
    start
}

/// The superblock of an ext4 with its magic, the bit that says it has a checksum, and the right checksum.
pub fn ext4_super(data: &[u8]) -> Vec<u8> {
    let mut block = data.to_vec();
    if let Some(block) = block.first_chunk_mut::<1024>() {
        block[56..58].copy_from_slice(&0xef53_u16.to_le_bytes());
        block[101] |= 4;
        block[373] = 1;
        // ext4 does without the inversion at the end.
        let sum = !crc32c::crc32c(&block[..1020]);
        block[1020..].copy_from_slice(&sum.to_le_bytes());
    }
    block
}

/// The little-endian number of this length at this place.
fn number(bytes: &[u8], at: usize, length: usize) -> Option<usize> {
    let bytes = bytes.get(at..at.checked_add(length)?)?;
    usize::try_from(bytes.iter().rev().fold(0_u64, |number, byte| number << 8 | u64::from(*byte))).ok()
}

fn put(bytes: &mut [u8], at: usize, sum: u32) {
    if let Some(field) = bytes.get_mut(at..).and_then(|rest| rest.first_chunk_mut()) {
        *field = sum.to_le_bytes();
    }
}
