//! A program beside the firmware's databases, and a slot's FAT.
#![no_main]

use ashlar_slots::check::{Databases, read_uki, starts};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = read_uki(std::io::Cursor::new(data.to_vec()));
    let third = data.len() / 3;
    let (db, rest) = data.split_at(third);
    let (dbx, program) = rest.split_at(third);
    let databases = Databases { db: db.to_vec(), dbx: dbx.to_vec() };
    let _ = starts(program, &databases);
});
