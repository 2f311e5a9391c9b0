//! Which facts of the build host are worth searching for, and what counts as one of them.

use crate::subject::HostFacts;

/// Names that say nothing about a host or a user.
const COMMON: [&str; 26] = [
    "admin",
    "alpine",
    "archlinux",
    "ashlar",
    "build",
    "builder",
    "buildkitsandbox",
    "centos",
    "ci",
    "container",
    "debian",
    "docker",
    "fedora",
    "guest",
    "host",
    "localhost",
    "localhost.localdomain",
    "machine",
    "main",
    "node",
    "root",
    "runner",
    "server",
    "ubuntu",
    "user",
    "workstation",
];

/// Folders too general to say anything.
const GENERAL: [&str; 14] = [
    "/build",
    "/builds",
    "/cache",
    "/dev/shm",
    "/home",
    "/home/user",
    "/opt",
    "/root",
    "/src",
    "/srv",
    "/tmp",
    "/usr",
    "/var/tmp",
    "/workspace",
];

/// A text to search for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Needle {
    /// The text.
    pub text: String,
    /// What it is, for the finding.
    pub what: String,
    /// Whether it must stand alone on both sides; a path must only end there.
    word: bool,
}

impl Needle {
    /// Whether the match at `start..end` of the window is meant, by what stands beside it.
    pub fn fits(&self, window: &[u8], start: usize, end: usize) -> bool {
        let part = |b: &u8| b.is_ascii_alphanumeric() || *b == b'_' || *b == b'-';
        let before = start.checked_sub(1).and_then(|i| window.get(i));
        let longer = window.get(end).is_some_and(part) || (self.word && before.is_some_and(part));
        !longer
    }

    /// Whether the text stands in `bytes`.
    pub fn is_in(&self, bytes: &[u8]) -> bool {
        let text = self.text.as_bytes();
        memchr::memmem::find_iter(bytes, text).any(|at| self.fits(bytes, at, at + text.len()))
    }
}

/// Whether a host name is worth searching for: a dictionary word or a short name stands in too many files.
fn telling(name: &str, own_names: &[String]) -> bool {
    let special = name.bytes().any(|b| b.is_ascii_digit() || b == b'-' || b == b'_');
    name.len() >= if special { 5 } else { 8 }
        && !COMMON.contains(&name)
        && !own_names.iter().any(|own| own == name)
        // `x86-64` and the like: digits with one letter are a version of something.
        && name.bytes().filter(u8::is_ascii_alphabetic).count() >= 2
}

/// A path as it would stand in a file, if it says something: two folders deep and eight characters long.
fn path(path: &str) -> Option<&str> {
    let path = path.trim_end_matches('/');
    let deep = path.starts_with('/') && path.bytes().filter(|b| *b == b'/').count() >= 2;
    (deep && path.len() >= 8 && !GENERAL.contains(&path)).then_some(path)
}

/// What to search for.
pub(crate) fn needles(facts: &HostFacts, own_names: &[String]) -> Vec<Needle> {
    let mut out = Vec::new();
    if let Some(host) = &facts.host_name {
        // The first label of a qualified name finds both.
        let label = host.split('.').next().unwrap_or(host);
        if telling(label, own_names) && !own_names.contains(host) {
            let what = format!("the build host's name, `{label}`");
            out.push(Needle { text: label.to_owned(), what, word: true });
        } else if host.len() > label.len() && host.len() >= 8 && !COMMON.contains(&host.as_str()) {
            out.push(Needle {
                text: host.clone(),
                what: format!("the build host's name, `{host}`"),
                word: true,
            });
        }
    }
    let home_of_user = facts
        .user_name
        .as_ref()
        .filter(|user| user.len() >= 3 && !COMMON.contains(&user.as_str()))
        .map(|user| format!("/home/{user}"));
    let home = facts.home.iter().chain(&home_of_user).map(|path| (path, "the builder's home"));
    let mut paths: Vec<(&str, &str)> = home
        .chain(facts.paths.iter().map(|path| (path, "a folder of the build")))
        .filter_map(|(text, what)| Some((path(text)?, what)))
        .collect();
    paths.sort_by_key(|(path, _)| (path.len(), *path));
    let mut known: Vec<&str> = Vec::new();
    for (path, what) in paths {
        // What lies below a path that is searched for is found with it.
        if known
            .iter()
            .any(|top| path.strip_prefix(top).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
        {
            continue;
        }
        known.push(path);
        out.push(Needle { text: path.to_owned(), what: format!("{what}, `{path}`"), word: false });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(host: &str, user: &str, home: &str, paths: &[&str]) -> Vec<String> {
        let facts = HostFacts {
            host_name: Some(host.into()),
            user_name: Some(user.into()),
            home: Some(home.into()),
            paths: paths.iter().map(ToString::to_string).collect(),
        };
        needles(&facts, &["edge-gateway".into()]).into_iter().map(|needle| needle.text).collect()
    }

    #[test]
    fn only_telling_facts_are_searched_for() {
        assert!(texts("main", "root", "/root", &["/tmp", "/src/", "/x", "/a/b"]).is_empty());
        assert!(texts("localhost", "user", "/home/user", &["relative/path/x"]).is_empty());
        assert!(texts("edge-gateway", "root", "/", &[]).is_empty(), "the image's own name");
        assert!(texts("monitor", "ci", "/builds", &[]).is_empty(), "seven letters: a word");
        assert_eq!(texts("pc-14", "ada", "/home/ada", &[]), ["pc-14", "/home/ada"]);
        assert_eq!(texts("3f2a9c71b0de", "root", "/root", &[]), ["3f2a9c71b0de"]);
        assert_eq!(texts("main.corp.example", "root", "/root", &[]), ["main.corp.example"]);
        assert_eq!(texts("forge-7.corp.example", "root", "/root", &[]), ["forge-7"]);
        let below = ["/home/ada/image", "/home/adam/image", "/srv/builds/one/", "/srv/builds/one/out"];
        assert_eq!(
            texts("main", "ada", "/home/ada", &below),
            ["/home/ada", "/srv/builds/one", "/home/adam/image"]
        );
    }

    #[test]
    fn words_stand_alone_and_paths_end() {
        let facts = HostFacts {
            host_name: Some("forge-7".into()),
            home: Some("/home/ada".into()),
            ..HostFacts::default()
        };
        let [host, home] = needles(&facts, &[]).try_into().unwrap();
        for (needle, text, expected) in [
            (&host, "built on forge-7.corp", true),
            (&host, "ada@forge-7", true),
            (&host, "forge-71", false),
            (&host, "reforge-7", false),
            (&home, "-I/home/ada/include", true),
            (&home, "/home/ada", true),
            (&home, "/home/adam", false),
            (&home, "/home/ada-old", false),
        ] {
            assert_eq!(needle.is_in(text.as_bytes()), expected, "{text}");
        }
    }
}
