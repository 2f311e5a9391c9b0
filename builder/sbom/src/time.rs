//! Times as RFC 3339 in UTC, whole seconds: what SPDX, CycloneDX and in-toto all take.

/// `1970-01-01T00:00:00Z`; years outside 1970 to 9999 are clamped, as the formats know no others.
#[allow(clippy::cast_sign_loss)] // clamped to be positive
pub(crate) fn rfc3339(seconds: i64) -> String {
    let seconds = seconds.clamp(0, 253_402_300_799) as u64;
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    // Counted from 0000-03-01, so that the leap day ends the year.
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::rfc3339;

    #[test]
    fn known_times() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(951_825_600 + 3661), "2000-02-29T13:01:01Z");
        assert_eq!(rfc3339(1_795_252_544), "2026-11-21T09:15:44Z");
        assert_eq!(rfc3339(i64::MAX), "9999-12-31T23:59:59Z");
        assert_eq!(rfc3339(-5), "1970-01-01T00:00:00Z");
    }
}
