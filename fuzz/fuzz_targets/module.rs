//! A kernel module.
#![no_main]

use ashlar_boot::modules;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = modules::info(data);
});
