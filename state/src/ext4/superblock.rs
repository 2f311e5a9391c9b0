//! The superblock (Linux, `Documentation/filesystems/ext4/super.rst`): written whole, read as far as a decision needs it.

use super::crc::crc32c;
use super::inode::{EXTRA, JOURNAL, LOST_FOUND, MAP_LENGTH, map};
use super::layout::{DESCRIPTOR, LOG_FLEX, Layout};
use super::{BLOCK, GROUP_BLOCKS, INODE_SIZE, Params};
use crate::bytes::{array, le16, le32, put, text};
use crate::device::ReadAt;
use crate::error::Ext4Error;
use crate::uuid::Uuid;

/// Its size in bytes.
pub const SIZE: usize = 1024;
/// Where the first one lies in its block, in bytes.
pub const AT: usize = 1024;
/// `EXT4_SUPER_MAGIC`.
const MAGIC: u16 = 0xef53;
/// Where its checksum lies.
const SUM: usize = 1020;

/// has_journal, ext_attr, dir_index.
const COMPATIBLE: u32 = 0x4 | 0x8 | 0x20;
/// filetype, extents, 64bit, flex_bg.
const INCOMPATIBLE: u32 = 0x2 | 0x40 | 0x80 | 0x200;
/// sparse_super, large_file, huge_file, dir_nlink, extra_isize, metadata_csum.
const READ_ONLY: u32 = 0x1 | 0x2 | 0x8 | 0x20 | 0x40 | METADATA_SUMS;
const METADATA_SUMS: u32 = 0x400;
/// `EXT4_FEATURE_INCOMPAT_RECOVER`.
const RECOVER: u32 = 0x4;
/// `EXT4_FEATURE_INCOMPAT_META_BG`: what the kernel sets when a mounted file system grows.
const META_BLOCK_GROUPS: u32 = 0x10;
/// States.
const CLEAN: u16 = 1;
const WITH_ERRORS: u16 = 2;
/// What the kernel does about errors: `EXT4_ERRORS_RO`.
const ERRORS_READ_ONLY: u16 = 2;
/// Access control lists and attributes of users are on.
const MOUNT_OPTIONS: u32 = 0x4 | 0x8;
/// Half MD4 over signed characters, for the folders' hash trees.
const HALF_MD4: u8 = 1;
const SIGNED_HASH: u32 = 1;

/// The superblock's bytes for the group that they lie in.
pub fn write(layout: &Layout, params: &Params<'_>, free_blocks: u64, group: u32) -> [u8; SIZE] {
    let mut sb = [0; SIZE];
    let mut word = |at: usize, value: u32| put(&mut sb, at, &value.to_le_bytes());
    // A hundredth for the system's own.
    let reserved = layout.blocks / 100;
    word(0, layout.inodes());
    for (low, high, value) in [(4, 336, layout.blocks), (8, 340, reserved), (12, 344, free_blocks)] {
        word(low, value as u32);
        word(high, (value >> 32) as u32);
    }
    word(16, layout.inodes().saturating_sub(LOST_FOUND));
    // Blocks and clusters of 1024 << 2 bytes.
    word(24, 2);
    word(28, 2);
    word(32, GROUP_BLOCKS as u32);
    word(36, GROUP_BLOCKS as u32);
    word(40, layout.inodes_per_group);
    let time = params.time as u32;
    // Written, checked, made.
    for at in [48, 64, 264] {
        word(at, time);
    }
    // Revision 1, dynamic.
    word(76, 1);
    word(84, LOST_FOUND);
    word(92, COMPATIBLE);
    word(96, INCOMPATIBLE);
    word(100, READ_ONLY);
    word(224, JOURNAL);
    word(256, MOUNT_OPTIONS);
    word(352, SIGNED_HASH);
    // At most 2^32 blocks; the field is of 32 bits, and what describes is far less.
    word(584, layout.overhead() as u32);
    let mut half = |at: usize, value: u16| put(&mut sb, at, &value.to_le_bytes());
    // Never by the number of mounts.
    half(54, u16::MAX);
    half(56, MAGIC);
    half(58, CLEAN);
    half(60, ERRORS_READ_ONLY);
    half(88, INODE_SIZE as u16);
    half(90, group as u16);
    half(254, DESCRIPTOR as u16);
    half(348, EXTRA);
    half(350, EXTRA);
    put(&mut sb, 104, &params.uuid.0);
    put(&mut sb, 120, params.label.as_bytes());
    put(&mut sb, 236, &params.hash_seed);
    // The journal's map once more, for a damaged inode.
    put(&mut sb, 252, &[HALF_MD4, 1]);
    put(&mut sb, 268, &map(&layout.journal));
    let length = (layout.journal.end - layout.journal.start) * BLOCK as u64;
    put(&mut sb, 268 + MAP_LENGTH, &((length >> 32) as u32).to_le_bytes());
    put(&mut sb, 268 + MAP_LENGTH + 4, &(length as u32).to_le_bytes());
    // CRC-32C.
    put(&mut sb, 372, &[LOG_FLEX, 1]);
    // The times' bits beyond 2106; these are not signed.
    let high = (params.time >> 32) as u8;
    for at in [628, 630, 631] {
        put(&mut sb, at, &[high]);
    }
    let sum = crc32c(!0, sb.get(..SUM).unwrap_or_default());
    put(&mut sb, SUM, &sum.to_le_bytes());
    sb
}

