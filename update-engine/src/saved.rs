//! What the engine remembers: files in its folder on the state volume, each replaced so that a power cut leaves the old
//! content or the new one.

use crate::error::UpdateError;
use ashlar_image::control::TrialFailure;
use ashlar_image::update::{Barred, HistoryEntry};
use ashlar_tuf::{FolderStore, Store};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Most releases that are remembered as failed, and most entries of the history; the oldest go.
const MAX_BARRED: usize = 100;
const MAX_HISTORY: usize = 500;
const STATE: &str = "state.json";
const HISTORY: &str = "history.json";
const RELEASE: &str = "release.json";

/// A release in the other slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Staged {
    /// Its version.
    pub version: String,
    /// Its slot's letter.
    pub slot: char,
    /// Whether the firmware was told to start it: when the machine then runs another slot, it has failed.
    pub armed: bool,
    /// Whether it was there before, and somebody goes back to it.
    pub back: bool,
    /// When it was staged, seconds since 1970.
    pub time: i64,
    /// Whether somebody has asked for the restart into it: then neither policy nor windows hold it.
    #[serde(default)]
    pub now: bool,
}

/// A place of the reboot lock, wanted or held. It is noted before it is asked for, so that it is never held without being known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// By which it is known.
    pub token: String,
    /// The release that it is for; none for a restart without one.
    pub to: Option<String>,
    /// Why, for others to read.
    pub reason: String,
    /// How far it is.
    pub phase: PlacePhase,
}

/// How far it is with a place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PlacePhase {
    /// Asked for; perhaps held.
    Wanted,
    /// Held.
    Held,
    /// Given back, once the machine is well.
    Leaving {
        /// Whether the release that it was for is good.
        good: bool,
    },
    /// Kept: the release that it was for has failed.
    Failed {
        /// Why.
        reason: String,
    },
}

/// Attempts that came to nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failures {
    /// The release; empty for failures before one was known.
    pub version: String,
    /// How often in a row.
    pub count: u32,
    /// No attempt before this, seconds since 1970.
    pub not_before: i64,
}

/// The engine's state.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Saved {
    /// What is in the other slot.
    pub staged: Option<Staged>,
    /// What has failed on this machine.
    pub barred: Vec<Barred>,
    /// Attempts that came to nothing.
    pub failures: Failures,
    /// The restart is put off until then, seconds since 1970.
    pub postponed_until: i64,
    /// How often it was put off for a session.
    pub postponements: u32,
    /// The last look at the channel, seconds since 1970.
    pub last_check: Option<i64>,
    /// What it found.
    pub last_result: Option<String>,
    /// A release that lies in the other slot, judged, and cannot start yet (policy `download`).
    pub downloaded: Option<String>,
    /// Why the trial that is about to end has failed: the EFI variable may have no room.
    pub failure: Option<TrialFailure>,
    /// Where the channel wants to be told how it went, by its document as it was trusted last.
    pub collector: Option<String>,
    /// The post-boot hook of this release has not run yet.
    pub post_boot_pending: bool,
    /// A place of the reboot lock.
    pub place: Option<Place>,
    /// Somebody wants a restart without an update, for this reason.
    pub reboot: Option<String>,
}

impl Saved {
    /// Notes that a release has failed.
    pub fn bar(&mut self, barred: Barred) {
        self.barred.retain(|other| other.version != barred.version);
        self.barred.push(barred);
        let surplus = self.barred.len().saturating_sub(MAX_BARRED);
        self.barred.drain(..surplus);
    }
}

/// The files.
#[derive(Debug)]
pub struct Files {
    store: FolderStore,
}

fn fail(error: impl std::fmt::Display) -> UpdateError {
    UpdateError::State(error.to_string())
}

impl Files {
    /// Opens the folder, and makes it if it is not there.
    pub fn open(folder: &Path) -> Result<Self, UpdateError> {
        Ok(Self { store: FolderStore::open(folder).map_err(fail)? })
    }

    fn read<T: for<'a> Deserialize<'a> + Default>(&self, name: &str) -> Result<T, UpdateError> {
        match self.store.read(name).map_err(fail)? {
            None => Ok(T::default()),
            Some(bytes) => {
                serde_json::from_slice(&bytes).map_err(|error| fail(format!("`{name}` is damaged: {error}")))
            }
        }
    }

    fn write<T: Serialize>(&mut self, name: &str, value: &T) -> Result<(), UpdateError> {
        let bytes = serde_json::to_vec(value).map_err(fail)?;
        self.store.write(name, &bytes).map_err(fail)
    }

    /// The state; a damaged one is an error and is not replaced.
    pub fn state(&self) -> Result<Saved, UpdateError> {
        self.read(STATE)
    }

    /// Replaces the state.
    pub fn set_state(&mut self, saved: &Saved) -> Result<(), UpdateError> {
        self.write(STATE, saved)
    }

    /// The history, the oldest first.
    pub fn history(&self) -> Result<Vec<HistoryEntry>, UpdateError> {
        self.read(HISTORY)
    }

    /// Appends to the history.
    pub fn note(&mut self, entry: HistoryEntry) -> Result<(), UpdateError> {
        let mut history = self.history()?;
        history.push(entry);
        let surplus = history.len().saturating_sub(MAX_HISTORY);
        history.drain(..surplus);
        self.write(HISTORY, &history)
    }

    /// The description of the staged release, as the channel has it.
    pub fn release(&self) -> Result<Option<Vec<u8>>, UpdateError> {
        self.store.read(RELEASE).map_err(fail)
    }

    /// Replaces it.
    pub fn set_release(&mut self, bytes: &[u8]) -> Result<(), UpdateError> {
        self.store.write(RELEASE, bytes).map_err(fail)
    }
}
