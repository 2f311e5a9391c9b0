//! A real release, judged as the update engine judges it before its slot may start.
#![allow(clippy::unwrap_used)] // a test fails by it

use ashlar_image::digest::Digest;
use ashlar_slots::check::{Databases, Sealing, opens, starts};
use ashlar_tests::built;
use ashlar_tests::release::Built;
use std::fs;

fn uki(built: &Built) -> Vec<u8> {
    fs::read(built.file(&built.release.uki.artifact.file)).unwrap()
}

/// A machine that the release is signed for.
fn sealing(built: &Built) -> Sealing {
    let policy = built.release.state_policy.as_ref().unwrap();
    Sealing {
        pcr7: *policy.pcr7.first().unwrap(),
        floor: *policy.generations.last().unwrap(),
        key: fs::read(built.keys.join("pcr.pub")).unwrap(),
    }
}

#[test]
fn the_state_volume_opens_for_its_own_machine_only() {
    let Some(built) = built() else { return };
    let (uki, good) = (uki(built), sealing(built));
    opens(&uki, &good).unwrap();
    let refused = |uki: &[u8], sealing: &Sealing, words: &str| {
        let error = opens(uki, sealing).unwrap_err().to_string();
        assert!(error.contains(words), "`{words}` is not in `{error}`");
    };
    refused(&uki, &Sealing { pcr7: Digest::of("other keys"), ..good.clone() }, "PCR 7");
    refused(&uki, &Sealing { floor: good.floor + 1000, ..good.clone() }, "security version");
    let other = "-----BEGIN PUBLIC KEY-----\nnone\n-----END PUBLIC KEY-----\n";
    refused(&uki, &Sealing { key: other.into(), ..good.clone() }, "this machine's PCR key");
    // A byte of what PCR 11 measures: the initrd. The signature is over another value then.
    let parsed = ashlar_measured_boot::uki::Uki::parse(&uki).unwrap();
    let initrd = parsed.section(".initrd").unwrap();
    let at = uki.windows(64).position(|window| *window == initrd[..64]).unwrap();
    let mut changed = uki.clone();
    changed[at + 40] ^= 1;
    refused(&changed, &good, "it does not sign");
    // No signatures at all.
    let signatures = parsed.section(".pcrsig").unwrap();
    let at = uki.windows(64).position(|window| *window == signatures[..64]).unwrap();
    let mut damaged = uki.clone();
    damaged[at] = b'x';
    refused(&damaged, &good, "its signed policy");
}

#[test]
fn the_firmware_starts_it_with_the_owners_key_only() {
    let Some(built) = built() else { return };
    let uki = uki(built);
    let db = fs::read(built.keys.join("db.esl")).unwrap();
    starts(&uki, &Databases { db, dbx: Vec::new() }).unwrap();
    assert!(starts(&uki, &Databases::default()).is_err());
}
