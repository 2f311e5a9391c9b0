//! A firmware event log: parsed, replayed, explained.
#![no_main]

use ashlar_measured_boot::eventlog::EventLog;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Ok(log) = EventLog::parse(data) {
        let _ = log.replay_sha256();
        log.all().iter().for_each(|event| drop(event.explain().to_string()));
    }
});
