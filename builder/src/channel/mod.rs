//! Making and changing channels: a folder that any web server can hold.
//!
//! All channels of a folder are one TUF repository. Each command reads it, changes documents and targets in memory,
//! signs, and writes `timestamp.json` last; until then clients see what was there before.

mod bundle;
mod change;
mod check;
mod error;
mod keys;
mod release;
pub mod text;

pub use bundle::{BundleReport, bundle};
pub use change::{
    ChannelSettings, Settings, add_release, create_channels, promote, remove, rollout, set, stop_rollout,
    withdraw,
};
pub use check::{CheckReport, Finding, Place, Severity, Trust, check, open_source, traps};
pub use error::ChannelError;
pub use keys::{ONLINE_KEY, Owner, make_online, read_online, read_public};

use crate::error::BuildError;
use ashlar_channel::{Document, MAX_DOCUMENT, document_target};
use ashlar_keys::KeyFolder;
use ashlar_tuf::repository::{Ed25519, Keys, Lifetimes, Repository, Roles, Sign, roles};
use ashlar_tuf::{PublicKey, Role, TufError};
use rustix::fs::{FlockOperation, Mode, OFlags, flock, open};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// Folders of unfinished work in a repository begin with this. No server should give them out; they hold nothing secret.
const STAGING: &str = ".staging-";

/// Who signs, as far as they are given.
#[derive(Default)]
pub struct Signers<'a> {
    /// The owner's key folder.
    pub owner: Option<&'a KeyFolder>,
    /// The online key.
    pub online: Option<Ed25519>,
}

/// A folder of channels that is being changed.
pub struct Channels {
    folder: PathBuf,
    repository: Repository,
    lifetimes: Lifetimes,
    _lock: OwnedFd,
}

/// When a role expires.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Expiry {
    /// `root`, `targets`, `snapshot`, `timestamp`.
    pub role: String,
    /// Seconds since 1970.
    pub time: i64,
    /// The same for people.
    pub text: String,
}

/// Lifetimes where the timestamp is good for so many seconds.
pub fn lifetimes(timestamp: Option<u32>) -> Lifetimes {
    let mut lifetimes = Lifetimes::default();
    if let Some(seconds) = timestamp {
        lifetimes.timestamp = i64::from(seconds);
        lifetimes.snapshot = lifetimes.snapshot.max(lifetimes.timestamp);
        lifetimes.targets = lifetimes.targets.max(lifetimes.timestamp);
        lifetimes.root = lifetimes.root.max(lifetimes.timestamp);
    }
    lifetimes
}

/// Nobody else changes the folder while this is there.
fn lock(folder: &Path) -> Result<OwnedFd, BuildError> {
    let fail = |e: rustix::io::Errno| BuildError::input("open", folder, e.into());
    let fd =
        open(folder, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).map_err(fail)?;
    match flock(&fd, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(fd),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(ChannelError::Busy(folder.to_owned()).into()),
        Err(error) => Err(fail(error)),
    }
}

