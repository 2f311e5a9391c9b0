//! What a registry or a layout says: a byte to choose the document, the document.
#![no_main]

use ashlar_sources::{Reference, parse_challenges, parse_config, parse_index, parse_manifest, parse_token};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((choice, bytes)) = data.split_first() else { return };
    match choice % 6 {
        0 => drop(parse_index(bytes, "index")),
        1 => drop(parse_manifest(bytes, "manifest")),
        2 => drop(parse_config(bytes, "config")),
        3 => drop(parse_token(bytes)),
        4 => {
            if let Ok(header) = std::str::from_utf8(bytes) {
                let _ = parse_challenges(header);
            }
        }
        _ => {
            if let Some(Ok(reference)) = std::str::from_utf8(bytes).ok().map(str::parse::<Reference>) {
                // A reference that is printed is the same again.
                let again: Reference = reference.to_string().parse().expect("a printed reference is one");
                assert_eq!(again, reference);
            }
        }
    }
});
