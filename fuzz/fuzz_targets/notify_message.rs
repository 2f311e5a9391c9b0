//! What services and containers tell PID 1 about themselves.
#![no_main]

use ashlar_init::supervision::notify;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let message = notify::parse(data);
    if let Some(status) = message.status {
        assert!(status.chars().count() <= 256 && !status.contains(|c: char| c.is_control() && c != '\t'));
    }
});
