//! What the content of files says: one parallel pass over all of them, and the findings about keys, tokens and the
//! build host.

use super::Context;
use super::elf::{self, Elf};
use crate::error::LintError;
use crate::parts::{Entry, PartView, host_path};
use crate::report::Severity::{Error, Warning};
use crate::secrets::{Hit, Reader, Scanner, Subject as Secret, der, files, host, reader};
use crate::subject::Subject;
use ashlar_tree::{Content, Kind};
use rayon::prelude::*;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::path::{Path, PathBuf};

/// Files of one task: small enough to share the work, large enough to open each file of the host rarely.
const TASK: usize = 64;

/// What a file's content says.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    /// Keys, tokens, facts of the host.
    pub hits: Vec<Hit>,
    /// The line behind `#!`.
    pub script: Option<String>,
    /// What its ELF header and dynamic section say.
    pub elf: Option<Elf>,
    /// Whether it is an ELF file or an archive of object files.
    pub is_code: bool,
    /// A date inside, and what has it.
    pub time: Option<&'static str>,
}

impl Facts {
    fn is_empty(&self) -> bool {
        self.hits.is_empty() && self.script.is_none() && self.elf.is_none() && self.time.is_none()
    }
}

/// What is known of all contents.
pub(crate) struct Contents {
    /// By part and number of the entry; files of which there is nothing to say are left out.
    facts: BTreeMap<(usize, usize), Facts>,
    files: u64,
    bytes: u64,
}

impl Contents {
    /// Files that were looked at.
    pub const fn files(&self) -> u64 {
        self.files
    }

    /// Bytes that were looked at.
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The facts of each file of a part that has some.
    pub fn of_part<'a, 't>(
        &'a self,
        number: usize,
        part: &'a PartView<'t>,
    ) -> impl Iterator<Item = (&'a Entry<'t>, &'a Facts)> {
        self.facts
            .range((number, 0)..=(number, usize::MAX))
            .filter_map(|((_, entry), facts)| Some((part.entries.get(*entry)?, facts)))
    }
}

/// Reads all files once.
pub(crate) fn read(subject: &Subject<'_>, parts: &[PartView<'_>]) -> Result<Contents, LintError> {
    let mut own_names = Vec::new();
    for part in parts {
        own_names.extend(part.read_text("/etc/hostname", 4096)?.map(|name| name.trim().to_owned()));
    }
    let scanner = Scanner::new(&subject.host, &own_names)?;
    let mut work: Vec<((usize, usize), &Entry<'_>, &Content)> = Vec::new();
    for (number, part) in parts.iter().enumerate() {
        for (i, entry) in part.entries.iter().enumerate() {
            if let Kind::File(content) = &entry.node.kind
                && !content.is_empty()
            {
                work.push(((number, i), entry, content));
            }
        }
    }
    let (files, bytes) = (work.len() as u64, work.iter().map(|(.., content)| content.len()).sum());
    let done: Vec<Vec<Result<_, LintError>>> = work
        .par_chunks(TASK)
        .map_init(Vec::new, |buffer, chunk| {
            // Each file of the host is opened once in a task.
            let mut open = HashMap::new();
            chunk
                .iter()
                .map(|(key, entry, content)| {
                    file(&scanner, entry, content, &mut open, buffer).map(|facts| (*key, facts))
                })
                .collect()
        })
        .collect();
    let mut facts = BTreeMap::new();
    for result in done.into_iter().flatten() {
        // The first error in the order of the tree, whichever thread was first.
        let (key, found) = result?;
        if !found.is_empty() {
            facts.insert(key, found);
        }
    }
    Ok(Contents { facts, files, bytes })
}

fn file(
    scanner: &Scanner,
    entry: &Entry<'_>,
    content: &Content,
    open: &mut HashMap<PathBuf, File>,
    buffer: &mut Vec<u8>,
) -> Result<Facts, LintError> {
    let failed = |source| LintError::Read { file: entry.shown(), path: host_path(content), source };
    let host_file = match content {
        Content::Inline(_) => None,
        Content::Range { path, .. } => {
            if !open.contains_key(path.as_path()) {
                open.insert(path.as_path().to_owned(), File::open(path.as_path()).map_err(failed)?);
            }
            open.get(path.as_path())
        }
    };
    let Some(reader) = reader(content, host_file) else { return Ok(Facts::default()) };
    let path = entry.shown();
    let mut facts = Facts::default();
    let mut hits = scanner.scan(reader, buffer, |head| {
        let whole = reader.len() == head.len() as u64;
        // A file that is in memory already is not read again.
        let reader = if whole { Reader::Slice(head) } else { reader };
        facts = begin(&path, head, whole, reader);
    });
    if let Ok(hits) = &mut hits {
        facts.hits.append(hits);
    }
    hits.map(|_| facts).map_err(failed)
}

/// What the begin of a file says.
fn begin(path: &str, head: &[u8], whole: bool, reader: Reader<'_>) -> Facts {
    let is_code = head.starts_with(&object::elf::ELFMAG) || head.starts_with(b"!<arch>\n");
    let mut facts = Facts { is_code, time: time_inside(path, head), ..Facts::default() };
    if let Some(line) = head.strip_prefix(b"#!") {
        let line = line.get(..line.len().min(256)).unwrap_or(line);
        let line = line.split(|&b| b == b'\n').next().unwrap_or(line);
        facts.script = Some(String::from_utf8_lossy(line).trim().to_owned());
    } else if head.starts_with(&object::elf::ELFMAG) {
        facts.elf = elf::read(reader);
    } else if whole && head.len() as u64 <= der::LIMIT {
        let name = path.rsplit('/').next().unwrap_or(path);
        let key = der::private_key(head).or_else(|| der::openpgp(name, head));
        facts.hits.extend(key.map(|what| Hit { subject: Secret::Key, offset: 0, what: what.into() }));
    }
    if whole
        && head.len() as u64 <= files::LIMIT
        && let Some((what, holds)) = files::by_name(path)
        && holds(&String::from_utf8_lossy(head))
    {
        facts.hits.push(Hit { subject: Secret::Token(Error), offset: 0, what: what.into() });
    }
    facts
}

/// Whether the file has a date in its header (RFC 1952, section 2.3.1; PEP 552).
fn time_inside(path: &str, head: &[u8]) -> Option<&'static str> {
    match head {
        [0x1f, 0x8b, 8, _, a, b, c, d, ..] if [*a, *b, *c, *d] != [0; 4] => {
            Some("its gzip header has a date")
        }
        // Flags of zero: the source's date and size follow.
        [_, _, b'\r', b'\n', 0, 0, 0, 0, ..] if Path::new(path).extension().is_some_and(|e| e == "pyc") => {
            Some("its header has the date of its source")
        }
        _ => None,
    }
}

