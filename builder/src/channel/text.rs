//! Times, spans and shares as people write them.

use crate::recipe::Timestamp;
use ashlar_channel::{WHOLE, Wave};
use serde::Deserialize;
use std::time::{SystemTime, UNIX_EPOCH};

/// Seconds since 1970 by this machine's clock.
pub fn now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    i64::try_from(now).unwrap_or(i64::MAX)
}

/// A span: a whole number and `s`, `m`, `h`, `d` or `w`; in seconds.
pub fn span(text: &str) -> Result<u32, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let factor = match unit {
        "s" => Some(1u32),
        "m" => Some(60),
        "h" => Some(3600),
        "d" => Some(24 * 3600),
        "w" => Some(7 * 24 * 3600),
        _ => None,
    };
    let seconds =
        number.parse::<u32>().ok().zip(factor).and_then(|(number, factor)| number.checked_mul(factor));
    seconds.ok_or_else(|| format!("`{text}` is no span of time: write it as 90m, 12h or 3d"))
}

/// When something begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// So many seconds from now.
    In(u32),
    /// Seconds since 1970.
    At(i64),
}

impl Moment {
    /// In seconds since 1970.
    pub fn at(self, now: i64) -> i64 {
        match self {
            Self::In(seconds) => now.saturating_add(i64::from(seconds)),
            Self::At(time) => time,
        }
    }
}

/// A moment: `now`, `+12h` from now, or `2026-11-01T08:00:00+01:00`.
pub fn moment(text: &str) -> Result<Moment, String> {
    if text == "now" {
        return Ok(Moment::In(0));
    }
    if let Some(rest) = text.strip_prefix('+') {
        return span(rest).map(Moment::In);
    }
    let time = text.parse().ok().and_then(|time| Timestamp::deserialize(toml::Value::Datetime(time)).ok());
    time.map(|time| Moment::At(time.0)).ok_or_else(|| {
        format!(
            "`{text}` is no time: write it as now, +12h or 2026-11-01T08:00:00Z, with date, time and offset"
        )
    })
}

/// A share of all machines: `10%` or `0.1`; in millionths.
pub fn share(text: &str) -> Result<u32, String> {
    let wrong = || format!("`{text}` is no share of the machines: write it as 10% or 0.1; at least 0.0001%");
    let (number, places) = text.strip_suffix('%').map_or((text, 6), |number| (number, 4));
    let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
    let digits =
        |text: &str| !text.is_empty() && text.len() <= 9 && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(part) || part.trim_end_matches('0').len() > places {
        return Err(wrong());
    }
    let part: String = part.chars().chain(std::iter::repeat('0')).take(places).collect();
    let millionths = format!("{whole}{part}").parse::<u32>().map_err(|_| wrong())?;
    if (1..=WHOLE).contains(&millionths) { Ok(millionths) } else { Err(wrong()) }
}

/// A wave before its start is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// When it begins.
    pub start: Moment,
    /// How long it takes, in seconds.
    pub duration: u32,
    /// Its share in millionths.
    pub share: u32,
}

impl Plan {
    /// The wave.
    pub fn wave(self, now: i64) -> Wave {
        Wave { start: self.start.at(now), duration: self.duration, share: self.share }
    }
}

/// A wave: `START/DURATION/SHARE`, such as `+1d/12h/10%`.
pub fn wave(text: &str) -> Result<Plan, String> {
    let mut parts = text.split('/');
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(start), Some(duration), Some(part), None) => {
            Ok(Plan { start: moment(start)?, duration: span(duration)?, share: share(part)? })
        }
        _ => Err(format!("`{text}` is no wave: write it as START/DURATION/SHARE, such as +1d/12h/10%")),
    }
}

/// A time for people: `2026-11-01 08:00:00 UTC`.
pub fn time(seconds: i64) -> String {
    let basic = Timestamp(seconds).basic();
    let part = |from: usize, to: usize| basic.get(from..to).unwrap_or_default();
    format!(
        "{}-{}-{} {}:{}:{} UTC",
        part(0, 4),
        part(4, 6),
        part(6, 8),
        part(9, 11),
        part(11, 13),
        part(13, 15)
    )
}

/// A span for people, in its largest unit.
pub fn rough(seconds: i64) -> String {
    let (size, unit) = [(86_400, "days"), (3600, "hours"), (60, "minutes")]
        .into_iter()
        .find(|(size, _)| seconds.abs() >= 2 * size)
        .unwrap_or((1, "seconds"));
    format!("{} {unit}", seconds / size)
}

/// A share for people: `12.5 %`.
pub fn percent(millionths: u32) -> String {
    let (whole, part) = (millionths / 10_000, millionths % 10_000);
    let part = format!("{part:04}");
    let part = part.trim_end_matches('0');
    if part.is_empty() { format!("{whole} %") } else { format!("{whole}.{part} %") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_write() {
        assert_eq!((span("90m"), span("3d")), (Ok(5400), Ok(259_200)));
        assert_eq!(moment("+2h").map(|moment| moment.at(100)), Ok(7300));
        assert_eq!(moment("1970-01-02T01:00:00+01:00").map(|moment| moment.at(5)), Ok(86_400));
        assert_eq!(
            (share("10%"), share("0.5"), share("12.5%"), share("1")),
            (Ok(100_000), Ok(500_000), Ok(125_000), Ok(WHOLE))
        );
        assert_eq!(share("0.0001%"), Ok(1));
        let plan = wave("+1d/12h/10%").unwrap();
        assert_eq!(plan.wave(1000), Wave { start: 87_400, duration: 43_200, share: 100_000 });
        for text in ["", "3", "d", "3y", "-1h", "99999999w"] {
            assert!(span(text).is_err(), "{text}");
        }
        for text in ["", "today", "2026-11-01", "2026-11-01T08:00:00", "+", "+1"] {
            assert!(moment(text).is_err(), "{text}");
        }
        for text in ["", "0", "0%", "101%", "1.1", "%", "0.00001%", "-1%", "1e1", "99999999999%"] {
            assert!(share(text).is_err(), "{text}");
        }
        for text in ["", "now/1d", "now/1d/1%/1", "x/1d/1%"] {
            assert!(wave(text).is_err(), "{text}");
        }
        assert_eq!(time(951_825_600), "2000-02-29 12:00:00 UTC");
        assert_eq!((rough(3 * 86_400), rough(100)), ("3 days".into(), "100 seconds".into()));
        assert_eq!(
            (percent(125_000), percent(WHOLE), percent(1)),
            ("12.5 %".into(), "100 %".into(), "0.0001 %".into())
        );
    }
}
