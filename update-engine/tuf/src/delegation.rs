//! Which delegated role may have a target (TUF specification, section 4.5).

use crate::metadata::DelegatedRole;
use sha2::{Digest as _, Sha256};

impl DelegatedRole {
    /// Whether the role is trusted with a target of this name.
    pub(crate) fn covers(&self, target: &str) -> bool {
        let digest = hex::encode(Sha256::digest(target.as_bytes()));
        self.path_hash_prefixes.iter().any(|prefix| digest.starts_with(prefix.as_str()))
            || self.paths.iter().any(|pattern| matches_path(pattern, target))
    }
}

/// Shell patterns, segment by segment: `*` and `?` do not match `/`, and `[` is itself.
fn matches_path(pattern: &str, target: &str) -> bool {
    let (mut patterns, mut segments) = (pattern.split('/'), target.split('/'));
    loop {
        match (patterns.next(), segments.next()) {
            (None, None) => return true,
            (Some(pattern), Some(segment)) if matches_segment(pattern, segment) => {}
            _ => return false,
        }
    }
}

/// Without recursion, and in a time that is bounded by the product of both lengths.
fn matches_segment(pattern: &str, segment: &str) -> bool {
    let (pattern, segment): (Vec<char>, Vec<char>) = (pattern.chars().collect(), segment.chars().collect());
    let (mut p, mut s) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while s < segment.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, s));
                p += 1;
            }
            Some(c) if *c == '?' || Some(c) == segment.get(s) => {
                p += 1;
                s += 1;
            }
            _ => match star {
                Some((at, taken)) => {
                    star = Some((at, taken + 1));
                    p = at + 1;
                    s = taken + 1;
                }
                None => return false,
            },
        }
    }
    pattern.get(p..).is_some_and(|rest| rest.iter().all(|c| *c == '*'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, target, expected) in [
            ("*", "a", true),
            ("*", "a/b", false),
            ("a/*", "a/b", true),
            ("a/*", "a/b/c", false),
            ("a/*.tgz", "a/x.tgz", true),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("*a*b", "xayab", true),
            ("*a*b", "xayabc", false),
            ("", "", true),
            ("a", "", false),
        ] {
            assert_eq!(matches_path(pattern, target), expected, "{pattern} {target}");
        }
        assert!(!matches_segment(&"*a".repeat(200), &"a".repeat(150)), "bounded");
    }
}
