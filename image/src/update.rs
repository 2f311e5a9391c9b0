//! What the update engine and `ashlarctl` say to each other.
//!
//! The engine listens on [`UPDATE_SOCKET`]. One connection carries one [`UpdateRequest`] and its [`UpdateAnswer`], each a
//! line of JSON of at most [`MAX_LINE`](crate::control::MAX_LINE) bytes. After [`UpdateRequest::Bundle`] follow the bytes of
//! the bundle.

use crate::control::Refusal;
use serde::{Deserialize, Serialize};

/// The engine's socket, mode 0660.
pub const UPDATE_SOCKET: &str = "/run/ashlar/update.sock";
/// Name of the service.
pub const UPDATE_SERVICE: &str = "update";
/// The engine's program.
pub const UPDATE_PATH: &str = "/usr/lib/ashlar/ashlar-update";
/// What the engine keeps.
pub const UPDATE_FOLDER: &str = "/var/lib/ashlar/update";
/// Largest offline bundle in bytes.
pub const MAX_BUNDLE: u64 = 16 << 30;

/// What somebody asks of the engine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "kebab-case", deny_unknown_fields)]
pub enum UpdateRequest {
    /// [`UpdateReply::Status`].
    Status,
    /// Looks at the channel now and waits for the result; [`UpdateReply::Status`].
    Check,
    /// What [`Self::Stage`] would do, without doing it; [`UpdateReply::Plan`].
    Plan(Choice),
    /// Fetches a release and writes it to the slot that does not run; begun only: [`UpdateReply::Status`] tells how far it is.
    Stage(Choice),
    /// The same, then restarts into it, without waiting for a window.
    Apply(Choice),
    /// Ends what is under way; what is staged is not started.
    Cancel,
    /// Restarts into the other slot, if it holds a whole release.
    Rollback,
    /// Puts off the restart into a staged release.
    Postpone {
        /// For how long, in seconds; at most a week.
        seconds: u64,
    },
    /// What was done; [`UpdateReply::History`].
    History,
    /// What was decided in the last day; [`UpdateReply::Why`].
    Why,
    /// Lets a release that has failed here be tried again.
    Unbar {
        /// Its version.
        version: String,
    },
    /// Restarts once the machine has a place of the reboot lock, without an update; without a lock, at once.
    Reboot {
        /// Why, for others to read.
        reason: String,
    },
    /// The certificate of the key by which etcd knows the machine; [`UpdateReply::Identity`].
    Identity,
    /// [`UpdateReply::Metrics`].
    Metrics,
    /// An offline bundle of `size` bytes follows; it is staged and, where `restart` says so, started.
    Bundle {
        /// Size in bytes; at most [`MAX_BUNDLE`].
        size: u64,
        /// Whether to restart into it.
        restart: bool,
    },
}

/// Which release.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Choice {
    /// This version; the one that the channel offers without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Do not wait for the machine's turn in a rollout.
    #[serde(default)]
    pub now: bool,
    /// Also one that has failed on this machine.
    #[serde(default)]
    pub force: bool,
}

/// The engine's answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UpdateAnswer {
    /// It went well.
    Ok(UpdateReply),
    /// It did not.
    Error(Refusal),
}

/// What went well.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UpdateReply {
    /// The engine's state.
    Status(Box<UpdateStatus>),
    /// What would be done.
    Plan(Box<UpdatePlan>),
    /// What was done, the oldest first.
    History(Vec<HistoryEntry>),
    /// What was decided, the oldest first.
    Why(Vec<WhyEntry>),
    /// OpenMetrics text.
    Metrics(String),
    /// By what etcd knows the machine.
    Identity(LockIdentity),
}

/// The machine's key for the reboot lock; the key itself stays on its state volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockIdentity {
    /// The certificate that it has signed itself, in PEM.
    pub certificate: String,
    /// A request for a certificate (PKCS #10), in PEM.
    pub request: String,
}

/// Where the engine is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UpdatePhase {
    /// Nothing is to be done.
    #[default]
    Idle,
    /// The channel is looked at.
    Checking,
    /// There is an update, and it was not begun.
    Available,
    /// It is fetched and written.
    Staging,
    /// It is in the other slot, whole, and will be started when its time comes.
    Staged,
    /// It is in the other slot, its time has come, and it waits for a place of the reboot lock.
    Locking,
    /// The hook before the restart runs, or the restart has begun.
    Restarting,
    /// A release runs for the first time and is judged.
    Trial,
}

impl UpdatePhase {
    /// As in JSON, for people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Checking => "checking",
            Self::Available => "available",
            Self::Staging => "staging",
            Self::Staged => "staged",
            Self::Locking => "locking",
            Self::Restarting => "restarting",
            Self::Trial => "trial",
        }
    }
}

