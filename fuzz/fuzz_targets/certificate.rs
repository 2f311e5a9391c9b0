//! Certificates and keys, as PEM and DER.
#![no_main]

use ashlar_configure::parsers::{pem_certificates, subject_hash};
use ashlar_keys::keyfile::KeyFile;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = subject_hash(data);
    pem_certificates(data).iter().for_each(|der| {
        let _ = subject_hash(der);
    });
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = KeyFile::parse(text);
    }
});
