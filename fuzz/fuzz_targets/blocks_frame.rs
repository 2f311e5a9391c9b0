//! One frame of blocks.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((count, frame)) = data.split_first() else { return };
    if let Some(blocks) = ashlar_blocks::decode_frame(frame, u64::from(*count)) {
        assert_eq!(blocks.len(), usize::from(*count) * ashlar_blocks::BLOCK);
    }
});
