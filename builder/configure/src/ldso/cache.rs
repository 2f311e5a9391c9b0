//! Writing the cache (glibc, `sysdeps/generic/dl-cache.h` and `elf/cache.c`): header, entries, strings and
//! an extension directory. All numbers are in the byte order of the machine; all that Debian builds for
//! today are little-endian but s390x, which is refused where the library is read.

use crate::ConfigureError;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

/// Magic and version of the new format.
const MAGIC: &[u8; 20] = b"glibc-ld.so.cache1.1";
/// `cache_file_new_flags_endian_little`.
const LITTLE_ENDIAN: u8 = 2;
const HEADER_LEN: usize = 48;
const ENTRY_LEN: usize = 24;
/// `cache_extension_magic`.
const EXTENSION_MAGIC: u32 = 0xeaa4_2174;
const TAG_GENERATOR: u32 = 0;
const TAG_HWCAPS: u32 = 1;
/// `DL_CACHE_HWCAP_EXTENSION`: the field `hwcap` is an index of the sub-directories' names.
const HWCAP_EXTENSION: u64 = 1 << 62;

/// A library in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) soname: String,
    pub(super) path: String,
    pub(super) flags: u32,
    pub(super) isa_level: u32,
    pub(super) hwcaps: Option<String>,
}

/// The order of two library names: digits are compared as numbers and stand above all else, so that
/// `libfoo.so.10` comes after `libfoo.so.9` (glibc, `_dl_cache_libcmp`).
pub fn compare_names(left: &str, right: &str) -> Ordering {
    let (left, right) = (left.as_bytes(), right.as_bytes());
    let (mut l, mut r) = (0, 0);
    let byte = |text: &[u8], at: usize| text.get(at).copied().unwrap_or(0);
    // Of any length. The C library's wrap at 2^31, so that names with such numbers have no order, and a sort may panic.
    let number = |text: &[u8], at: &mut usize| {
        while byte(text, *at) == b'0' {
            *at += 1;
        }
        let start = *at;
        while byte(text, *at).is_ascii_digit() {
            *at += 1;
        }
        start..*at
    };
    while l < left.len() {
        let (a, b) = (byte(left, l), byte(right, r));
        match (a.is_ascii_digit(), b.is_ascii_digit()) {
            (true, true) => {
                let (of_left, of_right) = (number(left, &mut l), number(right, &mut r));
                let lengths = of_left.len().cmp(&of_right.len());
                let order = lengths.then_with(|| left.get(of_left).cmp(&right.get(of_right)));
                if order.is_ne() {
                    return order;
                }
            }
            (true, false) => return Ordering::Greater,
            (false, true) => return Ordering::Less,
            (false, false) if a != b => return a.cast_signed().cmp(&b.cast_signed()),
            (false, false) => {
                l += 1;
                r += 1;
            }
        }
    }
    0.cmp(&byte(right, r).cast_signed())
}

/// The order of entries: names downwards, then flags downwards, then those for hardware capabilities first.
fn compare(left: &Entry, right: &Entry) -> Ordering {
    compare_names(&right.soname, &left.soname)
        .then(right.flags.cast_signed().cmp(&left.flags.cast_signed()))
        .then_with(|| match (&left.hwcaps, &right.hwcaps) {
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (left, right) => left.cmp(right),
        })
}

/// The strings, one inside another where it is its end, and where each begins.
fn string_table<'a>(strings: impl Iterator<Item = &'a str>) -> (Vec<u8>, BTreeMap<&'a str, usize>) {
    let mut sorted: Vec<&str> = strings.collect::<BTreeSet<_>>().into_iter().collect();
    // Downwards, from the last byte backwards; of two strings that end alike the longer one comes first.
    sorted.sort_by(|left, right| {
        let common = left.bytes().rev().zip(right.bytes().rev()).find(|(l, r)| l != r);
        common.map_or_else(|| right.len().cmp(&left.len()), |(l, r)| r.cmp(&l))
    });
    let mut table: Vec<u8> = Vec::new();
    let mut offsets: BTreeMap<&str, usize> = BTreeMap::new();
    let mut previous: Option<(&str, usize)> = None;
    for string in sorted {
        let offset = match previous {
            Some((longer, at)) if longer.ends_with(string) => at + longer.len() - string.len(),
            _ => {
                let at = table.len();
                table.extend_from_slice(string.as_bytes());
                table.push(0);
                at
            }
        };
        offsets.insert(string, offset);
        previous = Some((string, offset));
    }
    (table, offsets)
}

