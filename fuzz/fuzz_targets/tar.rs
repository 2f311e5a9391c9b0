//! A package's unpacked archive.
#![no_main]

use ashlar_debian::read_entries;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = read_entries(&mut std::io::Cursor::new(data));
});
