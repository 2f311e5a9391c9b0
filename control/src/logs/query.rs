//! What somebody wants of the log.

use crate::api::{Problem, boolean, is_name, wrong_value};
use serde::Deserialize;
use std::borrow::Cow;

/// Most units that are asked for at once.
const MAX_UNITS: usize = 16;
/// Digits of the kernel's boot id without its hyphens.
const BOOT_ID: usize = 32;

/// Which boot.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Boot {
    /// All of them.
    #[default]
    Any,
    /// The one that runs.
    Current,
    /// The one before.
    Previous,
    /// The one with this id.
    Id(String),
}

/// Which lines of the log.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Query {
    /// Of these units; of all where there is none.
    pub units: Vec<String>,
    /// Only the last ones of those that fit.
    pub lines: Option<u64>,
    /// Not before this time, microseconds since 1970.
    pub since: Option<u64>,
    /// Of which boot.
    pub boot: Boot,
    /// Of this priority or a more urgent one, 0 to 7.
    pub priority: Option<u8>,
    /// And those to come.
    pub follow: bool,
}

impl Query {
    /// From the parameters of `GET /v1/logs`.
    pub fn parse(parameters: &[(String, String)]) -> Result<Self, Problem> {
        let mut query = Self::default();
        for (name, value) in parameters {
            let wrong = |expected| wrong_value(name, value, expected);
            match name.as_str() {
                "unit" if query.units.len() >= MAX_UNITS => return Err(wrong("given at most 16 times")),
                "unit" if is_name(value) => query.units.push(value.clone()),
                "unit" => return Err(wrong("`kernel`, `init` or the name of a service")),
                "lines" => query.lines = Some(value.parse().map_err(|_| wrong("a number of lines"))?),
                "since" => query.since = Some(since(value).ok_or_else(|| wrong("seconds since 1970"))?),
                "boot" => {
                    query.boot = boot(value).ok_or_else(|| {
                        wrong("`current`, `previous` or a boot id of 32 hexadecimal digits")
                    })?;
                }
                "priority" => {
                    let priority = value.parse().ok().filter(|priority| *priority <= 7);
                    query.priority = Some(priority.ok_or_else(|| wrong("a number from 0 to 7"))?);
                }
                "follow" => query.follow = boolean(name, value)?,
                _ => {
                    let known = "unit, lines, since, boot, priority, follow";
                    return Err(wrong_value("parameter", name, &format!("one of {known}")));
                }
            }
        }
        Ok(query)
    }

    /// The parameters that give it.
    pub fn to_parameters(&self) -> String {
        let mut parts: Vec<String> =
            self.units.iter().map(|unit| format!("unit={}", crate::api::encode(unit))).collect();
        parts.extend(self.lines.map(|lines| format!("lines={lines}")));
        parts.extend(self.since.map(|since| format!("since={}.{:06}", since / 1_000_000, since % 1_000_000)));
        match &self.boot {
            Boot::Any => {}
            Boot::Current => parts.push("boot=current".into()),
            Boot::Previous => parts.push("boot=previous".into()),
            Boot::Id(id) => parts.push(format!("boot={id}")),
        }
        parts.extend(self.priority.map(|priority| format!("priority={priority}")));
        parts.extend(self.follow.then(|| "follow=true".to_owned()));
        parts.join("&")
    }
}

/// A boot as people write it.
pub fn boot(text: &str) -> Option<Boot> {
    match text {
        "current" | "0" => Some(Boot::Current),
        "previous" | "-1" => Some(Boot::Previous),
        _ => {
            let id: String = text.chars().filter(|c| *c != '-').collect();
            let good = id.len() == BOOT_ID && id.bytes().all(|byte| byte.is_ascii_hexdigit());
            good.then(|| Boot::Id(id.to_ascii_lowercase()))
        }
    }
}

/// Microseconds from `1795577114` or `1795577114.5`.
fn since(text: &str) -> Option<u64> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = fraction.get(..fraction.len().min(6))?;
    let micros: u64 = if digits.is_empty() { 0 } else { format!("{digits:0<6}").parse().ok()? };
    seconds.parse::<u64>().ok()?.checked_mul(1_000_000)?.checked_add(micros)
}

