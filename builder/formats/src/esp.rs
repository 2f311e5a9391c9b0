//! The EFI system partition: FAT32 (Microsoft, "FAT: General Overview of On-Disk Format", 1.03) with one file, the
//! slot's UKI at the path that firmware starts by itself (UEFI Specification 2.10, section 3.5.1.1).
//!
//! Serial number and times are given, so that the same UKI gives the same bytes. What is stored is the prefix in
//! use: a new FAT file system is zeros behind it.

use fatfs::{Date, DateTime, FatType, FileSystem, FormatVolumeOptions, FsOptions, Time, TimeProvider};
use std::io::{self, Read, Seek, SeekFrom, Write};

/// Path of the UKI.
pub const UKI_PATH: &str = "EFI/BOOT/BOOTX64.EFI";
/// Bytes in a sector.
const SECTOR: u64 = 512;
/// Clusters from which on a file system counts as FAT32; a few more, as some readers count carelessly.
const MIN_CLUSTERS: u64 = 65_525 + 16;
/// Reserved sectors and the clusters of the root and of the two directories, generously.
const OVERHEAD: u64 = 64 * SECTOR + 4 * MAX_CLUSTER;
/// Largest cluster that is used, in bytes.
const MAX_CLUSTER: u64 = 4096;
/// Largest UKI that is read back, in bytes.
const MAX_UKI: u64 = 1 << 30;

/// What the file system is like.
#[derive(Debug, Clone)]
pub struct EspOptions {
    /// Size of the partition in bytes.
    pub size: u64,
    /// Serial number.
    pub serial: u32,
    /// Label, at most 11 characters: capital letters, digits, `-`, `_` and spaces.
    pub label: String,
    /// Time of everything in it, seconds since 1970; FAT knows 1980 to 2107.
    pub time: i64,
}

