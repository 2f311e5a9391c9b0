//! Dates of the Gregorian calendar in UTC, and spans of time, as people read and write them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

const DAY: i64 = 86_400;

/// Microseconds since 1970.
pub fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// Year, month, day from days since 1970-01-01 (Howard Hinnant, "chrono-compatible low-level date algorithms").
const fn civil(days: i64) -> (i64, i64, i64) {
    // The year begins in March: the day that leap years add is its last.
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let (year, month) = if month < 10 { (0, month + 3) } else { (1, month - 9) };
    (year_of_era + era * 400 + year, month, day)
}

/// Days since 1970-01-01; the inverse of [`civil`].
const fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// `2026-11-25 03:25:14 UTC` from seconds since 1970.
pub fn seconds(time: i64) -> String {
    let (year, month, day) = civil(time.div_euclid(DAY));
    let second = time.rem_euclid(DAY);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

/// `2026-11-25 03:25:14.123456` from microseconds since 1970.
pub fn microseconds(time: u64) -> String {
    let whole = i64::try_from(time / 1_000_000).unwrap_or_default();
    let date = seconds(whole);
    format!("{}.{:06}", date.trim_end_matches(" UTC"), time % 1_000_000)
}

/// `3 d 4 h`, `12 min 5 s`: the two largest units.
pub fn span(length: Duration) -> String {
    let all = length.as_secs();
    let parts = [(all / 86_400, "d"), (all / 3600 % 24, "h"), (all / 60 % 60, "min"), (all % 60, "s")];
    let first = parts.iter().position(|(count, _)| *count > 0).unwrap_or(parts.len() - 1);
    let shown: Vec<String> =
        parts.iter().skip(first).take(2).map(|(count, unit)| format!("{count} {unit}")).collect();
    shown.join(" ")
}

/// Seconds since 1970 from what somebody wrote: `90s`, `10m`, `2h`, `3d` before `now`; `2026-11-25`,
/// `2026-11-25 03:00`, `2026-11-25T03:00:00` in UTC; `@1795577114`. None where it is none of these.
pub fn parse(text: &str, now: i64) -> Option<i64> {
    let text = text.trim();
    if let Some(seconds) = text.strip_prefix('@') {
        return seconds.parse().ok();
    }
    if let Some(unit) = text.chars().next_back().filter(char::is_ascii_alphabetic).filter(|c| *c != 'Z') {
        let size = match unit {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => DAY,
            'w' => 7 * DAY,
            _ => return None,
        };
        let count: u32 = text.get(..text.len() - 1)?.trim().parse().ok()?;
        return now.checked_sub(i64::from(count).checked_mul(size)?);
    }
    let (date, time) = text.trim_end_matches('Z').split_once(['T', ' ']).unwrap_or((text, "00:00"));
    let date = numbers(date, '-')?;
    let time = numbers(time, ':')?;
    let (&[year, month, day], &[hour, minute, ..]) = (&date[..], &time[..]) else { return None };
    let second = time.get(2).copied().unwrap_or(0);
    let fits = (1970..=9999).contains(&year)
        && (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        && second < 61
        && time.len() <= 3;
    let day_number = days(year, month, day);
    // The 31st of a month with 30 days is another day.
    (fits && civil(day_number) == (year, month, day))
        .then(|| day_number * DAY + hour * 3600 + minute * 60 + second)
}

fn numbers(text: &str, separator: char) -> Option<Vec<i64>> {
    text.split(separator).map(|part| part.parse::<u32>().ok().map(i64::from)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn dates_that_others_computed() {
        // date -u -d @N
        assert_eq!(seconds(0), "1970-01-01 00:00:00 UTC");
        assert_eq!(seconds(951_782_400), "2000-02-29 00:00:00 UTC");
        assert_eq!(seconds(4_107_542_399), "2100-02-28 23:59:59 UTC");
        assert_eq!(seconds(-1), "1969-12-31 23:59:59 UTC");
        assert_eq!(microseconds(1_795_577_114_000_042), "2026-11-25 03:25:14.000042");
    }

    #[test]
    fn what_people_write() {
        let now = 1_795_577_114;
        for (text, expected) in [
            ("90s", Some(now - 90)),
            ("10m", Some(now - 600)),
            ("2 h", Some(now - 7200)),
            ("3d", Some(now - 3 * DAY)),
            ("@12", Some(12)),
            ("2026-11-25", Some(1_795_564_800)),
            ("2026-11-25 03:25", Some(1_795_577_100)),
            ("2026-11-25T03:25:14Z", Some(now)),
            ("2026-02-29", None),
            ("2026-13-01", None),
            ("2026-11-25 24:00", None),
            ("yesterday", None),
            ("", None),
            ("-5m", None),
            ("5y", None),
            ("1:2:3:4", None),
            ("2026-11-25 1:2:3:4", None),
            ("ä", None),
        ] {
            assert_eq!(parse(text, now), expected, "{text}");
        }
    }

    #[test]
    fn spans() {
        for (length, expected) in
            [(0, "0 s"), (59, "59 s"), (61, "1 min 1 s"), (3600, "1 h 0 min"), (273_900, "3 d 4 h")]
        {
            assert_eq!(span(Duration::from_secs(length)), expected);
        }
    }

    proptest! {
        #[test]
        fn days_and_dates_are_inverse(day in -1_000_000..3_000_000_i64) {
            let (year, month, date) = civil(day);
            prop_assert_eq!(days(year, month, date), day);
        }

        #[test]
        fn nothing_panics(text in "\\PC{0,20}") {
            let _ = parse(&text, 1_795_577_114);
        }
    }
}
