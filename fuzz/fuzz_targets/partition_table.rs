//! A disk's partition table, as the builder reads it.
#![no_main]

use ashlar_formats::disk;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = disk::read(&mut std::io::Cursor::new(data));
});
