//! Looking at a repository as its clients do.

use crate::client::{Bootstrap, Client, Clock, Limits};
use crate::error::{Role, TufError};
use crate::store::MemoryStore;
use ashlar_fetch::Source;
use std::io::{self};

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Targets that were read whole and are what was signed.
    pub targets: usize,
    /// Their size in bytes.
    pub bytes: u64,
    /// When each role expires, seconds since 1970.
    pub expires: Vec<(Role, i64)>,
}

/// Goes the way of a client that trusts `bootstrap`, then reads every target.
///
/// # Errors
/// The first thing that a client would refuse.
pub fn check(source: &dyn Source, bootstrap: Bootstrap, now: i64) -> Result<Report, TufError> {
    let mut client = Client::new(MemoryStore::default(), bootstrap, Limits::default());
    client.refresh(source, Clock { now, built: i64::MIN })?;
    let trusted = client.trusted().ok_or(TufError::NotListed(Role::Targets))?;
    let mut expires = vec![(Role::Root, trusted.root().expires)];
    expires.extend(trusted.timestamp().map(|timestamp| (Role::Timestamp, timestamp.expires)));
    expires.extend(trusted.snapshot().map(|snapshot| (Role::Snapshot, snapshot.expires)));
    let targets = trusted.targets(&Role::Targets);
    expires.extend(targets.map(|targets| (Role::Targets, targets.expires)));
    let names: Vec<String> =
        targets.map(|targets| targets.targets.keys().cloned().collect()).unwrap_or_default();
    let mut bytes = 0u64;
    for name in &names {
        let mut target = client.open_target(source, name)?;
        let read = io::copy(&mut target, &mut io::sink());
        bytes = bytes.saturating_add(read.map_err(|error| TufError::Repository(error.to_string()))?);
    }
    Ok(Report { targets: names.len(), bytes, expires })
}
