//! The description of a release.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = ashlar_compare::parse_release(data);
});