impl Channels {
    /// Makes a repository without channels, or opens the one that is there. `signers` need both keys.
    pub fn create(
        folder: &Path,
        signers: &Signers<'_>,
        lifetimes: Lifetimes,
        now: i64,
    ) -> Result<Self, BuildError> {
        if folder.join("1.root.json").exists() {
            return Self::open(folder, lifetimes);
        }
        let owner = signers.owner.map(Owner::of).ok_or(ChannelError::NoKey("the key `channel`"))?;
        let online = signers.online.as_ref().ok_or(ChannelError::NoKey("the online key"))?;
        let one = |key: &PublicKey| Keys { keys: vec![key.clone()], threshold: 1 };
        let wanted = Roles {
            root: one(owner.public()),
            targets: one(owner.public()),
            snapshot: one(online.public()),
            timestamp: one(online.public()),
        };
        // Signed and written beside it: the folder appears whole.
        let parent =
            folder.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        std::fs::create_dir_all(parent).map_err(|e| BuildError::io("create the folder", parent, e))?;
        let there = std::fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some());
        if there || folder.is_file() {
            let why = "it exists and has something else in it".to_owned();
            return Err(ChannelError::NotARepository { path: folder.to_owned(), why }.into());
        }
        let new = tempfile::Builder::new()
            .prefix(".ashlar-channel-")
            .tempdir_in(parent)
            .map_err(|e| BuildError::io("create a temporary folder in", parent, e))?;
        let fail = |e| BuildError::io("put the channels at", folder, e);
        let _ = Repository::create(new.path(), &wanted, lifetimes, &[&owner, online], now)
            .map_err(ChannelError::Tuf)?;
        let readable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(new.path(), readable).map_err(fail)?;
        // It replaces an empty folder.
        std::fs::rename(new.path(), folder).map_err(fail)?;
        let _ = new.keep();
        Self::open(folder, lifetimes)
    }

    /// Opens a repository to change it.
    pub fn open(folder: &Path, lifetimes: Lifetimes) -> Result<Self, BuildError> {
        let path = folder.join("1.root.json");
        if !path.is_file() {
            let why = "there is no 1.root.json".to_owned();
            return Err(ChannelError::NotARepository { path: folder.to_owned(), why }.into());
        }
        let lock = lock(folder)?;
        let repository = Repository::open(folder).map_err(ChannelError::Tuf)?;
        // What was cut off; nobody else works here.
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(STAGING) {
                let path = entry.path();
                std::fs::remove_dir_all(&path).map_err(|e| BuildError::io("remove", &path, e))?;
            }
        }
        Ok(Self { folder: folder.to_owned(), repository, lifetimes, _lock: lock })
    }

    /// The repository.
    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    /// Names of the channels.
    pub fn names(&self) -> Vec<String> {
        let name =
            |target: &String| Some(target.strip_prefix("channels/")?.strip_suffix(".json")?.to_owned());
        self.repository.targets().targets.keys().filter_map(name).collect()
    }

    /// A channel's document.
    pub fn document(&self, channel: &str) -> Result<Document, ChannelError> {
        match self.repository.read_target(&document_target(channel), MAX_DOCUMENT) {
            Ok(bytes) => Ok(Document::parse(&bytes)?),
            Err(TufError::NoTarget(_)) => {
                Err(ChannelError::NoChannel { name: channel.to_owned(), there: list(&self.names()) })
            }
            Err(error) => Err(error.into()),
        }
    }

    fn put(&mut self, document: &Document) -> Result<(), ChannelError> {
        let bytes = document.to_bytes()?;
        Ok(self.repository.put_bytes(&document_target(&document.name), bytes, None)?)
    }

    /// A folder for what is being made, on the same file system; it goes away by itself.
    fn staging(&self) -> Result<tempfile::TempDir, BuildError> {
        tempfile::Builder::new()
            .prefix(STAGING)
            .tempdir_in(&self.folder)
            .map_err(|e| BuildError::io("create a temporary folder in", &self.folder, e))
    }

    /// Whether the keys that are given are those of the repository, before any work is done.
    ///
    /// # Errors
    /// One is missing or a stranger's, or the owner's cannot be opened.
    pub fn require(&self, signers: &Signers<'_>, owner_signs: bool) -> Result<(), BuildError> {
        let known = |role: &str, id: &str| {
            self.repository
                .root()
                .roles
                .get(role)
                .is_some_and(|keys| keys.ids.iter().any(|known| known == id))
        };
        let foreign = |what: String| BuildError::from(ChannelError::ForeignKey { what });
        if owner_signs {
            let folder = signers.owner.ok_or(ChannelError::NoKey("the key `channel`"))?;
            if !known("targets", &Owner::of(folder).public().id()) {
                return Err(foreign(format!("the key `channel` in `{}`", folder.path().display())));
            }
            folder.require(&[ashlar_keys::Role::Channel])?;
        }
        let online = signers.online.as_ref().ok_or(ChannelError::NoKey("the online key"))?;
        if !known("timestamp", &online.public().id()) {
            return Err(foreign("the online key".into()));
        }
        Ok(())
    }

    /// Publishes what was changed.
    pub fn publish(&mut self, signers: &Signers<'_>, now: i64) -> Result<(), BuildError> {
        let owner = signers.owner.map(Owner::of);
        let keys = signing(owner.as_ref(), signers);
        Ok(self.repository.publish(self.lifetimes, &keys, now).map_err(ChannelError::Tuf)?)
    }

    /// Renews timestamp and snapshot.
    pub fn refresh(&mut self, signers: &Signers<'_>, now: i64) -> Result<(), BuildError> {
        let keys = signing(None, signers);
        Ok(self.repository.refresh(self.lifetimes, &keys, now).map_err(ChannelError::Tuf)?)
    }

    /// The same with other lifetimes, for once.
    fn refresh_for(&mut self, seconds: u32, signers: &Signers<'_>, now: i64) -> Result<(), BuildError> {
        let before = std::mem::replace(&mut self.lifetimes, lifetimes(Some(seconds)));
        let done = self.refresh(signers, now);
        self.lifetimes = before;
        done
    }

    /// Signs root and targets anew, with the same keys: before they expire.
    pub fn renew_root(&mut self, signers: &Signers<'_>, now: i64) -> Result<(), BuildError> {
        let wanted = roles(self.repository.root());
        let owner = signers.owner.map(Owner::of);
        let keys = signing(owner.as_ref(), signers);
        Ok(self.repository.change_root(&wanted, self.lifetimes, &keys, now).map_err(ChannelError::Tuf)?)
    }

    /// Puts new keys in the place of old ones. Machines follow by themselves, from whichever root they trust.
    ///
    /// Two roots are published: one that knows old and new keys, then one that knows the new ones only. So what is signed
    /// below the root fits it at every moment, also when this is cut off; run again, it goes on.
    ///
    /// # Errors
    /// Old and new keys are the same, or one of the old ones is missing.
    pub fn rotate(&mut self, old: &Signers<'_>, new: &Signers<'_>, now: i64) -> Result<(), BuildError> {
        let old_owner = old.owner.map(Owner::of).ok_or(ChannelError::NoKey("the key `channel`"))?;
        let old_online = old.online.as_ref().ok_or(ChannelError::NoKey("the online key"))?;
        let new_owner = new.owner.map(Owner::of);
        let owner = new_owner.as_ref().unwrap_or(&old_owner);
        let online = new.online.as_ref().unwrap_or(old_online);
        if owner.public() == old_owner.public() && online.public() == old_online.public() {
            return Err(ChannelError::Nothing("the new keys are the old ones").into());
        }
        let keys = |keys: &[&PublicKey]| {
            let keys: BTreeSet<PublicKey> = keys.iter().map(|key| (*key).clone()).collect();
            Keys { keys: keys.into_iter().collect(), threshold: 1 }
        };
        let of = |owners: &[&PublicKey], onlines: &[&PublicKey]| Roles {
            root: keys(owners),
            targets: keys(owners),
            snapshot: keys(onlines),
            timestamp: keys(onlines),
        };
        let all: [&dyn Sign; 4] = [&old_owner, owner, old_online, online];
        let both = of(&[old_owner.public(), owner.public()], &[old_online.public(), online.public()]);
        self.repository.change_root(&both, self.lifetimes, &all, now).map_err(ChannelError::Tuf)?;
        let only = of(&[owner.public()], &[online.public()]);
        Ok(self.repository.change_root(&only, self.lifetimes, &all, now).map_err(ChannelError::Tuf)?)
    }

    /// When each role expires.
    pub fn expiries(&self) -> Vec<Expiry> {
        self.repository.expiries().into_iter().map(|(role, time)| Expiry::new(&role, time)).collect()
    }

    /// What a command tells when it is done.
    pub fn state(&self) -> State {
        let root = self.repository.root().version;
        let mut channels = BTreeMap::new();
        for name in self.names() {
            if let Ok(document) = self.document(&name) {
                channels.insert(name, document);
            }
        }
        State {
            repository: self.folder.clone(),
            root_version: root,
            targets_version: self.repository.targets().version,
            expires: self.expiries(),
            channels,
        }
    }
}

/// What a repository holds; what `--json` prints.
#[derive(Debug, Serialize)]
pub struct State {
    /// Its folder.
    pub repository: PathBuf,
    /// Version of its root.
    pub root_version: u64,
    /// Version of its targets.
    pub targets_version: u64,
    /// When each role expires.
    pub expires: Vec<Expiry>,
    /// The channels' documents.
    pub channels: BTreeMap<String, Document>,
}

impl Expiry {
    fn new(role: &Role, time: i64) -> Self {
        Self { role: role.name().to_owned(), time, text: text::time(time) }
    }
}

fn signing<'a>(owner: Option<&'a Owner<'a>>, signers: &'a Signers<'a>) -> Vec<&'a dyn Sign> {
    let mut keys: Vec<&dyn Sign> = Vec::new();
    keys.extend(owner.map(|owner| owner as &dyn Sign));
    keys.extend(signers.online.as_ref().map(|online| online as &dyn Sign));
    keys
}

/// A list for people.
fn list(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}
