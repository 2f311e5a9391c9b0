//! The rollback counter: an NV index that only goes up, even when it is removed and defined again
//! (part 1, section 37.2.4).
//!
//! Its public area is always the same, so its name, which a policy contains, is known without asking the TPM.

use crate::Error;
use crate::command::Entity;
use crate::nv::{COUNTER_SIZE, NvPublic, attribute};
use crate::public::Name;
use crate::session::SessionKind;
use crate::srk::Srk;
use crate::tpm::Tpm;
use crate::transport::Transport;

/// Anybody on the machine may read and increment it: an increment locks older copies of the key out and never lets one
/// in. Nobody but the owner may remove it, and then it comes back above its old value.
const ATTRIBUTES: u32 = attribute::COUNTER
    | attribute::AUTH_READ
    | attribute::AUTH_WRITE
    | attribute::OWNER_READ
    | attribute::OWNER_WRITE
    | attribute::NO_DA;

/// A counter at an NV index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counter {
    index: u32,
}

impl Counter {
    /// The counter at `index`, whether it is there or not.
    pub const fn at(index: u32) -> Self {
        Self { index }
    }

    /// The index's handle.
    pub const fn index(self) -> u32 {
        self.index
    }

    fn public(self, written: bool) -> NvPublic {
        let attributes = if written { ATTRIBUTES | attribute::WRITTEN } else { ATTRIBUTES };
        NvPublic { index: self.index, attributes, policy: Vec::new(), size: COUNTER_SIZE }
    }

    /// The name that it has once it was incremented.
    pub fn name(self) -> Name {
        // Writing fails only for policies of more than 64 KiB.
        Name::of(&self.public(true).to_bytes().unwrap_or_default())
    }

    pub(crate) fn entity(self) -> Entity {
        Entity::named(self.index, &self.name())
    }

    /// Defines it when it is not there, increments it for the first time when nobody has, and gives its value. The
    /// first increment takes it above every counter that the TPM ever had. Needs the owner's authorisation to be empty
    /// when it is not there.
    pub fn ensure<T: Transport>(self, tpm: &mut Tpm<T>) -> Result<u64, Error> {
        let found = match tpm.nv_read_public(self.index)? {
            Some(found) => found,
            None => {
                tpm.nv_define(&self.public(false))?;
                self.public(false)
            }
        };
        if found == self.public(false) {
            // In clear, so the name does not matter.
            tpm.nv_increment(None, &Entity::from(self.index))?;
        } else if found != self.public(true) {
            return Err(self.foreign(&found));
        }
        self.read(tpm)
    }

    /// The value. It is not authenticated: whether it is true, `TPM2_PolicyNV` tells inside the TPM. One command, one
    /// more when it fails.
    pub fn read<T: Transport>(self, tpm: &mut Tpm<T>) -> Result<u64, Error> {
        match tpm.nv_read_counter(None, &self.entity()) {
            Ok(value) => Ok(value),
            Err(error @ Error::Refused { .. }) => Err(self.explain(tpm, error)),
            Err(error) => Err(error),
        }
    }

    /// Increments it and gives the new value, both authenticated by the TPM with this storage root key: nobody between
    /// can pretend that it was done. Three commands. After an error it may be done or not: [`Self::read`] tells.
    pub fn increment<T: Transport>(self, tpm: &mut Tpm<T>, srk: &Srk) -> Result<u64, Error> {
        let result = tpm.with_session(SessionKind::Hmac, srk, |tpm, session| {
            tpm.nv_increment(Some(session), &self.entity())?;
            tpm.nv_read_counter(Some(session), &self.entity())
        });
        match result {
            Err(error @ Error::Refused { .. }) => Err(self.explain(tpm, error)),
            result => result,
        }
    }

    const fn foreign(self, found: &NvPublic) -> Error {
        Error::ForeignCounter { index: self.index, attributes: found.attributes, size: found.size }
    }

    /// Why the TPM refused something with the counter: it is not there, or is something else.
    pub(crate) fn explain<T: Transport>(self, tpm: &mut Tpm<T>, error: Error) -> Error {
        match tpm.nv_read_public(self.index) {
            Ok(Some(found)) if found == self.public(true) => error,
            // Defined and never incremented is as good as not there: it has no value yet.
            Ok(Some(found)) if found == self.public(false) => Error::NoCounter { index: self.index },
            Ok(Some(found)) => self.foreign(&found),
            Ok(None) => Error::NoCounter { index: self.index },
            Err(_) => error,
        }
    }
}
