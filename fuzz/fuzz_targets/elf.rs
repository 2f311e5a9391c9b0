//! A program, library or kernel module, read by everybody who reads such files.
#![no_main]

use ashlar_configure::parsers::{read_library, read_module};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = (read_library(data, "library.so.1"), read_module(data));
    let _ = (ashlar_lint::read_elf(data), ashlar_lint::Module::from_bytes("module", data));
});
