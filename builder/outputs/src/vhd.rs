//! VHD (Microsoft, "Virtual Hard Disk Image Format Specification", 1.0). All numbers are big-endian.

use crate::extents::Blocks;
use crate::write::{Fields, write, write_sparse};
use crate::{Error, Job, SECTOR, Written};

/// Largest disk: 2040 GiB.
pub const MAX_SIZE: u64 = 2040 << 30;
/// Bytes of a block of a dynamic disk: what every writer uses.
const BLOCK: u64 = 2 << 20;
/// One bit for each sector of a block.
const BITMAP: u64 = BLOCK / SECTOR / 8;
const FOOTER: u64 = 512;
const HEADER: u64 = 1024;
/// Bytes that are read at once.
const CHUNK: u64 = 1 << 20;
/// Seconds from 1970 to 2000.
const EPOCH: i64 = 946_684_800;
const UNUSED: u32 = u32::MAX;
const FIXED: u32 = 2;
const DYNAMIC: u32 = 3;

/// The disk, then the footer.
pub fn write_fixed(job: &Job<'_>) -> Result<Written, Error> {
    let file_size = job.size + FOOTER;
    job.out.set_len(file_size).map_err(Error::Write)?;
    let mut blocks = Blocks::new(job.raw, job.size, CHUNK);
    let mut buffer = vec![0; CHUNK as usize];
    while let Some(number) = blocks.next(&mut buffer).map_err(Error::Read)? {
        let start = number * CHUNK;
        let length = CHUNK.min(job.size - start);
        write_sparse(job.out, buffer.get(..length as usize).unwrap_or_default(), start)?;
        (job.progress)(start + length, job.size);
    }
    write(job.out, footer(job, FIXED).bytes(), job.size)?;
    Ok(Written { virtual_size: job.size, file_size, stored: job.size })
}

/// A copy of the footer, the header, the table of blocks, the blocks with their bitmaps, the footer.
pub fn write_dynamic(job: &Job<'_>) -> Result<Written, Error> {
    let count = job.size.div_ceil(BLOCK);
    let table_at = FOOTER + HEADER;
    let mut end = table_at + (count * 4).next_multiple_of(SECTOR);
    let mut table = vec![UNUSED; ((end - table_at) / 4) as usize];
    let mut blocks = Blocks::new(job.raw, job.size, BLOCK);
    let mut buffer = vec![0; BLOCK as usize];
    let mut stored = 0;
    while let Some(number) = blocks.next(&mut buffer).map_err(Error::Read)? {
        if let Some(place) = table.get_mut(number as usize) {
            // At most 2040 GiB and their bitmaps: less than 2^32 sectors.
            *place = (end / SECTOR) as u32;
        }
        write(job.out, &[0xff; BITMAP as usize], end)?;
        write_sparse(job.out, &buffer, end + BITMAP)?;
        end += BITMAP + BLOCK;
        stored += BLOCK;
        (job.progress)(((number + 1) * BLOCK).min(job.size), job.size);
    }
    let table: Vec<u8> = table.iter().flat_map(|entry| entry.to_be_bytes()).collect();
    let header = Fields::zeros(HEADER as usize)
        .put(0, b"cxsparse")
        .put(8, &u64::MAX.to_be_bytes())
        .put(16, &table_at.to_be_bytes())
        .put(24, &0x0001_0000_u32.to_be_bytes())
        .put(28, &(count as u32).to_be_bytes())
        .put(32, &(BLOCK as u32).to_be_bytes());
    let footer = footer(job, DYNAMIC);
    write(job.out, footer.bytes(), 0)?;
    write(job.out, with_sum(header, 36).bytes(), FOOTER)?;
    write(job.out, &table, table_at)?;
    write(job.out, footer.bytes(), end)?;
    Ok(Written { virtual_size: job.size, file_size: end + FOOTER, stored })
}

fn footer(job: &Job<'_>, kind: u32) -> Fields {
    let time = u32::try_from((job.options.time - EPOCH).max(0)).unwrap_or(u32::MAX);
    let (cylinders, heads, sectors) = geometry(job.size / SECTOR);
    let data_offset = if kind == FIXED { u64::MAX } else { FOOTER };
    let footer = Fields::zeros(FOOTER as usize)
        .put(0, b"conectix")
        // A reserved bit that is always set.
        .put(8, &2_u32.to_be_bytes())
        .put(12, &0x0001_0000_u32.to_be_bytes())
        .put(16, &data_offset.to_be_bytes())
        .put(24, &time.to_be_bytes())
        // Readers take the disk's size from the footer's size field, and not from the geometry, for this creator only.
        .put(28, b"win ")
        .put(32, &0x000a_0000_u32.to_be_bytes())
        .put(36, b"Wi2k")
        .put(40, &job.size.to_be_bytes())
        .put(48, &job.size.to_be_bytes())
        .put(56, &cylinders.to_be_bytes())
        .put(58, &[heads, sectors])
        .put(60, &kind.to_be_bytes())
        .put(68, &job.options.id);
    with_sum(footer, 64)
}

/// Puts the checksum in: the complement of the sum of all bytes without it.
fn with_sum(fields: Fields, at: usize) -> Fields {
    let sum = fields.bytes().iter().fold(0_u32, |sum, byte| sum.wrapping_add(u32::from(*byte)));
    fields.put(at, &(!sum).to_be_bytes())
}

/// Cylinders, heads and sectors per track, as the specification's appendix computes them.
fn geometry(total: u64) -> (u16, u8, u8) {
    let total = total.min(65535 * 16 * 255);
    let (mut heads, mut sectors, mut tracks);
    if total >= 65535 * 16 * 63 {
        (heads, sectors) = (16, 255);
        tracks = total / sectors;
    } else {
        sectors = 17;
        tracks = total / sectors;
        heads = tracks.div_ceil(1024).max(4);
        if tracks >= heads * 1024 || heads > 16 {
            (heads, sectors) = (16, 31);
            tracks = total / sectors;
        }
        if tracks >= heads * 1024 {
            (heads, sectors) = (16, 63);
            tracks = total / sectors;
        }
    }
    ((tracks / heads) as u16, heads as u8, sectors as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn geometries_of_the_specification() {
        assert_eq!(geometry(65535 * 16 * 255 + 9), (65535, 16, 255));
        assert_eq!(geometry((10 << 30) / SECTOR), (20805, 16, 63));
        assert_eq!(geometry((64 << 20) / SECTOR), (963, 8, 17));
    }
}
