//! A lock file.
#![no_main]

use ashlar_builder::lock::Lock;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(lock) = toml::from_str::<Lock>(text) else { return };
    let _ = lock.indexes();
    let written = toml::to_string(&lock).expect("a lock can be written");
    assert_eq!(toml::from_str::<Lock>(&written).expect("what was written is a lock"), lock);
});
