//! The document of a channel, and what machines get from it.
#![no_main]

use ashlar_channel::{Document, Machine, Options, compare, seed, select};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Ok(document) = Document::parse(data) else { return };
    let written = document.to_bytes().expect("what was read can be written");
    assert_eq!(Document::parse(&written).as_ref(), Ok(&document));
    for offer in &document.releases {
        for other in &document.releases {
            let order = compare(&offer.version, &other.version);
            assert_eq!(order, compare(&other.version, &offer.version).reverse());
        }
        let machine = Machine {
            image_id: document.image_id.clone(),
            architecture: document.architecture.clone(),
            version: offer.version.clone(),
            floor: offer.security_version,
            barred: Vec::new(),
            seed: seed("machine"),
        };
        let _ = select(&document, &machine, &Options::default(), 1_800_000_000);
    }
});
