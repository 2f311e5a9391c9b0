//! The index of a published image, unpacked, and packed.
#![no_main]

use ashlar_blocks::Index;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = Index::parse(data);
    let Ok(index) = Index::parse_unpacked(data) else { return };
    assert!(index.frames_length() <= index.length());
    let packed = index.to_bytes().expect("what was read can be written");
    assert_eq!(Index::parse(&packed).expect("what was written can be read"), index);
});
