//! Text of others for terminals and logs.

/// The text without control characters but tab and end of line: a machine, or what logs on it, may send sequences that
/// terminals obey.
pub fn printable(text: &str) -> String {
    let bad = |c: char| c.is_control() && c != '\t' && c != '\n';
    text.chars().map(|c| if bad(c) { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// As [`printable`], on one line and of at most `length` characters.
pub fn short(text: &str, length: usize) -> String {
    text.chars().take(length).map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminals_are_not_told_what_to_do() {
        assert_eq!(printable("a\x1b[2Jb\tc\nd\u{9b}"), "a\u{fffd}[2Jb\tc\nd\u{fffd}");
        assert_eq!(short("ab\ncd", 4), "ab\u{fffd}c");
    }
}
