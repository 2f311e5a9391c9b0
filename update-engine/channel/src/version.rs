//! The order of versions (UAPI.10, Version Format Specification).

use std::cmp::Ordering;

/// Which of two versions is newer.
pub fn compare(one: &str, other: &str) -> Ordering {
    let (mut a, mut b) = (one.as_bytes(), other.as_bytes());
    loop {
        a = skip(a);
        b = skip(b);
        // `~` is older than everything, the end of the text included.
        match (a.first() == Some(&b'~'), b.first() == Some(&b'~')) {
            (true, true) => {
                (a, b) = (tail(a), tail(b));
                continue;
            }
            (true, false) => return Ordering::Less,
            (false, true) => return Ordering::Greater,
            (false, false) => {}
        }
        if a.is_empty() || b.is_empty() {
            return a.len().min(1).cmp(&b.len().min(1));
        }
        // The end of a part: `-` before `^` before `.`; a part that goes on is newer.
        let mut separated = false;
        for separator in *b"-^." {
            match (a.first() == Some(&separator), b.first() == Some(&separator)) {
                (true, true) => {
                    (a, b) = (tail(a), tail(b));
                    separated = true;
                    break;
                }
                (true, false) => return Ordering::Less,
                (false, true) => return Ordering::Greater,
                (false, false) => {}
            }
        }
        if separated {
            continue;
        }
        let digits = a.first().is_some_and(u8::is_ascii_digit) || b.first().is_some_and(u8::is_ascii_digit);
        let order = if digits {
            let (x, y) = (run(&mut a, u8::is_ascii_digit), run(&mut b, u8::is_ascii_digit));
            let (x, y) = (without_zeros(x), without_zeros(y));
            // As long as they may be: the longer number is the larger one.
            x.len().cmp(&y.len()).then_with(|| x.cmp(y))
        } else {
            // Upper case before lower case, which is the order of the bytes; a shorter word is older.
            run(&mut a, u8::is_ascii_alphabetic).cmp(run(&mut b, u8::is_ascii_alphabetic))
        };
        if order != Ordering::Equal {
            return order;
        }
    }
}

/// Leaves out what has no meaning.
fn skip(text: &[u8]) -> &[u8] {
    let meaningless = |byte: &u8| !byte.is_ascii_alphanumeric() && !matches!(byte, b'~' | b'-' | b'^' | b'.');
    text.get(text.iter().take_while(|byte| meaningless(byte)).count()..).unwrap_or_default()
}

fn tail(text: &[u8]) -> &[u8] {
    text.get(1..).unwrap_or_default()
}

fn run<'a>(text: &mut &'a [u8], belongs: fn(&u8) -> bool) -> &'a [u8] {
    let length = text.iter().take_while(|byte| belongs(byte)).count();
    let (run, rest) = text.split_at_checked(length).unwrap_or((text, &[]));
    *text = rest;
    run
}

fn without_zeros(digits: &[u8]) -> &[u8] {
    digits.get(digits.iter().take_while(|digit| **digit == b'0').count()..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    /// Ascending; from the specification's examples and beyond.
    const ORDER: &[&str] = &[
        "~",
        "",
        "~rc1a",
        "1~rc1",
        "1~rc2",
        "1",
        "11~beta",
        "11",
        "12",
        "122.1",
        "123~rc1-1",
        "123",
        "123-a",
        "123-a.1",
        "123-1",
        "123-1.1",
        "123^post1",
        "123.a-1",
        "123.1-1",
        "123a-1",
        "124-1",
        "00124.1",
        "0099999999999999999999",
    ];

    #[test]
    fn the_order_is_the_specifications() {
        assert_eq!(compare("1_", "1"), Ordering::Equal, "what has no meaning is left out");
        assert_eq!(compare("0123", "123"), Ordering::Equal);
        assert_eq!(compare("1.10.0", "1.9.9"), Ordering::Greater);
        assert_eq!(compare("2000", "2500"), Ordering::Less);
        assert_eq!(compare("1.0", "1.0.1"), Ordering::Less);
        assert_eq!(compare("a", "B"), Ordering::Greater);
    }

    #[test]
    fn it_is_systemds_order() {
        if !Command::new("systemd-analyze")
            .arg("--version")
            .output()
            .is_ok_and(|output| output.status.success())
        {
            assert!(std::env::var_os("ASHLAR_TESTS_NO_SKIP").is_none(), "systemd-analyze is missing");
            eprintln!("skipped: systemd-analyze is missing (Debian package systemd)");
            return;
        }
        for one in ORDER {
            for other in ORDER {
                let status = Command::new("systemd-analyze")
                    .args(["compare-versions", "--", one, other])
                    .output()
                    .unwrap();
                let theirs = match status.status.code() {
                    Some(0) => Ordering::Equal,
                    Some(11) => Ordering::Greater,
                    Some(12) => Ordering::Less,
                    code => panic!("systemd-analyze compare-versions {one} {other}: {code:?}"),
                };
                assert_eq!(compare(one, other), theirs, "`{one}` and `{other}`");
            }
        }
    }
}
