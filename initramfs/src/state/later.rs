//! What the second stage does with the volume's key: raise the floor, seal anew.

use super::choice::Copy;
use super::sealing::{self, Owner};
use super::{StateBoot, header};
use crate::error::Error;
use ashlar_image::control::{Refusal, RefusalKind};
use ashlar_state::{Found, luks};
use ashlar_tpm::{Tpm, Transport};
use std::fs::OpenOptions;

/// The copy that opened the volume, and the one that is prepared for a newer release.
fn active(copies: &[Copy]) -> Option<Copy> {
    copies.iter().copied().min_by_key(|copy| copy.counter)
}

/// The lowest security version that opens the volume; none when no copy is known.
pub fn floor(state: &StateBoot) -> Option<u64> {
    active(&state.copies).map(|copy| copy.generation)
}

/// Commits the boot: if the release is of a higher security version than the floor, the counter is raised, and older
/// releases do not open the volume any more. Gives the new floor.
pub fn raise_floor<T: Transport>(state: &mut StateBoot, tpm: &mut Tpm<T>) -> Result<Option<u64>, Error> {
    let Some(now) = active(&state.copies) else { return Ok(None) };
    let Some(next) = state.copies.iter().copied().find(|copy| copy.counter > now.counter) else {
        return Ok(None);
    };
    sealing::raise_floor(tpm)?;
    state.copies.retain(|copy| copy.counter >= next.counter);
    Ok(Some(next.generation))
}

/// Seals the volume's key to this TPM anew, with the key from the recovery key: after the TPM was cleared or changed.
pub fn reseal<T: Transport>(
    state: &mut StateBoot,
    security_version: u64,
    recovery_key: &str,
    tpm: &mut Tpm<T>,
) -> Result<(), Refusal> {
    let refuse = |kind, message: String, advice: &str| Refusal { kind, message, advice: advice.into() };
    let disk = |error: &dyn std::fmt::Display| {
        refuse(RefusalKind::Failed, error.to_string(), "look at the state volume's disk")
    };
    let mut file = OpenOptions::new().read(true).write(true).open(&state.partition).map_err(|e| disk(&e))?;
    let Ok(Found::Volume(header)) = luks::read(&file) else {
        return Err(refuse(
            RefusalKind::Conflict,
            "the header of the state volume is not what it was when the volume was opened".into(),
            "restart the machine: the next start tells what is wrong with it",
        ));
    };
    let volume_key = header
        .open_with_recovery_key(&file, recovery_key)
        .map_err(|error| refuse(RefusalKind::Forbidden, error.to_string(), "take the key of this machine"))?;
    let owner = Owner::parse(&state.pcr_key).map_err(|error| disk(&error))?;
    let counter = sealing::ensure_counter(tpm).map_err(|error| disk(&error))?;
    // The floor stays where it is: a release that was not committed must not raise it.
    let generation = floor(state).unwrap_or(security_version);
    let copy = Copy { generation, counter };
    let sealed = owner.seal(tpm, copy, &volume_key[..]).map_err(|error| disk(&error))?;
    header::replace_copies(&mut file, &header, &[sealed]).map_err(|error| disk(&error))?;
    state.copies = vec![copy];
    Ok(())
}
