//! The client's way through a repository (TUF specification, section 5.3 to 5.7): fetch, have it judged, keep it.

use crate::error::{Role, TufError};
use crate::metadata::{Metadata, Root, TargetFile, show_time};
use crate::store::Store;
use crate::target::{Verified, check_bytes};
use crate::trusted::{News, TrustedSet, file_name};
use ashlar_fetch::{FetchError, Request, Source};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeSet;
use std::io::Read;

/// File with the latest time that was seen, seconds since 1970.
const CLOCK: &str = "clock.json";
/// A clock may go back by so much, in seconds: time servers correct it.
const CLOCK_TOLERANCE: i64 = 24 * 3600;

/// What trust begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bootstrap {
    /// A root.
    Root(Vec<u8>),
    /// An Ed25519 key: version 1 of the repository's root must name it for the root role and be signed by it.
    Key([u8; 32]),
    /// SHA-256 of version 1 of the root.
    Sha256([u8; 32]),
}

/// How much is taken, whoever sends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Longest root in bytes.
    pub root: u64,
    /// Longest timestamp in bytes.
    pub timestamp: u64,
    /// Longest snapshot in bytes.
    pub snapshot: u64,
    /// Longest metadata of a targets role in bytes.
    pub targets: u64,
    /// Most roots that are followed in one run.
    pub roots: u32,
    /// Most delegated roles that are looked at for one target.
    pub delegations: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            root: 512 << 10,
            timestamp: 64 << 10,
            snapshot: 2 << 20,
            targets: 16 << 20,
            roots: 256,
            delegations: 32,
        }
    }
}

/// The time, and what is known of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clock {
    /// Now, seconds since 1970.
    pub now: i64,
    /// It cannot be earlier than this, seconds since 1970: the release that runs was built then.
    pub built: i64,
}

/// A client with what it trusts.
#[derive(Debug)]
pub struct Client<S: Store> {
    store: S,
    bootstrap: Bootstrap,
    limits: Limits,
    targets: &'static str,
    keeps_clock: bool,
    trusted: Option<TrustedSet>,
}

/// Where the targets of an Ashlar repository lie below its root.
pub const TARGETS_FOLDER: &str = "targets/";

impl<S: Store> Client<S> {
    /// A client that keeps its trust in `store`. The bootstrap serves while nothing is kept there.
    pub fn new(store: S, bootstrap: Bootstrap, limits: Limits) -> Self {
        Self { store, bootstrap, limits, targets: TARGETS_FOLDER, keeps_clock: true, trusted: None }
    }

    /// The same for a repository whose targets lie elsewhere below the root of their source; empty, or ending with `/`.
    #[must_use]
    pub fn with_targets(self, targets: &'static str) -> Self {
        Self { targets, ..self }
    }

    /// The same without remembering the clock, for a client whose clock may go anywhere: tests.
    #[must_use]
    pub fn without_clock(self) -> Self {
        Self { keeps_clock: false, ..self }
    }

    /// The store.
    pub fn store(&self) -> &S {
        &self.store
    }

    /// What is trusted since the last [`Self::refresh`].
    pub fn trusted(&self) -> Option<&TrustedSet> {
        self.trusted.as_ref()
    }

    /// Fetches what is new. What was accepted is kept, also when a later step fails; what was refused is not.
    ///
    /// # Errors
    /// The first thing that is refused; then nothing is trusted.
    pub fn refresh(&mut self, source: &dyn Source, clock: Clock) -> Result<(), TufError> {
        self.trusted = None;
        self.check_clock(clock)?;
        let mut trusted = self.begin(source, clock.now)?;
        self.follow_roots(source, &mut trusted)?;
        self.load_timestamp(source, &mut trusted)?;
        self.load_snapshot(source, &mut trusted)?;
        self.load_targets(source, &mut trusted, &Role::Targets, &Role::Root)?;
        self.note_clock(clock)?;
        self.trusted = Some(trusted);
        Ok(())
    }

