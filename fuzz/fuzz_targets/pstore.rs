//! What a dying kernel left: the file names and contents are cut out of the input.
#![no_main]

use ashlar_init::pstore::{Part, assemble, cause};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let parts: Vec<Part> = data
        .split(|byte| *byte == 0)
        .map(|file| {
            let (name, bytes) = file.split_at(file.len().min(12));
            let time = bytes.first().copied().unwrap_or_default().into();
            Part { name: String::from_utf8_lossy(name).into_owned(), time, bytes: bytes.to_vec() }
        })
        .collect();
    let records = assemble(parts);
    assert!(records.is_sorted_by_key(|record| record.time));
    assert!(records.iter().all(|record| record.text.chars().all(|c| !c.is_control() || "\n\t".contains(c))));
    let _ = cause(&records);
});