/// What is looked at in a line: all fields of `ashlar_image::control::LogEntry` must be there and of their types.
#[derive(Debug, Deserialize)]
struct Line<'a> {
    time: u64,
    #[serde(rename = "uptime")]
    _uptime: u64,
    #[serde(borrow)]
    boot: Cow<'a, str>,
    #[serde(borrow)]
    unit: Cow<'a, str>,
    priority: u8,
    #[serde(borrow, rename = "message")]
    _message: Cow<'a, str>,
}

/// A query whose boot is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    units: Vec<String>,
    since: u64,
    boot: Option<String>,
    priority: u8,
}

impl Filter {
    /// That of a query; `boot` is the id that its boot has.
    pub fn new(query: &Query, boot: Option<String>) -> Self {
        Self {
            units: query.units.clone(),
            since: query.since.unwrap_or(0),
            boot,
            priority: query.priority.unwrap_or(u8::MAX),
        }
    }

    /// Whether a line of the log, without its end, is wanted. What is no entry, as half a line after a power cut, is
    /// not.
    pub fn wants(&self, line: &[u8]) -> bool {
        let Ok(entry) = serde_json::from_slice::<Line<'_>>(line) else { return false };
        entry.time >= self.since
            && entry.priority <= self.priority
            && self.boot.as_ref().is_none_or(|boot| *boot == entry.boot)
            && (self.units.is_empty() || self.units.iter().any(|unit| *unit == entry.unit))
    }
}

/// The boot of a line, if it is an entry.
pub(super) fn boot_of(line: &[u8]) -> Option<String> {
    serde_json::from_slice::<Line<'_>>(line).ok().map(|entry| entry.boot.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use ashlar_image::control::LogEntry;

    fn parse(text: &str) -> Result<Query, Problem> {
        match crate::api::route("GET", "/v1/logs", Some(text))? {
            crate::api::Call::Logs(query) => Ok(query),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn parameters() {
        let id = "0123456789abcdef0123456789abcdef";
        let text =
            format!("unit=web&unit=kernel&lines=10&since=1795577114.500000&boot={id}&priority=4&follow=true");
        let query = parse(&text).unwrap();
        assert_eq!(query.units, ["web", "kernel"]);
        assert_eq!((query.lines, query.since), (Some(10), Some(1_795_577_114_500_000)));
        assert_eq!((&query.boot, query.priority, query.follow), (&Boot::Id(id.into()), Some(4), true));
        assert_eq!(query.to_parameters(), text);
        for boot in ["boot=current", "boot=previous"] {
            assert_eq!(parse(boot).unwrap().to_parameters(), boot);
        }
        assert_eq!(parse("since=5").unwrap().since, Some(5_000_000));
        assert_eq!(parse("since=5.0000019").unwrap().since, Some(5_000_001));
        for bad in [
            "unit=..%2f",
            "unit=",
            "lines=-1",
            "lines=",
            "since=yesterday",
            "since=1.x",
            "since=1.ä",
            "since=18446744073709551615",
            "boot=now",
            "priority=8",
            "follow=1",
            "colour=red",
        ] {
            assert_eq!(parse(bad).unwrap_err().status, 400, "{bad}");
        }
        assert!(parse(&"unit=a&".repeat(17)).is_err());
    }

    #[test]
    fn wanted_lines() {
        let entry = LogEntry {
            time: 1000,
            uptime: 5,
            boot: "b1".into(),
            unit: "web".into(),
            priority: 6,
            message: "with \"quotes\" and \u{fffd}".into(),
        };
        let line = serde_json::to_vec(&entry).unwrap();
        let all = Filter::new(&Query::default(), None);
        assert!(all.wants(&line));
        assert!(!all.wants(&line[..line.len() - 1]));
        assert!(!all.wants(b"{}") && !all.wants(b""));
        let wants =
            |query: Query, boot: Option<&str>| Filter::new(&query, boot.map(str::to_owned)).wants(&line);
        assert!(wants(Query { units: vec!["db".into(), "web".into()], ..Query::default() }, Some("b1")));
        assert!(!wants(Query { units: vec!["db".into()], ..Query::default() }, None));
        assert!(!wants(Query::default(), Some("b2")));
        assert!(wants(Query { since: Some(1000), priority: Some(6), ..Query::default() }, None));
        assert!(!wants(Query { since: Some(1001), ..Query::default() }, None));
        assert!(!wants(Query { priority: Some(5), ..Query::default() }, None));
        assert_eq!(boot_of(&line).as_deref(), Some("b1"));
    }
}
