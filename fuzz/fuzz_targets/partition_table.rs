//! A disk's partition table, as the builder reads it.
#![no_main]

use ashlar_formats::disk;
use std::io::Cursor;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = disk::read(&mut Cursor::new(data));
    if let Ok(partitions) = disk::read(&mut Cursor::new(ashlar_fuzz::gpt(data))) {
        assert!(
            partitions.iter().all(|part| part.offset.checked_add(part.length).is_some()),
            "{partitions:?}"
        );
    }
});
