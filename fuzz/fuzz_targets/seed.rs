//! The machine configuration that an installer leaves, and the recovery key that somebody types.
#![no_main]

use ashlar_state::{RecoveryKey, luks, seed};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Ok(content) = seed::parse(data) {
        let written = seed::seed(content).expect("what was read is not too long");
        assert!(data.starts_with(&written));
        assert!(matches!(luks::parse(data, 1 << 30), Ok(luks::Found::Seed(found)) if found == content));
    }
    // With the right checksum.
    if let Some(written) = seed::seed(data) {
        assert_eq!(seed::parse(&written), Ok(data));
    }
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(key) = RecoveryKey::parse(text)
    {
        assert_eq!(RecoveryKey::parse(&key.text()), Ok(key));
    }
});
