//! Making room: what was not used for the longest time goes first.

use crate::lock::{self, flock, try_flock};
use crate::{CacheError, Room, item, leftovers, remove_leftovers};
use rustix::fs::FlockOperation;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What may stay.
#[derive(Debug, Clone, Copy)]
pub struct Policy {
    /// Items that were not used for longer go. Uses are recorded once a day, so less than two days mean little.
    pub max_age: Option<Duration>,
    /// The least recently used items go until the rest takes at most this many bytes on the disk.
    pub max_bytes: Option<u64>,
    /// The time from which ages are counted.
    pub now: SystemTime,
    /// Only say what would go.
    pub dry_run: bool,
}

/// What a room holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct RoomUsage {
    /// Number of items.
    pub items: u64,
    /// Bytes on the disk.
    pub bytes: u64,
}

impl RoomUsage {
    fn add(&mut self, bytes: u64) {
        self.items += 1;
        self.bytes = self.bytes.saturating_add(bytes);
    }
}

/// What the cache holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Usage {
    /// By room.
    pub rooms: BTreeMap<Room, RoomUsage>,
    /// All rooms together.
    pub total: RoomUsage,
}

/// What became of a room.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct RoomReport {
    /// What was removed (or would be).
    pub removed: RoomUsage,
    /// What stays.
    pub kept: RoomUsage,
}

/// An item that was removed (or would be).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Removed {
    /// Its room.
    pub room: Room,
    /// Its name, without the endings of its files.
    pub name: String,
    /// Bytes on the disk.
    pub bytes: u64,
    /// Last recorded use, seconds since 1970.
    pub last_used: u64,
}

/// What [`gc`] did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct GcReport {
    /// Nothing was removed; this is what would be.
    pub dry_run: bool,
    /// By room.
    pub rooms: BTreeMap<Room, RoomReport>,
    /// All rooms together.
    pub total: RoomReport,
    /// Leftovers of builds that ended hard.
    pub leftovers: RoomUsage,
    /// The removed items, least recently used first.
    pub removed: Vec<Removed>,
}

/// One item with all of its files.
struct Item {
    room: Room,
    name: String,
    files: Vec<PathBuf>,
    bytes: u64,
    last_used: SystemTime,
}

/// What the cache in `root` holds. Takes no lock: what a build writes meanwhile may be in it or not.
///
/// # Errors
/// Fails when a room cannot be read.
pub fn usage(root: &Path) -> Result<Usage, CacheError> {
    let mut usage = Usage { rooms: BTreeMap::new(), total: RoomUsage::default() };
    for room in Room::ALL {
        let held = usage.rooms.entry(room).or_default();
        for item in items(root, room)? {
            held.add(item.bytes);
            usage.total.add(item.bytes);
        }
    }
    Ok(usage)
}

/// Removes from the cache in `root` what `policy` does not let stay, whole items at a time, and what killed builds have
/// left in `tmp/`. Waits until no build uses the cache; `waiting` is called once before that. A build that begins
/// meanwhile waits in turn. Whoever calls this must not hold a [`crate::Cache`] of the same folder, or it waits for itself.
///
/// # Errors
/// Fails when the cache cannot be locked or read, or an item not be removed. What was removed until then is removed whole.
pub fn gc(root: &Path, policy: &Policy, waiting: impl FnOnce()) -> Result<GcReport, CacheError> {
    let mut report = GcReport {
        dry_run: policy.dry_run,
        rooms: Room::ALL.iter().map(|room| (*room, RoomReport::default())).collect(),
        total: RoomReport::default(),
        leftovers: RoomUsage::default(),
        removed: Vec::new(),
    };
    let path = root.join("lock");
    // A folder that no build has ever used is none to clean.
    if !path.exists() {
        return Ok(report);
    }
    let lock = lock::open(&path)?;
    if !try_flock(&lock, FlockOperation::NonBlockingLockExclusive, root)? {
        waiting();
        flock(&lock, FlockOperation::LockExclusive, root)?;
    }

    let mut all = Vec::new();
    for room in Room::ALL {
        all.extend(items(root, room)?);
    }
    // Items of one age go by room and name, so that the choice does not depend on the file system.
    all.sort_by(|a, b| {
        a.last_used.cmp(&b.last_used).then(a.room.cmp(&b.room)).then_with(|| a.name.cmp(&b.name))
    });
    let mut left = all.iter().fold(0_u64, |sum, item| sum.saturating_add(item.bytes));
    for item in all {
        let age = policy.now.duration_since(item.last_used).unwrap_or_default();
        let too_old = policy.max_age.is_some_and(|max| age > max);
        let too_much = policy.max_bytes.is_some_and(|max| left > max);
        let of_room = report.rooms.entry(item.room).or_default();
        if !(too_old || too_much) {
            of_room.kept.add(item.bytes);
            report.total.kept.add(item.bytes);
            continue;
        }
        if !policy.dry_run {
            remove(root, &item)?;
        }
        left = left.saturating_sub(item.bytes);
        of_room.removed.add(item.bytes);
        report.total.removed.add(item.bytes);
        let since_1970 = item.last_used.duration_since(UNIX_EPOCH).unwrap_or_default();
        report.removed.push(Removed {
            room: item.room,
            name: item.name,
            bytes: item.bytes,
            last_used: since_1970.as_secs(),
        });
    }
    if policy.dry_run {
        for (_, bytes) in leftovers(root, policy.now) {
            report.leftovers.add(bytes);
        }
    } else {
        report.leftovers = remove_leftovers(root, policy.now);
    }
    Ok(report)
}

/// Removes all files of an item. A folder is moved to `tmp/` first: a half removed one would look like a whole one.
fn remove(root: &Path, item: &Item) -> Result<(), CacheError> {
    for file in &item.files {
        let metadata = std::fs::symlink_metadata(file).map_err(CacheError::io("remove", file))?;
        if metadata.is_dir() {
            let trash = tempfile::tempdir_in(root.join("tmp")).map_err(CacheError::io("remove", file))?;
            std::fs::rename(file, trash.path().join("item")).map_err(CacheError::io("remove", file))?;
            trash.close().map_err(CacheError::io("remove", file))?;
        } else {
            std::fs::remove_file(file).map_err(CacheError::io("remove", file))?;
        }
    }
    Ok(())
}

/// The items of a room, by name.
fn items(root: &Path, room: Room) -> Result<Vec<Item>, CacheError> {
    let folder = root.join(room.folder());
    let entries = match std::fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(CacheError::io("read", &folder)(error)),
    };
    let mut items: BTreeMap<String, Item> = BTreeMap::new();
    for entry in entries {
        let path = entry.map_err(CacheError::io("read", &folder))?.path();
        let modified = match std::fs::symlink_metadata(&path).and_then(|metadata| metadata.modified()) {
            Ok(modified) => modified,
            // A build replaces it just now; only who takes no lock sees that.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(CacheError::io("read", &path)(error)),
        };
        let file_name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let name = item::item_of(&file_name).to_owned();
        let item = items.entry(name.clone()).or_insert_with(|| Item {
            room,
            name,
            files: Vec::new(),
            bytes: 0,
            last_used: UNIX_EPOCH,
        });
        item.bytes = item.bytes.saturating_add(item::size_on_disk(&path));
        item.last_used = item.last_used.max(modified);
        item.files.push(path);
    }
    // Sidecars are named so that they come first: `.control` before `.tar`. Without it the rest counts as not there.
    let mut items: Vec<Item> = items.into_values().collect();
    for item in &mut items {
        item.files.sort();
    }
    Ok(items)
}
