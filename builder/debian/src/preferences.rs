//! Which version of a package is the candidate (apt_preferences(5)): of the versions with the highest priority the
//! highest one.

use crate::Error;
use crate::version::compare_versions;
use std::cmp::Ordering;

/// Priority of local package files: above every suite's, so that a local file is taken whatever versions the suites have,
/// as with `apt install ./file.deb`. A pin on suite `local` changes it.
pub const LOCAL_PRIORITY: i32 = 1001;

/// What a pin looks at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PinTo {
    /// Versions that a source has whose name, suite or codename fits this pattern.
    Suite(String),
    /// Versions that fit this pattern (`5.10.*`).
    Version(String),
}

/// An exception from the sources' priorities. In patterns `*` stands for any characters and `?` for one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pin {
    /// Names of packages, or patterns. A lone `*` makes the pin one for all packages, which counts only for those that no
    /// other pin fits.
    pub packages: Vec<String>,
    /// Which of their versions.
    pub to: PinTo,
    /// Their priority; a negative one forbids them.
    pub priority: i32,
}

impl Pin {
    pub(crate) fn check(&self) -> Result<(), Error> {
        let bad = |why: &str| Error::BadPin { packages: self.packages.join(" "), why: why.to_owned() };
        let (PinTo::Suite(pattern) | PinTo::Version(pattern)) = &self.to;
        if self.priority == 0 {
            return Err(bad("a priority of 0 means nothing; a negative one forbids the packages"));
        }
        if self.packages.is_empty() || self.packages.iter().any(String::is_empty) || pattern.is_empty() {
            return Err(bad("it names nothing"));
        }
        Ok(())
    }

    /// Whether it is for all packages (apt's general form).
    fn is_general(&self) -> bool {
        self.packages.iter().all(|pattern| pattern == "*")
    }

    fn fits(&self, version: &str, source: &SourceNames) -> bool {
        match &self.to {
            PinTo::Version(pattern) => glob(pattern, version),
            PinTo::Suite(pattern) => source.names().any(|name| glob(pattern, name)),
        }
    }
}

/// What a source is called.
#[derive(Debug, Clone, Default)]
pub(crate) struct SourceNames {
    pub(crate) name: String,
    pub(crate) suite: Option<String>,
    pub(crate) codename: Option<String>,
    pub(crate) priority: i32,
}

impl SourceNames {
    fn names(&self) -> impl Iterator<Item = &str> {
        [Some(&self.name), self.suite.as_ref(), self.codename.as_ref()]
            .into_iter()
            .flatten()
            .map(String::as_str)
    }
}

/// A version of a package in one source.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Instance<'a, T> {
    pub(crate) version: &'a str,
    pub(crate) source: &'a SourceNames,
    pub(crate) record: T,
}

/// What became of the instances of one package.
pub(crate) struct Chosen<T> {
    /// One instance of each version with the highest priority, the highest version first.
    pub(crate) candidates: Vec<T>,
    /// Versions with a lower priority or a forbidden one, with that.
    pub(crate) passed_over: Vec<(T, i32)>,
    /// Further instances of versions.
    pub(crate) repeated: Vec<T>,
}

/// Chooses among all instances of the package `name`, given in the order of the sources.
pub(crate) fn choose<T: Copy>(name: &str, mut instances: Vec<Instance<T>>, pins: &[Pin]) -> Chosen<T> {
    // Stable, so that of one version the first source's comes first.
    instances.sort_by(|a, b| compare_versions(b.version, a.version));
    let mut versions: Vec<(T, i32)> = Vec::new();
    let mut repeated = Vec::new();
    for same in instances.chunk_by(|a, b| compare_versions(a.version, b.version) == Ordering::Equal) {
        let Some((first, others)) = same.split_first() else { continue };
        versions.push((first.record, priority(name, same, pins)));
        repeated.extend(others.iter().map(|instance| instance.record));
    }
    let top = versions.iter().map(|(_, priority)| *priority).max().unwrap_or_default();
    let (best, passed_over): (Vec<_>, Vec<_>) =
        versions.into_iter().partition(|(_, priority)| *priority == top && top > 0);
    Chosen { candidates: best.into_iter().map(|(record, _)| record).collect(), passed_over, repeated }
}