/// Whether the rule `machine-identity` speaks of this file.
pub(super) fn is_host_key(path: &[u8]) -> bool {
    path.strip_prefix(b"/etc/ssh/ssh_host_").is_some_and(|rest| rest.ends_with(b"_key"))
}

pub(crate) fn check(context: &mut Context<'_, '_>) {
    let own: BTreeSet<&str> = context.subject.own_files.iter().map(String::as_str).collect();
    let own_names: Vec<String> = Vec::new();
    let needles = host::needles(&context.subject.host, &own_names);
    let mut found = Vec::new();
    for (number, part) in context.parts.iter().enumerate() {
        let mut add = |rule, path: String, message: String, help: &'static str| {
            found.push((rule, part.part.clone(), path, message, help));
        };
        for (entry, facts) in context.contents.of_part(number, part) {
            for hit in &facts.hits {
                let at = if hit.offset == 0 { String::new() } else { format!(", at byte {}", hit.offset) };
                let message = format!("{}{at}", hit.what);
                match hit.subject {
                    Secret::Key if is_host_key(&entry.path) => {}
                    // Cryptographic libraries carry the keys of their self-tests, GnuTLS for one.
                    Secret::Key if facts.is_code => add(
                        ("private-key", Warning),
                        entry.shown(),
                        format!("{message}, inside of a program or library"),
                        "find out what it is for: a key of a self-test may stay, allow it; any other must go",
                    ),
                    Secret::Key => add(
                        ("private-key", Error),
                        entry.shown(),
                        message,
                        "remove it; give the key to the machine when it is provisioned, and replace it if it ever left",
                    ),
                    Secret::Token(severity) => add(
                        ("token", severity),
                        entry.shown(),
                        message,
                        "remove it, and revoke it if the image ever left",
                    ),
                    Secret::Host => add(
                        ("build-host-leak", Warning),
                        entry.shown(),
                        message,
                        "build the file with its paths mapped (-ffile-prefix-map), or write it without",
                    ),
                }
            }
            if let Some(time) = facts.time
                && own.contains(format!("{}{}", part.prefix, entry.shown()).as_str())
            {
                let help = "gzip -n; python3 -m compileall --invalidation-mode unchecked-hash";
                add(("embedded-time", Warning), entry.shown(), time.into(), help);
            }
        }
        if needles.is_empty() {
            continue;
        }
        for entry in &part.entries {
            let name = entry.path.rsplit(|&b| b == b'/').next().unwrap_or_default();
            for needle in &needles {
                let message = match &entry.node.kind {
                    Kind::Symlink(target) if needle.is_in(target) => {
                        format!("the link points to {}", needle.what)
                    }
                    _ if needle.is_in(name) => format!("the name has {}", needle.what),
                    _ => continue,
                };
                let help = "name it without the build host";
                add(("build-host-leak", Warning), entry.shown(), message, help);
            }
        }
    }
    for (rule, part, path, message, help) in found {
        context.add(rule, &part, Some(path), message, help);
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{PREFIX, meta, of_rule, put, report, subject, tree};
    use crate::{HostFacts, lint};
    use ashlar_tree::{Content, Kind, Node};
    use std::io::Write;
    use std::sync::Arc;

    #[test]
    fn keys_tokens_and_files_of_credentials() {
        let mut tree = tree();
        let key = format!("-----BEGIN {}-----\n{}\n", "PRIVATE KEY", "MC4CAQAwBQYDK2VwBCIEIAbc".repeat(3));
        put(&mut tree, "/etc/tls/server.key", 0o600, &key);
        put(&mut tree, &format!("{PREFIX}/srv/x.txt"), 0o600, format!("a\n{key}"));
        put(&mut tree, "/root/.netrc", 0o600, "machine h login u password p");
        put(&mut tree, "/root/netrc", 0o600, "machine h login u password p");
        put(&mut tree, "/usr/lib/libtest.a", 0o644, format!("!<arch>\n{key}"));
        let report = report(&tree);
        let warning =
            report.findings.iter().find(|f| f.path.as_deref() == Some("/usr/lib/libtest.a")).unwrap();
        assert_eq!(warning.severity, crate::Severity::Warning);
        assert_eq!(
            of_rule(&report, "private-key")[..2],
            [
                "root /etc/tls/server.key: a private key (PRIVATE KEY in PEM form)",
                "container web /srv/x.txt: a private key (PRIVATE KEY in PEM form), at byte 2",
            ]
        );
        assert_eq!(of_rule(&report, "token"), ["root /root/.netrc: a .netrc with a password"]);
        assert!(!report.text().contains("MC4CAQ"), "no secret is printed");
    }

    #[test]
    fn facts_of_the_host_in_contents_names_and_links() {
        let mut tree = tree();
        put(&mut tree, "/usr/lib/a", 0o644, "built by ada@forge-7 in /home/ada/src");
        put(&mut tree, "/usr/lib/b", 0o644, "forge-71 /home/adam");
        put(&mut tree, "/usr/lib/forge-7.conf", 0o644, "");
        tree.insert(b"/usr/lib/l", Node::symlink(meta(0o777), "/home/ada/x")).unwrap();
        let mut subject = subject(&tree);
        subject.host = HostFacts {
            host_name: Some("forge-7".into()),
            home: Some("/home/ada".into()),
            ..HostFacts::default()
        };
        assert_eq!(
            of_rule(&lint(&subject, &[]).unwrap(), "build-host-leak"),
            [
                "root /usr/lib/a: the build host's name, `forge-7`, at byte 13",
                "root /usr/lib/a: the builder's home, `/home/ada`, at byte 24",
                "root /usr/lib/forge-7.conf: the name has the build host's name, `forge-7`",
                "root /usr/lib/l: the link points to the builder's home, `/home/ada`",
            ]
        );
    }

    #[test]
    fn the_images_own_name_is_no_leak() {
        let mut tree = tree();
        put(&mut tree, "/etc/hostname", 0o644, "forge-7\n");
        put(&mut tree, "/usr/lib/a", 0o644, "forge-7");
        let mut subject = subject(&tree);
        subject.host = HostFacts { host_name: Some("forge-7".into()), ..HostFacts::default() };
        assert!(lint(&subject, &[]).unwrap().findings.is_empty());
    }

    #[test]
    fn dates_inside_of_the_recipes_own_files() {
        let mut tree = tree();
        put(&mut tree, "/srv/a.gz", 0o644, [0x1f, 0x8b, 8, 0, 1, 2, 3, 4, 0, 3]);
        put(&mut tree, "/srv/n.gz", 0o644, [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3]);
        put(&mut tree, "/srv/p.gz", 0o644, [0x1f, 0x8b, 8, 0, 1, 2, 3, 4, 0, 3]);
        put(&mut tree, &format!("{PREFIX}/m.pyc"), 0o644, [0xa7, 13, 13, 10, 0, 0, 0, 0, 1, 2, 3, 4]);
        put(&mut tree, &format!("{PREFIX}/h.pyc"), 0o644, [0xa7, 13, 13, 10, 1, 0, 0, 0, 1, 2, 3, 4]);
        let mut own = vec!["/srv/a.gz".to_owned(), "/srv/n.gz".into()];
        own.extend(["m", "h"].map(|name| format!("{PREFIX}/{name}.pyc")));
        let mut subject = subject(&tree);
        subject.own_files = &own;
        assert_eq!(
            of_rule(&lint(&subject, &[]).unwrap(), "embedded-time"),
            [
                "root /srv/a.gz: its gzip header has a date",
                "container web /m.pyc: its header has the date of its source",
            ]
        );
    }

    #[test]
    fn a_file_of_the_host_that_is_too_short_is_named() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"short").unwrap();
        let mut tree = tree();
        let content = Content::Range { path: Arc::new(file.path().to_owned()), offset: 2, len: 100 };
        tree.insert(b"/cut", Node { metadata: meta(0o644), kind: Kind::File(content) }).unwrap();
        let error = lint(&subject(&tree), &[]).unwrap_err().to_string();
        assert!(error.contains("`/cut`") && error.contains(file.path().to_str().unwrap()), "{error}");
    }
}