/// The whole cache. `directories` are all sub-directories for hardware capabilities that were searched: their
/// names are in the string table even where they hold no library.
pub(super) fn write(
    mut entries: Vec<Entry>,
    directories: &[String],
    generator: &str,
) -> Result<Vec<u8>, ConfigureError> {
    entries.sort_by(compare);
    let used: BTreeSet<&str> = entries.iter().filter_map(|entry| entry.hwcaps.as_deref()).collect();
    let used: Vec<&str> = used.into_iter().collect();
    let strings = entries
        .iter()
        .flat_map(|entry| [entry.soname.as_str(), entry.path.as_str()])
        .chain(directories.iter().map(String::as_str));
    let (table, offsets) = string_table(strings);
    let strings_at = HEADER_LEN + entries.len() * ENTRY_LEN;
    let extension_at = (strings_at + table.len()).next_multiple_of(4);
    let word = |value: usize| {
        u32::try_from(value).map(u32::to_le_bytes).map_err(|_| ConfigureError::Format {
            path: "/etc/ld.so.cache".into(),
            line: None,
            why: "it would be longer than 4 GiB".into(),
        })
    };
    let string = |text: &str| word(strings_at + offsets.get(text).copied().unwrap_or(0));

    let mut out = Vec::with_capacity(extension_at + 256);
    out.extend_from_slice(MAGIC);
    out.extend(word(entries.len())?);
    out.extend(word(table.len())?);
    out.extend([LITTLE_ENDIAN, 0, 0, 0]);
    out.extend(word(extension_at)?);
    out.extend([0; 12]);
    for entry in &entries {
        let hwcap = match &entry.hwcaps {
            None => 0,
            Some(name) => {
                let index = used.iter().position(|used| used == name).unwrap_or(0);
                HWCAP_EXTENSION | u64::from(entry.isa_level) << 32 | index as u64
            }
        };
        out.extend(entry.flags.to_le_bytes());
        out.extend(string(&entry.soname)?);
        out.extend(string(&entry.path)?);
        out.extend([0; 4]);
        out.extend(hwcap.to_le_bytes());
    }
    out.extend_from_slice(&table);
    out.resize(extension_at, 0);

    let sections = 1 + usize::from(!used.is_empty());
    let names_at = extension_at + 8 + sections * 16;
    let names_len = used.len() * 4;
    out.extend(EXTENSION_MAGIC.to_le_bytes());
    out.extend(word(sections)?);
    out.extend(TAG_GENERATOR.to_le_bytes());
    out.extend([0; 4]);
    out.extend(word(names_at + names_len)?);
    out.extend(word(generator.len())?);
    if !used.is_empty() {
        out.extend(TAG_HWCAPS.to_le_bytes());
        out.extend([0; 4]);
        out.extend(word(names_at)?);
        out.extend(word(names_len)?);
    }
    for name in &used {
        out.extend(string(name)?);
    }
    out.extend_from_slice(generator.as_bytes());
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_names_are_numbers() {
        assert_eq!(compare_names("libfoo.so.10", "libfoo.so.9"), Ordering::Greater);
        assert_eq!(compare_names("libfoo.so.1", "libfoo.so"), Ordering::Greater);
        assert_eq!(compare_names("libfoo.so", "libfoo.so.1"), Ordering::Less);
        assert_eq!(compare_names("lib1", "liba"), Ordering::Greater);
        assert_eq!(compare_names("", ""), Ordering::Equal);
        assert_eq!(compare_names("lib99999999999", "lib99999999999"), Ordering::Equal);
        assert_eq!(compare_names("lib007.so", "lib7.so"), Ordering::Equal);
        assert_eq!(compare_names("lib0", "lib00"), Ordering::Equal);
        // Numbers whose difference is more than 2^31: found by the fuzz target `order`.
        let names = ["lib.so.0", "lib.so.1", "lib.so.2000000000", "lib.so.2147483649", "lib.so.2294967296"];
        for (i, left) in names.iter().enumerate() {
            for (j, right) in names.iter().enumerate() {
                assert_eq!(compare_names(left, right), i.cmp(&j), "{left} {right}");
            }
        }
    }

    #[test]
    fn a_string_that_ends_another_is_not_stored_again() {
        let (table, offsets) = string_table(["/usr/lib/liba.so.1", "liba.so.1", "x86-64-v3"].into_iter());
        assert_eq!(table, b"x86-64-v3\0/usr/lib/liba.so.1\0");
        assert_eq!(offsets["liba.so.1"], 19);
    }
}
