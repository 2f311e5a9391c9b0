//! EFI signature lists.
#![no_main]

use ashlar_measured_boot::efi::parse_signature_lists;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = parse_signature_lists(data);
});
