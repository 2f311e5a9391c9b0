//! The status of a process, whose name the process itself has chosen.
#![no_main]

use ashlar_init::hardening::processes;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    if let Some(process) = processes::parse(&text) {
        assert!(process.name.chars().count() <= 64);
    }
});
