//! A signed InRelease file and a keyring: the length of the first in four bytes, the first, the second.
#![no_main]

use std::time::{Duration, UNIX_EPOCH};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    // An hour after the seeds were signed, see `seeds.sh`.
    let now = UNIX_EPOCH + Duration::from_secs(1_780_003_600);
    let parts = data
        .split_first_chunk()
        .and_then(|(length, rest)| rest.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?));
    let (signed, keyring) = parts.unwrap_or((data, data));
    if let Ok(text) = ashlar_debian::verify_in_release(signed, &[keyring.to_vec()], now) {
        // What was verified is part of what was signed, line by line.
        let signed = String::from_utf8_lossy(signed);
        for line in text.lines().filter(|line| !line.starts_with('-')) {
            assert!(signed.contains(line.trim_end()), "`{line}` was not signed");
        }
    }
});
