//! The PCRs, the phase words and what one measurement looks like in a list.

use crate::digest::Digest;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The phase words that init extends into PCR 11, in order (systemd's `systemd-pcrphase` words, so that
/// `systemd-measure` computes the same values). Each is measured as its ASCII bytes without a NUL.
pub const PHASES: [&str; 4] = ["enter-initrd", "leave-initrd", "sysinit", "ready"];

/// One measurement: a digest and what it is of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// What was measured, for people: `.linux contents`, `Calling EFI Application from Boot Option`.
    pub what: String,
    /// What was extended.
    pub digest: Digest,
}

impl Event {
    /// An event whose digest is that of `bytes`.
    pub fn of(what: impl Into<String>, bytes: impl AsRef<[u8]>) -> Self {
        Self { what: what.into(), digest: Digest::of(bytes) }
    }
}

/// The value of a PCR that started at zero after all of `events`.
pub fn replay(events: &[Event]) -> Digest {
    events.iter().fold(Digest::ZERO, |pcr, event| pcr.extend(event.digest))
}

/// One way that a PCR may come to its value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Variant {
    /// When this variant occurs: `direct boot`, `after 1 failed boot option`, `after ready`.
    pub name: String,
    /// The events in order.
    pub events: Vec<Event>,
    /// The PCR's value after them.
    pub value: Digest,
}

impl Variant {
    /// A variant with its value computed from `events`.
    pub fn new(name: impl Into<String>, events: Vec<Event>) -> Self {
        let value = replay(&events);
        Self { name: name.into(), events, value }
    }
}

/// For each predicted PCR all the ways that it may come to its value on a machine that runs the release.
pub type Prediction = BTreeMap<u32, Vec<Variant>>;
