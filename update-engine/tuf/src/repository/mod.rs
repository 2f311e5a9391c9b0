//! Making and changing a repository in a folder.
//!
//! The layout is what a client with consistent snapshots reads: `N.root.json`, `N.targets.json`, `N.snapshot.json`,
//! `timestamp.json`, and targets below `targets/` with their SHA-256 in front of the file's name. Files are only added,
//! and `timestamp.json`, which is replaced last, brings them to life: readers and power cuts see the state before or the
//! one after.

mod check;
mod sign;

pub use check::{Report, check};
pub use sign::{Ed25519, Sign};

use crate::client::{TARGETS_FOLDER, target_path};
use crate::error::{Role, TufError};
use crate::json::{canonical, parse};
use crate::key::PublicKey;
use crate::metadata::{Metadata, Root, Snapshot, TargetFile, Targets, Timestamp, show_time};
use crate::store::replace;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// The specification that is followed.
const SPEC: &str = "1.0.33";
/// Longest metadata file that is read back, in bytes.
const MAX_METADATA: u64 = 64 << 20;
const DAY: i64 = 24 * 3600;

/// For how long metadata is good, in seconds, after it was signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifetimes {
    /// Root.
    pub root: i64,
    /// Targets.
    pub targets: i64,
    /// Snapshot.
    pub snapshot: i64,
    /// Timestamp: also the longest time for which old news can be given for new.
    pub timestamp: i64,
}

impl Default for Lifetimes {
    fn default() -> Self {
        Self { root: 365 * DAY, targets: 180 * DAY, snapshot: 30 * DAY, timestamp: 7 * DAY }
    }
}

/// Keys of one role and how many must sign.
#[derive(Debug, Clone)]
pub struct Keys {
    /// The keys.
    pub keys: Vec<PublicKey>,
    /// How many must sign; 1 at least.
    pub threshold: u32,
}

/// Keys of all roles.
#[derive(Debug, Clone)]
pub struct Roles {
    /// Root.
    pub root: Keys,
    /// Targets.
    pub targets: Keys,
    /// Snapshot.
    pub snapshot: Keys,
    /// Timestamp.
    pub timestamp: Keys,
}

/// A file that becomes a target.
#[derive(Debug)]
enum Content {
    Bytes(Vec<u8>),
    /// Moved, or copied where it lies on another file system.
    File(PathBuf),
}

/// A repository.
#[derive(Debug)]
pub struct Repository {
    folder: PathBuf,
    root: Metadata<Root>,
    targets: Metadata<Targets>,
    snapshot: Metadata<Snapshot>,
    timestamp: Metadata<Timestamp>,
    staged: BTreeMap<String, Content>,
    list: BTreeMap<String, Value>,
}

fn io_error(what: &str, path: &Path) -> impl FnOnce(io::Error) -> TufError {
    let place = format!("cannot {what} `{}`", path.display());
    move |error| TufError::Repository(format!("{place}: {error}"))
}

fn read(path: &Path) -> Result<Vec<u8>, TufError> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(io_error("open", path))?;
    file.take(MAX_METADATA + 1).read_to_end(&mut bytes).map_err(io_error("read", path))?;
    if bytes.len() as u64 > MAX_METADATA {
        return Err(TufError::Repository(format!(
            "`{}` is longer than {MAX_METADATA} bytes",
            path.display()
        )));
    }
    Ok(bytes)
}

fn root_json(version: u64, expires: i64, roles: &Roles) -> Value {
    let mut keys = Map::new();
    let mut named = Map::new();
    for (name, role) in [
        ("root", &roles.root),
        ("targets", &roles.targets),
        ("snapshot", &roles.snapshot),
        ("timestamp", &roles.timestamp),
    ] {
        let ids: BTreeSet<String> = role.keys.iter().map(PublicKey::id).collect();
        for key in &role.keys {
            keys.insert(key.id(), key.to_json());
        }
        named.insert(name.into(), json!({ "keyids": ids, "threshold": role.threshold }));
    }
    json!({
        "_type": "root", "spec_version": SPEC, "version": version, "expires": show_time(expires),
        "consistent_snapshot": true, "keys": keys, "roles": named,
    })
}

