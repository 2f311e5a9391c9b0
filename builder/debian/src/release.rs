//! The signed index of a suite (the `Release` file; Debian wiki, "DebianRepository/Format").

use crate::stanza::{Stanza, stanzas};
use std::collections::BTreeMap;

/// Most files of a suite that are taken up. Only the package lists are.
const MAX_FILES: usize = 10_000;

/// What a `Release` file says, as far as it is needed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    /// `stable`.
    pub suite: Option<String>,
    /// `trixie`.
    pub codename: Option<String>,
    /// When it was made, seconds since 1970.
    pub date: i64,
    /// When it stops being valid, seconds since 1970.
    pub valid_until: Option<i64>,
    /// Architectures of the suite.
    pub architectures: Vec<String>,
    /// Components of the suite.
    pub components: Vec<String>,
    /// Whether files can be had by their hash, which stays right while the mirror is updated.
    pub by_hash: bool,
    /// Whether packages of the suite are only taken when they are asked for (experimental, backports).
    pub not_automatic: bool,
    /// Whether packages that were taken from such a suite are kept up to date from it (backports).
    pub but_automatic_upgrades: bool,
    /// Whether packages for all architectures are in the list of each architecture (and not in `binary-all`).
    pub all_included: bool,
    /// The package lists: path below the suite, lower-case SHA-256, size in bytes.
    pub files: BTreeMap<String, (String, u64)>,
}

impl Release {
    /// Parses the signed text.
    ///
    /// # Errors
    /// Names the field that is missing or wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let stanza = stanzas(text).next().ok_or("it is empty")?;
        let words = |name| stanza.field(name).unwrap_or("").split_whitespace().map(str::to_owned).collect();
        let yes = |name: &str| stanza.field(name).is_some_and(|value| value.eq_ignore_ascii_case("yes"));
        let date = |name: &str| {
            stanza
                .field(name)
                .map(|value| parse_date(value).ok_or_else(|| format!("`{name}: {value}` is not a date")))
                .transpose()
        };
        Ok(Self {
            suite: stanza.field("Suite").map(str::to_owned),
            codename: stanza.field("Codename").map(str::to_owned),
            date: date("Date")?.ok_or("it has no `Date`")?,
            valid_until: date("Valid-Until")?,
            architectures: words("Architectures"),
            components: words("Components"),
            by_hash: yes("Acquire-By-Hash"),
            not_automatic: yes("NotAutomatic"),
            but_automatic_upgrades: yes("ButAutomaticUpgrades"),
            all_included: stanza
                .field("No-Support-for-Architecture-all")
                .is_some_and(|value| value.split_whitespace().any(|word| word == "Packages")),
            files: files(stanza)?,
        })
    }
}

fn files(stanza: Stanza) -> Result<BTreeMap<String, (String, u64)>, String> {
    let mut files = BTreeMap::new();
    for line in stanza.field("SHA256").ok_or("it has no `SHA256`")?.lines() {
        let mut words = line.split_whitespace();
        let (Some(hash), Some(size), Some(path)) = (words.next(), words.next(), words.next()) else {
            continue;
        };
        if !path.contains("/binary-") {
            continue;
        }
        let size = size.parse().map_err(|_| format!("`{size}` is not the size of `{path}`"))?;
        let hash = sha256_field(hash).ok_or_else(|| format!("`{hash}` is not a SHA-256"))?;
        files.insert(path.to_owned(), (hash, size));
        if files.len() > MAX_FILES {
            return Err(format!("it names more than {MAX_FILES} package lists"));
        }
    }
    Ok(files)
}

/// A SHA-256 in hexadecimal, in lower case.
pub(crate) fn sha256_field(text: &str) -> Option<String> {
    (text.len() == 64 && text.bytes().all(|c| c.is_ascii_hexdigit())).then(|| text.to_ascii_lowercase())
}

/// `Sat, 21 Nov 2026 09:15:44 UTC` in seconds since 1970.
pub(crate) fn parse_date(text: &str) -> Option<i64> {
    let text = text.split_once(',').map_or(text, |(_, rest)| rest);
    let words: Vec<&str> = text.split_whitespace().collect();
    let [day, month, year, time, zone] = words[..] else { return None };
    if !["UTC", "GMT", "Z", "+0000", "-0000"].contains(&zone) {
        return None;
    }
    let number = |text: &str, range: std::ops::RangeInclusive<i64>| {
        text.parse().ok().filter(|number| range.contains(number))
    };
    let names = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let month = i64::try_from(names.iter().position(|name| *name == month)?).ok()? + 1;
    let (day, year) = (number(day, 1..=31)?, number(year, 1970..=9999)?);
    let mut parts = time.split(':');
    let (hour, minute) = (number(parts.next()?, 0..=23)?, number(parts.next()?, 0..=59)?);
    let second = number(parts.next()?, 0..=60)?;
    if parts.next().is_some() {
        return None;
    }
    Some(((days(year, month, day) * 24 + hour) * 60 + minute) * 60 + second)
}

