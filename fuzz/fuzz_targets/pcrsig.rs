//! Signed PCR policies, as a unified kernel image holds them.
#![no_main]

use ashlar_tpm::PcrSignatures;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Ok(signatures) = PcrSignatures::parse(data) else { return };
    for entry in signatures.entries() {
        assert!(!entry.pcrs.is_empty() && entry.pcrs.is_sorted() && entry.pcrs.iter().all(|pcr| *pcr < 24));
    }
});