/// The priority of one version: of the first pin for this package that fits it, otherwise the highest of its sources',
/// each of which may be changed by a pin for all packages.
fn priority<T>(name: &str, same: &[Instance<T>], pins: &[Pin]) -> i32 {
    let for_this = |pin: &&Pin| {
        !pin.is_general()
            && pin.packages.iter().any(|pattern| glob(pattern, name))
            && same.iter().any(|instance| pin.fits(instance.version, instance.source))
    };
    if let Some(pin) = pins.iter().find(for_this) {
        return pin.priority;
    }
    let of_source = |instance: &Instance<T>| {
        pins.iter()
            .find(|pin| pin.is_general() && pin.fits(instance.version, instance.source))
            .map_or(instance.source.priority, |pin| pin.priority)
    };
    same.iter().map(of_source).max().unwrap_or_default()
}

/// Whether a text fits a pattern with `*` and `?`. Takes at most the product of both lengths.
pub(crate) fn glob(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t) = (0, 0);
    // The last star, and where the text after it began.
    let mut star: Option<(usize, usize)> = None;
    while let Some(byte) = text.get(t) {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(wanted) if *wanted == b'?' || wanted == byte => {
                p += 1;
                t += 1;
            }
            _ => match star {
                // The star takes one byte more.
                Some((at, from)) => {
                    star = Some((at, from + 1));
                    p = at + 1;
                    t = from + 1;
                }
                None => return false,
            },
        }
    }
    pattern.get(p..).unwrap_or_default().iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs() {
        for (pattern, text) in [
            ("*", ""),
            ("a*", "a"),
            ("a*c", "abcbc"),
            ("?b*", "ab"),
            ("*-*-?", "a-b-c-d"),
            ("5.10.*", "5.10.1"),
        ] {
            assert!(glob(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in
            [("", "a"), ("a", ""), ("a*c", "abcb"), ("?", ""), ("*a", "b"), ("5.10*", "5.1")]
        {
            assert!(!glob(pattern, text), "{pattern} {text}");
        }
        assert!(!glob(&"*a".repeat(500), &"a".repeat(499)));
    }

    fn names(name: &str, priority: i32) -> SourceNames {
        SourceNames { name: name.into(), priority, ..SourceNames::default() }
    }

    fn chosen(versions: &[(&str, &SourceNames)], pins: &[Pin]) -> (Vec<usize>, Vec<(usize, i32)>) {
        let instances = versions.iter().enumerate();
        let instances = instances.map(|(record, (version, source))| Instance { version, source, record });
        let chosen = choose("perl", instances.collect(), pins);
        (chosen.candidates, chosen.passed_over)
    }

    fn pin(package: &str, to: PinTo, priority: i32) -> Pin {
        Pin { packages: vec![package.into()], to, priority }
    }

    #[test]
    fn the_highest_priority_wins_then_the_highest_version() {
        let (stable, backports) = (names("stable", 500), names("backports", 100));
        let (updates, experimental) = (names("updates", 500), names("experimental", 1));
        let all = [("1", &stable), ("3", &backports), ("2", &updates), ("4", &experimental)];
        assert_eq!(chosen(&all, &[]), (vec![2, 0], vec![(3, 1), (1, 100)]));
        // A version that two sources have has the higher of their priorities, and is the first one's.
        assert_eq!(chosen(&[("3", &backports), ("3", &stable), ("2", &updates)], &[]).0, [0, 2]);
    }

    #[test]
    fn pins_follow_apt() {
        let (stable, testing) = (names("stable", 500), names("testing", 500));
        let all = [("5.10.1", &stable), ("5.12", &testing)];
        let suite = |name: &str| PinTo::Suite(name.into());
        let version = |pattern: &str| PinTo::Version(pattern.into());
        assert_eq!(chosen(&all, &[]).0, [1, 0]);
        assert_eq!(chosen(&all, &[pin("perl", version("5.10*"), 1001)]).0, [0]);
        assert_eq!(chosen(&all, &[pin("p*", suite("stab??"), 900)]).0, [0]);
        assert_eq!(chosen(&all, &[pin("*", suite("testing"), 50)]).0, [0]);
        // The one for this package counts before one for all, in whatever order they are.
        let pins = [pin("*", suite("testing"), 50), pin("perl", suite("testing"), 600)];
        assert_eq!(chosen(&all, &pins).0, [1]);
        // The first of two that fit counts.
        let pins = [pin("perl", suite("*"), 300), pin("perl", suite("testing"), 600)];
        assert_eq!(chosen(&all, &pins).0, [1, 0]);
        // A negative one forbids.
        assert_eq!(chosen(&all, &[pin("perl", suite("*"), -1)]), (vec![], vec![(1, -1), (0, -1)]));
        assert_eq!(chosen(&all, &[pin("perl", version("5.12"), -1)]).0, [0]);
        for bad in [pin("", suite("x"), 1), pin("a", suite(""), 1), pin("a", suite("x"), 0)] {
            assert!(bad.check().is_err(), "{bad:?}");
        }
    }
}