/// Signs with those of `signers` whose keys the role has.
fn envelope(signed: &Value, keys: &BTreeSet<String>, signers: &[&dyn Sign]) -> Result<Vec<u8>, TufError> {
    let message = canonical(signed).map_err(TufError::Repository)?;
    let mut signatures = BTreeMap::new();
    for signer in signers {
        let id = signer.public().id();
        if keys.contains(&id) {
            let value = signer.sign(&message).map_err(TufError::Repository)?;
            signatures.insert(id, hex::encode(value));
        }
    }
    let signatures: Vec<Value> =
        signatures.iter().map(|(id, sig)| json!({ "keyid": id, "sig": sig })).collect();
    serde_json::to_vec_pretty(&json!({ "signatures": signatures, "signed": signed }))
        .map_err(|error| TufError::Repository(error.to_string()))
}

fn ids(root: &Root, role: &str) -> BTreeSet<String> {
    root.roles.get(role).map(|keys| keys.ids.iter().cloned().collect()).unwrap_or_default()
}

/// A signed file that its own role accepts.
fn signed<T: crate::metadata::Kind>(
    root: &Root,
    role: &Role,
    content: &Value,
    signers: &[&dyn Sign],
) -> Result<(Vec<u8>, Metadata<T>), TufError> {
    let bytes = envelope(content, &ids(root, role.name()), signers)?;
    let metadata = Metadata::<T>::parse(role, &bytes)?;
    root.check(role, &metadata.message, &metadata.signatures)?;
    Ok((bytes, metadata))
}

impl Repository {
    /// Makes a repository without targets in `folder`, which must be empty or not be there. `now` is in seconds since 1970.
    pub fn create(
        folder: &Path,
        roles: &Roles,
        lifetimes: Lifetimes,
        signers: &[&dyn Sign],
        now: i64,
    ) -> Result<Self, TufError> {
        fs::create_dir_all(folder).map_err(io_error("make", folder))?;
        if fs::read_dir(folder).map_err(io_error("read", folder))?.next().is_some() {
            return Err(TufError::Repository(format!("`{}` is not empty", folder.display())));
        }
        let content = root_json(1, now + lifetimes.root, roles);
        let ids: BTreeSet<String> = roles.root.keys.iter().map(PublicKey::id).collect();
        let bytes = envelope(&content, &ids, signers)?;
        let root = Metadata::<Root>::parse(&Role::Root, &bytes)?;
        root.signed.check(&Role::Root, &root.message, &root.signatures)?;
        // All is signed before the first byte is written: a key that is missing leaves nothing half made.
        let empty = json!({
            "_type": "targets", "spec_version": SPEC, "version": 1, "expires": show_time(now + lifetimes.targets), "targets": {},
        });
        let (targets_bytes, targets) = signed(&root.signed, &Role::Targets, &empty, signers)?;
        let (snapshot_bytes, snapshot) =
            snapshot_of(&root.signed, 1, &targets_bytes, 1, now + lifetimes.snapshot, signers)?;
        let (timestamp_bytes, timestamp) =
            timestamp_of(&root.signed, 1, &snapshot_bytes, 1, now + lifetimes.timestamp, signers)?;
        for (name, bytes) in [
            ("1.root.json", &bytes),
            ("1.targets.json", &targets_bytes),
            ("1.snapshot.json", &snapshot_bytes),
            ("timestamp.json", &timestamp_bytes),
        ] {
            let path = folder.join(name);
            replace(&path, bytes).map_err(io_error("write", &path))?;
        }
        let folder = folder.to_owned();
        Ok(Self {
            folder,
            root,
            targets,
            snapshot,
            timestamp,
            staged: BTreeMap::new(),
            list: BTreeMap::new(),
        })
    }

    /// Opens a repository; everything but expiry is verified.
    pub fn open(folder: &Path) -> Result<Self, TufError> {
        let mut version = 1u64;
        let mut root = Metadata::<Root>::parse(&Role::Root, &read(&folder.join("1.root.json"))?)?;
        root.signed.check(&Role::Root, &root.message, &root.signatures)?;
        loop {
            let path = folder.join(format!("{}.root.json", version + 1));
            if !path.exists() {
                break;
            }
            let next = Metadata::<Root>::parse(&Role::Root, &read(&path)?)?;
            root.signed.check(&Role::Root, &next.message, &next.signatures)?;
            next.signed.check(&Role::Root, &next.message, &next.signatures)?;
            version += 1;
            root = next;
        }
        let top = &root.signed;
        let timestamp =
            Metadata::<Timestamp>::parse(&Role::Timestamp, &read(&folder.join("timestamp.json"))?)?;
        top.check(&Role::Timestamp, &timestamp.message, &timestamp.signatures)?;
        let path = folder.join(format!("{}.snapshot.json", timestamp.signed.snapshot.version));
        let snapshot = Metadata::<Snapshot>::parse(&Role::Snapshot, &read(&path)?)?;
        top.check(&Role::Snapshot, &snapshot.message, &snapshot.signatures)?;
        let meta = snapshot.signed.meta.get("targets.json").ok_or(TufError::NotListed(Role::Targets))?;
        let path = folder.join(format!("{}.targets.json", meta.version));
        let targets = Metadata::<Targets>::parse(&Role::Targets, &read(&path)?)?;
        top.check(&Role::Targets, &targets.message, &targets.signatures)?;
        let list = targets.raw.get("targets").and_then(Value::as_object).cloned().unwrap_or_default();
        let list = list.into_iter().collect();
        Ok(Self {
            folder: folder.to_owned(),
            root,
            targets,
            snapshot,
            timestamp,
            staged: BTreeMap::new(),
            list,
        })
    }

