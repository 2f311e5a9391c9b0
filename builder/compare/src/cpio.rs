//! Reading `newc` archives (Linux, `Documentation/driver-api/early-userspace/buffer-format.rst`).

use std::ops::Range;

/// Most members that are read.
const MAX_MEMBERS: usize = 1 << 17;
/// Longest name in bytes (Linux, `PATH_MAX`).
const MAX_NAME: usize = 4096;
/// Length of a header in bytes.
const HEADER: usize = 110;

/// Names of a header's fields, in order.
pub const FIELDS: [&str; 13] = [
    "inode",
    "mode",
    "uid",
    "gid",
    "links",
    "mtime",
    "size",
    "device major",
    "device minor",
    "rdev major",
    "rdev minor",
    "name size",
    "check",
];

/// One member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Name, without a leading slash.
    pub name: Vec<u8>,
    /// Where its header begins in the archive.
    pub header: usize,
    /// The header's fields, as in [`FIELDS`].
    pub fields: [u32; 13],
    /// Where its content lies in the archive.
    pub data: Range<usize>,
}

impl Member {
    /// File type and permissions, as in `st_mode`.
    pub fn mode(&self) -> u32 {
        self.fields[1]
    }
}

/// The archive cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the cpio archive is damaged at byte {offset}: {what}")]
pub struct CpioError {
    /// Where, in bytes from the beginning.
    pub offset: usize,
    /// What is wrong.
    pub what: &'static str,
}

/// The members up to the trailer, and those of archives that follow: the kernel unpacks one after the other, with any
/// number of zeros between.
///
/// # Errors
/// [`CpioError`] for anything that is no archive of this format.
pub fn members(archive: &[u8]) -> Result<Vec<Member>, CpioError> {
    let mut members = Vec::new();
    let mut at = 0_usize;
    loop {
        let bad = |what| CpioError { offset: at, what };
        let header = at.checked_add(HEADER).and_then(|end| archive.get(at..end)).ok_or(bad("it ends"))?;
        if !header.starts_with(b"070701") {
            return Err(bad("there is no header"));
        }
        let mut fields = [0; 13];
        for (field, digits) in fields.iter_mut().zip(header[6..].chunks_exact(8)) {
            let text =
                std::str::from_utf8(digits).ok().filter(|text| text.bytes().all(|b| b.is_ascii_hexdigit()));
            *field = text
                .and_then(|text| u32::from_str_radix(text, 16).ok())
                .ok_or(bad("a field is no number"))?;
        }
        let name_length = fields[11] as usize;
        if name_length == 0 || name_length > MAX_NAME {
            return Err(bad("a name is empty or too long"));
        }
        let name_start = at + HEADER;
        let name = archive.get(name_start..name_start + name_length).ok_or(bad("it ends in a name"))?;
        let name = name.strip_suffix(&[0]).ok_or(bad("a name has no end"))?;
        let start = (name_start + name_length).next_multiple_of(4);
        let end = start.checked_add(fields[6] as usize).filter(|end| *end <= archive.len());
        let end = end.ok_or(bad("it ends in a content"))?;
        if name == b"TRAILER!!!" {
            let rest = archive.get(end..).unwrap_or_default();
            let zeros = rest.iter().take_while(|byte| **byte == 0).count();
            if !rest.get(zeros..).is_some_and(|rest| rest.starts_with(b"070701")) {
                return Ok(members);
            }
            at = end + zeros;
            continue;
        }
        if members.len() == MAX_MEMBERS {
            return Err(bad("it has too many members"));
        }
        let name = name.strip_prefix(b"/").unwrap_or(name).to_vec();
        members.push(Member { name, header: at, fields, data: start..end });
        at = end.next_multiple_of(4);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ashlar_tree::{Metadata, Node, Tree};

    fn archive() -> Vec<u8> {
        let mut tree = Tree::new(Metadata::root(0o755, 5));
        tree.insert(b"/init", Node::file(Metadata::root(0o755, 7), *b"run me")).unwrap();
        tree.insert(b"/a/link", Node::symlink(Metadata::root(0o777, 7), "there")).unwrap();
        let mut bytes = Vec::new();
        ashlar_formats::cpio::write(&tree, &mut bytes).unwrap();
        bytes
    }

    #[test]
    fn what_was_written_is_read() {
        let bytes = archive();
        let members = members(&bytes).unwrap();
        let names: Vec<&[u8]> = members.iter().map(|member| member.name.as_slice()).collect();
        assert_eq!(names, [b"a".as_slice(), b"a/link", b"init"]);
        assert_eq!(&bytes[members[2].data.clone()], b"run me");
        assert_eq!((members[2].mode(), members[2].fields[5]), (0o100_755, 7));
    }

    #[test]
    fn archives_in_a_row_are_read() {
        let one = archive();
        let mut two = one.clone();
        two.extend([0; 8]);
        two.extend(&one);
        let (single, double) = (members(&one).unwrap(), members(&two).unwrap());
        assert_eq!(double.len(), 2 * single.len());
        assert_eq!(&two[double[5].data.clone()], b"run me");
        assert!(members(&two[..two.len() - one.len() / 2]).is_err());
    }

    #[test]
    fn damaged_archives_are_refused_or_read() {
        let bytes = archive();
        for end in 0..bytes.len() - 4 {
            assert!(members(&bytes[..end]).is_err(), "{end}");
        }
        for at in 0..bytes.len() {
            for value in [0, b'0', b'f', 0xff] {
                let mut changed = bytes.clone();
                changed[at] = value;
                let _ = members(&changed);
            }
        }
    }
}