    fn check_clock(&self, clock: Clock) -> Result<(), TufError> {
        let behind =
            |known, why| TufError::ClockBehind { now: show_time(clock.now), known: show_time(known), why };
        if clock.now < clock.built {
            return Err(behind(clock.built, "the release that runs was built then"));
        }
        let seen = if self.keeps_clock { self.clock()? } else { i64::MIN };
        if clock.now < seen.saturating_sub(CLOCK_TOLERANCE) {
            return Err(behind(seen, "the clock was there at an earlier update"));
        }
        Ok(())
    }

    fn clock(&self) -> Result<i64, TufError> {
        let Some(bytes) = self.store.read(CLOCK)? else { return Ok(i64::MIN) };
        serde_json::from_slice::<Value>(&bytes)
            .ok()
            .and_then(|value| value.get("seen").and_then(Value::as_i64))
            .ok_or_else(|| TufError::Store { what: format!("`{CLOCK}`"), reason: "it is damaged".into() })
    }

    fn note_clock(&mut self, clock: Clock) -> Result<(), TufError> {
        if self.keeps_clock && clock.now > self.clock()? {
            self.store.write(CLOCK, json!({ "seen": clock.now }).to_string().as_bytes())?;
        }
        Ok(())
    }

    fn begin(&mut self, source: &dyn Source, now: i64) -> Result<TrustedSet, TufError> {
        let name = file_name(&Role::Root);
        if let Some(kept) = self.store.read(&name)? {
            // What is kept was accepted; what cannot be read now is a damaged disk, and not a reason to begin anew.
            return TrustedSet::new(&kept, now)
                .map_err(|error| TufError::Store { what: format!("`{name}`"), reason: error.to_string() });
        }
        let bytes = match &self.bootstrap {
            Bootstrap::Root(bytes) => bytes.clone(),
            Bootstrap::Key(_) | Bootstrap::Sha256(_) => fetch(source, "1.root.json", self.limits.root)?,
        };
        let trusted = match &self.bootstrap {
            Bootstrap::Root(_) => TrustedSet::new(&bytes, now)?,
            Bootstrap::Key(key) => {
                let trusted = TrustedSet::new(&bytes, now)?;
                check_own(&bytes, key)?;
                trusted
            }
            Bootstrap::Sha256(digest) => {
                let found: [u8; 32] = Sha256::digest(&bytes).into();
                if found != *digest {
                    return Err(TufError::Differs {
                        what: "version 1 of the root".into(),
                        reason: format!("its SHA-256 is {}, not {}", hex::encode(found), hex::encode(digest)),
                    });
                }
                TrustedSet::new(&bytes, now)?
            }
        };
        self.store.write(&name, &bytes)?;
        Ok(trusted)
    }

    fn follow_roots(&mut self, source: &dyn Source, trusted: &mut TrustedSet) -> Result<(), TufError> {
        for _ in 0..self.limits.roots {
            let next = trusted.root().version.saturating_add(1);
            let bytes = match fetch(source, &format!("{next}.root.json"), self.limits.root) {
                Err(TufError::Fetch(FetchError::NotFound(_))) => return Ok(()),
                bytes => bytes?,
            };
            trusted.update_root(&bytes)?;
            self.store.write(&file_name(&Role::Root), &bytes)?;
        }
        Ok(())
    }

    fn load_timestamp(&mut self, source: &dyn Source, trusted: &mut TrustedSet) -> Result<(), TufError> {
        let name = file_name(&Role::Timestamp);
        if let Some(kept) = self.store.read(&name)? {
            // Keys may have changed, and time has passed: it counts for what it still is.
            let _ = trusted.update_timestamp(&kept);
        }
        let bytes = fetch(source, &name, self.limits.timestamp)?;
        if trusted.update_timestamp(&bytes)? == News::New {
            self.store.write(&name, &bytes)?;
        }
        Ok(())
    }

    fn load_snapshot(&mut self, source: &dyn Source, trusted: &mut TrustedSet) -> Result<(), TufError> {
        let name = file_name(&Role::Snapshot);
        if let Some(kept) = self.store.read(&name)?
            && trusted.update_snapshot(&kept, true).is_ok()
        {
            return Ok(());
        }
        let (version, length) = trusted.wanted_snapshot().ok_or(TufError::NotListed(Role::Timestamp))?;
        let path = versioned(trusted.root(), &name, version);
        let bytes = fetch(source, &path, length.unwrap_or(self.limits.snapshot).min(self.limits.snapshot))?;
        trusted.update_snapshot(&bytes, false)?;
        self.store.write(&name, &bytes)
    }

