//! A disk's partition table, as init reads it.
#![no_main]

use ashlar_init::gpt;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = gpt::read(data, 512);
    if let Ok(partitions) = gpt::read(ashlar_fuzz::gpt(data).as_slice(), 512) {
        assert!(partitions.iter().all(|part| part.first <= part.last), "{partitions:?}");
    }
});