/// `2026-11-01T00:00:00Z` or `20261101T000000Z` (ISO 8601, UTC) in seconds since 1970.
pub(crate) fn parse_timestamp(text: &str) -> Option<i64> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let (date, time) = match (date.len(), time.len()) {
        (8, 6) => (date.to_owned(), time.to_owned()),
        (10, 8) => {
            let is_at = |text: &str, places: [usize; 2], mark: u8| {
                places.iter().all(|place| text.as_bytes().get(*place) == Some(&mark))
            };
            if !is_at(date, [4, 7], b'-') || !is_at(time, [2, 5], b':') {
                return None;
            }
            (date.replace('-', ""), time.replace(':', ""))
        }
        _ => return None,
    };
    let digits = |text: &str, places: std::ops::Range<usize>, range: std::ops::RangeInclusive<i64>| {
        let part = text.get(places).filter(|part| part.bytes().all(|c| c.is_ascii_digit()))?;
        part.parse().ok().filter(|number| range.contains(number))
    };
    let (year, month) = (digits(&date, 0..4, 1970..=9999)?, digits(&date, 4..6, 1..=12)?);
    let (next_year, next_month) = if month == 12 { (year + 1, 1) } else { (year, month + 1) };
    let day = digits(&date, 6..8, 1..=days(next_year, next_month, 1) - days(year, month, 1))?;
    let (hour, minute) = (digits(&time, 0..2, 0..=23)?, digits(&time, 2..4, 0..=59)?);
    let second = digits(&time, 4..6, 0..=59)?;
    Some(((days(year, month, day) * 24 + hour) * 60 + minute) * 60 + second)
}

/// `20261101T000000Z`, as snapshots are named.
pub(crate) fn show_timestamp(seconds: i64) -> String {
    let shown = show_date(seconds);
    let (date, time) = shown.trim_end_matches(" UTC").split_once(' ').unwrap_or_default();
    format!("{}T{}Z", date.replace('-', ""), time.replace(':', ""))
}

/// Days from 1970-01-01 in the Gregorian calendar. The year begins with March here, so that the leap day
/// is its last.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let month = (month + 9) % 12;
    let day_of_year = (153 * month + 2) / 5 + day - 1;
    // 719468 days lie between 0000-03-01 and 1970-01-01.
    year * 365 + year / 4 - year / 100 + year / 400 + day_of_year - 719_468
}

/// `2026-11-21 09:15:44 UTC`, for messages.
pub(crate) fn show_date(seconds: i64) -> String {
    let (mut day, time) = (seconds.div_euclid(86400), seconds.rem_euclid(86400));
    let mut year = 1970;
    while day >= days(year + 1, 1, 1) - days(year, 1, 1) && year < 9999 {
        day -= days(year + 1, 1, 1) - days(year, 1, 1);
        year += 1;
    }
    let month = (1..=12).rev().find(|&m| days(year, m, 1) - days(year, 1, 1) <= day).unwrap_or(1);
    let day = day - (days(year, month, 1) - days(year, 1, 1)) + 1;
    let (hour, minute, second) = (time / 3600, time / 60 % 60, time % 60);
    format!("{year}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "Suite: stable\nCodename: trixie\nDate: Sat, 21 Nov 2026 09:15:44 UTC\n\
        Acquire-By-Hash: yes\nNo-Support-for-Architecture-all: Packages\nArchitectures: all amd64\nComponents: main\n\
        SHA256:\n ABCDabcd00112233445566778899aabbccddeeff00112233445566778899aabb 12 main/binary-amd64/Packages.xz\n \
        x y main/Contents-all\n";

    #[test]
    fn fields() {
        let release = Release::parse(TEXT).unwrap();
        assert_eq!(release.suite.as_deref(), Some("stable"));
        assert_eq!(release.date, 1_795_252_544);
        assert_eq!(show_date(release.date), "2026-11-21 09:15:44 UTC");
        assert!(release.by_hash && release.all_included);
        assert_eq!(release.architectures, ["all", "amd64"]);
        let (hash, size) = &release.files["main/binary-amd64/Packages.xz"];
        assert!(hash.starts_with("abcdabcd") && *size == 12 && release.files.len() == 1);
    }

    #[test]
    fn wrong_fields_are_named() {
        for (from, to, wanted) in [
            ("09:15:44 UTC", "09:15:44 CET", "is not a date"),
            ("Date:", "Dat:", "no `Date`"),
            ("SHA256:", "SHA1:", "no `SHA256`"),
            (" 12 ", " -12 ", "is not the size"),
            ("ABCDabcd", "ABCDabc", "is not a SHA-256"),
        ] {
            let error = Release::parse(&TEXT.replacen(from, to, 1)).unwrap_err();
            assert!(error.contains(wanted), "{error}");
        }
        for end in 0..TEXT.len() {
            let _ = Release::parse(&TEXT[..end]);
        }
    }

    #[test]
    fn dates() {
        for (text, seconds) in [
            ("Thu, 01 Jan 1970 00:00:00 UTC", 0),
            ("Thu, 29 Feb 2024 23:59:59 +0000", 1_709_251_199),
            ("1 Mar 2000 00:00:00 GMT", 951_868_800),
            ("Fri, 31 Dec 2100 00:00:00 UTC", 4_133_894_400),
        ] {
            assert_eq!(parse_date(text), Some(seconds), "{text}");
        }
        assert_eq!(show_date(1_709_251_199), "2024-02-29 23:59:59 UTC");
        assert_eq!(show_date(4_133_894_400), "2100-12-31 00:00:00 UTC");
        assert_eq!(parse_date("Thu, 32 Jan 1970 00:00:00 UTC"), None);
    }

    #[test]
    fn timestamps() {
        for text in ["2024-02-29T23:59:59Z", "20240229T235959Z"] {
            assert_eq!(parse_timestamp(text), Some(1_709_251_199), "{text}");
        }
        assert_eq!(show_timestamp(1_709_251_199), "20240229T235959Z");
        for bad in [
            "",
            "2024-02-29",
            "2024-02-30T00:00:00Z",
            "2024-02-29T24:00:00Z",
            "2024-02-29T00:00:00",
            "2024/02/29T00:00:00Z",
            "2024022\u{fc}T000000Z",
            "2024-2-029T00:00:00Z",
            "+0240229T000000Z",
            "2023-02-29T00:00:00Z",
        ] {
            assert_eq!(parse_timestamp(bad), None, "{bad}");
        }
    }
}
