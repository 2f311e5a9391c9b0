//! A kernel command line, and the superblock beside it.
#![no_main]

use ashlar_image::{cmdline::VerityRoot, verity::check_superblock};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(root) = VerityRoot::parse(text)
    {
        let _ = check_superblock(data, &root);
    }
});
