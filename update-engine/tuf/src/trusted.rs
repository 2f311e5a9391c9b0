//! What a client trusts, and how more comes to it (TUF specification, section 5). No I/O.

use crate::error::{Role, TufError};
use crate::metadata::{FileMeta, Kind, Metadata, Root, Snapshot, Targets, Timestamp, Version, show_time};
use crate::target::check_bytes;
use std::collections::BTreeMap;

/// Trusted metadata. It only grows by what was verified against what it holds.
#[derive(Debug, Clone)]
pub struct TrustedSet {
    now: i64,
    root: Root,
    timestamp: Option<Timestamp>,
    snapshot: Option<Snapshot>,
    targets: BTreeMap<Role, Targets>,
}

/// What became of a new timestamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News {
    /// It is trusted now.
    New,
    /// It has the version of the trusted one, which stays.
    Same,
}

impl TrustedSet {
    /// Trusts a root that comes from a trusted place, if it is signed by itself. `now` is in seconds since 1970.
    pub fn new(root: &[u8], now: i64) -> Result<Self, TufError> {
        let metadata = Metadata::<Root>::parse(&Role::Root, root)?;
        metadata.signed.check(&Role::Root, &metadata.message, &metadata.signatures)?;
        Ok(Self { now, root: metadata.signed, timestamp: None, snapshot: None, targets: BTreeMap::new() })
    }

    /// The root.
    pub fn root(&self) -> &Root {
        &self.root
    }

    /// The timestamp, if one is trusted.
    pub fn timestamp(&self) -> Option<&Timestamp> {
        self.timestamp.as_ref()
    }

    /// The snapshot, if one is trusted.
    pub fn snapshot(&self) -> Option<&Snapshot> {
        self.snapshot.as_ref()
    }

    /// A targets role, if it is trusted.
    pub fn targets(&self, role: &Role) -> Option<&Targets> {
        self.targets.get(role)
    }

    fn fresh<T: Kind>(&self, role: &Role, signed: &T) -> Result<(), TufError> {
        if signed.expires() <= self.now {
            return Err(TufError::Expired {
                role: role.clone(),
                expires: show_time(signed.expires()),
                now: show_time(self.now),
            });
        }
        Ok(())
    }

    /// Takes the next root: version N+1, signed as version N and as itself say. It may have expired, if another follows.
    pub fn update_root(&mut self, bytes: &[u8]) -> Result<(), TufError> {
        let new = Metadata::<Root>::parse(&Role::Root, bytes)?;
        self.root.check(&Role::Root, &new.message, &new.signatures)?;
        if Some(new.signed.version) != self.root.version.checked_add(1) {
            return Err(TufError::RootSkipped { trusted: self.root.version, found: new.signed.version });
        }
        new.signed.check(&Role::Root, &new.message, &new.signatures)?;
        self.root = new.signed;
        Ok(())
    }

    /// Takes a timestamp. One that has expired is refused, and yet remembered while this lives: what is older than it is
    /// a rollback all the same.
    pub fn update_timestamp(&mut self, bytes: &[u8]) -> Result<News, TufError> {
        self.fresh(&Role::Root, &self.root)?;
        let new = Metadata::<Timestamp>::parse(&Role::Timestamp, bytes)?;
        self.root.check(&Role::Timestamp, &new.message, &new.signatures)?;
        let new = new.signed;
        if let Some(old) = &self.timestamp {
            let rollback = |role, trusted, found| Err(TufError::Rollback { role, trusted, found });
            if new.version < old.version {
                return rollback(Role::Timestamp, old.version, new.version);
            }
            if new.version == old.version {
                self.fresh(&Role::Timestamp, old)?;
                return Ok(News::Same);
            }
            if new.snapshot.version < old.snapshot.version {
                return rollback(Role::Snapshot, old.snapshot.version, new.snapshot.version);
            }
        }
        let new = self.timestamp.insert(new).clone();
        self.fresh(&Role::Timestamp, &new)?;
        Ok(News::New)
    }

