//! An EFI system partition.
#![no_main]

use ashlar_formats::esp;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = esp::read_uki(&mut std::io::Cursor::new(data));
});
