//! Figures as OpenMetrics text (OpenMetrics 1.0, section 3).

use ashlar_image::update::{UpdatePhase, UpdateStatus};
use std::collections::BTreeMap;
use std::fmt::Write;

/// What is counted since the engine's start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counters {
    /// Bytes that were fetched.
    pub fetched: u64,
    /// Looks at the channel that went well.
    pub checks: u64,
    /// Releases that were staged.
    pub staged: u64,
    /// Failures by what was done: `check`, `stage`, `trial`.
    pub failures: BTreeMap<&'static str, u64>,
    /// When metadata expires by role, seconds since 1970.
    pub expires: BTreeMap<String, i64>,
}

const PHASES: [UpdatePhase; 8] = [
    UpdatePhase::Idle,
    UpdatePhase::Checking,
    UpdatePhase::Available,
    UpdatePhase::Staging,
    UpdatePhase::Staged,
    UpdatePhase::Locking,
    UpdatePhase::Restarting,
    UpdatePhase::Trial,
];

/// A text between quotes.
fn label(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// The text.
pub fn render(status: &UpdateStatus, counters: &Counters) -> String {
    let mut out = String::new();
    let mut family = |name: &str, kind: &str, help: &str, samples: &[(String, i64)]| {
        let _ = writeln!(out, "# TYPE {name} {kind}\n# HELP {name} {help}");
        let suffix = if kind == "counter" { "_total" } else { "" };
        for (labels, value) in samples {
            let _ = writeln!(out, "{name}{suffix}{labels} {value}");
        }
    };
    let count = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    let phases =
        PHASES.map(|phase| (format!("{{phase=\"{}\"}}", phase.name()), i64::from(phase == status.phase)));
    family("ashlar_update_phase", "gauge", "1 for the phase that the engine is in.", &phases);
    let running = format!("{{version=\"{}\",slot=\"{}\"}}", label(&status.running), label(&status.slot));
    family("ashlar_update_running", "gauge", "The release that runs.", &[(running, 1)]);
    if let Some(target) = &status.target {
        let target = format!("{{version=\"{}\"}}", label(target));
        family("ashlar_update_target", "gauge", "The release that the phase is about.", &[(target, 1)]);
    }
    family(
        "ashlar_update_barred",
        "gauge",
        "Releases that have failed on this machine.",
        &[(String::new(), count(status.barred.len() as u64))],
    );
    if let Some(time) = status.last_check {
        family(
            "ashlar_update_last_check_seconds",
            "gauge",
            "When the channel was looked at, since 1970.",
            &[(String::new(), time)],
        );
    }
    family(
        "ashlar_update_fetched_bytes",
        "counter",
        "Bytes that were fetched.",
        &[(String::new(), count(counters.fetched))],
    );
    family(
        "ashlar_update_checks",
        "counter",
        "Looks at the channel that went well.",
        &[(String::new(), count(counters.checks))],
    );
    family(
        "ashlar_update_staged",
        "counter",
        "Releases that were staged.",
        &[(String::new(), count(counters.staged))],
    );
    let failures: Vec<(String, i64)> = counters
        .failures
        .iter()
        .map(|(what, number)| (format!("{{what=\"{what}\"}}"), count(*number)))
        .collect();
    family("ashlar_update_failures", "counter", "Failures by what was done.", &failures);
    let expires: Vec<(String, i64)> = counters
        .expires
        .iter()
        .map(|(role, time)| (format!("{{role=\"{}\"}}", label(role)), *time))
        .collect();
    family(
        "ashlar_update_metadata_expires_seconds",
        "gauge",
        "When the channel's metadata expires, since 1970.",
        &expires,
    );
    out.push_str("# EOF\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text() {
        let status =
            UpdateStatus { running: "1.0 \"x\"".into(), slot: "a".into(), ..UpdateStatus::default() };
        let counters =
            Counters { fetched: 7, failures: BTreeMap::from([("stage", 2)]), ..Counters::default() };
        let text = render(&status, &counters);
        for line in [
            "ashlar_update_phase{phase=\"idle\"} 1",
            "ashlar_update_phase{phase=\"trial\"} 0",
            "ashlar_update_running{version=\"1.0 \\\"x\\\"\",slot=\"a\"} 1",
            "ashlar_update_fetched_bytes_total 7",
            "ashlar_update_failures_total{what=\"stage\"} 2",
        ] {
            assert!(text.lines().any(|other| other == line), "{line}\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
    }
}
