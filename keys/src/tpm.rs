//! Stands for the TPM signer in a program that was built without it.

use crate::access::Access;
use crate::places::TpmPlace;
use crate::signer::Signer;
use crate::{KeyError, Role};
use std::sync::Arc;

/// Tells how to get a program that can.
pub(crate) fn open(_: &TpmPlace, role: Role, _: &Access) -> Result<Arc<dyn Signer>, KeyError> {
    Err(KeyError::NoTpmSupport(role))
}