/// Why the file system cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum EspError {
    /// The UKI does not fit.
    #[error(
        "the UKI of {uki} bytes needs an EFI system partition of {needed} bytes and there are {size}; raise `partitions.esp`"
    )]
    TooSmall {
        /// Bytes of the UKI.
        uki: u64,
        /// Least size of the partition in bytes.
        needed: u64,
        /// The partition's size in bytes.
        size: u64,
    },
    /// The partition has more sectors than FAT32 can count, or the label is no label.
    #[error(
        "an EFI system partition of {0} bytes labelled `{1}` cannot be made: at most 2 TiB; at most 11 capital letters, digits, `-`, `_` and spaces"
    )]
    Options(u64, String),
    /// The file system cannot be made, or not be written.
    #[error("cannot write the EFI system partition: {0}")]
    Write(#[source] io::Error),
    /// The file system cannot be read.
    #[error("cannot read `{UKI_PATH}` of the EFI system partition: {0}")]
    Read(#[source] io::Error),
}

/// The largest cluster with which a partition of this size is still FAT32.
const fn cluster(size: u64) -> u64 {
    let mut cluster = MAX_CLUSTER;
    while cluster > SECTOR && size / (cluster + 8) < MIN_CLUSTERS + 64 {
        cluster /= 2;
    }
    cluster
}

/// Whether a UKI of `uki` bytes fits into a partition of `size` bytes.
const fn fits(uki: u64, size: u64) -> bool {
    let cluster = cluster(size);
    // Each cluster has an entry of four bytes in each of the two tables.
    let clusters = size.saturating_sub(OVERHEAD) / (cluster + 8);
    clusters >= MIN_CLUSTERS && uki.div_ceil(cluster) <= clusters
}

/// The least size in bytes of a partition that holds a UKI of `uki` bytes; a multiple of 1 MiB.
pub const fn required(uki: u64) -> u64 {
    const MIB: u64 = 1 << 20;
    let mut size = uki.saturating_add(MIB) / MIB * MIB;
    while !fits(uki, size) {
        size += MIB;
    }
    size
}

/// The same time for everything.
#[derive(Debug)]
struct Fixed(DateTime);

impl TimeProvider for Fixed {
    fn get_current_date(&self) -> Date {
        self.0.date
    }

    fn get_current_date_time(&self) -> DateTime {
        self.0
    }
}

/// Year, month and day of a number of days since 1970 in the Gregorian calendar.
#[allow(clippy::cast_sign_loss)] // months and days are positive
fn civil(days: i64) -> (i64, u16, u16) {
    // Counted from 0000-03-01, so that the leap day ends the year.
    let shifted = days + 719_468;
    let (era, of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let calendar_month = if month < 10 { month + 3 } else { month - 9 };
    (year + era * 400 + i64::from(calendar_month <= 2), calendar_month as u16, day as u16)
}

#[allow(clippy::cast_sign_loss)] // the clamped time is positive
fn fat_time(seconds: i64) -> DateTime {
    // 1980-01-01 and the last even second of 2107.
    let seconds = seconds.clamp(315_532_800, 4_354_819_198);
    let (year, month, day) = civil(seconds.div_euclid(86_400));
    let of_day = seconds.rem_euclid(86_400) as u32;
    DateTime {
        date: Date { year: year as u16, month, day },
        time: Time {
            hour: (of_day / 3600) as u16,
            min: (of_day / 60 % 60) as u16,
            // Two seconds are the format's resolution.
            sec: ((of_day % 60) & !1) as u16,
            millis: 0,
        },
    }
}

/// A disk in memory: zeros behind what was written.
#[derive(Debug, Default)]
struct Memory {
    bytes: Vec<u8>,
    position: u64,
    size: u64,
}

impl Read for Memory {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.size.saturating_sub(self.position);
        let length = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let start = usize::try_from(self.position).map_err(io::Error::other)?;
        let stored = self.bytes.get(start..).unwrap_or_default();
        let from_stored = stored.len().min(length);
        buffer[..from_stored].copy_from_slice(&stored[..from_stored]);
        buffer[from_stored..length].fill(0);
        self.position += length as u64;
        Ok(length)
    }
}

impl Write for Memory {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let end = self.position + buffer.len() as u64;
        if end > self.size {
            return Err(io::Error::new(io::ErrorKind::StorageFull, "the partition is full"));
        }
        let (start, end) = (
            usize::try_from(self.position).map_err(io::Error::other)?,
            usize::try_from(end).map_err(io::Error::other)?,
        );
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        self.bytes[start..end].copy_from_slice(buffer);
        self.position = end as u64;
        Ok(buffer.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for Memory {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let target = match to {
            SeekFrom::Start(offset) => Some(offset),
            SeekFrom::End(offset) => self.size.checked_add_signed(offset),
            SeekFrom::Current(offset) => self.position.checked_add_signed(offset),
        };
        self.position = target.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        Ok(self.position)
    }
}

/// Mends what fsck.fat finds in a file system that the crate has written: the `..` of a folder in the root must say
/// cluster 0, not the root's own cluster.
fn mend(bytes: &mut [u8]) {
    let Some(volume) = Volume::new(bytes.get(..SECTOR as usize).unwrap_or_default()) else { return };
    // The first folder is made in the first cluster behind the root's.
    let Some(start) = volume.offset(volume.root + 1).and_then(|at| usize::try_from(at).ok()) else { return };
    let Some(entry) = bytes.get_mut(start + 32..start + 64) else { return };
    if entry.starts_with(b"..         ") {
        entry[20..22].fill(0);
        entry[26..28].fill(0);
    }
}

/// What a label may be made of; FAT allows a little more, but not in every code page.
const fn label_byte(byte: u8) -> bool {
    matches!(byte, b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b' ')
}

/// Writes the file system to `out` from its current position and returns the length of the prefix in use, a
/// multiple of 4096; the rest of the partition is zeros.
///
/// # Errors
/// Refuses what does not fit before a byte is written.
pub fn write(uki: &[u8], options: &EspOptions, mut out: impl Write) -> Result<u64, EspError> {
    let bad_options = || EspError::Options(options.size, options.label.clone());
    let sectors = u32::try_from(options.size / SECTOR).map_err(|_| bad_options())?;
    if !fits(uki.len() as u64, options.size) {
        let needed = required(uki.len() as u64);
        return Err(EspError::TooSmall { uki: uki.len() as u64, needed, size: options.size });
    }
    if options.label.len() > 11 || !options.label.bytes().all(label_byte) {
        return Err(bad_options());
    }
    let mut label = [b' '; 11];
    label[..options.label.len()].copy_from_slice(options.label.as_bytes());
    let format = FormatVolumeOptions::new()
        .bytes_per_sector(SECTOR as u16)
        .bytes_per_cluster(cluster(options.size) as u32)
        .total_sectors(sectors)
        .fat_type(FatType::Fat32)
        .volume_id(options.serial)
        .volume_label(label);
    let mut disk = Memory { size: options.size, ..Memory::default() };
    fatfs::format_volume(&mut disk, format).map_err(EspError::Write)?;
    disk.position = 0;
    // The crate wants a clock that lives for ever; this is a few bytes per file system.
    let clock: &'static Fixed = Box::leak(Box::new(Fixed(fat_time(options.time))));
    {
        let fs_options = FsOptions::new().time_provider(clock).update_accessed_date(false);
        let fs = FileSystem::new(&mut disk, fs_options).map_err(EspError::Write)?;
        let folder = fs.root_dir().create_dir("EFI").and_then(|efi| efi.create_dir("BOOT"));
        let mut file = folder.and_then(|boot| boot.create_file("BOOTX64.EFI")).map_err(EspError::Write)?;
        file.write_all(uki).and_then(|()| file.flush()).map_err(EspError::Write)?;
        drop(file);
        // Counts the free clusters, which is then stored; otherwise the field says "unknown".
        fs.stats().map_err(EspError::Write)?;
        fs.unmount().map_err(EspError::Write)?;
    }
    mend(&mut disk.bytes);
    disk.bytes.resize(disk.bytes.len().next_multiple_of(4096), 0);
    out.write_all(&disk.bytes).map_err(EspError::Write)?;
    Ok(disk.bytes.len() as u64)
}

/// What of the boot sector is needed to find a file. The crate is not used to read: it trusts the boot sector and
/// panics on bad ones.
#[derive(Debug)]
struct Volume {
    cluster: u64,
    fat: u64,
    data: u64,
    root: u32,
}

fn u16_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 2).map_or(0, |b| u64::from(u16::from_le_bytes([b[0], b[1]])))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).map_or(0, |b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
}

