//! qcow2, version 3 (QEMU, `docs/interop/qcow2.txt`). All numbers are big-endian.
//!
//! The file is: the header's cluster, the L1 table, then data clusters in the disk's order with each L2 table behind
//! the data that it refers to, then the blocks of reference counts and their table.

use crate::extents::Blocks;
use crate::write::{Fields, write, write_sparse};
use crate::{Compression, Error, Job, Written};
use rayon::prelude::*;
use std::fs::File;

const CLUSTER_BITS: u32 = 16;
const CLUSTER: u64 = 1 << CLUSTER_BITS;
/// Entries of a table that fills a cluster, 8 bytes each.
const ENTRIES: u64 = CLUSTER / 8;
/// Reference counts (16 bits each) in one cluster.
const COUNTS: u64 = CLUSTER / 2;
/// Largest disk: its L1 table has 1 MiB and its reference counts take at most 512 MiB of memory.
pub const MAX_SIZE: u64 = 16 << 40;
/// "The cluster's reference count is exactly one."
const COPIED: u64 = 1 << 63;
const COMPRESSED: u64 = 1 << 62;
/// Where the number of further sectors is in the entry of a compressed cluster: 62 - (cluster bits - 8).
const SECTORS_SHIFT: u32 = 62 - (CLUSTER_BITS - 8);
/// Clusters that are read, compressed in parallel and written at a time.
const BATCH: usize = 64;
/// A window of 4 KiB and no zlib header, which is what QEMU inflates with.
const DEFLATE: zlib_rs::DeflateConfig = zlib_rs::DeflateConfig {
    level: 6,
    method: zlib_rs::Method::Deflated,
    window_bits: -12,
    mem_level: 8,
    strategy: zlib_rs::Strategy::Default,
};
const ZSTD_LEVEL: i32 = 6;

pub fn write_qcow2(job: &Job<'_>, compression: Compression) -> Result<Written, Error> {
    let l1_entries = job.size.div_ceil(CLUSTER * ENTRIES);
    let l1_clusters = (l1_entries * 8).div_ceil(CLUSTER);
    let mut image = Image { out: job.out, end: CLUSTER * (1 + l1_clusters), counts: Vec::new() };
    image.count(0, image.end);
    let mut l1 = vec![0_u64; l1_entries as usize];
    let mut l2: Option<(u64, Vec<u64>)> = None;

    let mut blocks = Blocks::new(job.raw, job.size, CLUSTER);
    let mut batch: Vec<(u64, Vec<u8>)> = (0..BATCH).map(|_| (0, vec![0; CLUSTER as usize])).collect();
    let mut stored = 0;
    loop {
        let mut filled = 0;
        for (number, cluster) in &mut batch {
            let Some(found) = blocks.next(cluster).map_err(Error::Read)? else { break };
            *number = found;
            filled += 1;
        }
        let ready = batch.get(..filled).unwrap_or_default();
        let Some((last, _)) = ready.last() else { break };
        let packed: Vec<Option<Vec<u8>>> = ready
            .par_iter()
            .map(|(number, cluster)| compress(compression, *number, cluster))
            .collect::<Result<_, _>>()?;
        for ((number, cluster), packed) in ready.iter().zip(packed) {
            let (table, slot) = (number / ENTRIES, (number % ENTRIES) as usize);
            if l2.as_ref().is_some_and(|(open, _)| *open != table) {
                image.put_l2(&mut l1, l2.take())?;
            }
            let (_, entries) = l2.get_or_insert_with(|| (table, vec![0; ENTRIES as usize]));
            let entry = match packed {
                Some(packed) => image.put_compressed(&packed)?,
                None => image.put_cluster(cluster)? | COPIED,
            };
            if let Some(place) = entries.get_mut(slot) {
                *place = entry;
            }
            stored += CLUSTER;
        }
        (job.progress)(((last + 1) * CLUSTER).min(job.size), job.size);
    }
    image.put_l2(&mut l1, l2)?;
    write(job.out, &table(&l1), CLUSTER)?;
    let (counts_at, counts_clusters) = image.put_counts()?;

    let zstd = compression == Compression::Zstd;
    let header = Fields::zeros(CLUSTER as usize)
        .put(0, b"QFI\xfb")
        .put(4, &3_u32.to_be_bytes())
        .put(20, &CLUSTER_BITS.to_be_bytes())
        .put(24, &job.size.to_be_bytes())
        .put(36, &(l1_entries as u32).to_be_bytes())
        .put(40, &CLUSTER.to_be_bytes())
        .put(48, &counts_at.to_be_bytes())
        .put(56, &(counts_clusters as u32).to_be_bytes())
        // Incompatible feature 3: the compression type is not deflate.
        .put(72, &(u64::from(zstd) << 3).to_be_bytes())
        // Reference counts have 2^4 bits.
        .put(96, &4_u32.to_be_bytes())
        .put(100, &112_u32.to_be_bytes())
        .put(104, &[u8::from(zstd)]);
    write(job.out, header.bytes(), 0)?;
    Ok(Written { virtual_size: job.size, file_size: image.end, stored })
}

