//! The kernel's list of mounts, which has names from outside in it.
#![no_main]

use ashlar_init::hardening::mountinfo;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    if let Some(mounts) = mountinfo::parse(&text) {
        assert_eq!(mounts.len(), text.lines().count());
        assert!(mounts.iter().all(|mount| mount.options.iter().all(|option| !option.is_empty())));
    }
});