impl Volume {
    /// From a boot sector (FAT32 BPB); none when it is no FAT32 with sectors of 512 bytes.
    fn new(boot: &[u8]) -> Option<Self> {
        let per_cluster = u64::from(*boot.get(13)?);
        let (reserved, tables) = (u16_at(boot, 14), u64::from(*boot.get(16)?));
        let table_size = u64::from(u32_at(boot, 36));
        let sane = u16_at(boot, 11) == SECTOR
            && u16_at(boot, 22) == 0
            && per_cluster.is_power_of_two()
            && reserved > 0
            && tables > 0
            && table_size > 0;
        sane.then(|| Self {
            cluster: per_cluster * SECTOR,
            fat: reserved * SECTOR,
            data: (reserved + tables * table_size) * SECTOR,
            root: u32_at(boot, 44),
        })
    }

    /// Where a cluster begins; the first has number 2.
    fn offset(&self, cluster: u32) -> Option<u64> {
        Some(self.data + u64::from(cluster.checked_sub(2)?) * self.cluster)
    }

    /// The content of the chain that begins at `cluster`, at most `limit` bytes.
    fn chain<R: Read + Seek>(&self, disk: &mut R, mut cluster: u32, limit: u64) -> io::Result<Vec<u8>> {
        let bad = |why: &str| io::Error::new(io::ErrorKind::InvalidData, why.to_owned());
        let mut content = Vec::new();
        // A chain of clusters is no longer than the limit, so that one in a circle ends too.
        while (2..0x0fff_fff8).contains(&cluster) && (content.len() as u64) < limit {
            let start = self.offset(cluster).ok_or_else(|| bad("a chain leaves the disk"))?;
            disk.seek(SeekFrom::Start(start))?;
            let before = content.len() as u64;
            disk.by_ref().take(self.cluster).read_to_end(&mut content)?;
            if content.len() as u64 - before != self.cluster {
                // The stored prefix may end inside the last cluster.
                break;
            }
            let mut entry = [0; 4];
            disk.seek(SeekFrom::Start(self.fat + u64::from(cluster) * 4))?;
            disk.read_exact(&mut entry)?;
            cluster = u32::from_le_bytes(entry) & 0x0fff_ffff;
        }
        content.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
        Ok(content)
    }
}