    /// The root.
    pub fn root(&self) -> &Root {
        &self.root.signed
    }

    /// The targets as they are published.
    pub fn targets(&self) -> &Targets {
        &self.targets.signed
    }

    /// Version of the snapshot that is published.
    pub fn snapshot_version(&self) -> u64 {
        self.snapshot.signed.version
    }

    /// Where a published target lies below [`TARGETS_FOLDER`].
    pub fn target_file(&self, name: &str) -> Result<String, TufError> {
        let target =
            self.targets.signed.targets.get(name).ok_or_else(|| TufError::NoTarget(name.to_owned()))?;
        target_path(true, name, target)
    }

    /// Expiry of targets, snapshot and timestamp as published, in seconds since 1970.
    pub fn expiries(&self) -> [(Role, i64); 4] {
        [
            (Role::Root, self.root.signed.expires),
            (Role::Targets, self.targets.signed.expires),
            (Role::Snapshot, self.snapshot.signed.expires),
            (Role::Timestamp, self.timestamp.signed.expires),
        ]
    }

    /// The content of a published target of at most `max` bytes, verified.
    pub fn read_target(&self, name: &str, max: u64) -> Result<Vec<u8>, TufError> {
        let target =
            self.targets.signed.targets.get(name).ok_or_else(|| TufError::NoTarget(name.to_owned()))?;
        let path = self.folder.join(TARGETS_FOLDER).join(target_path(true, name, target)?);
        let mut bytes = Vec::new();
        let file = File::open(&path).map_err(io_error("open", &path))?;
        file.take(max.saturating_add(1)).read_to_end(&mut bytes).map_err(io_error("read", &path))?;
        crate::target::check_bytes(
            &format!("the target `{name}`"),
            Some(target.length),
            &target.hashes,
            &bytes,
        )?;
        Ok(bytes)
    }

    /// Puts a target of these bytes into the next version of the repository.
    pub fn put_bytes(&mut self, name: &str, bytes: Vec<u8>, custom: Option<Value>) -> Result<(), TufError> {
        let target = described(bytes.len() as u64, &Sha256::digest(&bytes).into(), custom);
        self.put(name, target, Content::Bytes(bytes))
    }

    /// Puts a file into the next version of the repository. It is moved there by [`Self::publish`].
    pub fn put_file(&mut self, name: &str, file: &Path, custom: Option<Value>) -> Result<(), TufError> {
        let mut hash = Sha256::new();
        let mut reader = File::open(file).map_err(io_error("open", file))?;
        let length = io::copy(&mut reader, &mut Hasher(&mut hash)).map_err(io_error("read", file))?;
        let target = described(length, &hash.finalize().into(), custom);
        self.put(name, target, Content::File(file.to_owned()))
    }

    fn put(&mut self, name: &str, target: Value, content: Content) -> Result<(), TufError> {
        // The name is judged as a client would.
        target_path(
            true,
            name,
            &TargetFile { length: 0, hashes: BTreeMap::from([("sha256".into(), vec![0])]), custom: None },
        )?;
        self.list.insert(name.to_owned(), target);
        self.staged.insert(name.to_owned(), content);
        Ok(())
    }

    /// Takes a target out of the next version. Its file stays, because older snapshots name it: see [`Self::sweep`].
    pub fn remove(&mut self, name: &str) -> bool {
        self.staged.remove(name);
        self.list.remove(name).is_some()
    }