    fn load_targets(
        &mut self,
        source: &dyn Source,
        trusted: &mut TrustedSet,
        role: &Role,
        delegator: &Role,
    ) -> Result<(), TufError> {
        if trusted.targets(role).is_some() {
            return Ok(());
        }
        let name = encode(&file_name(role));
        if let Some(kept) = self.store.read(&name)?
            && trusted.update_targets(&kept, role, delegator).is_ok()
        {
            return Ok(());
        }
        let meta = trusted.meta(role)?;
        let max = meta.length.unwrap_or(self.limits.targets).min(self.limits.targets);
        let path = versioned(trusted.root(), &name, meta.version);
        let bytes = fetch(source, &path, max)?;
        trusted.update_targets(&bytes, role, delegator)?;
        self.store.write(&name, &bytes)
    }

    /// Looks for a target, in the order of the delegations; loads delegated roles where they are needed.
    pub fn target(&mut self, source: &dyn Source, name: &str) -> Result<TargetFile, TufError> {
        let mut trusted = self.trusted.take().ok_or(TufError::NotListed(Role::Targets))?;
        let found = self.search(source, &mut trusted, name);
        self.trusted = Some(trusted);
        found
    }

    fn search(
        &mut self,
        source: &dyn Source,
        trusted: &mut TrustedSet,
        name: &str,
    ) -> Result<TargetFile, TufError> {
        let mut visited = BTreeSet::new();
        // The next one to look at is the last.
        let mut open = vec![(Role::Targets, Role::Root)];
        while let Some((role, delegator)) = open.pop() {
            if visited.len() > self.limits.delegations as usize {
                break;
            }
            if !visited.insert(role.clone()) {
                continue;
            }
            self.load_targets(source, trusted, &role, &delegator)?;
            let Some(targets) = trusted.targets(&role) else { continue };
            if let Some(target) = targets.targets.get(name) {
                return Ok(target.clone());
            }
            let mut below = Vec::new();
            for named in &targets.delegations.roles {
                if named.covers(name) {
                    below.push((Role::Delegated(named.name.clone()), role.clone()));
                    if named.terminating {
                        // Nobody else is asked.
                        open.clear();
                        break;
                    }
                }
            }
            open.extend(below.into_iter().rev());
        }
        Err(TufError::NoTarget(name.to_owned()))
    }

    /// Opens a target to be read from its beginning.
    pub fn open_target(&mut self, source: &dyn Source, name: &str) -> Result<Verified, TufError> {
        let target = self.target(source, name)?;
        self.open_known(source, name, &target)
    }

    /// As [`Self::open_target`], for a target that was looked up before and whose bytes lie in another place than the
    /// metadata.
    pub fn open_known(
        &self,
        source: &dyn Source,
        name: &str,
        target: &TargetFile,
    ) -> Result<Verified, TufError> {
        let path = self.target_path(name, target)?;
        let body = source.open(&Request { path, range: None, max: target.length })?;
        Verified::new(name, target, body.reader)
    }

    /// Whether these bytes are a target.
    pub fn matches(&mut self, source: &dyn Source, name: &str, bytes: &[u8]) -> Result<bool, TufError> {
        let target = self.target(source, name)?;
        Ok(check_bytes("the target", Some(target.length), &target.hashes, bytes).is_ok())
    }

