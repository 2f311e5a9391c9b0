//! What is asked of the update engine, and what a server says of ranges.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Ok(request) = ashlar_update::service::parse(data) {
        let mut line = serde_json::to_vec(&request).expect("what was read can be written");
        line.push(b'\n');
        assert_eq!(ashlar_update::service::parse(&line).expect("what was written can be read"), request);
    }
    if let Ok(text) = std::str::from_utf8(data)
        && let Some((range, whole)) = ashlar_fetch::content_range(text)
    {
        assert!(range.length > 0 && whole.is_none_or(|whole| range.start + range.length <= whole));
    }
});
