//! A point in time as a TOML date-time or RFC 3339 text, in seconds since 1970.

use serde::{Deserialize, Deserializer};

/// Seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub struct Timestamp(pub i64);

/// Days from 1970-01-01 to a date of the proleptic Gregorian calendar.
fn days(year: i64, month: i64, day: i64) -> i64 {
    // The year begins in March, so that the leap day is its last day.
    let year = year - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = toml::value::Datetime::deserialize(deserializer)?;
        let whole = value.date.zip(value.time).zip(value.offset);
        let ((date, time), offset) = whole.ok_or_else(|| {
            serde::de::Error::custom("write the time as 2026-11-01T00:00:00Z, with date, time and offset")
        })?;
        let offset = match offset {
            toml::value::Offset::Z => 0,
            toml::value::Offset::Custom { minutes } => i64::from(minutes) * 60,
        };
        let seconds = days(i64::from(date.year), i64::from(date.month), i64::from(date.day)) * 86_400
            + i64::from(time.hour) * 3600
            + i64::from(time.minute) * 60
            + i64::from(time.second.unwrap_or(0));
        Ok(Self(seconds - offset))
    }
}

impl Timestamp {
    /// As `20261101T000000Z` (ISO 8601, basic format).
    pub fn basic(self) -> String {
        let (mut day, second) = (self.0.div_euclid(86_400), self.0.rem_euclid(86_400));
        // The reverse of `days`.
        day += 719_468;
        let era = day.div_euclid(146_097);
        let of_era = day.rem_euclid(146_097);
        let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year + year / 4 - year / 100);
        let month = (5 * of_year + 2) / 153;
        let date = of_year - (153 * month + 2) / 5 + 1;
        let month = if month < 10 { month + 3 } else { month - 9 };
        let year = year + era * 400 + i64::from(month <= 2);
        let (hour, minute) = (second / 3600, second % 3600 / 60);
        format!("{year:04}{month:02}{date:02}T{hour:02}{minute:02}{:02}Z", second % 60)
    }
}

impl schemars::JsonSchema for Timestamp {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Timestamp".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "format": "date-time" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    struct Holder {
        at: Timestamp,
    }

    #[test]
    fn times_agree_with_date() {
        for (text, seconds) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2000-02-29T12:00:00Z", 951_825_600),
            ("2026-11-24T12:38:00+01:00", 1_795_520_280),
        ] {
            let holder: Holder = toml::from_str(&format!("at = {text}")).unwrap();
            assert_eq!(holder.at.0, seconds, "{text}");
        }
        for (seconds, text) in
            [(0, "19700101T000000Z"), (951_825_600, "20000229T120000Z"), (1_795_520_280, "20261124T113800Z")]
        {
            assert_eq!(Timestamp(seconds).basic(), text);
        }
        assert!(toml::from_str::<Holder>("at = 2026-11-24").is_err());
    }
}