    /// Reads a target of at most `max` bytes into memory.
    pub fn read_target(&mut self, source: &dyn Source, name: &str, max: u64) -> Result<Vec<u8>, TufError> {
        let target = self.target(source, name)?;
        if target.length > max {
            return Err(TufError::Fetch(FetchError::TooLong { path: name.to_owned(), max }));
        }
        let mut content = Vec::new();
        let path = self.target_path(name, &target)?;
        let body = source.open(&Request { path: path.clone(), range: None, max: target.length })?;
        let read = Verified::new(name, &target, body.reader)?.read_to_end(&mut content);
        match read {
            Ok(_) => Ok(content),
            Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
                let what = format!("the target `{}`", name.escape_debug());
                Err(TufError::Differs { what, reason: error.to_string() })
            }
            Err(error) => Err(TufError::Fetch(FetchError::Failed { path, reason: error.to_string() })),
        }
    }

    /// Where the bytes of a target lie below the source's root: [`TARGETS_FOLDER`] and its name, the hash in front of the last
    /// segment where the repository has consistent snapshots.
    pub fn target_path(&self, name: &str, target: &TargetFile) -> Result<String, TufError> {
        let trusted = self.trusted.as_ref().ok_or(TufError::NotListed(Role::Targets))?;
        Ok(format!("{}{}", self.targets, target_path(trusted.root().consistent_snapshot, name, target)?))
    }
}

/// As [`Client::target_path`] without the folder, for the side that writes.
pub(crate) fn target_path(consistent: bool, name: &str, target: &TargetFile) -> Result<String, TufError> {
    let bad = || TufError::BadName(name.to_owned());
    if name.split('/').any(|segment| matches!(segment, "" | "." | "..")) || name.len() > 4096 {
        return Err(bad());
    }
    let (folder, file) = name.rsplit_once('/').map_or(("", name), |(folder, file)| (folder, file));
    let mut path = String::new();
    for segment in folder.split('/').filter(|segment| !segment.is_empty()) {
        path.push_str(&in_path(segment));
        path.push('/');
    }
    if consistent {
        let hash = target.hashes.get("sha256").or_else(|| target.hashes.values().next()).ok_or_else(bad)?;
        path.push_str(&hex::encode(hash));
        path.push('.');
    }
    path.push_str(&in_path(file));
    Ok(path)
}

/// Version 1 of the root must name the key and be signed by it.
fn check_own(bytes: &[u8], key: &[u8; 32]) -> Result<(), TufError> {
    let root = Metadata::<Root>::parse(&Role::Root, bytes)?;
    let own = root.signed.roles.get("root").into_iter().flat_map(|role| &role.ids).any(|id| {
        root.signed.keys.get(id).is_some_and(|found| {
            found.is_ed25519(key)
                && root.signatures.iter().any(|s| s.key == *id && found.verifies(&root.message, &s.value))
        })
    });
    if own && root.signed.version == 1 { Ok(()) } else { Err(TufError::NotOwnRoot(hex::encode(key))) }
}

fn versioned(root: &Root, name: &str, version: u64) -> String {
    if root.consistent_snapshot { format!("{version}.{name}") } else { name.to_owned() }
}

/// Percent-encoding of all but the unreserved characters (RFC 3986, section 2.3): a name becomes one segment, whatever is
/// in it.
pub(crate) fn encode(name: &str) -> String {
    let mut out = String::new();
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.push_str(&hex::encode_upper([byte]));
        }
    }
    out
}

/// A segment of a target's path. `+` stays as it is (RFC 3986, section 3.3 allows it): web servers find files by the decoded
/// name, other clients do not encode it, and versions have it.
fn in_path(name: &str) -> String {
    name.split('+').map(encode).collect::<Vec<_>>().join("+")
}

fn fetch(source: &dyn Source, path: &str, max: u64) -> Result<Vec<u8>, TufError> {
    let body = source.open(&Request { path: path.to_owned(), range: None, max })?;
    let mut bytes = Vec::new();
    let read = body.reader.take(max.saturating_add(1)).read_to_end(&mut bytes);
    match read {
        Ok(_) if bytes.len() as u64 > max => Err(FetchError::TooLong { path: path.to_owned(), max }.into()),
        Ok(_) => Ok(bytes),
        Err(error) => Err(reason(path, error).into()),
    }
}

/// What a reader of a source says: its own error, or one of the system.
fn reason(path: &str, error: std::io::Error) -> FetchError {
    let text = error.to_string();
    let inner = error.into_inner().and_then(|inner| inner.downcast().ok());
    inner.map_or_else(
        || FetchError::Failed { path: path.to_owned(), reason: text },
        |fetch: Box<FetchError>| *fetch,
    )
}