/// How far staging is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct UpdateProgress {
    /// Bytes that were fetched.
    pub fetched: u64,
    /// Bytes to fetch.
    pub to_fetch: u64,
    /// Bytes that were written or read back.
    pub done: u64,
    /// Bytes to write and read back.
    pub to_do: u64,
}

/// The engine's state.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct UpdateStatus {
    /// Where it is.
    pub phase: UpdatePhase,
    /// The release that runs.
    pub running: String,
    /// Its slot: `a` or `b`.
    pub slot: String,
    /// The release that phase and progress are about.
    pub target: Option<String>,
    /// How far staging is.
    pub progress: Option<UpdateProgress>,
    /// What comes next and when, for people.
    pub next: String,
    /// What the last look at the channel found, for people.
    pub last_result: Option<String>,
    /// When it was, seconds since 1970.
    pub last_check: Option<i64>,
    /// The last thing that went wrong, for people.
    pub last_error: Option<String>,
    /// Releases that have failed on this machine, with the reason.
    pub barred: Vec<Barred>,
    /// The address of the channel and its name; none without one.
    pub channel: Option<String>,
    /// `off`, `download`, `stage`, `automatic`.
    pub policy: String,
    /// The reboot lock, where the machine configuration names one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lock: Option<LockStatus>,
}

/// What the machine has to do with the reboot lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LockPhase {
    /// Nothing.
    #[default]
    None,
    /// It waits for a place.
    Waiting,
    /// It has one.
    Held,
    /// It has one, and keeps it because the release has failed that it was for.
    Failed,
    /// It gives its place back.
    Leaving,
}

impl LockPhase {
    /// For people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "no place",
            Self::Waiting => "waits for a place",
            Self::Held => "has a place",
            Self::Failed => "keeps its place: the release has failed",
            Self::Leaving => "gives its place back",
        }
    }
}

/// The reboot lock as the machine sees it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LockStatus {
    /// The group.
    pub group: String,
    /// What the machine has to do with it.
    pub phase: LockPhase,
    /// Why it waits or keeps its place, for people.
    pub detail: Option<String>,
    /// What is wrong with the lock's server, for people: then the machine does not restart by itself.
    pub problem: Option<String>,
    /// Since when, seconds since 1970.
    pub problem_since: Option<i64>,
    /// Places that are free; none as long as it is not known (FleetLock does not tell).
    pub available: Option<u32>,
    /// Places in all.
    pub max: Option<u32>,
    /// Who is down.
    pub holders: Vec<LockHolder>,
    /// Releases that are stopped in the group, with the reason.
    pub stopped: Vec<String>,
}

/// A machine that is down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockHolder {
    /// Its machine ID.
    pub id: String,
    /// Since when, seconds since 1970.
    pub since: i64,
    /// Why.
    pub reason: String,
    /// Why it has failed, if it has.
    pub failure: Option<String>,
    /// Whether it has been silent for longer than the group allows.
    pub gone: bool,
}

/// A release that has failed here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Barred {
    /// Its version.
    pub version: String,
    /// Which check failed.
    pub check: String,
    /// What it said.
    pub reason: String,
    /// When it was noted, seconds since 1970.
    pub time: i64,
}

/// What staging would do.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct UpdatePlan {
    /// The release.
    pub version: String,
    /// The slot that is written: `a` or `b`.
    pub slot: String,
    /// What each partition needs.
    pub parts: Vec<PlanPart>,
    /// Bytes that are fetched in all, without what the protocol adds.
    pub fetch_bytes: u64,
    /// Requests.
    pub requests: u64,
    /// Whether the state volume will open: none if it will, else why not.
    pub state_volume: Option<String>,
    /// What stands in the way of the update; empty if nothing does.
    pub obstacles: Vec<String>,
    /// The steps, for people.
    pub steps: Vec<String>,
    /// The checks that decide whether the release stays.
    pub checks: Vec<String>,
    /// When the machine would restart, for people.
    pub restart: String,
    /// What is new, as the owner says.
    pub notes: Option<String>,
}

/// What one partition needs, in blocks of 4096 bytes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PlanPart {
    /// `root`, `esp`.
    pub part: String,
    /// Blocks that are in their place.
    pub keep: u64,
    /// Blocks that are copied from the slot that runs.
    pub copy: u64,
    /// Blocks of zeros.
    pub zero: u64,
    /// Blocks that are fetched.
    pub fetch: u64,
    /// Bytes that are fetched for them.
    pub bytes: u64,
}

/// Something that was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryEntry {
    /// When, seconds since 1970.
    pub time: i64,
    /// The release.
    pub version: String,
    /// `staged`, `started`, `committed`, `failed`, `cancelled`, `rolled-back`.
    pub what: String,
    /// More, for people.
    pub detail: String,
}

/// Something that was decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WhyEntry {
    /// When it was decided last, seconds since 1970.
    pub time: i64,
    /// How often it was decided in a row.
    pub times: u32,
    /// What and why.
    pub decision: String,
}
