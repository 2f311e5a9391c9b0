//! Searching the content of files for keys, tokens and facts of the build host: one pass, in windows, so that a file
//! of any size takes no more memory than a small one.

pub(crate) mod der;
pub(crate) mod files;
pub(crate) mod host;
mod keys;
mod tokens;

use crate::error::LintError;
use crate::report::Severity;
use crate::subject::HostFacts;
use aho_corasick::packed::Searcher;
use aho_corasick::{AhoCorasick, Span};
use ashlar_tree::Content;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Bytes that are read at once.
const WINDOW: usize = 256 << 10;
/// Bytes behind the begin of a match that a check may look at; longer secrets are judged by their begin.
const AHEAD: usize = 4096;
/// Bytes before a match that a check may look at.
const BEHIND: usize = 16;
/// Matches kept of one file.
const MAX_HITS: usize = 16;

/// What a hit is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Subject {
    /// A private key.
    Key,
    /// A token, and how sure it is.
    Token(Severity),
    /// A fact of the build host.
    Host,
}

/// Something in a file's content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hit {
    pub subject: Subject,
    /// Where it begins, in bytes from the start of the file.
    pub offset: u64,
    /// What it is; never the secret itself.
    pub what: String,
}

/// Looks at a match: the window, where the match begins, and where it ends. Says what it is, if it is something.
type Check = fn(&[u8], usize, usize) -> Option<(Subject, String)>;

enum Needle {
    Secret(Check),
    /// A word of the host, with what it is.
    Host(host::Needle),
}

enum Engine {
    /// Vector instructions.
    Packed(Searcher),
    /// A processor without them, or too many needles.
    Automaton(AhoCorasick),
}

/// A file's bytes, read where they are wanted.
#[derive(Clone, Copy)]
pub(crate) enum Reader<'a> {
    /// In memory.
    Slice(&'a [u8]),
    /// A range of a file of the host.
    Range { file: &'a File, offset: u64, len: u64 },
}

impl Reader<'_> {
    pub fn len(&self) -> u64 {
        match self {
            Self::Slice(bytes) => bytes.len() as u64,
            Self::Range { len, .. } => *len,
        }
    }

    /// Fills `buffer` from `at` as far as the content reaches and says how far that was.
    pub fn read_at(&self, at: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.len().saturating_sub(at)).unwrap_or(usize::MAX).min(buffer.len());
        let Some(buffer) = buffer.get_mut(..left) else { return Ok(0) };
        match self {
            Self::Slice(bytes) => {
                let at = usize::try_from(at).unwrap_or(usize::MAX);
                let Some(from) = bytes.get(at..at.saturating_add(left)) else { return Ok(0) };
                buffer.copy_from_slice(from);
            }
            Self::Range { file, offset, .. } => file.read_exact_at(buffer, offset.saturating_add(at))?,
        }
        Ok(left)
    }
}

/// Searches for all needles at once.
pub(crate) struct Scanner {
    engine: Engine,
    needles: Vec<Needle>,
}

impl Scanner {
    /// For keys, tokens and what of the host's facts is worth searching for; `own_names` are host names that the
    /// image bears on purpose.
    pub fn new(facts: &HostFacts, own_names: &[String]) -> Result<Self, LintError> {
        let mut patterns: Vec<Vec<u8>> = Vec::new();
        let mut needles = Vec::new();
        for (text, check) in keys::NEEDLES.iter().chain(tokens::NEEDLES) {
            patterns.push(text.as_bytes().to_vec());
            needles.push(Needle::Secret(*check));
        }
        for needle in host::needles(facts, own_names) {
            patterns.push(needle.text.clone().into_bytes());
            needles.push(Needle::Host(needle));
        }
        let engine = match Searcher::new(&patterns) {
            Some(searcher) => Engine::Packed(searcher),
            None => Engine::Automaton(automaton(&patterns)?),
        };
        Ok(Self { engine, needles })
    }

    #[cfg(test)]
    fn without_vectors(facts: &HostFacts) -> Self {
        let Self { needles, .. } = Self::new(facts, &[]).unwrap();
        let host = host::needles(facts, &[]);
        let patterns: Vec<Vec<u8>> = keys::NEEDLES
            .iter()
            .chain(tokens::NEEDLES)
            .map(|(text, _)| text.as_bytes().to_vec())
            .chain(host.into_iter().map(|n| n.text.into_bytes()))
            .collect();
        Self { engine: Engine::Automaton(automaton(&patterns).unwrap()), needles }
    }

    fn find(&self, window: &[u8], from: usize, to: usize) -> Option<(usize, usize, usize)> {
        // A needle may begin before `to` and end behind it.
        let span = Span { start: from, end: window.len() };
        let found = match &self.engine {
            Engine::Packed(searcher) => searcher.find_in(window, span),
            Engine::Automaton(automaton) => automaton.find(aho_corasick::Input::new(window).span(span)),
        }?;
        (found.start() < to).then(|| (found.pattern().as_usize(), found.start(), found.end()))
    }

    /// Looks at matches that begin in `from..to` of the window, which lies at `base` of the file.
    fn window(&self, window: &[u8], from: usize, to: usize, base: u64, hits: &mut Vec<Hit>) {
        let mut at = from;
        while hits.len() < MAX_HITS {
            let Some((needle, start, end)) = self.find(window, at, to) else { return };
            at = start + 1;
            let found = match self.needles.get(needle) {
                Some(Needle::Secret(check)) => check(window, start, end),
                Some(Needle::Host(needle)) => {
                    needle.fits(window, start, end).then(|| (Subject::Host, needle.what.clone()))
                }
                None => None,
            };
            let Some((subject, what)) = found else { continue };
            if subject != Subject::Host {
                at = end;
            }
            if !hits.iter().any(|hit| hit.subject == subject && hit.what == what) {
                hits.push(Hit { subject, offset: base + start as u64, what });
            }
        }
    }