    /// Takes a snapshot. `kept` tells that it is one that was accepted before: the timestamp speaks of a newer one then.
    pub fn update_snapshot(&mut self, bytes: &[u8], kept: bool) -> Result<(), TufError> {
        let timestamp = self.timestamp.as_ref().ok_or(TufError::NotListed(Role::Timestamp))?;
        self.fresh(&Role::Timestamp, timestamp)?;
        if !kept {
            check_meta(&Role::Snapshot, &timestamp.snapshot, bytes)?;
        }
        let new = Metadata::<Snapshot>::parse(&Role::Snapshot, bytes)?;
        self.root.check(&Role::Snapshot, &new.message, &new.signatures)?;
        let new = new.signed;
        if let Some(old) = &self.snapshot {
            for (name, old) in &old.meta {
                let new =
                    new.meta.get(name).ok_or_else(|| TufError::Removed(name.escape_debug().to_string()))?;
                if new.version < old.version {
                    let role = role_of(name);
                    return Err(TufError::Rollback { role, trusted: old.version, found: new.version });
                }
            }
        }
        let new = self.snapshot.insert(new).clone();
        self.current_snapshot(&new)
    }

    /// Whether the snapshot is the one that the timestamp speaks of, and fresh.
    fn current_snapshot(&self, snapshot: &Snapshot) -> Result<(), TufError> {
        let wanted = self.timestamp.as_ref().map_or(0, |timestamp| timestamp.snapshot.version);
        if snapshot.version != wanted {
            return Err(TufError::Mixed { role: Role::Snapshot, wanted, found: snapshot.version });
        }
        self.fresh(&Role::Snapshot, snapshot)
    }

    /// Takes the metadata of a targets role, which `delegator` vouches for; the root does for [`Role::Targets`].
    pub fn update_targets(&mut self, bytes: &[u8], role: &Role, delegator: &Role) -> Result<(), TufError> {
        let snapshot = self.snapshot.as_ref().ok_or(TufError::NotListed(Role::Snapshot))?;
        self.current_snapshot(snapshot)?;
        let meta = self.meta(role)?;
        check_meta(role, meta, bytes)?;
        let new = Metadata::<Targets>::parse(role, bytes)?;
        if *role == Role::Targets {
            self.root.check(role, &new.message, &new.signatures)?;
        } else {
            let above = self.targets.get(delegator).ok_or_else(|| TufError::NotListed(delegator.clone()))?;
            let named = above.delegations.roles.iter().find(|named| named.name == role.name());
            let named = named.ok_or_else(|| TufError::NotListed(role.clone()))?;
            named.keys.check(role, &above.delegations.keys, &new.message, &new.signatures)?;
        }
        if new.signed.version != meta.version {
            return Err(TufError::Mixed {
                role: role.clone(),
                wanted: meta.version,
                found: new.signed.version,
            });
        }
        self.fresh(role, &new.signed)?;
        self.targets.insert(role.clone(), new.signed);
        Ok(())
    }

    /// What the snapshot lists of a targets role.
    pub fn meta(&self, role: &Role) -> Result<&FileMeta, TufError> {
        let snapshot = self.snapshot.as_ref().ok_or(TufError::NotListed(Role::Snapshot))?;
        snapshot.meta.get(&file_name(role)).ok_or_else(|| TufError::NotListed(role.clone()))
    }

    /// Version of the snapshot that the timestamp speaks of, with its longest length in bytes if that is told.
    pub fn wanted_snapshot(&self) -> Option<(Version, Option<u64>)> {
        self.timestamp.as_ref().map(|timestamp| (timestamp.snapshot.version, timestamp.snapshot.length))
    }
}

/// Name of a role's file in the snapshot.
pub(crate) fn file_name(role: &Role) -> String {
    format!("{}.json", role.name())
}

fn role_of(name: &str) -> Role {
    match name.strip_suffix(".json").unwrap_or(name) {
        "targets" => Role::Targets,
        other => Role::Delegated(other.to_owned()),
    }
}

fn check_meta(role: &Role, meta: &FileMeta, bytes: &[u8]) -> Result<(), TufError> {
    check_bytes(&format!("the {role} metadata"), meta.length, &meta.hashes, bytes)
}
