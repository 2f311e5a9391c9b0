//! Version numbers and their order (deb-version(7)).

use std::cmp::Ordering;

/// A version as written in a control file, compared in the order of deb-version(7).
///
/// Equality follows that order too: `1.0` and `0:1.0-0` are equal.
#[derive(Debug, Clone, Copy)]
pub struct Version<'a>(pub &'a str);

impl PartialEq for Version<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Version<'_> {}

impl PartialOrd for Version<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Version<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        compare_versions(self.0, other.0)
    }
}

/// Compares two versions: epoch, upstream version, Debian revision.
///
/// Total on any text. What is no valid version still has a place in the order, as with dpkg, so that
/// hostile input cannot fail here.
pub fn compare_versions(a: &str, b: &str) -> Ordering {
    let (epoch_a, upstream_a, revision_a) = split(a);
    let (epoch_b, upstream_b, revision_b) = split(b);
    compare_numbers(epoch_a.as_bytes(), epoch_b.as_bytes())
        .then_with(|| compare_part(upstream_a, upstream_b))
        .then_with(|| compare_part(revision_a, revision_b))
}

/// Epoch (empty for none), upstream version, revision (empty for none, which equals `0`).
fn split(version: &str) -> (&str, &str, &str) {
    let (epoch, rest) = version.split_once(':').unwrap_or(("", version));
    let (upstream, revision) = rest.rsplit_once('-').unwrap_or((rest, ""));
    (epoch, upstream, revision)
}

/// Compares digit strings of any length as numbers.
fn compare_numbers(a: &[u8], b: &[u8]) -> Ordering {
    let strip = |digits: &[u8]| digits.iter().take_while(|&&d| d == b'0').count();
    let (a, b) = (&a[strip(a)..], &b[strip(b)..]);
    a.len().cmp(&b.len()).then_with(|| a.cmp(b))
}

/// The place of a character outside of numbers: `~` before the end, the end before letters, letters
/// before everything else.
fn weight(byte: Option<u8>) -> u16 {
    match byte {
        Some(b'~') => 0,
        None => 1,
        Some(letter) if letter.is_ascii_alphabetic() => u16::from(letter) + 1,
        Some(other) => u16::from(other) + 257,
    }
}

/// Compares an upstream version or a revision: runs of other characters and of digits in turn.
fn compare_part(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a.as_bytes(), b.as_bytes());
    while !a.is_empty() || !b.is_empty() {
        let (text_a, rest_a) = a.split_at(run(a, |c| !c.is_ascii_digit()));
        let (text_b, rest_b) = b.split_at(run(b, |c| !c.is_ascii_digit()));
        for at in 0..text_a.len().max(text_b.len()) {
            let order = weight(text_a.get(at).copied()).cmp(&weight(text_b.get(at).copied()));
            if order != Ordering::Equal {
                return order;
            }
        }
        let (digits_a, rest_a) = rest_a.split_at(run(rest_a, u8::is_ascii_digit));
        let (digits_b, rest_b) = rest_b.split_at(run(rest_b, u8::is_ascii_digit));
        let order = compare_numbers(digits_a, digits_b);
        if order != Ordering::Equal {
            return order;
        }
        (a, b) = (rest_a, rest_b);
    }
    Ordering::Equal
}

/// How many leading bytes are of a kind.
fn run(bytes: &[u8], kind: impl Fn(&u8) -> bool) -> usize {
    bytes.iter().take_while(|byte| kind(byte)).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From low to high; neighbours with the same number are equal.
    const ORDERED: &[(u8, &str)] = &[
        (0, "~~"),
        (1, "~~a"),
        (2, "~"),
        (3, "0"),
        (3, "0-0"),
        (3, "0:0"),
        (4, "0.1"),
        (5, "1.0~beta1~svn1245"),
        (6, "1.0~beta1"),
        (7, "1.0"),
        (7, "1.0-0"),
        (7, "1.00"),
        (8, "1.0-0+b1"),
        (9, "1.0-1~deb13u1"),
        (10, "1.0-1"),
        (11, "1.0-1+deb13u1"),
        (12, "1.0-1.1"),
        (13, "1.0-10"),
        (14, "1.0a"),
        (15, "1.0+"),
        (16, "1.0.1"),
        (17, "1.2-3-4"),
        (18, "1.10"),
        (19, "2"),
        (20, "99999999999999999999999999999999999999999"),
        (21, "1:0"),
        (22, "1:2-1"),
        (23, "10:0"),
    ];

    #[test]
    fn the_order_of_the_manual_page() {
        for (x, a) in ORDERED {
            for (y, b) in ORDERED {
                assert_eq!(compare_versions(a, b), x.cmp(y), "{a} against {b}");
            }
        }
    }

    #[test]
    fn any_text_has_a_place() {
        for a in ["", ":", "-", "a:b:c", "\u{e9}~1", "::--"] {
            for b in ["", "1", "-:"] {
                assert_eq!(compare_versions(a, b), compare_versions(b, a).reverse(), "{a:?} {b:?}");
            }
        }
    }
}
