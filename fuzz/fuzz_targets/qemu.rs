//! QEMU's control messages and a machine's report.
#![no_main]

use ashlar_qemu::{parse_message, parse_report};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = (parse_message(data), parse_report(data));
});