/// First cluster and length of an entry of a directory by its short name.
fn find(directory: &[u8], name: &[u8; 11]) -> Option<(u32, u64)> {
    let mut entries = directory.chunks_exact(32).take_while(|entry| entry[0] != 0);
    // Attribute 8: the label or a part of a long name.
    let entry = entries.find(|entry| entry[..11] == name[..] && entry[11] & 8 == 0)?;
    let cluster = u32::try_from(u16_at(entry, 20) << 16 | u16_at(entry, 26)).ok()?;
    Some((cluster, u64::from(u32_at(entry, 28))))
}

/// The UKI of a file system, at most 1 GiB.
pub fn read_uki<R: Read + Seek>(esp: &mut R) -> Result<Vec<u8>, EspError> {
    /// Largest directory, in bytes (Microsoft, "FAT", section 6).
    const MAX_DIRECTORY: u64 = 65_536 * 32;
    let missing = || EspError::Read(io::ErrorKind::NotFound.into());
    let mut boot = [0; SECTOR as usize];
    esp.seek(SeekFrom::Start(0)).and_then(|_| esp.read_exact(&mut boot)).map_err(EspError::Read)?;
    let volume =
        Volume::new(&boot).ok_or_else(|| EspError::Read(io::Error::other("it is no FAT32 file system")))?;
    let mut place = volume.root;
    for name in [b"EFI        ", b"BOOT       "] {
        let directory = volume.chain(esp, place, MAX_DIRECTORY).map_err(EspError::Read)?;
        place = find(&directory, name).ok_or_else(missing)?.0;
    }
    let directory = volume.chain(esp, place, MAX_DIRECTORY).map_err(EspError::Read)?;
    let (start, length) = find(&directory, b"BOOTX64 EFI").ok_or_else(missing)?;
    if length > MAX_UKI {
        return Err(EspError::Read(io::Error::other("it is larger than 1 GiB")));
    }
    let uki = volume.chain(esp, start, length).map_err(EspError::Read)?;
    if uki.len() as u64 == length {
        Ok(uki)
    } else {
        Err(EspError::Read(io::ErrorKind::UnexpectedEof.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_become_dates() {
        let date = fat_time(951_825_600 + 3661);
        assert_eq!((date.date.year, date.date.month, date.date.day), (2000, 2, 29));
        assert_eq!((date.time.hour, date.time.min, date.time.sec), (13, 1, 0));
        assert_eq!(fat_time(0).date.year, 1980);
        assert_eq!(fat_time(i64::MAX).date.year, 2107);
    }

    #[test]
    fn the_required_size_is_the_least() {
        for uki in [0, 1 << 20, 40 << 20, 300 << 20] {
            let size = required(uki);
            assert!(fits(uki, size) && !fits(uki, size - (1 << 20)), "{uki} {size}");
        }
    }
}
