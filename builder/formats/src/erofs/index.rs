//! The compact index of a compressed file (`struct z_erofs_map_header`, then indexes of 4 bytes until a multiple of 32
//! bytes, of 2 bytes in packs of 16, and of 4 bytes for the rest), as the kernel's `fs/erofs/zmap.c` reads it.
//!
//! Each index stands for a logical cluster of one block of the file: one where an extent begins says at which byte in
//! it; the others say how far it is to the beginning, the first of them how many blocks the extent takes. A pack ends
//! with the block address from which the addresses of its extents are counted.

use super::codec::Extent;

/// `Z_EROFS_ADVISE_COMPACTED_2B`.
const ADVISE_SHORT: u16 = 1;
/// `Z_EROFS_ADVISE_BIG_PCLUSTER_1` and `_2`, which belong together in compact indexes.
const ADVISE_BIG: u16 = 6;
/// `Z_EROFS_LI_D0_CBLKCNT`.
const BLOCK_COUNT: u16 = 1 << 11;
/// Length of the header in bytes.
const HEADER: u64 = 8;

/// Numbers of indexes of each form.
struct Forms {
    initial: u64,
    short: u64,
    rest: u64,
}

impl Forms {
    /// For `count` indexes from byte `base` of the image on.
    const fn new(base: u64, count: u64) -> Self {
        let initial = (32 - base % 32) / 4 % 8;
        if count < initial + 16 {
            return Self { initial: 0, short: 0, rest: count };
        }
        let short = (count - initial) / 16 * 16;
        Self { initial, short, rest: count - initial - short }
    }
}

/// Where header and index of a file of `size` bytes end that come behind `end`.
pub const fn end(end: u64, size: u64) -> u64 {
    let base = end.next_multiple_of(8) + HEADER;
    let forms = Forms::new(base, size.div_ceil(4096));
    base + forms.initial * 4 + forms.short * 2 + forms.rest.next_multiple_of(2) * 4
}

/// One logical cluster.
#[derive(Clone, Copy, Default)]
struct Cluster {
    /// 0 raw, 1 compressed, 2 no beginning.
    kind: u8,
    /// Place of the beginning; or distance to it, or number of blocks.
    low: u16,
    /// Distance to the next beginning, for the last in a pack.
    next: u16,
    /// First block of the extent, for a beginning.
    block: u32,
}

/// The logical clusters of a file whose extents lie one behind the other from `block` on.
fn clusters(extents: &[Extent], mut block: u32) -> Vec<Cluster> {
    let mut clusters = Vec::new();
    let size: u64 = extents.iter().map(|extent| u64::from(extent.length)).sum();
    let mut at = 0;
    for extent in extents {
        let end = at + u64::from(extent.length);
        let (first, last) = (at / 4096, end / 4096);
        clusters.push(Cluster { kind: u8::from(!extent.raw), low: (at % 4096) as u16, next: 0, block });
        for number in first + 1..last {
            let low = match number - first {
                1 => BLOCK_COUNT | extent.blocks,
                distance => distance as u16,
            };
            clusters.push(Cluster { kind: 2, low, next: (last - number) as u16, block: 0 });
        }
        block += u32::from(extent.blocks);
        if end == size && end % 4096 != 0 && last > first {
            // The end of the file stands as a beginning of nothing.
            clusters.push(Cluster { kind: 0, low: (end % 4096) as u16, next: 0, block });
        }
        at = end;
    }
    clusters
}

/// Appends a pack of `pack.len()` indexes of `bits` bits and their block address.
fn append(bytes: &mut Vec<u8>, pack: &[Cluster], bits: usize) {
    // The address from which the reader counts: before the first beginning, the blocks of the extent that began in the
    // pack before are counted if their number stands here.
    let mut counted = 0;
    let mut base = 0;
    for cluster in pack {
        if cluster.kind == 2 {
            if cluster.low & BLOCK_COUNT != 0 {
                counted += u32::from(cluster.low & !BLOCK_COUNT);
            }
        } else {
            base = cluster.block - counted;
            break;
        }
    }
    let mut word = 0_u32;
    let mut filled = 0;
    for (position, cluster) in pack.iter().enumerate() {
        let last = position + 1 == pack.len() && cluster.kind == 2 && cluster.low & BLOCK_COUNT == 0;
        let low = if last { cluster.next } else { cluster.low };
        word |= (u32::from(cluster.kind) << 12 | u32::from(low)) << filled;
        filled += bits;
        while filled >= 8 {
            bytes.push(word as u8);
            word >>= 8;
            filled -= 8;
        }
    }
    bytes.extend_from_slice(&base.to_le_bytes());
}

/// Header and index of a file; they begin at byte `at` of the image, a multiple of 8.
pub fn bytes(at: u64, extents: &[Extent], first_block: u32, algorithm: u8) -> Vec<u8> {
    let mut clusters = clusters(extents, first_block);
    let forms = Forms::new(at + HEADER, clusters.len() as u64);
    let advise = ADVISE_BIG | if forms.short == 0 { 0 } else { ADVISE_SHORT };
    let mut bytes = vec![0; 4];
    bytes.extend_from_slice(&advise.to_le_bytes());
    bytes.extend_from_slice(&[algorithm | algorithm << 4, 0]);
    if !clusters.len().is_multiple_of(2) {
        clusters.push(Cluster::default());
    }
    let (initial, others) = clusters.split_at(forms.initial as usize);
    let (short, rest) = others.split_at(forms.short as usize);
    for (part, in_pack, bits) in [(initial, 2, 16), (short, 16, 14), (rest, 2, 16)] {
        for pack in part.chunks(in_pack) {
            append(&mut bytes, pack, bits);
        }
    }
    bytes
}
