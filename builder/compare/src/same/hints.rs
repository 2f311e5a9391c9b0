//! Typical causes of builds that differ, where the bytes show them.

use std::collections::BTreeSet;

/// Most hints that are kept.
const MAX: usize = 20;
/// Folders that a build leaves its name of.
const BUILD_PATHS: [&[u8]; 6] = [b"/home/", b"/tmp/", b"/build/", b"/builds/", b"/root/", b"/buildd/"];

/// What was seen.
#[derive(Debug, Default)]
pub(crate) struct Hints(BTreeSet<String>);

/// `12:34` or `2026-`: what times look like in text.
fn time_like(bytes: &[u8]) -> bool {
    let digit = |byte: &u8| byte.is_ascii_digit();
    bytes.windows(5).any(|w| {
        let clock = w[..2].iter().all(digit) && w[2] == b':' && w[3..].iter().all(digit);
        let date =
            (w.starts_with(b"19") || w.starts_with(b"20")) && w[2..4].iter().all(digit) && w[4] == b'-';
        clock || date
    })
}

/// A path into a folder where programs are built.
fn build_path(bytes: &[u8]) -> bool {
    BUILD_PATHS.iter().any(|path| bytes.windows(path.len()).any(|window| window == *path))
}

/// Whether two texts have the same lines in another order.
fn reordered(a: &[u8], b: &[u8]) -> bool {
    let lines = |bytes: &[u8]| {
        let mut lines: Vec<Vec<u8>> = bytes.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
        lines.sort_unstable();
        lines
    };
    a.len() == b.len() && a != b && !a.contains(&0) && lines(a) == lines(b)
}

impl Hints {
    fn add(&mut self, hint: String) {
        if self.0.len() < MAX {
            self.0.insert(hint);
        }
    }

    /// A time that the format itself holds.
    pub fn time_field(&mut self, place: &str) {
        self.add(format!(
            "{place}: a time differs; times come from the recipe's `build-time`, not from a clock"
        ));
    }

    /// The bytes around a difference, some dozens of both.
    pub fn window(&mut self, place: &str, a: &[u8], b: &[u8]) {
        if time_like(a) && time_like(b) {
            self.add(format!("{place}: the bytes look like a time; something asked the clock"));
        }
        if build_path(a) || build_path(b) {
            self.add(format!("{place}: there is a path of the build host; it was built in two folders"));
        }
    }

    /// Two whole contents.
    pub fn contents(&mut self, place: &str, a: &[u8], b: &[u8]) {
        if reordered(a, b) {
            self.add(format!("{place}: the same lines in another order; something listed a folder unsorted"));
        }
    }

    pub fn into_lines(self) -> Vec<String> {
        self.0.into_iter().collect()
    }
}

/// The bytes around `at`.
pub(crate) fn around(bytes: &[u8], at: usize) -> &[u8] {
    bytes.get(at.saturating_sub(32).min(bytes.len())..(at + 32).min(bytes.len())).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_seen() {
        let mut hints = Hints::default();
        hints.window("a", b"built 12:30:01", b"built 12:30:02");
        hints.window("b", b"x/home/me/src", b"x/home/you/src");
        hints.window("c", b"abcdef", b"abcdeg");
        hints.contents("d", b"one\ntwo\n", b"two\none\n");
        hints.contents("e", b"one\ntwo\n", b"two\nonf\n");
        let lines = hints.into_lines();
        assert_eq!(lines.len(), 3, "{lines:?}");
        assert!(lines[0].starts_with("a: the bytes look like a time"), "{lines:?}");
        assert!(
            lines[1].contains("path of the build host") && lines[2].contains("another order"),
            "{lines:?}"
        );
        assert_eq!(around(b"abc", 100), b"");
    }
}
