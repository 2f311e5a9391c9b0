//! A Debian package: its members, all files of its control archive, the entries of its data archive.
#![no_main]

use ashlar_debian::{Deb, MAX_CONTROL, read_entries};
use std::io::{BufReader, Cursor, Read};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let mut file = Cursor::new(data);
    let Ok(deb) = Deb::read(&mut file) else { return };
    if let Ok(files) = deb.control_files(&mut file) {
        let length: usize = files.values().flatten().map(String::len).sum();
        assert!(length as u64 <= MAX_CONTROL, "the control files have {length} bytes");
    }
    if let Ok(content) = deb.data(&mut file) {
        let _ = read_entries(&mut BufReader::new(content.take(1 << 20)));
    }
});