/// The compressed cluster, if that is any smaller.
fn compress(compression: Compression, number: u64, cluster: &[u8]) -> Result<Option<Vec<u8>>, Error> {
    let fail = |why: String| Error::Compress { at: number * CLUSTER, why };
    let packed = match compression {
        Compression::None => return Ok(None),
        Compression::Zlib => {
            let mut packed = vec![0; zlib_rs::compress_bound(cluster.len())];
            let (used, code) = zlib_rs::compress_slice(&mut packed, cluster, DEFLATE);
            if code != zlib_rs::ReturnCode::Ok {
                return Err(fail(format!("deflate returned {code:?}")));
            }
            let used = used.len();
            packed.truncate(used);
            packed
        }
        Compression::Zstd => zstd::bulk::compress(cluster, ZSTD_LEVEL).map_err(|e| fail(e.to_string()))?,
    };
    Ok(Some(packed).filter(|packed| packed.len() < cluster.len()))
}

/// A table as it is stored, filled up to whole clusters.
fn table(entries: &[u64]) -> Vec<u8> {
    let mut bytes: Vec<u8> = entries.iter().flat_map(|entry| entry.to_be_bytes()).collect();
    bytes.resize(bytes.len().next_multiple_of(CLUSTER as usize), 0);
    bytes
}

/// The file that grows.
struct Image<'a> {
    out: &'a File,
    /// Bytes that are used.
    end: u64,
    /// References to each cluster of the file: two bytes for 64 KiB.
    counts: Vec<u16>,
}

impl Image<'_> {
    /// Counts a reference to each cluster between two bytes of the file.
    fn count(&mut self, start: u64, end: u64) {
        let clusters = (start / CLUSTER) as usize..end.div_ceil(CLUSTER) as usize;
        self.counts.resize(self.counts.len().max(clusters.end), 0);
        for count in self.counts.get_mut(clusters).unwrap_or_default() {
            *count += 1;
        }
    }

    /// Takes whole clusters at the end.
    fn take(&mut self, clusters: u64) -> u64 {
        let at = self.end.next_multiple_of(CLUSTER);
        self.end = at + clusters * CLUSTER;
        self.count(at, self.end);
        at
    }

    fn put_cluster(&mut self, cluster: &[u8]) -> Result<u64, Error> {
        let at = self.take(1);
        write(self.out, cluster, at)?;
        Ok(at)
    }

    /// Compressed clusters lie side by side; at most as many share one as have at least one byte, so a count cannot overflow:
    /// none is shorter than two bytes.
    fn put_compressed(&mut self, packed: &[u8]) -> Result<u64, Error> {
        let at = self.end;
        self.end += packed.len() as u64;
        write(self.out, packed, at)?;
        self.count(at, self.end);
        let sectors = (self.end - 1) / 512 - at / 512;
        Ok(COMPRESSED | (sectors << SECTORS_SHIFT) | at)
    }

    /// Writes a finished L2 table and notes it in the L1 table.
    fn put_l2(&mut self, l1: &mut [u64], l2: Option<(u64, Vec<u64>)>) -> Result<(), Error> {
        if let Some((number, entries)) = l2 {
            let at = self.put_cluster(&table(&entries))?;
            if let Some(place) = l1.get_mut(number as usize) {
                *place = at | COPIED;
            }
        }
        Ok(())
    }

    /// Writes the reference counts, which count their own clusters too. Gives place and clusters of their table.
    fn put_counts(&mut self) -> Result<(u64, u64), Error> {
        let used = self.end.div_ceil(CLUSTER);
        let (mut blocks, mut tables) = (0, 0);
        loop {
            let wanted = (used + blocks + tables).div_ceil(COUNTS);
            let wanted_tables = wanted.div_ceil(ENTRIES);
            if (wanted, wanted_tables) == (blocks, tables) {
                break;
            }
            (blocks, tables) = (wanted, wanted_tables);
        }
        let blocks_at = self.take(blocks);
        let table_at = self.take(tables);
        for (number, counts) in (0..).zip(self.counts.chunks(COUNTS as usize)) {
            let bytes: Vec<u8> = counts.iter().flat_map(|count| count.to_be_bytes()).collect();
            write(self.out, &bytes, blocks_at + number * CLUSTER)?;
        }
        let entries: Vec<u64> = (0..blocks).map(|number| blocks_at + number * CLUSTER).collect();
        // The file ends with this table, so that its length is a whole number of clusters.
        self.out.set_len(self.end).map_err(Error::Write)?;
        write_sparse(self.out, &table(&entries), table_at)?;
        Ok((table_at, tables))
    }
}
