//! What `lockctl status` and `lockctl history` show.

use crate::output::{printable, table, time};
use ashlar_lock::attempt::gone;
use ashlar_lock::semaphore::{Holder, Outcomes};
use ashlar_lock::{Event, Gate, Group, Snapshot, Stale};
use serde::Serialize;

/// The JSON of `status`.
#[derive(Debug, Serialize)]
struct Status<'a> {
    group: String,
    available: u32,
    max: u32,
    holders: Vec<Shown<'a>>,
    /// The first that wait, in their order.
    waiting: &'a [String],
    stale: Option<Stale>,
    gate: Option<Gate>,
    results: &'a [Outcomes],
}

#[derive(Debug, Serialize)]
struct Shown<'a> {
    #[serde(flatten)]
    holder: &'a Holder,
    /// Whether its machine has been silent for longer than the group allows.
    gone: bool,
}

fn shown(seen: &Snapshot) -> Vec<Shown<'_>> {
    let away: Vec<&str> = gone(seen).map(|holder| holder.id.as_str()).collect();
    let holders = seen.semaphore.holders.iter();
    holders.map(|holder| Shown { gone: away.contains(&holder.id.as_str()), holder }).collect()
}

/// `status --json`.
pub(crate) fn status_json(group: &Group, seen: &Snapshot) -> serde_json::Result<String> {
    let semaphore = &seen.semaphore;
    let status = Status {
        group: group.to_string(),
        available: semaphore.available(),
        max: semaphore.max,
        holders: shown(seen),
        waiting: &seen.waiting,
        stale: semaphore.stale,
        gate: semaphore.gate,
        results: &semaphore.results,
    };
    Ok(serde_json::to_string_pretty(&status)? + "\n")
}

fn state(shown: &Shown<'_>) -> String {
    match (&shown.holder.failure, shown.gone) {
        (Some(failure), true) => format!("gone; failed: {failure}"),
        (Some(failure), false) => format!("failed: {failure}"),
        (None, true) => "gone".into(),
        (None, false) => "down".into(),
    }
}

/// `status`: the words are locksmith's. `wide` adds columns.
pub(crate) fn status(seen: &Snapshot, wide: bool) -> String {
    let semaphore = &seen.semaphore;
    let mut text = format!("Available: {}\nMax: {}\n", semaphore.available(), semaphore.max);
    let holders = shown(seen);
    if !holders.is_empty() {
        let head = ["MACHINE ID", "STATE", "SINCE", "FROM", "TO", "WANTED BACK", "REASON"];
        let columns = if wide { head.len() } else { 1 };
        let mut rows = vec![head[..columns].iter().map(|head| (*head).to_owned()).collect::<Vec<_>>()];
        for shown in &holders {
            let holder = shown.holder;
            let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".into());
            let row = [
                holder.id.clone(),
                state(shown),
                time(holder.since),
                or_dash(&holder.from),
                or_dash(&holder.to),
                holder.deadline.map_or_else(|| "-".into(), time),
                holder.reason.clone(),
            ];
            rows.push(row[..columns].to_vec());
        }
        text.push('\n');
        text.push_str(&table(&rows));
    }
    if wide {
        if !seen.waiting.is_empty() {
            text.push_str("\nWAITING\n");
            for id in &seen.waiting {
                text.push_str(&printable(id).replace('\n', " "));
                text.push('\n');
            }
        }
        if !semaphore.results.is_empty() {
            let head = ["RELEASE", "GOOD", "FAILED", "STOPPED"].map(str::to_owned).to_vec();
            let row = |outcomes: &Outcomes| {
                vec![
                    outcomes.release.clone(),
                    outcomes.good.to_string(),
                    outcomes.failed.to_string(),
                    outcomes.stopped.clone().unwrap_or_else(|| "-".into()),
                ]
            };
            let rows: Vec<_> = std::iter::once(head).chain(semaphore.results.iter().map(row)).collect();
            text.push('\n');
            text.push_str(&table(&rows));
        }
    }
    // Not to be overlooked, wide or not.
    for outcomes in &semaphore.results {
        if let Some(reason) = &outcomes.stopped {
            let line = format!("Release {} is stopped: {reason} (lockctl resume)", outcomes.release);
            text.push('\n');
            text.push_str(&printable(&line).replace('\n', " "));
            text.push('\n');
        }
    }
    text
}

/// `history`.
pub(crate) fn history(events: &[(u64, Event)], json: bool) -> serde_json::Result<String> {
    if json {
        let all: Vec<_> = events
            .iter()
            .map(|(number, event)| {
                serde_json::json!({ "number": number, "time": event.time, "what": event.what, "id": event.id, "detail": event.detail })
            })
            .collect();
        return Ok(serde_json::to_string_pretty(&all)? + "\n");
    }
    let head = ["NUMBER", "TIME", "WHAT", "MACHINE ID", "DETAIL"].map(str::to_owned).to_vec();
    let row = |(number, event): &(u64, Event)| {
        vec![
            number.to_string(),
            time(event.time),
            event.what.clone(),
            event.id.clone().unwrap_or_else(|| "-".into()),
            event.detail.clone(),
        ]
    };
    Ok(table(&std::iter::once(head).chain(events.iter().map(row)).collect::<Vec<_>>()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ashlar_lock::Semaphore;

    #[test]
    fn locksmiths_words() {
        let mut seen = Snapshot::default();
        assert_eq!(status(&seen, false), "Available: 1\nMax: 1\n");
        let holder = Holder {
            id: "69d27b356a94476da859461d3a3bc6fd".into(),
            token: "t".into(),
            since: 0,
            reason: "up\x1bdate".into(),
            from: Some("1.0".into()),
            to: None,
            deadline: Some(60),
            failure: None,
        };
        seen.semaphore.lock(holder, 0).unwrap();
        assert_eq!(
            status(&seen, false),
            "Available: 0\nMax: 1\n\nMACHINE ID\n69d27b356a94476da859461d3a3bc6fd\n"
        );
        let wide = status(&seen, true);
        assert!(
            wide.ends_with("69d27b356a94476da859461d3a3bc6fd  down   1970-01-01T00:00:00Z  1.0   -   1970-01-01T00:01:00Z  up\u{fffd}date\n"),
            "{wide}"
        );
        seen.semaphore.stale = Some(Stale { after: 60, automatic: false });
        assert!(status(&seen, true).contains("  gone "));
        let json = status_json(&"a".parse().unwrap(), &seen).unwrap();
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!((json["available"].as_u64(), json["holders"][0]["gone"].as_bool()), (Some(0), Some(true)));
    }

    #[test]
    fn a_stopped_release_is_seen() {
        let mut semaphore = Semaphore::default();
        semaphore.results.push(Outcomes {
            release: "1.1".into(),
            good: 1,
            failed: 4,
            stopped: Some("4 of 5".into()),
        });
        let seen = Snapshot { semaphore, ..Snapshot::default() };
        assert!(status(&seen, false).ends_with("\nRelease 1.1 is stopped: 4 of 5 (lockctl resume)\n"));
    }
}
