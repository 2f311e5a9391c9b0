//! Texts about keys: a byte to choose the format, the text.
#![no_main]

use ashlar_keys::Pkcs11Uri;
use ashlar_keys::offline::{SignatureSet, SigningRequest};
use ashlar_keys::places::Places;
use std::path::Path;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((choice, bytes)) = data.split_first() else { return };
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match choice % 4 {
        0 => {
            // A PIN is not printed.
            if let Ok(uri) = text.parse::<Pkcs11Uri>()
                && uri.pin_source.is_none()
                && uri.pin_value.is_none()
            {
                let again: Pkcs11Uri = uri.to_string().parse().expect("a printed URI is one");
                assert_eq!(again, uri);
            }
        }
        1 => drop(Places::parse(text, Path::new("/keys"), Path::new("/keys/keys.toml"))),
        2 => {
            if let Ok(request) = SigningRequest::parse(text) {
                let _ = request.to_string();
                let json = request.to_json().expect("a request can be written");
                assert_eq!(SigningRequest::parse(&json).expect("what was written is a request"), request);
            }
        }
        _ => {
            if let Ok(set) = SignatureSet::parse(text) {
                let json = set.to_json().expect("answers can be written");
                assert_eq!(SignatureSet::parse(&json).expect("what was written are answers"), set);
            }
        }
    }
});
