//! Which suites packages come from, and which of them is preferred.

use crate::Error;
use crate::local::LocalDeb;
use crate::locked::LOCAL;
use crate::preferences::Pin;
use crate::relation::is_name;
use crate::release::{parse_timestamp, show_date, show_timestamp};
use crate::transport::check_mirror;
use std::path::PathBuf;

/// The keyrings of Debian's archive as the package `debian-archive-keyring` installs them: first of Debian 13,
/// then of Debian 12. Those that are there are used.
pub const DEFAULT_KEYRINGS: &[&str] =
    &["/usr/share/keyrings/debian-archive-keyring.pgp", "/usr/share/keyrings/debian-archive-keyring.gpg"];

/// One suite, and where it is.
#[derive(Debug, Clone)]
pub struct Suite {
    /// URL of the archive (`http`, `https` or `file`).
    pub mirror: String,
    /// Codename (`trixie`) or suite (`stable`).
    pub suite: String,
    /// Components (`main`).
    pub components: Vec<String>,
    /// Debian's name of the architecture (`amd64`).
    pub architecture: String,
    /// OpenPGP keyrings; see [`DEFAULT_KEYRINGS`]. One that is not there is passed over, but one must be.
    pub keyring: Vec<PathBuf>,
}

/// One suite of several.
#[derive(Debug, Clone)]
pub struct SuiteSource {
    /// Its name in messages, pins and the lock file: the suite's, unless two sources have the same suite. `local` is
    /// taken.
    pub name: String,
    /// Where it is. All sources have the same architecture.
    pub suite: Suite,
    /// Priority of its packages (apt_preferences(5)). Without one it is 500, or what the suite says of itself: 100 with
    /// `NotAutomatic` and `ButAutomaticUpgrades` (backports), 1 with `NotAutomatic` alone (experimental).
    pub priority: Option<i32>,
    /// The suite as it was at this time.
    pub snapshot: Option<Snapshot>,
    /// Take an index that is not valid any more.
    pub allow_expired: bool,
}

impl SuiteSource {
    /// With the suite's name, its own priority, as it is now.
    pub fn new(suite: Suite) -> Self {
        Self { name: suite.suite.clone(), suite, priority: None, snapshot: None, allow_expired: false }
    }

    /// The URL below which `dists/` and `pool/` lie: of the mirror, or of the snapshot.
    ///
    /// # Errors
    /// Fails when mirror or template make no URL that can be used.
    pub fn base_url(&self) -> Result<String, Error> {
        let mirror = check_mirror(&self.suite.mirror)?;
        let Some(snapshot) = &self.snapshot else { return Ok(mirror.to_owned()) };
        if !snapshot.template.contains("{timestamp}") {
            let why = "the template of a snapshot's URL needs `{timestamp}`".to_owned();
            return Err(Error::BadMirror { url: snapshot.template.clone(), why });
        }
        let timestamp = show_timestamp(snapshot.seconds);
        let url = snapshot.template.replace("{mirror}", mirror).replace("{timestamp}", &timestamp);
        check_mirror(&url).map(str::to_owned)
    }
}

/// A time at which a mirror has kept its suites.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Seconds since 1970.
    seconds: i64,
    template: String,
}

impl Snapshot {
    /// Where snapshots lie if the recipe does not say: below the mirror.
    pub const TEMPLATE: &str = "{mirror}/{timestamp}";

    /// The snapshot of `date`, written `2026-11-01T00:00:00Z` or `20261101T000000Z`. `template` is the URL of a snapshot:
    /// `{mirror}` in it is replaced by the mirror's URL and `{timestamp}` by `YYYYMMDDTHHMMSSZ`;
    /// [`Snapshot::TEMPLATE`] otherwise.
    ///
    /// # Errors
    /// [`Error::BadSnapshot`] when it is no date.
    pub fn parse(date: &str, template: Option<&str>) -> Result<Self, Error> {
        let seconds = parse_timestamp(date).ok_or_else(|| Error::BadSnapshot(date.to_owned()))?;
        Ok(Self { seconds, template: template.unwrap_or(Self::TEMPLATE).to_owned() })
    }

    /// Seconds since 1970.
    pub fn seconds(&self) -> i64 {
        self.seconds
    }
}

impl std::fmt::Display for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&show_date(self.seconds))
    }
}

/// All that packages are chosen from.
#[derive(Debug, Clone, Default)]
pub struct Suites {
    /// The suites. Of a version that several have, the first one's package file is taken.
    pub sources: Vec<SuiteSource>,
    /// Exceptions from the sources' priorities, the first that fits counts.
    pub pins: Vec<Pin>,
    /// Local package files ([`crate::read_local_debs`]), with priority [`crate::LOCAL_PRIORITY`].
    pub local: Vec<LocalDeb>,
}

impl Suites {
    /// The architecture that all sources have.
    pub(crate) fn check(&self) -> Result<String, Error> {
        let bad = |name: &str, why: &str| Error::BadSource { name: name.to_owned(), why: why.to_owned() };
        let first = self.sources.first().ok_or_else(|| bad("", "no source is given"))?;
        for (at, source) in self.sources.iter().enumerate() {
            let name = source.name.as_str();
            if name == LOCAL || !is_name(name) {
                return Err(bad(name, "this cannot be its name"));
            }
            if self.sources.iter().take(at).any(|other| other.name == name) {
                return Err(bad(name, "another source has this name; give one of them a name of its own"));
            }
            if source.suite.architecture != first.suite.architecture {
                return Err(bad(name, "it has another architecture than the first source"));
            }
        }
        for pin in &self.pins {
            pin.check()?;
        }
        Ok(first.suite.architecture.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(mirror: &str, snapshot: Option<(&str, Option<&str>)>) -> Result<String, String> {
        let suite = Suite {
            mirror: mirror.into(),
            suite: "trixie".into(),
            components: vec!["main".into()],
            architecture: "amd64".into(),
            keyring: Vec::new(),
        };
        let snapshot = snapshot.map(|(date, template)| Snapshot::parse(date, template)).transpose();
        let snapshot = snapshot.map_err(|error| error.to_string())?;
        let source = SuiteSource { snapshot, ..SuiteSource::new(suite) };
        source.base_url().map_err(|error| error.to_string())
    }

    #[test]
    fn urls_of_snapshots() {
        let date = "2026-11-01T00:00:00Z";
        let mirror = "http://m.example/debian/";
        assert_eq!(source(mirror, None).unwrap(), "http://m.example/debian");
        assert_eq!(source(mirror, Some((date, None))).unwrap(), "http://m.example/debian/20261101T000000Z");
        let template = Some("https://s.example/archive/{timestamp}/");
        assert_eq!(
            source(mirror, Some((date, template))).unwrap(),
            "https://s.example/archive/20261101T000000Z"
        );
        assert!(
            source(mirror, Some((date, Some("{mirror}/x")))).unwrap_err().contains("needs `{timestamp}`")
        );
        assert!(
            source(mirror, Some((date, Some("{timestamp}")))).unwrap_err().contains("is not a URL")
                || source(mirror, Some((date, Some("{timestamp}")))).is_err()
        );
        assert!(source(mirror, Some(("yesterday", None))).unwrap_err().contains("`yesterday`"));
    }
}
