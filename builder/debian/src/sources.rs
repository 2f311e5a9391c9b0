//! The build host's apt sources (sources.list(5)): which mirror is near.

use crate::error::Error;
use crate::stanza::stanzas;
use crate::transport::check_mirror;
use std::path::{Path, PathBuf};

/// Names of suites that Debian has, without what follows a dash (`trixie-updates`).
const SUITES: &[&str] = &[
    "stable",
    "oldstable",
    "oldoldstable",
    "testing",
    "unstable",
    "experimental",
    "sid",
    "buster",
    "bullseye",
    "bookworm",
    "trixie",
    "forky",
    "duke",
];

/// What may follow the dash: suites that lie in the same archive.
const PARTS: &[&str] = &["", "updates", "proposed-updates", "backports", "backports-sloppy"];

/// One archive that apt would use.
struct Source {
    uri: String,
    suite: String,
    components: Vec<String>,
}

/// How surely a source is Debian's main archive, or a mirror of it.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Likeness {
    /// Either the suite or the path has a name that Debian uses; some archives of others have that too.
    Some,
    /// Both have.
    Full,
}

impl Source {
    fn likeness(&self) -> Option<Likeness> {
        let (name, rest) = self.suite.split_once('-').unwrap_or((&self.suite, ""));
        let suite = SUITES.contains(&name) && PARTS.contains(&rest);
        let path = self.uri.trim_end_matches('/');
        let other = self.suite.contains("security")
            || self.suite.ends_with("/updates")
            || ["-security", "-debug", "-ports"].iter().any(|ending| path.ends_with(ending));
        let usable =
            check_mirror(&self.uri).is_ok() && self.components.iter().any(|component| component == "main");
        match (usable && !other, suite, path.ends_with("/debian")) {
            (true, true, true) => Some(Likeness::Full),
            (true, true, false) | (true, false, true) => Some(Likeness::Some),
            _ => None,
        }
    }
}

/// The first enabled Debian archive among the build host's apt sources, without a slash at its end. Security
/// updates and the archives of others are passed over, and so are methods that only apt has
/// (`mirror+file:`, `cdrom:`).
pub fn host_mirror() -> Result<String, Error> {
    mirror_in(Path::new("/etc/apt"))
}

/// As [`host_mirror`], with the folder that holds `sources.list` and `sources.list.d`.
pub fn mirror_in(apt: &Path) -> Result<String, Error> {
    let mut files = vec![apt.join("sources.list")];
    let mut more: Vec<PathBuf> = std::fs::read_dir(apt.join("sources.list.d"))
        .into_iter()
        .flatten()
        .flatten()
        .map(|e| e.path())
        .collect();
    more.sort();
    files.extend(more);
    let mut best: Option<(Likeness, String)> = None;
    for file in files {
        let extension = file.extension().and_then(|extension| extension.to_str());
        // A file that cannot be read is apt's business; the next one may name a mirror.
        let Ok(text) = std::fs::read_to_string(&file) else { continue };
        let sources = match extension {
            Some("list") => one_line(&text),
            Some("sources") => deb822(&text),
            _ => continue,
        };
        for source in sources {
            let Some(likeness) = source.likeness() else { continue };
            if best.as_ref().is_none_or(|(best, _)| likeness > *best) {
                best = Some((likeness, source.uri.trim_end_matches('/').to_owned()));
            }
        }
    }
    best.map(|(_, uri)| uri).ok_or_else(|| Error::NoMirror(apt.to_owned()))
}

/// `deb [signed-by=… arch=…] URI SUITE COMPONENT…`
fn one_line(text: &str) -> Vec<Source> {
    let source = |line: &str| {
        let line = line.split('#').next()?.trim();
        let mut rest = line.strip_prefix("deb")?;
        if !rest.starts_with([' ', '\t', '[']) {
            return None;
        }
        rest = rest.trim_start();
        if let Some(options) = rest.strip_prefix('[') {
            rest = options.split_once(']')?.1;
        }
        let mut words = rest.split_whitespace().map(str::to_owned);
        Some(Source { uri: words.next()?, suite: words.next()?, components: words.collect() })
    };
    text.lines().filter_map(source).collect()
}

/// Stanzas with `Types`, `URIs`, `Suites`, `Components` and `Enabled`.
fn deb822(text: &str) -> Vec<Source> {
    let mut sources = Vec::new();
    for stanza in stanzas(text) {
        let words = |name| -> Vec<String> {
            let lines = stanza.field(name).unwrap_or("").lines();
            lines
                .filter(|line| !line.starts_with('#'))
                .flat_map(str::split_whitespace)
                .map(str::to_owned)
                .collect()
        };
        let off = ["no", "false", "0", "off", "disable", "without"];
        let disabled =
            stanza.field("Enabled").is_some_and(|value| off.contains(&value.to_ascii_lowercase().as_str()));
        if disabled || !words("Types").iter().any(|kind| kind == "deb") {
            continue;
        }
        for uri in words("URIs") {
            for suite in words("Suites") {
                sources.push(Source { uri: uri.clone(), suite, components: words("Components") });
            }
        }
    }
    sources
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mirror(files: &[(&str, &str)]) -> Option<String> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("sources.list.d")).unwrap();
        for (name, text) in files {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        mirror_in(dir.path()).ok()
    }

    #[test]
    fn one_line_format() {
        let text = "# deb http://commented.example/debian trixie main\n\
            deb-src http://src.example/debian trixie main\n\
            deb http://security.example/debian-security trixie-security main\n\
            deb http://security.example/debian-security stretch/updates main\n\
            deb https://third.example/apt stable-x cloud\n\
            deb [arch=amd64 signed-by=/k.gpg] http://near.example/debian/ trixie main contrib # here\n";
        assert_eq!(mirror(&[("sources.list", text)]).as_deref(), Some("http://near.example/debian"));
    }

    #[test]
    fn deb822_format() {
        let text = "Types: deb deb-src\nURIs: mirror+file:/etc/apt/mirrors/debian.list\nSuites: trixie\nComponents: \
            main\n\n\
            Enabled: no\nTypes: deb\nURIs: http://off.example/debian\nSuites: trixie\nComponents: main\n\n\
            Types: deb\n# near.example/2025\nURIs: http://near.example/debian\nSuites: trixie trixie-updates\n\
            Components: main\n";
        let third = "deb https://third.example/node nodistro main\n";
        assert_eq!(
            mirror(&[("sources.list.d/debian.sources", text), ("sources.list.d/a.list", third)]).as_deref(),
            Some("http://near.example/debian")
        );
    }

    #[test]
    fn archives_of_others_with_debian_names_come_last() {
        let third =
            "deb https://third.example/browser/ stable main\ndeb https://db.example/apt trixie-db main\n";
        let own = "deb http://near.example/debian trixie main\n";
        let files = [("sources.list.d/a.list", third), ("sources.list.d/z.list", own)];
        assert_eq!(mirror(&files).as_deref(), Some("http://near.example/debian"));
    }

    #[test]
    fn nothing_that_fits() {
        assert_eq!(mirror(&[]), None);
        let disabled = "deb http://near.example/debian trixie main\n";
        assert_eq!(mirror(&[("sources.list.d/debian.list.disabled", disabled)]), None);
    }
}
