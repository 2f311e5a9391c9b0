//! An initramfs: one archive.
#![no_main]

use ashlar_compare::cpio::members;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Ok(members) = members(data) else { return };
    let mut end = 0;
    for member in members {
        // One after the other, each within the archive.
        assert!(end <= member.header && member.header < member.data.start, "{member:?}");
        assert!(member.data.start <= member.data.end && member.data.end <= data.len(), "{member:?}");
        end = member.data.end;
    }
});
