//! `[debian]`: where packages come from.

use super::{HostPath, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `[debian]`
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Debian {
    /// Suite.
    pub suite: String,
    /// Components of the suite.
    pub components: Vec<String>,
    /// Mirror; from the build host's apt sources otherwise.
    pub mirror: Option<String>,
    /// Keyrings that verify the suite; Debian's archive keyring otherwise.
    pub keyring: Vec<HostPath>,
    /// Take the archive as it was at this time, from `snapshot-mirror`.
    pub snapshot: Option<Timestamp>,
    /// URL of a mirror that keeps old states; `{timestamp}` in it becomes the time as `20261101T000000Z`.
    pub snapshot_mirror: Option<String>,
    /// Take an index though its `Valid-Until` has passed.
    pub allow_expired: bool,
    /// Further suites.
    #[serde(rename = "source")]
    pub sources: Vec<Suite>,
    /// Rules of preference, as in apt_preferences(5).
    #[serde(rename = "pin")]
    pub pins: Vec<Pin>,
    /// Package files, or folders of such, on the build host; preferred to every mirror.
    pub local: Vec<HostPath>,
}

impl Default for Debian {
    fn default() -> Self {
        Self {
            suite: "trixie".into(),
            components: vec!["main".into()],
            mirror: None,
            keyring: Vec::new(),
            snapshot: None,
            snapshot_mirror: None,
            allow_expired: false,
            sources: Vec::new(),
            pins: Vec::new(),
            local: Vec::new(),
        }
    }
}

/// `[[debian.source]]`: one more suite.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Suite {
    /// Suite, such as `trixie-security`.
    pub suite: String,
    /// Its components; those of `[debian]` otherwise.
    pub components: Option<Vec<String>>,
    /// Its mirror; that of `[debian]` otherwise.
    pub mirror: Option<String>,
    /// Keyrings that verify it; those of `[debian]` otherwise.
    #[serde(default)]
    pub keyring: Vec<HostPath>,
    /// Priority, as in apt_preferences(5); 500 unless given.
    pub priority: Option<i32>,
}

/// `[[debian.pin]]`: a preference.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Pin {
    /// Globs of package names.
    pub packages: Vec<String>,
    /// Only in this suite.
    pub suite: Option<String>,
    /// Only versions that this glob fits.
    pub version: Option<String>,
    /// Priority; below zero means never.
    pub priority: i32,
}

impl Debian {
    /// All suites in order, the first one included, with their components filled in.
    pub fn suites(&self) -> Vec<Suite> {
        let first = Suite {
            suite: self.suite.clone(),
            components: Some(self.components.clone()),
            mirror: self.mirror.clone(),
            keyring: self.keyring.clone(),
            priority: None,
        };
        let further = self.sources.iter().map(|source| Suite {
            components: Some(source.components.clone().unwrap_or_else(|| self.components.clone())),
            keyring: if source.keyring.is_empty() { self.keyring.clone() } else { source.keyring.clone() },
            ..source.clone()
        });
        std::iter::once(first).chain(further).collect()
    }
}
