//! What the bill of materials is made from, and the envelope of a statement: a byte to choose, the content.
#![no_main]

use ashlar_image::digest::Digest;
use ashlar_sbom::{DebianPackage, Declared, copyright, dsse};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((choice, bytes)) = data.split_first() else { return };
    if choice % 3 == 0 {
        let signature = |_: &[u8], signature: &[u8]| signature == b"signature";
        if let Ok(payload) = dsse::open(bytes, dsse::IN_TOTO, &signature) {
            // What was opened can be signed and opened again.
            let again = dsse::sign(dsse::IN_TOTO, &payload, "", &|_| Ok(b"signature".to_vec()));
            let again = dsse::open(&again.expect("the signer signs"), dsse::IN_TOTO, &signature);
            assert_eq!(again.expect("what was signed is opened"), payload);
        }
        return;
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if choice % 3 == 1 {
        let _ = copyright::parse(text);
    } else if let Ok(package) =
        DebianPackage::from_control("root", text, Digest::of(text), Declared::default())
    {
        let _ = package.purl(Some("debian-13"));
    }
});
