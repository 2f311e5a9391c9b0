//! What somebody writes to PID 1's socket, in pieces.
#![no_main]

use ashlar_init::control::exchange::{Exchange, Step};
use std::time::Duration;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let whole = ashlar_init::control::parse_request(data.split(|byte| *byte == b'\n').next().unwrap_or_default());
    let mut exchange = Exchange::new(Duration::ZERO);
    for (number, piece) in data.chunks(7).enumerate() {
        let now = Duration::from_millis(number as u64);
        match exchange.received(piece, now) {
            // Cut or whole, it is the same request.
            Step::Request(request) => assert_eq!(Ok(request), whole),
            Step::Close => return,
            Step::Wait => {}
        }
        let _ = exchange.to_send();
        if exchange.deadline() == now {
            return;
        }
    }
    let _ = (exchange.end_of_input(), exchange.expire(Duration::MAX));
});
