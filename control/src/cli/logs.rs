//! `ashlarctl logs`

use super::node::Node;
use super::{DONE, Outcome, output};
use crate::clock;
use crate::error::ControlError;
use crate::logs::Query;
use crate::logs::query::{self, Boot};
use crate::logs::reader::MAX_ENTRY;
use crate::text::short;
use ashlar_image::control::LogEntry;
use clap::Args;

/// Lines that are shown where nothing else bounds them.
const DEFAULT_LINES: u64 = 100;

#[derive(Debug, Args)]
pub(super) struct Logs {
    /// Show new lines as they come, until it is interrupted
    #[arg(short, long)]
    follow: bool,
    /// Only lines of these units: `kernel`, `init` or names of services
    #[arg(value_name = "UNIT")]
    units: Vec<String>,
    /// The same, as an option; may be given again
    #[arg(short, long)]
    unit: Vec<String>,
    /// Only the last ones [default: 100, unless --since or --boot is given]
    #[arg(short = 'n', long)]
    lines: Option<u64>,
    /// Only those since then: `10m`, `2h`, `3d` ago, or `2026-11-25 03:00` in UTC
    #[arg(long)]
    since: Option<String>,
    /// Only those of one boot: `current`, `previous` (0, -1) or its id
    #[arg(long, allow_hyphen_values = true)]
    boot: Option<String>,
    /// Only those of this priority or a more urgent one: 3 is errors, 4 warnings, 6 information
    #[arg(short, long, value_parser = clap::value_parser!(u8).range(0..=7))]
    priority: Option<u8>,
}

impl Logs {
    fn query(self) -> Result<Query, ControlError> {
        let usage = |message: String| ControlError::Usage(message);
        let now = i64::try_from(clock::now() / 1_000_000).unwrap_or_default();
        let since = match &self.since {
            Some(text) => {
                let time = clock::parse(text, now).and_then(|time| u64::try_from(time).ok());
                Some(time.and_then(|time| time.checked_mul(1_000_000)).ok_or_else(|| {
                    usage(format!("--since is `10m`, `2h`, `3d` or `2026-11-25 03:00`, not `{text}`"))
                })?)
            }
            None => None,
        };
        let boot = match &self.boot {
            Some(text) => query::boot(text).ok_or_else(|| {
                usage(format!("--boot is `current`, `previous` or a boot id of 32 digits, not `{text}`"))
            })?,
            None => Boot::Any,
        };
        let bounded = since.is_some() || boot != Boot::Any;
        Ok(Query {
            units: [self.units, self.unit].concat(),
            lines: self.lines.or((!bounded).then_some(DEFAULT_LINES)),
            since,
            boot,
            priority: self.priority,
            follow: self.follow,
        })
    }

    pub(super) fn run(self, node: &Node) -> Outcome {
        let query = self.query()?;
        let mut begun: Vec<u8> = Vec::new();
        let mut each = |bytes: &[u8]| {
            for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
                begun.extend_from_slice(piece);
                if begun.len() > MAX_ENTRY.saturating_mul(2) {
                    return Err(ControlError::Answer {
                        node: node.target().to_string(),
                        problem: "a line of the log is longer than any is".into(),
                    });
                }
                if let Some(line) = begun.strip_suffix(b"\n") {
                    if node.json {
                        output::print_raw(line);
                    } else if let Ok(entry) = serde_json::from_slice::<LogEntry>(line) {
                        output::print(&shown(&entry));
                    }
                    begun.clear();
                }
            }
            Ok(())
        };
        node.connect()?.stream(&format!("/v1/logs?{}", query.to_parameters()), &mut each)?;
        DONE
    }
}

/// As in RFC 5424, table 2.
const PRIORITIES: [&str; 8] = ["emergency", "alert", "critical", "error", "warning", "notice", "", "debug"];

fn shown(entry: &LogEntry) -> String {
    let priority = PRIORITIES.get(usize::from(entry.priority)).copied().unwrap_or_default();
    let priority = if priority.is_empty() { String::new() } else { format!(" {priority}") };
    let unit = short(&entry.unit, 128);
    format!("{} {unit}{priority}: {}", clock::microseconds(entry.time), short(&entry.message, usize::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_for_people() {
        let mut entry = LogEntry {
            time: 1_795_577_114_000_042,
            uptime: 1,
            boot: String::new(),
            unit: "web".into(),
            priority: 6,
            message: "up\x1b[2J".into(),
        };
        assert_eq!(shown(&entry), "2026-11-25 03:25:14.000042 web: up\u{fffd}[2J");
        entry.priority = 3;
        assert_eq!(shown(&entry), "2026-11-25 03:25:14.000042 web error: up\u{fffd}[2J");
    }
}
