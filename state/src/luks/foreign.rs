//! What a partition looks like that is not ours, so that a message can name it.

/// A signature: where it lies, its bytes, what it belongs to. In the order in which they are tried.
const SIGNATURES: &[(usize, &[u8], &str)] = &[
    (0, b"LUKS\xba\xbe\0\x01", "a LUKS1 volume"),
    (0, b"XFSB", "an XFS file system"),
    (3, b"NTFS    ", "an NTFS file system"),
    (3, b"EXFAT   ", "an exFAT file system"),
    (3, b"-FVE-FS-", "a BitLocker volume"),
    (54, b"FAT1", "a FAT file system"),
    (82, b"FAT32", "a FAT file system"),
    (512, b"EFI PART", "a partition table"),
    (4096, b"EFI PART", "a partition table"),
    (512, b"LABELONE", "a volume of LVM"),
    (4086, b"SWAPSPACE2", "swap space"),
    (1024, b"\xe2\xe1\xf5\xe0", "an erofs file system"),
    (0, b"hsqs", "a squashfs file system"),
    (0, b"verity\0\0", "a tree of dm-verity"),
    (1080, b"\x53\xef", "an ext file system that is not encrypted"),
    (0x1_0040, b"_BHRfS_M", "a btrfs file system"),
    (32769, b"CD001", "an ISO 9660 file system"),
    (4096, b"\xfc\x4e\x2b\xa9", "a member of a RAID"),
    (0, b"\xfc\x4e\x2b\xa9", "a member of a RAID"),
    (510, b"\x55\xaa", "a boot sector"),
];

/// What it looks like.
pub fn looks_like(start: &[u8]) -> &'static str {
    let has = |at: usize, bytes: &[u8]| start.get(at..).is_some_and(|rest| rest.starts_with(bytes));
    SIGNATURES.iter().find(|(at, bytes, _)| has(*at, bytes)).map_or("unknown data", |(_, _, name)| name)
}
