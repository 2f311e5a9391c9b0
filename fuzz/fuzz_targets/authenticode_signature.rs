//! The certificate table of a PE file and the PKCS#7 in it.
#![no_main]

use ashlar_keys::authenticode;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = (authenticode::signatures(data), authenticode::verify(data, data));
});
