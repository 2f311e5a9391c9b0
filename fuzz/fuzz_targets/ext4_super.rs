//! The superblock of the state volume's file system.
#![no_main]

use ashlar_state::ext4::Ext4Super;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    for size in [0, 64 << 20, u64::MAX] {
        let _ = Ext4Super::parse(data, size);
        if let Ok(read) = Ext4Super::parse(&ashlar_fuzz::ext4_super(data), size) {
            assert!(read.blocks > 0 && read.blocks <= size / 4096, "{read:?}");
        }
    }
});
