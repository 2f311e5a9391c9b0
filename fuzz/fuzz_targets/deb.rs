//! A Debian package.
#![no_main]

use ashlar_debian::{Deb, read_entries};
use std::io::{Cursor, Read};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let mut file = Cursor::new(data);
    if let Ok(deb) = Deb::read(&mut file) {
        let _ = deb.control(&mut file);
        if let Ok(content) = deb.data(&mut file) {
            let _ = read_entries(&mut std::io::BufReader::new(content.take(1 << 20)));
        }
    }
});
