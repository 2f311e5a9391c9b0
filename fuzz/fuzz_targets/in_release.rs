//! A signed InRelease file and a keyring.
#![no_main]

use std::time::UNIX_EPOCH;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = ashlar_debian::verify_in_release(data, &[data.to_vec()], UNIX_EPOCH);
});
