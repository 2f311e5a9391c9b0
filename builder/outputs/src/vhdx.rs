//! VHDX (Microsoft, [MS-VHDX] 2.0). All numbers are little-endian.
//!
//! 1 MiB each: identifier, headers and region tables; an empty log; metadata. Then the table of blocks (BAT) and the blocks.

use crate::extents::Blocks;
use crate::write::{Fields, write, write_sparse};
use crate::{Error, Job, SECTOR, Written};

/// Largest disk: 64 TiB.
pub const MAX_SIZE: u64 = 64 << 40;
const MIB: u64 = 1 << 20;
/// Bytes of a block; 1 MiB is what Microsoft advises for Linux guests, whose file systems spread their tables.
const BLOCK: u64 = MIB;
/// Blocks that share one sector bitmap (2.5): an unused entry of the table follows as many.
const CHUNK_RATIO: u64 = (1 << 23) * SECTOR / BLOCK;
const LOG_AT: u64 = MIB;
const METADATA_AT: u64 = 2 * MIB;
const BAT_AT: u64 = 3 * MIB;
const TABLE: usize = 64 << 10;
const FULLY_PRESENT: u64 = 6;
/// Metadata items (2.6.2) that must be understood, and those that are about the virtual disk.
const REQUIRED: u32 = 4;
const OF_DISK: u32 = 2;

/// A GUID as it is stored.
type Guid = [u8; 16];

/// The stored form of `a-b-c-rest`: the first three fields are little-endian (2.1.2.1).
const fn guid(a: u32, b: u16, c: u16, rest: [u8; 8]) -> Guid {
    let (a, b, c) = (a.to_le_bytes(), b.to_le_bytes(), c.to_le_bytes());
    [
        a[0], a[1], a[2], a[3], b[0], b[1], c[0], c[1], rest[0], rest[1], rest[2], rest[3], rest[4], rest[5],
        rest[6], rest[7],
    ]
}

const BAT_REGION: Guid = guid(0x2DC2_7766, 0xF623, 0x4200, [0x9D, 0x64, 0x11, 0x5E, 0x9B, 0xFD, 0x4A, 0x08]);
const METADATA_REGION: Guid =
    guid(0x8B7C_A206, 0x4790, 0x4B9A, [0xB8, 0xFE, 0x57, 0x5F, 0x05, 0x0F, 0x88, 0x6E]);
const FILE_PARAMETERS: Guid =
    guid(0xCAA1_6737, 0xFA36, 0x4D43, [0xB3, 0xB6, 0x33, 0xF0, 0xAA, 0x44, 0xE7, 0x6B]);
const DISK_SIZE: Guid = guid(0x2FA5_4224, 0xCD1B, 0x4876, [0xB2, 0x11, 0x5D, 0xBE, 0xD8, 0x3B, 0xF4, 0xB8]);
const DISK_ID: Guid = guid(0xBECA_12AB, 0xB2E6, 0x4523, [0x93, 0xEF, 0xC3, 0x09, 0xE0, 0x00, 0xC7, 0x46]);
const LOGICAL_SECTOR: Guid =
    guid(0x8141_BF1D, 0xA96F, 0x4709, [0xBA, 0x47, 0xF2, 0x33, 0xA8, 0xFA, 0xAB, 0x5F]);
const PHYSICAL_SECTOR: Guid =
    guid(0xCDA3_48C7, 0x445D, 0x4471, [0x9C, 0xC9, 0xE9, 0x88, 0x52, 0x51, 0xC5, 0x56]);

