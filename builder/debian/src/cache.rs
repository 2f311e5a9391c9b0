//! What this crate's users opened before the cache had a crate of its own.

use crate::Error;
use std::ops::Deref;
use std::path::Path;

/// A cache folder ([`ashlar_cache::Cache`]) whose errors are those of this crate.
#[derive(Debug, Clone)]
pub struct Cache(ashlar_cache::Cache);

impl Cache {
    /// As [`ashlar_cache::Cache::open`].
    ///
    /// # Errors
    /// Fails when the folder cannot be made, written to or locked.
    pub fn open(root: &Path) -> Result<Self, Error> {
        Ok(Self(ashlar_cache::Cache::open(root)?))
    }
}

impl Deref for Cache {
    type Target = ashlar_cache::Cache;

    fn deref(&self) -> &ashlar_cache::Cache {
        &self.0
    }
}
