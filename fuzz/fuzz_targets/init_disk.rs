//! A disk's partition table, as init reads it.
#![no_main]

use ashlar_init::gpt;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = gpt::read(data, 512);
});
