//! The search for secrets in a file.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = ashlar_lint::scan_bytes(data);
});
