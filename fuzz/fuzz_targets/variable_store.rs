//! A variable store of OVMF.
#![no_main]

use ashlar_keys::ovmf;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = ovmf::variables(data);
});
