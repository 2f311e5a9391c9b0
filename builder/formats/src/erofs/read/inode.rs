//! Inodes (`struct erofs_inode_compact`, `struct erofs_inode_extended`).

use super::{EntryKind, ReadAt, ReadError, Reader, number, u16_at, u32_at};

/// `EROFS_INODE_*`: how the content is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    Plain,
    CompressedFull,
    Inline,
    CompressedCompact,
    Chunks,
}

/// An inode as stored.
#[derive(Debug, Clone)]
pub(super) struct Inode {
    pub nid: u64,
    /// Where it begins in the image, in bytes.
    pub offset: u64,
    /// Its length without attributes, in bytes.
    pub length: u64,
    pub xattr_length: u64,
    pub layout: Layout,
    /// Type and permissions.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime: i64,
    pub mtime_nanoseconds: u32,
    pub size: u64,
    pub nlink: u32,
    /// First block, device number, chunk format or number of compressed blocks.
    pub union: u32,
}

impl Inode {
    /// Where inode and attributes end.
    pub fn end(&self) -> u64 {
        self.offset + self.length + self.xattr_length
    }

    pub fn is_directory(&self) -> bool {
        self.mode & 0o170_000 == 0o040_000
    }

    /// The type; `None` when the type bits say nothing known. A symbolic link's target is empty.
    pub fn kind(&self) -> Option<EntryKind> {
        // The kernel's `new_decode_dev`.
        let major = (self.union >> 8) & 0xfff;
        let minor = (self.union & 0xff) | ((self.union >> 12) & 0xf_ff00);
        Some(match self.mode & 0o170_000 {
            0o010_000 => EntryKind::Fifo,
            0o020_000 => EntryKind::CharDevice { major, minor },
            0o040_000 => EntryKind::Directory,
            0o060_000 => EntryKind::BlockDevice { major, minor },
            0o100_000 => EntryKind::File,
            0o120_000 => EntryKind::Symlink(Vec::new()),
            0o140_000 => EntryKind::Socket,
            _ => return None,
        })
    }
}

impl<S: ReadAt> Reader<S> {
    pub(super) fn inode(&self, nid: u64) -> Result<Inode, ReadError> {
        let damaged = |what| ReadError::Damaged { nid, what };
        let offset = nid.checked_mul(32).and_then(|at| at.checked_add(self.meta));
        let offset = offset
            .filter(|at| at.checked_add(32).is_some_and(|end| end <= self.size))
            .ok_or_else(|| damaged("it lies outside of the image"))?;
        let mut bytes = [0; 64];
        self.fill(&mut bytes[..32], offset)?;
        let format = u16_at(&bytes, 0);
        let extended = format & 1 != 0;
        if extended {
            self.fill(&mut bytes[32..], offset + 32)?;
        }
        if format >> 4 != 0 {
            return Err(ReadError::Unsupported(format!("the inode format {format:#x}")));
        }
        let layout = match format >> 1 & 7 {
            0 => Layout::Plain,
            1 => Layout::CompressedFull,
            2 => Layout::Inline,
            3 => Layout::CompressedCompact,
            4 => Layout::Chunks,
            other => return Err(ReadError::Unsupported(format!("the data layout {other}"))),
        };
        let count = u64::from(u16_at(&bytes, 2));
        let (build_time, build_nanoseconds) = self.build_time;
        let inode = Inode {
            nid,
            offset,
            length: if extended { 64 } else { 32 },
            xattr_length: if count == 0 { 0 } else { 12 + 4 * (count - 1) },
            layout,
            mode: u32::from(u16_at(&bytes, 4)),
            uid: if extended { u32_at(&bytes, 24) } else { u32::from(u16_at(&bytes, 24)) },
            gid: if extended { u32_at(&bytes, 28) } else { u32::from(u16_at(&bytes, 26)) },
            mtime: if extended { number::<8>(&bytes, 32).cast_signed() } else { build_time },
            mtime_nanoseconds: if extended { u32_at(&bytes, 40) } else { build_nanoseconds },
            size: if extended { number::<8>(&bytes, 8) } else { u64::from(u32_at(&bytes, 8)) },
            nlink: if extended { u32_at(&bytes, 44) } else { u32::from(u16_at(&bytes, 6)) },
            union: u32_at(&bytes, 16),
        };
        if inode.size > i64::MAX.cast_unsigned() {
            return Err(damaged("its size is no file size"));
        }
        Ok(inode)
    }
}
