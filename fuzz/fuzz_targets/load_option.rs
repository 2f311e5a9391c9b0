//! A boot option of the firmware.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some(option) = ashlar_slots::load_option::parse(data) else { return };
    if let Some(place) = option.place {
        let written = ashlar_slots::load_option::option("Ashlar A", &place);
        assert_eq!(ashlar_slots::load_option::parse(&written).and_then(|option| option.place), Some(place));
    }
});
