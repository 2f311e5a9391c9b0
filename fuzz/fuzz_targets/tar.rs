//! A package's unpacked archive.
#![no_main]

use ashlar_debian::{EntryKind, read_entries};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let data = ashlar_fuzz::tar(data);
    let Ok(entries) = read_entries(&mut &data[..]) else { return };
    for entry in entries {
        // What the tree is made from: no path leads out, no content lies outside of the archive.
        assert!(entry.path.split(|&byte| byte == b'/').all(|name| name != b".."), "{entry:?}");
        assert!(!entry.path.starts_with(b"/") && !entry.path.ends_with(b"/"), "{entry:?}");
        if let EntryKind::File { offset, len } = entry.kind {
            assert!(offset.checked_add(len).is_some_and(|end| end <= data.len() as u64), "{entry:?}");
        }
    }
});
