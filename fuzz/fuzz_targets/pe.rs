//! A PE file, as a program and as a UKI.
#![no_main]

use ashlar_measured_boot::{authenticode, pe::Pe, uki::Uki};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Ok(pe) = Pe::parse(data) {
        pe.sections.iter().for_each(|section| drop(pe.content(section)));
        let _ = (pe.checksum(), authenticode::digest(data), Uki::parse(data));
    }
});
