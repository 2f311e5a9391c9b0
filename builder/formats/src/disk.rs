//! The disk image: the partition table of `ashlar_image::layout` (GPT, UEFI Specification 2.10, chapter 5) and slot
//! A in a sparse file; slot B and the state partition are holes.

use ashlar_image::layout::{MIB, PARTITIONS, Sizes};
use gpt::disk::LogicalBlockSize;
use gpt::partition::Partition;
use gpt::{GptConfig, mbr::ProtectiveMBR};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use uuid::Uuid;

/// Bytes in a sector.
const SECTOR: u64 = 512;
/// Most entries of a table that is read.
const MAX_ENTRIES: u32 = 1024;

/// Why a disk cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// A size is zero, no multiple of 1 MiB, or the sum is beyond 64 bits.
    #[error(
        "the size of the partition `{0}` is not a whole number of MiB, or all sizes together are too large"
    )]
    Size(&'static str),
    /// A content is larger than its partition.
    #[error("the content of partition {number} has {length} bytes and the partition {available}")]
    TooLarge {
        /// Number of the partition.
        number: u32,
        /// Bytes of the content.
        length: u64,
        /// Bytes of the partition.
        available: u64,
    },
    /// The table cannot be made.
    #[error("cannot make the partition table: {0}")]
    Table(String),
    /// The table cannot be read.
    #[error("the partition table cannot be read: {0}")]
    Unreadable(String),
    /// The image cannot be written.
    #[error("cannot write the disk image: {0}")]
    Io(#[from] io::Error),
}

/// Where everything lies.
#[derive(Debug, Clone)]
pub struct DiskLayout {
    disk_guid: Uuid,
    guids: [Uuid; 7],
    /// Offset and length in bytes.
    extents: [(u64, u64); 7],
    total: u64,
}

impl DiskLayout {
    /// Lays partitions of these sizes out one behind the other, aligned to 1 MiB; a MiB before and behind them is
    /// for the two tables. GUIDs are in the order of their text.
    pub fn new(sizes: &Sizes, disk_guid: [u8; 16], guids: [[u8; 16]; 7]) -> Result<Self, DiskError> {
        let mut extents = [(0, 0); 7];
        let mut next = MIB;
        for (extent, partition) in extents.iter_mut().zip(&PARTITIONS) {
            let length = sizes.of(partition.role);
            if length == 0 || !length.is_multiple_of(MIB) {
                return Err(DiskError::Size(partition.label));
            }
            *extent = (next, length);
            next = next.checked_add(length).ok_or(DiskError::Size(partition.label))?;
        }
        let total = next.checked_add(MIB).ok_or(DiskError::Size("state"))?;
        Ok(Self {
            disk_guid: Uuid::from_bytes(disk_guid),
            guids: guids.map(Uuid::from_bytes),
            extents,
            total,
        })
    }

    /// Size of the disk in bytes.
    pub const fn total_size(&self) -> u64 {
        self.total
    }

    /// Offset and length in bytes of a partition by its number, from 1.
    pub fn partition(&self, number: u32) -> Option<(u64, u64)> {
        self.extents.get((number as usize).checked_sub(1)?).copied()
    }

    fn table(&self) -> Result<BTreeMap<u32, Partition>, DiskError> {
        let entry =
            |((partition, guid), (offset, length)): ((&ashlar_image::layout::Entry, &Uuid), &(u64, u64))| {
                let type_guid =
                    Uuid::parse_str(partition.type_guid).map_err(|e| DiskError::Table(e.to_string()))?;
                let entry = Partition {
                    part_type_guid: type_guid.into(),
                    part_guid: *guid,
                    first_lba: offset / SECTOR,
                    last_lba: (offset + length) / SECTOR - 1,
                    flags: 0,
                    name: partition.label.to_owned(),
                };
                Ok((partition.number, entry))
            };
        PARTITIONS.iter().zip(&self.guids).zip(&self.extents).map(entry).collect()
    }
}

/// Copies `length` bytes in the kernel where it can (by reference on a file system that shares extents).
fn copy(from: &File, to: &File, offset: u64, length: u64) -> io::Result<()> {
    let (mut source, mut target, mut left) = (0, offset, length);
    while left > 0 {
        let chunk = usize::try_from(left.min(1 << 30)).unwrap_or(1 << 30);
        match rustix::fs::copy_file_range(from, Some(&mut source), to, Some(&mut target), chunk) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(done) => left -= done as u64,
            Err(rustix::io::Errno::INTR) => {}
            // Two file systems, or one that cannot: by hand, from where it stopped.
            Err(_) if left == length => {
                let (mut from, mut to) = (from, to);
                from.seek(SeekFrom::Start(0))?;
                to.seek(SeekFrom::Start(offset))?;
                let done = io::copy(&mut from.take(length), &mut to)?;
                return if done == length { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Writes the disk to the empty file `out`. `parts` are partition numbers with the file that holds the content and
/// the content's length in bytes.
pub fn write(out: &File, layout: &DiskLayout, parts: &[(u32, &File, u64)]) -> Result<(), DiskError> {
    for &(number, _, length) in parts {
        let available = layout.partition(number).map_or(0, |(_, available)| available);
        if length > available {
            return Err(DiskError::TooLarge { number, length, available });
        }
    }
    out.set_len(layout.total)?;
    let mut device = out;
    let last = u32::try_from(layout.total / SECTOR - 1).unwrap_or(u32::MAX);
    ProtectiveMBR::with_lb_size(last)
        .overwrite_lba0(&mut device)
        .map_err(|e| DiskError::Table(e.to_string()))?;
    let mut table = GptConfig::new()
        .writable(true)
        .logical_block_size(LogicalBlockSize::Lb512)
        .create_from_device(device, Some(layout.disk_guid))
        .map_err(|e| DiskError::Table(e.to_string()))?;
    table.update_partitions(layout.table()?).map_err(|e| DiskError::Table(e.to_string()))?;
    table.write().map_err(|e| DiskError::Table(e.to_string()))?;
    for &(number, file, length) in parts {
        if let Some((offset, _)) = layout.partition(number) {
            copy(file, out, offset, length)?;
        }
    }
    Ok(())
}

/// One partition of a disk that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionInfo {
    /// Number, from 1.
    pub number: u32,
    /// Label.
    pub label: String,
    /// Type GUID in the order of its text.
    pub type_guid: [u8; 16],
    /// GUID in the order of its text.
    pub guid: [u8; 16],
    /// First byte.
    pub offset: u64,
    /// Length in bytes.
    pub length: u64,
}

/// Gives the crate a disk that it only reads.
#[derive(Debug)]
struct ReadOnly<R>(R);

impl<R: Read> Read for ReadOnly<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl<R> Write for ReadOnly<R> {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<R: Seek> Seek for ReadOnly<R> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.0.seek(to)
    }
}

/// The partitions of a disk with sectors of 512 bytes. Both tables must be whole.
pub fn read<R: Read + Seek + std::fmt::Debug>(disk: &mut R) -> Result<Vec<PartitionInfo>, DiskError> {
    let unreadable = |why: &str| DiskError::Unreadable(why.to_owned());
    // The crate takes these two fields for granted: it asserts the one and allocates by the other.
    let mut header = [0; SECTOR as usize];
    disk.seek(SeekFrom::Start(SECTOR))?;
    disk.read_exact(&mut header).map_err(|_| unreadable("the disk is cut off"))?;
    let field = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    if field(12) != 92 || field(80) > MAX_ENTRIES || field(84) != 128 {
        return Err(unreadable("its header has unusual sizes"));
    }
    let table = GptConfig::new()
        .logical_block_size(LogicalBlockSize::Lb512)
        .only_valid_headers(true)
        .open_from_device(ReadOnly(disk))
        .map_err(|e| DiskError::Unreadable(e.to_string()))?;
    table
        .partitions()
        .iter()
        // UEFI Specification 2.10, table 5.7: an entry with this type is not used. The crate goes by the whole entry.
        .filter(|(_, entry)| entry.is_used())
        .map(|(&number, entry)| {
            let extent = entry
                .last_lba
                .checked_sub(entry.first_lba)
                .and_then(|sectors| sectors.checked_add(1)?.checked_mul(SECTOR))
                .zip(entry.first_lba.checked_mul(SECTOR))
                .filter(|(length, offset)| offset.checked_add(*length).is_some());
            let (length, offset) = extent.ok_or_else(|| unreadable("a partition ends before it begins"))?;
            Ok(PartitionInfo {
                number,
                label: entry.name.clone(),
                type_guid: entry.part_type_guid.guid.into_bytes(),
                guid: entry.part_guid.into_bytes(),
                offset,
                length,
            })
        })
        .collect()
}
