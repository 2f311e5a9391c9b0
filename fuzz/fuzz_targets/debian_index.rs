//! Release and Packages files, and the relations in them.
#![no_main]

use ashlar_debian::{Release, parse_relations, stanzas};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let _ = Release::parse(text);
    for stanza in stanzas(text) {
        stanza.fields().for_each(|(_, value)| drop(parse_relations(value, "amd64")));
    }
});
