//! Two UKIs that are compared: the length of the first in four bytes, the first, the second.
#![no_main]

use ashlar_compare::same::compare_ukis;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((length, rest)) = data.split_first_chunk() else { return };
    let length = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
    let (a, b) = rest.split_at(length.min(rest.len()));
    let differences = compare_ukis("uki.efi", a, b);
    assert_eq!(differences.is_empty(), a == b, "{differences:?}");
});