pub fn write_vhdx(job: &Job<'_>) -> Result<Written, Error> {
    let blocks = job.size.div_ceil(BLOCK);
    let entries = blocks + (blocks - 1) / CHUNK_RATIO;
    let bat_length = (entries * 8).next_multiple_of(MIB);
    let mut end = BAT_AT + bat_length;
    let mut bat = vec![0_u64; entries as usize];
    let mut reader = Blocks::new(job.raw, job.size, BLOCK);
    let mut buffer = vec![0; BLOCK as usize];
    let mut stored = 0;
    while let Some(number) = reader.next(&mut buffer).map_err(Error::Read)? {
        if let Some(place) = bat.get_mut((number + number / CHUNK_RATIO) as usize) {
            // The place in MiB is in bits 20 and up (2.5.1.1), and a block lies on a whole MiB.
            *place = end | FULLY_PRESENT;
        }
        write_sparse(job.out, &buffer, end)?;
        end += BLOCK;
        stored += BLOCK;
        (job.progress)(((number + 1) * BLOCK).min(job.size), job.size);
    }
    job.out.set_len(end).map_err(Error::Write)?;
    let bat: Vec<u8> = bat.iter().flat_map(|entry| entry.to_le_bytes()).collect();
    write_sparse(job.out, &bat, BAT_AT)?;
    write_metadata(job)?;

    write(job.out, b"vhdxfile", 0)?;
    let creator: Vec<u8> = "ashlar".encode_utf16().flat_map(u16::to_le_bytes).collect();
    write(job.out, &creator, 8)?;
    // The header with the higher sequence number is the current one (2.2.2).
    for sequence in 1..=2_u64 {
        let header = Fields::zeros(4096)
            .put(0, b"head")
            .put(8, &sequence.to_le_bytes())
            .put(16, &job.options.id)
            .put(32, &job.options.id)
            .put(66, &1_u16.to_le_bytes())
            .put(68, &(MIB as u32).to_le_bytes())
            .put(72, &LOG_AT.to_le_bytes());
        write(job.out, with_crc(header).bytes(), sequence * TABLE as u64)?;
    }
    let regions = Fields::zeros(TABLE).put(0, b"regi").put(8, &2_u32.to_le_bytes());
    let regions = region(regions, 16, &BAT_REGION, BAT_AT, bat_length);
    let regions = with_crc(region(regions, 48, &METADATA_REGION, METADATA_AT, MIB));
    for copy in 3..=4 {
        write(job.out, regions.bytes(), copy * TABLE as u64)?;
    }
    Ok(Written { virtual_size: job.size, file_size: end, stored })
}

/// An entry of the region table (2.2.3.2); both regions are required.
fn region(table: Fields, at: usize, guid: &Guid, offset: u64, length: u64) -> Fields {
    table
        .put(at, guid)
        .put(at + 16, &offset.to_le_bytes())
        .put(at + 24, &(length as u32).to_le_bytes())
        .put(at + 28, &1_u32.to_le_bytes())
}

/// The metadata table (2.6.1) and its items, which begin 64 KiB behind it.
fn write_metadata(job: &Job<'_>) -> Result<(), Error> {
    let mut parameters = [0; 8];
    parameters[..4].copy_from_slice(&(BLOCK as u32).to_le_bytes());
    let sector = (SECTOR as u32).to_le_bytes();
    let size = job.size.to_le_bytes();
    let items: [(&Guid, &[u8], u32); 5] = [
        (&FILE_PARAMETERS, &parameters, REQUIRED),
        (&DISK_SIZE, &size, REQUIRED | OF_DISK),
        (&DISK_ID, &job.options.id, REQUIRED | OF_DISK),
        (&LOGICAL_SECTOR, &sector, REQUIRED | OF_DISK),
        (&PHYSICAL_SECTOR, &sector, REQUIRED | OF_DISK),
    ];
    let mut table =
        Fields::zeros(TABLE + 4096).put(0, b"metadata").put(10, &(items.len() as u16).to_le_bytes());
    let mut item_at = TABLE;
    for ((guid, value, flags), at) in items.into_iter().zip((32..).step_by(32)) {
        table = table
            .put(at, guid)
            .put(at + 16, &(item_at as u32).to_le_bytes())
            .put(at + 20, &(value.len() as u32).to_le_bytes())
            .put(at + 24, &flags.to_le_bytes())
            .put(item_at, value);
        item_at += value.len();
    }
    write(job.out, table.bytes(), METADATA_AT)
}

/// Puts the CRC-32C of the structure without it at byte 4.
fn with_crc(fields: Fields) -> Fields {
    let crc = crc32c::crc32c(fields.bytes());
    fields.put(4, &crc.to_le_bytes())
}
