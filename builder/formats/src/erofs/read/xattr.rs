//! Extended attributes: inline behind the inode, shared between inodes, and names with a long prefix
//! (`struct erofs_xattr_ibody_header`, `erofs_xattr_entry`, `erofs_xattr_long_prefix`).

use super::data::FileReader;
use super::inode::Inode;
use super::{ReadAt, ReadError, Reader, u16_at, u32_at};
use std::collections::BTreeMap;

/// Names of the short prefixes by their number.
const fn prefix(index: u8) -> Option<&'static [u8]> {
    Some(match index {
        1 => b"user.",
        2 => b"system.posix_acl_access",
        3 => b"system.posix_acl_default",
        4 => b"trusted.",
        5 => b"lustre.",
        6 => b"security.",
        _ => return None,
    })
}

impl<S: ReadAt> Reader<S> {
    /// The long prefixes, spelled out.
    pub(super) fn long_prefixes(&self) -> Result<Vec<Vec<u8>>, ReadError> {
        let (count, mut at) = self.prefixes;
        if count == 0 {
            return Ok(Vec::new());
        }
        // They lie in the packed inode when there is one (`erofs_xattr_prefixes_init`).
        let mut packed = match self.packed {
            0 => None,
            nid => Some(FileReader::new(self, self.inode(nid)?)?),
        };
        let mut read = |at: u64, buffer: &mut [u8]| match &mut packed {
            None => self.fill(buffer, at),
            Some(file) => file.read_full(at, buffer),
        };
        let mut prefixes = Vec::new();
        for _ in 0..count {
            let mut length = [0; 2];
            read(at, &mut length)?;
            let mut body = vec![0; usize::from(u16::from_le_bytes(length))];
            read(at + 2, &mut body)?;
            let base = body.first().copied().and_then(prefix);
            let base =
                base.ok_or(ReadError::Damaged { nid: 0, what: "a long attribute prefix is damaged" })?;
            prefixes.push([base, body.get(1..).unwrap_or_default()].concat());
            at = (at + 2 + body.len() as u64).next_multiple_of(4);
        }
        Ok(prefixes)
    }

    /// The attributes of an inode. `budget` is what bytes may still be taken.
    pub(super) fn xattrs(
        &self,
        inode: &Inode,
        prefixes: &[Vec<u8>],
        budget: &mut usize,
    ) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, ReadError> {
        let mut attributes = BTreeMap::new();
        if inode.xattr_length == 0 {
            return Ok(attributes);
        }
        // At most 12 + 4 * 65534 bytes.
        let body = self.bytes(inode.offset + inode.length, inode.xattr_length as usize)?;
        let shared = usize::from(body[4]);
        let mut add = |name: Vec<u8>, value: Vec<u8>| {
            *budget = budget
                .checked_sub(name.len() + value.len())
                .ok_or(ReadError::Limit("extended attributes"))?;
            if attributes.insert(name, value).is_some() {
                return Self::damaged(inode, "an extended attribute is there twice");
            }
            Ok(())
        };
        let name = |head: &[u8], rest: &[u8]| {
            let base = match head[1] {
                index @ 0..0x80 => prefix(index),
                index => prefixes.get(usize::from(index & 0x7f)).map(Vec::as_slice),
            };
            base.map(|base| [base, rest].concat()).ok_or(ReadError::Damaged {
                nid: inode.nid,
                what: "an extended attribute has no known prefix",
            })
        };
        for number in 0..shared {
            let Some(id) = body.get(12 + 4 * number..16 + 4 * number) else {
                return Self::damaged(inode, "it has more shared attributes than room for them");
            };
            let at = self.shared_xattrs + u64::from(u32_at(id, 0)) * 4;
            let head = self.bytes(at, 4)?;
            let (length, value) = (usize::from(head[0]), usize::from(u16_at(&head, 2)));
            let rest = self.bytes(at + 4, length + value)?;
            add(name(&head, &rest[..length])?, rest[length..].to_vec())?;
        }
        let mut at = 12 + 4 * shared;
        while let Some(head) = body.get(at..at + 4) {
            let (length, value) = (usize::from(head[0]), usize::from(u16_at(head, 2)));
            if length == 0 && head[1] == 0 {
                // Zeros fill the rest.
                break;
            }
            let Some(rest) = body.get(at + 4..at + 4 + length + value) else {
                return Self::damaged(inode, "an extended attribute ends behind all of them");
            };
            add(name(head, &rest[..length])?, rest[length..].to_vec())?;
            at = (at + 4 + length + value).next_multiple_of(4);
        }
        Ok(attributes)
    }
}