    /// Searches a file. `head` is called once with the begin of the file: all of it, or at least [`AHEAD`] bytes.
    /// `buffer` is used again from file to file.
    pub fn scan(
        &self,
        reader: Reader<'_>,
        buffer: &mut Vec<u8>,
        head: impl FnOnce(&[u8]),
    ) -> io::Result<Vec<Hit>> {
        let mut hits = Vec::new();
        if let Reader::Slice(bytes) = reader {
            head(bytes);
            self.window(bytes, 0, bytes.len(), 0, &mut hits);
            return Ok(hits);
        }
        buffer.resize(WINDOW, 0);
        let mut head = Some(head);
        let (mut base, mut from, mut filled) = (0u64, 0usize, 0usize);
        while let Some(free) = buffer.get_mut(filled..) {
            filled += reader.read_at(base + filled as u64, free)?;
            let window = buffer.get(..filled).unwrap_or_default();
            if let Some(head) = head.take() {
                head(window);
            }
            if base + filled as u64 >= reader.len() {
                self.window(window, from, filled, base, &mut hits);
                break;
            }
            let to = filled.saturating_sub(AHEAD);
            self.window(window, from, to, base, &mut hits);
            let keep = to.saturating_sub(BEHIND);
            buffer.copy_within(keep..filled, 0);
            base += keep as u64;
            from = to - keep;
            filled -= keep;
        }
        Ok(hits)
    }
}

fn automaton(patterns: &[Vec<u8>]) -> Result<AhoCorasick, LintError> {
    AhoCorasick::builder()
        .match_kind(aho_corasick::MatchKind::LeftmostFirst)
        .build(patterns)
        .map_err(|error| LintError::Needles(error.to_string()))
}

/// What keys and tokens are in these bytes, as a person would read it. For fuzzing, and for a file at hand.
pub fn scan_bytes(bytes: &[u8]) -> Vec<String> {
    let Ok(scanner) = Scanner::new(&HostFacts::default(), &[]) else { return Vec::new() };
    let mut buffer = Vec::new();
    let mut out: Vec<String> = scanner
        .scan(Reader::Slice(bytes), &mut buffer, |_| {})
        .unwrap_or_default()
        .into_iter()
        .map(|hit| hit.what)
        .collect();
    out.extend(der::private_key(bytes).map(str::to_owned));
    out.extend(der::openpgp("secring.gpg", bytes).map(str::to_owned));
    out
}

/// A reader of a node's content; ranges need their file opened.
pub(crate) fn reader<'a>(content: &'a Content, file: Option<&'a File>) -> Option<Reader<'a>> {
    match (content, file) {
        (Content::Inline(bytes), _) => Some(Reader::Slice(bytes)),
        (Content::Range { offset, len, .. }, Some(file)) => {
            Some(Reader::Range { file, offset: *offset, len: *len })
        }
        (Content::Range { .. }, None) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn key() -> String {
        format!("-----BEGIN {}PRIVATE KEY-----\n{}\n", "RSA ", "MIIEpAIBAAKCAQEA".repeat(4))
    }

    #[test]
    fn secrets_at_every_place_of_a_window_are_found_in_a_file() {
        let facts = HostFacts { host_name: Some("builder-77".into()), ..HostFacts::default() };
        for scanner in [Scanner::new(&facts, &[]).unwrap(), Scanner::without_vectors(&facts)] {
            for at in [0, 1, WINDOW - AHEAD - 1, WINDOW - AHEAD, WINDOW - 20, WINDOW, 3 * WINDOW + 7] {
                let mut file = tempfile::tempfile().unwrap();
                let mut bytes = vec![b'.'; at + 5];
                bytes.truncate(at + 5);
                bytes.extend(key().bytes());
                bytes.extend(vec![b' '; 9000]);
                bytes.extend(b"builder-77\n");
                file.write_all(b"xyz").unwrap();
                file.write_all(&bytes).unwrap();
                let reader = Reader::Range { file: &file, offset: 3, len: bytes.len() as u64 };
                let mut head_seen = 0;
                let hits = scanner.scan(reader, &mut Vec::new(), |head| head_seen = head.len()).unwrap();
                assert!(head_seen >= AHEAD.min(bytes.len()));
                let offsets: Vec<_> = hits.iter().map(|hit| (hit.subject, hit.offset)).collect();
                let host = (at + 5 + key().len() + 9000) as u64;
                assert_eq!(offsets, [(Subject::Key, at as u64 + 5), (Subject::Host, host)], "{at}");
            }
        }
    }

    #[test]
    fn a_range_longer_than_its_file_is_an_error() {
        let file = tempfile::tempfile().unwrap();
        let reader = Reader::Range { file: &file, offset: 0, len: 10 };
        assert!(
            Scanner::new(&HostFacts::default(), &[]).unwrap().scan(reader, &mut Vec::new(), |_| {}).is_err()
        );
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]

        /// Cut and changed secrets, and any bytes, never panic, in a file and in memory alike.
        #[test]
        fn any_bytes(cut in 0usize..400, change in 0usize..400, to: u8, junk in proptest::collection::vec(0u8.., 0..64)) {
            let mut bytes = key().into_bytes();
            bytes.extend(tokens::tests::samples().concat().bytes());
            bytes.extend(&junk);
            if let Some(byte) = bytes.get_mut(change) {
                *byte = to;
            }
            bytes.drain(..cut.min(bytes.len()));
            scan_bytes(&bytes);
            scan_bytes(&junk);
        }
    }
}
