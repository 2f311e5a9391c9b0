//! The binary index of kmod: a radix tree over ASCII keys (kmod, `libkmod/libkmod-index.h`).
//!
//! All numbers are big-endian. A node is written after its children, as kmod did up to version 33 (later ones
//! write it before them, and read both); its reference holds its offset and flags that tell which parts it has.

use std::collections::BTreeMap;

const MAGIC: u32 = 0xb007_f457;
const VERSION: u32 = 0x0002_0001;
const HAS_PREFIX: u32 = 0x8000_0000;
const HAS_VALUES: u32 = 0x4000_0000;
const HAS_CHILDREN: u32 = 0x2000_0000;
/// Offsets have 28 bits.
const OFFSET_MAX: usize = 0x0fff_ffff;
/// Longest key, so that the recursion over a tree is bounded.
const KEY_MAX: usize = 1024;

/// A key and its values with their priorities.
type Keyed<'a> = (&'a [u8], &'a [(u32, String)]);

/// An index while it is made.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// Values by key. Of one key the lower priority comes first, of one priority the later one.
    keys: BTreeMap<Vec<u8>, Vec<(u32, String)>>,
}

impl Index {
    /// Adds a value. Keys that kmod refuses (not ASCII, longer than any) are left out.
    pub(super) fn insert(&mut self, key: &str, value: &str, priority: u32) {
        if !key.is_ascii() || key.len() > KEY_MAX || key.contains('\0') || value.contains('\0') {
            return;
        }
        let values = self.keys.entry(key.as_bytes().to_vec()).or_default();
        let at = values.partition_point(|(other, _)| *other < priority);
        values.insert(at, (priority, value.to_owned()));
    }

    /// The file.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend(MAGIC.to_be_bytes());
        out.extend(VERSION.to_be_bytes());
        out.extend([0; 4]);
        let keys: Vec<Keyed<'_>> =
            self.keys.iter().map(|(key, values)| (key.as_slice(), values.as_slice())).collect();
        let root = node(&keys, 0, true, &mut out);
        if let Some(place) = out.get_mut(8..12) {
            place.copy_from_slice(&root.to_be_bytes());
        }
        out
    }
}

/// Writes the node for `keys`, sorted and alike in their first `at` bytes, with all below it; gives its reference.
fn node(keys: &[Keyed<'_>], at: usize, is_root: bool, out: &mut Vec<u8>) -> u32 {
    let (Some((first, _)), Some((last, _))) = (keys.first(), keys.last()) else {
        return out.len() as u32;
    };
    // In a sorted list the first and the last share what all share. The root begins empty in kmod, and splits
    // only a prefix that a node has: it stays without one.
    let shared =
        if is_root { 0 } else { first[at..].iter().zip(&last[at..]).take_while(|(a, b)| a == b).count() };
    let end = at + shared;
    let (values, children) = match keys.split_first() {
        Some(((key, values), rest)) if key.len() == end => (Some(*values), rest),
        _ => (None, keys),
    };
    let mut references: BTreeMap<u8, u32> = BTreeMap::new();
    let mut rest = children;
    while let Some((key, _)) = rest.first() {
        let byte = key[end];
        let count = rest.partition_point(|(other, _)| other[end] <= byte);
        let (group, after) = rest.split_at(count);
        references.insert(byte, node(group, end + 1, false, out));
        rest = after;
    }
    let mut reference = out.len().min(OFFSET_MAX) as u32;
    if shared > 0 {
        out.extend_from_slice(&first[at..end]);
        out.push(0);
        reference |= HAS_PREFIX;
    }
    if let (Some((&low, _)), Some((&high, _))) = (references.first_key_value(), references.last_key_value()) {
        out.extend([low, high]);
        for byte in low..=high {
            out.extend(references.get(&byte).copied().unwrap_or(0).to_be_bytes());
        }
        reference |= HAS_CHILDREN;
    }
    if let Some(values) = values {
        out.extend((values.len() as u32).to_be_bytes());
        for (priority, value) in values {
            out.extend(priority.to_be_bytes());
            out.extend_from_slice(value.as_bytes());
            out.push(0);
        }
        reference |= HAS_VALUES;
    }
    reference
}
