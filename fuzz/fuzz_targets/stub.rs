//! A stub and a kernel to make a UKI of.
#![no_main]

use ashlar_boot::uki::{self, Section};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ =
        uki::build(data, &[Section { name: ".linux", data }, Section { name: ".cmdline", data: b"quiet" }]);
});
