//! Records of the kernel's log, and names in the log's folder.
#![no_main]

use ashlar_init::journal::{kmsg, lines, store};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Some(record) = kmsg::parse(data) {
        assert!(record.priority <= 7 && record.message.len() <= lines::MAX_LINE);
        let (_, message) = record.unit();
        assert!(!message.chars().any(|c| c.is_control() && c != '\t'));
    }
    let mut cut = lines::Lines::default();
    for line in cut.push(data).into_iter().chain(cut.finish()) {
        let (priority, text) = lines::priority(&line);
        assert!(priority <= 7 && text.len() <= line.len());
    }
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = store::number(text);
    }
});
