//! An erofs image: all entries, attributes and contents, and who owns each block.
#![no_main]

use ashlar_formats::erofs::read::walk;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = walk(data);
});
