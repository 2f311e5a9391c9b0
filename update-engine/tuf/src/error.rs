//! Why metadata or a target was refused.

use ashlar_fetch::FetchError;
use std::fmt;

/// A role of the repository.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Which keys count for what.
    Root,
    /// What the newest snapshot is.
    Timestamp,
    /// Which version of each targets role belongs together.
    Snapshot,
    /// The top role of targets.
    Targets,
    /// A role that another targets role delegates to.
    Delegated(String),
}

impl Role {
    /// Its name in metadata.
    pub fn name(&self) -> &str {
        match self {
            Self::Root => "root",
            Self::Timestamp => "timestamp",
            Self::Snapshot => "snapshot",
            Self::Targets => "targets",
            Self::Delegated(name) => name,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Names are from outside: nothing of them may move a terminal's cursor.
        write!(f, "{}", self.name().escape_debug())
    }
}

/// Why something was refused. Nothing was kept when this comes back, but what had been accepted before.
#[derive(Debug, thiserror::Error)]
pub enum TufError {
    /// The bytes are no metadata.
    #[error("the {role} metadata is malformed: {reason}")]
    Malformed {
        /// Which role.
        role: Role,
        /// What is wrong.
        reason: String,
    },
    /// It is metadata of another type.
    #[error("the {role} metadata says that it is `{found}`")]
    WrongType {
        /// Which role was looked for.
        role: Role,
        /// What it says.
        found: String,
    },
    /// Too few good signatures.
    #[error("the {role} metadata has {valid} good signatures of different keys, and {threshold} are needed")]
    Threshold {
        /// Which role.
        role: Role,
        /// Good signatures by keys of the role, each key counted once.
        valid: usize,
        /// How many are needed.
        threshold: u32,
    },
    /// A root that does not follow the trusted one.
    #[error("root version {found} does not follow version {trusted}: no root may be left out")]
    RootSkipped {
        /// The trusted version.
        trusted: u64,
        /// What came.
        found: u64,
    },
    /// Older than what was seen before.
    #[error("{role} version {found} is older than version {trusted}, which was seen before: a rollback")]
    Rollback {
        /// Which role.
        role: Role,
        /// What was seen.
        trusted: u64,
        /// What came.
        found: u64,
    },
    /// A role that the snapshot before listed is gone.
    #[error("the new snapshot no longer lists {0}: a rollback")]
    Removed(String),
    /// Not the version that belongs there.
    #[error("{role} version {found} does not belong to this snapshot, which has version {wanted}")]
    Mixed {
        /// Which role.
        role: Role,
        /// The version that is listed.
        wanted: u64,
        /// What came.
        found: u64,
    },
    /// The snapshot does not list the role.
    #[error("the snapshot does not list {0}")]
    NotListed(Role),
    /// It has expired.
    #[error("the {role} metadata expired at {expires}, and it is {now}")]
    Expired {
        /// Which role.
        role: Role,
        /// When, RFC 3339.
        expires: String,
        /// The clock, RFC 3339.
        now: String,
    },
    /// Length or hash differs from what the metadata above says.
    #[error("{what} is not what was signed: {reason}")]
    Differs {
        /// Which file.
        what: String,
        /// Its length, or which hash.
        reason: String,
    },
    /// There is no such target.
    #[error("no role of the repository has a target `{}`", .0.escape_debug())]
    NoTarget(String),
    /// A name that would lead out of the repository.
    #[error("`{}` is no name for a target", .0.escape_debug())]
    BadName(String),
    /// The root that the trust begins with does not name the key that it is trusted by.
    #[error("version 1 of the root is not signed by the channel's key `{0}`")]
    NotOwnRoot(String),
    /// The clock is wrong.
    #[error("the clock says {now}, but {known} is past already: {why}")]
    ClockBehind {
        /// The clock, RFC 3339.
        now: String,
        /// What cannot be later than now, RFC 3339.
        known: String,
        /// Where that is known from.
        why: &'static str,
    },
    /// What the client knows cannot be read.
    #[error("the trust state {what} cannot be used: {reason}")]
    Store {
        /// Which file.
        what: String,
        /// Why not.
        reason: String,
    },
    /// The source failed.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// The repository that is changed is not as it should be.
    #[error("the repository: {0}")]
    Repository(String),
}
