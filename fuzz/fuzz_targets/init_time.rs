//! What time servers and name servers send to init.
#![no_main]

use ashlar_init::time::dns::{self, Kind};
use ashlar_init::time::packet;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    // The question's secret is taken from the data: else nothing would ever be an answer.
    let cookie = data.get(24..32).and_then(|bytes| bytes.first_chunk().copied()).map_or(0, u64::from_be_bytes);
    if let Ok(answer) = packet::parse(data, cookie, 1_767_225_600) {
        let _ = packet::Sample::new(&answer, answer.received, answer.sent, std::time::Duration::ZERO);
    }
    let id = data.first_chunk().copied().map_or(0, u16::from_be_bytes);
    for kind in [Kind::A, Kind::Aaaa] {
        let _ = dns::parse(data, id, "time.example", kind);
    }
});