/// What a superblock says of its file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ext4Super {
    /// It was unmounted, and no errors are known.
    pub clean: bool,
    /// Its journal is to be replayed, which mounting does.
    pub needs_recovery: bool,
    /// The kernel found errors in it; `e2fsck` is needed.
    pub errors: bool,
    /// How many.
    pub error_count: u32,
    /// Its UUID.
    pub uuid: Uuid,
    /// Its label; bytes that are no UTF-8 are replaced.
    pub label: String,
    /// Its size in blocks of 4096 bytes.
    pub blocks: u64,
}

impl Ext4Super {
    /// Reads the first superblock of a device, and refuses what the kernel should not be given: a damaged one, one of
    /// another system's making, one that is larger than its device.
    pub fn read(device: &impl ReadAt) -> Result<Self, Ext4Error> {
        let size = device.size().map_err(Ext4Error::io("find the size of"))?;
        let mut bytes = [0; SIZE];
        if size < (AT + SIZE) as u64 {
            return Err(Ext4Error::None);
        }
        device.read_at(&mut bytes, AT as u64).map_err(Ext4Error::io("read"))?;
        Self::parse(&bytes, size)
    }

    /// Reads the 1024 bytes of a superblock that lies on a device of `device` bytes.
    pub fn parse(bytes: &[u8], device: u64) -> Result<Self, Ext4Error> {
        let cut = || Ext4Error::Damaged("it is cut off");
        if le16(bytes, 56).ok_or_else(cut)? != MAGIC {
            return Err(Ext4Error::None);
        }
        let word = |at| le32(bytes, at).ok_or_else(cut);
        // Before anything else that the sum covers; without sums there is nothing to trust.
        let read_only = word(100)?;
        let summed = bytes.get(..SUM).ok_or_else(cut)?;
        if read_only & METADATA_SUMS == 0 {
            return Err(Ext4Error::Damaged("it has no checksum"));
        }
        if word(SUM)? != crc32c(!0, summed) || bytes.get(373) != Some(&1) {
            return Err(Ext4Error::Damaged("its checksum"));
        }
        let incompatible = word(96)?;
        for (kind, bits) in [
            ("incompatible", incompatible & !(INCOMPATIBLE | RECOVER | META_BLOCK_GROUPS)),
            ("read-only compatible", read_only & !READ_ONLY),
            ("missing incompatible", INCOMPATIBLE & !incompatible),
            ("missing compatible", COMPATIBLE & !word(92)?),
        ] {
            if bits != 0 {
                return Err(Ext4Error::Feature { kind, bits });
            }
        }
        if word(24)? != 2
            || u64::from(word(32)?) != GROUP_BLOCKS
            || le16(bytes, 88) != Some(INODE_SIZE as u16)
        {
            return Err(Ext4Error::Damaged("its sizes"));
        }
        let blocks = u64::from(word(336)?) << 32 | u64::from(word(4)?);
        if blocks == 0 || blocks > device / BLOCK as u64 {
            return Err(Ext4Error::TooLarge { blocks, device });
        }
        let state = le16(bytes, 58).ok_or_else(cut)?;
        let needs_recovery = incompatible & RECOVER != 0;
        let error_count = word(404)?;
        let errors = state & WITH_ERRORS != 0 || error_count != 0;
        Ok(Self {
            clean: state & CLEAN != 0 && !errors && !needs_recovery,
            needs_recovery,
            errors,
            error_count,
            uuid: Uuid(array(bytes, 104).ok_or_else(cut)?),
            label: String::from_utf8_lossy(text(bytes.get(120..136).ok_or_else(cut)?)).into_owned(),
            blocks,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written() -> [u8; SIZE] {
        let layout = Layout::new(1 << 30).unwrap();
        let params = Params { label: "state", uuid: Uuid([3; 16]), hash_seed: [4; 16], time: 1 << 33 };
        write(&layout, &params, 1000, 0)
    }

    fn summed(mut bytes: [u8; SIZE], at: usize, value: &[u8]) -> [u8; SIZE] {
        put(&mut bytes, at, value);
        let sum = crc32c(!0, &bytes[..SUM]);
        put(&mut bytes, SUM, &sum.to_le_bytes());
        bytes
    }

    #[test]
    fn what_it_says() {
        let bytes = written();
        let read = Ext4Super::parse(&bytes, 1 << 30).unwrap();
        assert!(read.clean && !read.needs_recovery && !read.errors);
        assert_eq!((read.uuid, read.label.as_str(), read.blocks), (Uuid([3; 16]), "state", 1 << 18));
        let mounted =
            Ext4Super::parse(&summed(bytes, 96, &(INCOMPATIBLE | RECOVER).to_le_bytes()), 1 << 30).unwrap();
        assert!(mounted.needs_recovery && !mounted.clean && !mounted.errors);
        let broken = Ext4Super::parse(&summed(bytes, 58, &[3]), 1 << 30).unwrap();
        assert!(broken.errors && !broken.clean);
    }

    #[test]
    fn refused() {
        let bytes = written();
        let refusal = |bytes: &[u8], size| Ext4Super::parse(bytes, size).unwrap_err().to_string();
        assert!(refusal(&[0; SIZE], 1 << 30).contains("no ext4"));
        assert!(refusal(&bytes[..1000], 1 << 30).contains("cut off"));
        assert!(refusal(&bytes, (1 << 30) - 4096).contains("smaller"));
        let inline_data = summed(bytes, 96, &(INCOMPATIBLE | 0x8000).to_le_bytes());
        assert!(refusal(&inline_data, 1 << 30).contains("0x8000"));
        let verity = summed(bytes, 100, &(READ_ONLY | 0x8000).to_le_bytes());
        assert!(refusal(&verity, 1 << 30).contains("0x8000"));
        assert!(refusal(&summed(bytes, 100, &1u32.to_le_bytes()), 1 << 30).contains("no checksum"));
        assert!(refusal(&summed(bytes, 92, &[0]), 1 << 30).contains("missing"));
        for at in 0..SIZE {
            let mut changed = bytes;
            changed[at] ^= 0x10;
            assert!(Ext4Super::parse(&changed, 1 << 30).is_err(), "{at}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]
        #[test]
        fn any_summed_superblock_is_read_or_refused(at in 0..SUM, value: [u8; 4], size: u64) {
            let _ = Ext4Super::parse(&summed(written(), at, &value), size);
        }
    }
}