    /// Publishes what was put and removed: targets' files, then targets, snapshot and timestamp.
    pub fn publish(&mut self, lifetimes: Lifetimes, signers: &[&dyn Sign], now: i64) -> Result<(), TufError> {
        let version = self.targets.signed.version + 1;
        let content = json!({
            "_type": "targets", "spec_version": SPEC, "version": version,
            "expires": show_time(now + lifetimes.targets), "targets": self.list,
        });
        let (bytes, targets) = signed::<Targets>(&self.root.signed, &Role::Targets, &content, signers)?;
        let next = self.prepare(&bytes, version, lifetimes, signers, now)?;
        for (name, content) in std::mem::take(&mut self.staged) {
            if let Some(target) = targets.signed.targets.get(&name) {
                self.install(&name, target, content)?;
            }
        }
        let path = self.folder.join(format!("{version}.targets.json"));
        replace(&path, &bytes).map_err(io_error("write", &path))?;
        self.targets = targets;
        self.finish(next)
    }

    /// Renews snapshot and timestamp, so that clients know that nothing is newer. Targets and root are signed anew by
    /// [`Self::publish`] and [`Self::change_root`].
    pub fn refresh(&mut self, lifetimes: Lifetimes, signers: &[&dyn Sign], now: i64) -> Result<(), TufError> {
        let version = self.targets.signed.version;
        let bytes = read(&self.folder.join(format!("{version}.targets.json")))?;
        let next = self.prepare(&bytes, version, lifetimes, signers, now)?;
        self.finish(next)
    }

    /// Publishes the next root with other keys, then everything below it anew, signed by them: so a key that is gone is
    /// of no use from here on. Signers of the root before and of the new one are needed.
    pub fn change_root(
        &mut self,
        roles: &Roles,
        lifetimes: Lifetimes,
        signers: &[&dyn Sign],
        now: i64,
    ) -> Result<(), TufError> {
        let version = self.root.signed.version + 1;
        let content = root_json(version, now + lifetimes.root, roles);
        let mut both = ids(&self.root.signed, "root");
        both.extend(roles.root.keys.iter().map(PublicKey::id));
        let bytes = envelope(&content, &both, signers)?;
        let root = Metadata::<Root>::parse(&Role::Root, &bytes)?;
        self.root.signed.check(&Role::Root, &root.message, &root.signatures)?;
        root.signed.check(&Role::Root, &root.message, &root.signatures)?;
        let before = std::mem::replace(&mut self.root, root);
        // Signed before the root is written: clients that have it accept nothing else.
        let version_of_targets = self.targets.signed.version + 1;
        let list = json!({
            "_type": "targets", "spec_version": SPEC, "version": version_of_targets,
            "expires": show_time(now + lifetimes.targets), "targets": self.list,
        });
        let prepared = signed::<Targets>(&self.root.signed, &Role::Targets, &list, signers).and_then(
            |(bytes, targets)| {
                let next = self.prepare(&bytes, version_of_targets, lifetimes, signers, now)?;
                Ok((bytes, targets, next))
            },
        );
        let (targets_bytes, targets, next) = match prepared {
            Ok(prepared) => prepared,
            Err(error) => {
                self.root = before;
                return Err(error);
            }
        };
        for (name, bytes) in [
            (format!("{version_of_targets}.targets.json"), &targets_bytes),
            (format!("{version}.root.json"), &bytes),
        ] {
            let path = self.folder.join(name);
            replace(&path, bytes).map_err(io_error("write", &path))?;
        }
        self.targets = targets;
        self.finish(next)
    }

    fn prepare(
        &self,
        targets: &[u8],
        version: u64,
        lifetimes: Lifetimes,
        signers: &[&dyn Sign],
        now: i64,
    ) -> Result<Next, TufError> {
        let root = &self.root.signed;
        let number = self.snapshot.signed.version + 1;
        let snapshot = snapshot_of(root, number, targets, version, now + lifetimes.snapshot, signers)?;
        let next = self.timestamp.signed.version + 1;
        let timestamp = timestamp_of(root, next, &snapshot.0, number, now + lifetimes.timestamp, signers)?;
        Ok(Next { snapshot, timestamp })
    }

    fn finish(&mut self, next: Next) -> Result<(), TufError> {
        let path = self.folder.join(format!("{}.snapshot.json", next.snapshot.1.signed.version));
        replace(&path, &next.snapshot.0).map_err(io_error("write", &path))?;
        let path = self.folder.join("timestamp.json");
        replace(&path, &next.timestamp.0).map_err(io_error("write", &path))?;
        self.snapshot = next.snapshot.1;
        self.timestamp = next.timestamp.1;
        Ok(())
    }

