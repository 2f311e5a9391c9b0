//! Inodes and inline extended attributes as bytes (`struct erofs_inode_compact`,
//! `struct erofs_inode_extended`, `struct erofs_xattr_ibody_header`, `struct erofs_xattr_entry`).

use ashlar_tree::{Kind, Metadata};
use std::collections::BTreeMap;

/// Data lies in whole blocks (`EROFS_INODE_FLAT_PLAIN`).
pub const FLAT_PLAIN: u16 = 0;
/// Data is compressed, with a compact index (`EROFS_INODE_COMPRESSED_COMPACT`).
pub const COMPRESSED_COMPACT: u16 = 3;
/// The last, partial block follows the inode (`EROFS_INODE_FLAT_INLINE`).
pub const FLAT_INLINE: u16 = 2;

/// Short numbers for the prefixes of attribute names.
const PREFIXES: [(&[u8], u8); 5] = [
    (b"user.", 1),
    (b"system.posix_acl_access", 2),
    (b"system.posix_acl_default", 3),
    (b"trusted.", 4),
    (b"security.", 6),
];

/// The inline attributes, sorted by name; empty when there are none. The error says what does not fit.
pub fn xattrs(attributes: &BTreeMap<Vec<u8>, Vec<u8>>) -> Result<Vec<u8>, &'static str> {
    if attributes.is_empty() {
        return Ok(Vec::new());
    }
    let mut body = vec![0; 12];
    for (name, value) in attributes {
        let (prefix, index) = PREFIXES
            .into_iter()
            .find(|(prefix, _)| name.starts_with(prefix))
            .ok_or("an extended attribute is outside of user, system.posix_acl, trusted and security")?;
        let rest = &name[prefix.len()..];
        body.push(u8::try_from(rest.len()).map_err(|_| "an extended attribute's name is too long")?);
        body.push(index);
        let length = u16::try_from(value.len()).map_err(|_| "an extended attribute is longer than 64 KiB")?;
        body.extend_from_slice(&length.to_le_bytes());
        body.extend_from_slice(rest);
        body.extend_from_slice(value);
        body.resize(body.len().next_multiple_of(4), 0);
    }
    if body.len() > 12 + 4 * 0xfffe {
        return Err("its extended attributes are too long together");
    }
    Ok(body)
}

/// Everything that an inode says.
#[derive(Debug)]
pub struct Inode<'a> {
    /// Owner, mode, time.
    pub metadata: &'a Metadata,
    /// File type; decides the type bits and the device number.
    pub kind: &'a Kind,
    /// Length of the content in bytes.
    pub size: u64,
    /// Number of links.
    pub links: u32,
    /// What `stat` shows on systems of 32 bits. It does not count the inodes, which would change with every new file.
    pub number: u32,
    /// [`FLAT_PLAIN`], [`FLAT_INLINE`] or [`COMPRESSED_COMPACT`].
    pub layout: u16,
    /// First whole block of the content, or the number of blocks of compressed content.
    pub data: u32,
    /// Length of the inline attributes in bytes.
    pub xattr_size: usize,
}

/// Type bits of `st_mode`.
const fn type_bits(kind: &Kind) -> u16 {
    match kind {
        Kind::Fifo => 0o010_000,
        Kind::CharDevice { .. } => 0o020_000,
        Kind::Directory(_) => 0o040_000,
        Kind::BlockDevice { .. } => 0o060_000,
        Kind::File(_) | Kind::HardLink(_) => 0o100_000,
        Kind::Symlink(_) => 0o120_000,
        Kind::Socket => 0o140_000,
    }
}

/// Whether the 32-byte form can hold this.
pub fn fits_compact(metadata: &Metadata, size: u64, links: u32, build_time: i64) -> bool {
    metadata.uid <= 0xffff
        && metadata.gid <= 0xffff
        && u32::try_from(size).is_ok()
        && links <= 0xffff
        && metadata.mtime == build_time
}

impl Inode<'_> {
    /// The bytes: 32 in the compact form, 64 in the extended one.
    pub fn bytes(&self, build_time: i64) -> Vec<u8> {
        let compact = fits_compact(self.metadata, self.size, self.links, build_time);
        let mut bytes = vec![0; if compact { 32 } else { 64 }];
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        let count = if self.xattr_size == 0 { 0 } else { 1 + (self.xattr_size - 12) / 4 };
        put(0, &(u16::from(!compact) | self.layout << 1).to_le_bytes());
        put(2, &(count as u16).to_le_bytes());
        put(4, &(type_bits(self.kind) | (self.metadata.mode & 0o7777) as u16).to_le_bytes());
        let data = match self.kind {
            // The kernel's `new_encode_dev`.
            Kind::CharDevice { major, minor } | Kind::BlockDevice { major, minor } => {
                (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12)
            }
            _ => self.data,
        };
        put(16, &data.to_le_bytes());
        put(20, &self.number.to_le_bytes());
        if compact {
            put(6, &(self.links as u16).to_le_bytes());
            put(8, &(self.size as u32).to_le_bytes());
            put(24, &(self.metadata.uid as u16).to_le_bytes());
            put(26, &(self.metadata.gid as u16).to_le_bytes());
        } else {
            put(8, &self.size.to_le_bytes());
            put(24, &self.metadata.uid.to_le_bytes());
            put(28, &self.metadata.gid.to_le_bytes());
            put(32, &self.metadata.mtime.to_le_bytes());
            put(44, &self.links.to_le_bytes());
        }
        bytes
    }
}
