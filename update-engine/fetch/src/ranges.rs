//! `Content-Range` (RFC 9110, section 14.4).

use crate::Range;

/// Reads `bytes FIRST-LAST/LENGTH`; the length may be `*`. Gives the range and the length of the whole.
pub fn content_range(text: &str) -> Option<(Range, Option<u64>)> {
    let rest = text.trim().strip_prefix("bytes ")?;
    let (range, whole) = rest.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| text.parse::<u64>().ok())?
    };
    let (first, last) = (number(first)?, number(last)?);
    let length = last.checked_sub(first)?.checked_add(1)?;
    let whole = if whole == "*" { None } else { Some(number(whole)?) };
    if whole.is_some_and(|whole| last >= whole) {
        return None;
    }
    Some((Range { start: first, length }, whole))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        assert_eq!(content_range("bytes 2-5/10"), Some((Range { start: 2, length: 4 }, Some(10))));
        assert_eq!(content_range("bytes 0-0/*"), Some((Range { start: 0, length: 1 }, None)));
        for bad in [
            "",
            "bytes",
            "bytes 5-2/10",
            "bytes 2-10/10",
            "bytes -5/10",
            "bytes 2-/10",
            "bytes */10",
            "lines 1-2/3",
            "bytes +2-5/10",
            "bytes 0-18446744073709551615/*",
            "bytes 1-99999999999999999999/*",
        ] {
            assert_eq!(content_range(bad), None, "{bad}");
        }
    }
}
