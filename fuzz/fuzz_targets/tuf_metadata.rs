//! TUF metadata of each kind, as the first thing that a client sees.
#![no_main]

use ashlar_tuf::{Role, TrustedSet};

const ROOT: &[u8] = include_bytes!("../seeds/tuf_metadata/root.json");

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = TrustedSet::new(data, 0);
    let mut trusted = TrustedSet::new(ROOT, 1_800_000_000).expect("the seed is a root");
    // Nobody but the fuzzer's author has its keys.
    let _ = trusted.update_root(data);
    let _ = trusted.update_timestamp(data);
    assert!(trusted.timestamp().is_none() || data.windows(9).any(|part| part == b"signature"));
    let _ = trusted.update_snapshot(data, true);
    let _ = trusted.update_targets(data, &Role::Targets, &Role::Root);
    let _ = ashlar_tuf::repository::show(data).map(|value| ashlar_tuf::canonical(&value));
});
