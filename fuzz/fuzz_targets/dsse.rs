//! Signed machine configurations and seeds: a byte to choose, the content.
#![no_main]

use ashlar_image::dsse;
use ashlar_image::machine::{MAX_ENVELOPE, PAYLOAD_TYPE, PublicKey, seed, verify};

/// A key that nobody has signed anything with.
const KEY: PublicKey = PublicKey([
    0x9f, 0x34, 0xc9, 0x31, 0x50, 0xf1, 0x55, 0x26, 0xa5, 0x68, 0x3f, 0xd2, 0xce, 0x93, 0x44, 0x45, 0x7a,
    0xc5, 0xc1, 0xc3, 0x6d, 0x82, 0x3c, 0x8a, 0x8c, 0x05, 0xbd, 0xeb, 0xce, 0xac, 0xa3, 0x00,
]);

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((choice, bytes)) = data.split_first() else { return };
    match choice % 3 {
        0 => {
            if let Ok(payload) = dsse::open(bytes, PAYLOAD_TYPE, MAX_ENVELOPE, &|_, _| true) {
                let again =
                    dsse::envelope(PAYLOAD_TYPE, &payload, "", b"signature").expect("it can be written");
                let signed = |message: &[u8], signature: &[u8]| {
                    message == dsse::pae(PAYLOAD_TYPE, &payload) && signature == b"signature"
                };
                let opened = dsse::open(&again, PAYLOAD_TYPE, 2 * MAX_ENVELOPE, &signed);
                assert_eq!(opened.expect("what was signed is opened"), payload);
            }
        }
        1 => assert!(verify(bytes, &KEY, None).is_err(), "nobody can have signed it"),
        _ => {
            if let Ok(Some(envelope)) = seed::decode(bytes) {
                let written = seed::encode(envelope).expect("it fits");
                assert!(bytes.starts_with(&written));
            }
        }
    }
});