    fn install(&self, name: &str, target: &TargetFile, content: Content) -> Result<(), TufError> {
        let path = self.folder.join(TARGETS_FOLDER).join(target_path(true, name, target)?);
        let folder = path.parent().unwrap_or(&self.folder).to_owned();
        fs::create_dir_all(&folder).map_err(io_error("make", &folder))?;
        match content {
            Content::Bytes(bytes) => replace(&path, &bytes).map_err(io_error("write", &path)),
            Content::File(file) => move_file(&file, &path).map_err(io_error("write", &path)),
        }
    }

    /// Removes files of targets that the published version does not name. Clients that are in the midst of an older one
    /// begin again.
    pub fn sweep(&self) -> Result<u64, TufError> {
        let folder = self.folder.join(TARGETS_FOLDER);
        let wanted = self
            .targets
            .signed
            .targets
            .iter()
            .map(|(name, target)| Ok(folder.join(target_path(true, name, target)?)))
            .collect::<Result<BTreeSet<PathBuf>, TufError>>()?;
        let mut removed = 0;
        let mut open = vec![folder];
        while let Some(folder) = open.pop() {
            let Ok(entries) = fs::read_dir(&folder) else { continue };
            for entry in entries {
                let path = entry.map_err(io_error("read", &folder))?.path();
                if path.is_dir() {
                    open.push(path);
                } else if !wanted.contains(&path) {
                    fs::remove_file(&path).map_err(io_error("remove", &path))?;
                    removed += 1;
                }
            }
        }
        Ok(removed)
    }
}

struct Next {
    snapshot: (Vec<u8>, Metadata<Snapshot>),
    timestamp: (Vec<u8>, Metadata<Timestamp>),
}

struct Hasher<'a>(&'a mut Sha256);

impl Write for Hasher<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn move_file(from: &Path, to: &Path) -> io::Result<()> {
    File::open(from)?.sync_all()?;
    if fs::rename(from, to).is_err() {
        // Another file system.
        let new = to.with_extension("new");
        fs::copy(from, &new)?;
        File::open(&new)?.sync_all()?;
        fs::rename(&new, to)?;
        fs::remove_file(from)?;
    }
    to.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

fn described(length: u64, sha256: &[u8; 32], custom: Option<Value>) -> Value {
    let mut value = json!({ "length": length, "hashes": { "sha256": hex::encode(sha256) } });
    if let (Some(custom), Some(map)) = (custom, value.as_object_mut()) {
        map.insert("custom".into(), custom);
    }
    value
}

fn meta_of(bytes: &[u8], version: u64) -> Value {
    json!({ "version": version, "length": bytes.len(), "hashes": { "sha256": hex::encode(Sha256::digest(bytes)) } })
}

fn snapshot_of(
    root: &Root,
    version: u64,
    targets: &[u8],
    targets_version: u64,
    expires: i64,
    signers: &[&dyn Sign],
) -> Result<(Vec<u8>, Metadata<Snapshot>), TufError> {
    let content = json!({
        "_type": "snapshot", "spec_version": SPEC, "version": version, "expires": show_time(expires),
        "meta": { "targets.json": meta_of(targets, targets_version) },
    });
    signed(root, &Role::Snapshot, &content, signers)
}

fn timestamp_of(
    root: &Root,
    version: u64,
    snapshot: &[u8],
    snapshot_version: u64,
    expires: i64,
    signers: &[&dyn Sign],
) -> Result<(Vec<u8>, Metadata<Timestamp>), TufError> {
    let content = json!({
        "_type": "timestamp", "spec_version": SPEC, "version": version, "expires": show_time(expires),
        "meta": { "snapshot.json": meta_of(snapshot, snapshot_version) },
    });
    signed(root, &Role::Timestamp, &content, signers)
}

/// The keys of a root's roles, to be changed and given to [`Repository::change_root`].
pub fn roles(root: &Root) -> Roles {
    let keys = |name: &str| {
        let role = root.roles.get(name);
        Keys {
            keys: role
                .into_iter()
                .flat_map(|role| &role.ids)
                .filter_map(|id| root.keys.get(id).cloned())
                .collect(),
            threshold: role.map_or(1, |role| role.threshold),
        }
    };
    Roles {
        root: keys("root"),
        targets: keys("targets"),
        snapshot: keys("snapshot"),
        timestamp: keys("timestamp"),
    }
}

/// Reads metadata as JSON without judging it, for showing it.
pub fn show(bytes: &[u8]) -> Result<Value, TufError> {
    parse(bytes).map_err(TufError::Repository)
}
