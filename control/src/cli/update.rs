//! `ashlarctl update`

use super::node::Node;
use super::{DONE, Outcome, output};
use crate::api::encode;
use crate::clock;
use crate::error::ControlError;
use crate::text::{printable, short};
use ashlar_image::update::{
    HistoryEntry, LockIdentity, LockPhase, LockStatus, UpdatePhase, UpdatePlan, UpdateStatus, WhyEntry,
};
use clap::{Args, Subcommand};
use hyper::Method;
use indicatif::{ProgressBar, ProgressStyle};
use std::fmt::Write as _;
use std::fs::File;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// How often the machine is asked how far it is.
const POLL: Duration = Duration::from_millis(700);
/// A machine that restarts does not answer for a while.
const SILENCE: u32 = 5;

#[derive(Debug, Subcommand)]
pub(super) enum Update {
    /// Show what the engine does and what comes next
    Status,
    /// Look at the channel now
    Check,
    /// Show what an update would do, without doing it
    Plan(Choice),
    /// Fetch an update and write it to the other slot; the next restart starts it
    Stage(Choice),
    /// Stage an update and restart into it now, from the channel or from an offline bundle
    Apply(Apply),
    /// End what is under way, or take a staged update back
    Cancel,
    /// Restart into the release in the other slot
    Rollback,
    /// Put off the restart into a staged update
    Postpone {
        /// For how long, in minutes
        minutes: u64,
    },
    /// Show what was done
    History,
    /// Show what was decided in the last day, and why
    Why,
    /// Let a release that has failed here be tried again
    Unbar {
        /// Its version
        version: String,
    },
    /// Restart without an update, once the machine has a place of its group's reboot lock
    Reboot {
        /// Why, for others to read
        #[arg(long, default_value = "by hand", value_name = "TEXT")]
        reason: String,
    },
    /// Print the certificate by which etcd knows the machine, as holder of the reboot lock
    Identity {
        /// Print a request for a certificate instead (PKCS #10), for an authority that etcd trusts
        #[arg(long)]
        request: bool,
    },
    /// Show figures as OpenMetrics text
    Metrics,
}

/// Which release.
#[derive(Debug, Args)]
pub(super) struct Choice {
    /// This version instead of the one that the channel offers
    #[arg(long, value_name = "VERSION")]
    version: Option<String>,
    /// Do not wait for this machine's turn in a rollout
    #[arg(long)]
    now: bool,
    /// Also a release that has failed on this machine
    #[arg(long)]
    force: bool,
    /// Come back when it has begun
    #[arg(long)]
    no_wait: bool,
}

#[derive(Debug, Args)]
pub(super) struct Apply {
    #[command(flatten)]
    choice: Choice,
    /// An offline bundle (`ashlar channel bundle`)
    #[arg(conflicts_with_all = ["version", "now", "force"])]
    file: Option<PathBuf>,
    /// With a bundle: stage it and do not restart
    #[arg(long, requires = "file")]
    no_restart: bool,
}

impl Choice {
    fn query(&self) -> String {
        let mut query = String::new();
        if let Some(version) = &self.version {
            let _ = write!(query, "&version={}", encode(version));
        }
        for (name, set) in [("now", self.now), ("force", self.force)] {
            if set {
                let _ = write!(query, "&{name}=true");
            }
        }
        query.replacen('&', "?", 1)
    }
}

impl Update {
    pub(super) fn run(self, node: &Node) -> Outcome {
        match self {
            Self::Status => show(node, &node.get("/v1/update")?),
            Self::Check => show(node, &post(node, "/v1/update/check")?),
            Self::Plan(choice) => Ok(plan(node, &node.get(&format!("/v1/update/plan{}", choice.query()))?)),
            Self::Stage(choice) => {
                begin(node, &format!("/v1/update/stage{}", choice.query()), choice.no_wait)
            }
            Self::Apply(Apply { choice, file: None, .. }) => {
                begin(node, &format!("/v1/update/apply{}", choice.query()), choice.no_wait)
            }
            Self::Apply(Apply { file: Some(file), no_restart, choice }) => {
                bundle(node, &file, !no_restart, choice.no_wait)
            }
            Self::Cancel => show(node, &post(node, "/v1/update/cancel")?),
            Self::Rollback => show(node, &post(node, "/v1/update/rollback")?),
            Self::Postpone { minutes } => {
                let seconds = minutes.saturating_mul(60);
                show(node, &post(node, &format!("/v1/update/postpone?seconds={seconds}"))?)
            }
            Self::History => history(node, &node.get::<Vec<HistoryEntry>>("/v1/update/history")?),
            Self::Why => whys(node, &node.get::<Vec<WhyEntry>>("/v1/update/why")?),
            Self::Unbar { version } => {
                show(node, &post(node, &format!("/v1/update/unbar?version={}", encode(&version)))?)
            }
            Self::Reboot { reason } => {
                show(node, &post(node, &format!("/v1/update/reboot?reason={}", encode(&reason)))?)
            }
            Self::Identity { request } => {
                let identity: LockIdentity = node.get("/v1/update/identity")?;
                if !node.json {
                    output::print(if request { &identity.request } else { &identity.certificate });
                }
                DONE
            }
            Self::Metrics => {
                let text: String = node.get("/v1/update/metrics")?;
                if !node.json {
                    output::print(&text);
                }
                DONE
            }
        }
    }
}

fn post(node: &Node, path: &str) -> Result<UpdateStatus, ControlError> {
    let bytes = node.connect()?.call(Method::POST, path, Vec::new())?;
    node.understand(&bytes)
}

fn show(node: &Node, status: &UpdateStatus) -> Outcome {
    if !node.json {
        output::print(&page(status));
    }
    DONE
}

fn page(status: &UpdateStatus) -> String {
    let or = |text: &Option<String>, other: &str| text.clone().unwrap_or_else(|| other.to_owned());
    let target = status.target.as_ref().map(|target| format!(" (release {target})")).unwrap_or_default();
    let mut rows = vec![
        ("runs", format!("release {} in slot {}", status.running, status.slot)),
        ("phase", format!("{}{target}", status.phase.name())),
        ("next", if status.next.is_empty() { "nothing".to_owned() } else { status.next.clone() }),
        ("channel", or(&status.channel, "none")),
        ("policy", status.policy.clone()),
        ("last look", status.last_check.map_or("never".to_owned(), clock::seconds)),
        ("it found", or(&status.last_result, "nothing yet")),
    ];
    if let Some(progress) = status.progress {
        let text = format!(
            "{} of {} bytes fetched, {} of {} done",
            progress.fetched, progress.to_fetch, progress.done, progress.to_do
        );
        rows.push(("progress", text));
    }
    if let Some(lock) = &status.lock {
        rows.extend(lock_rows(lock));
    }
    if let Some(error) = &status.last_error {
        rows.push(("last error", error.clone()));
    }
    for barred in &status.barred {
        rows.push(("barred", format!("release {}: {}: {}", barred.version, barred.check, barred.reason)));
    }
    let rows: Vec<[String; 2]> =
        rows.into_iter().map(|(name, value)| [name.to_owned(), short(&value, usize::MAX)]).collect();
    output::table(&rows)
}

fn lock_rows(lock: &LockStatus) -> Vec<(&'static str, String)> {
    let places = match (lock.available, lock.max) {
        (Some(available), Some(max)) => format!(", {available} of {max} places are free"),
        _ => String::new(),
    };
    let mut rows = vec![("lock", format!("group {}{places}; {}", lock.group, lock.phase.name()))];
    if lock.phase != LockPhase::None
        && let Some(detail) = &lock.detail
    {
        rows.push(("because", detail.clone()));
    }
    if let Some(problem) = &lock.problem {
        let since =
            lock.problem_since.map(|since| format!(" since {}", clock::seconds(since))).unwrap_or_default();
        rows.push(("lock trouble", format!("no restart by itself{since}: {problem}")));
    }
    for holder in &lock.holders {
        let state = match (&holder.failure, holder.gone) {
            (Some(failure), _) => format!(" has failed: {failure}"),
            (None, true) => " is gone".to_owned(),
            (None, false) => String::new(),
        };
        let since = clock::seconds(holder.since);
        rows.push(("down", format!("{} since {since} ({}){state}", holder.id, holder.reason)));
    }
    rows.extend(lock.stopped.iter().map(|stopped| ("stopped", stopped.clone())));
    rows
}

fn plan(node: &Node, plan: &UpdatePlan) -> ExitCode {
    if !node.json {
        let mut text = format!("release {} to slot {}\n\n", short(&plan.version, usize::MAX), plan.slot);
        let mut rows = vec![["PART", "IN PLACE", "COPIED", "ZEROS", "FETCHED", "BYTES"].map(str::to_owned)];
        for part in &plan.parts {
            let numbers =
                [part.keep, part.copy, part.zero, part.fetch, part.bytes].map(|number| number.to_string());
            let [keep, copy, zero, fetch, bytes] = numbers;
            rows.push([part.part.clone(), keep, copy, zero, fetch, bytes]);
        }
        text.push_str(&output::table(&rows));
        let _ = writeln!(
            text,
            "(blocks of 4096 bytes; {} bytes are fetched by {} requests)\n",
            plan.fetch_bytes, plan.requests
        );
        let opens = plan.state_volume.as_deref().unwrap_or("opens");
        let _ = writeln!(text, "state volume: {}", printable(opens));
        let _ = writeln!(text, "restart: {}", printable(&plan.restart));
        let _ = writeln!(text, "checks afterwards: {}", printable(&plan.checks.join(", ")));
        if let Some(notes) = &plan.notes {
            let _ = writeln!(text, "notes: {}", printable(notes));
        }
        text.push_str("\nsteps\n");
        for (number, step) in plan.steps.iter().enumerate() {
            let _ = writeln!(text, "  {}. {}", number + 1, printable(step));
        }
        for obstacle in &plan.obstacles {
            let _ = writeln!(text, "\nin the way: {}", printable(obstacle));
        }
        output::print(&text);
    }
    // As for `status`: a plan that cannot be carried out is no good news.
    super::good(plan.obstacles.is_empty())
}

fn history(node: &Node, entries: &[HistoryEntry]) -> Outcome {
    if !node.json {
        let mut rows = vec![["TIME", "RELEASE", "WHAT", "DETAIL"].map(str::to_owned)];
        for entry in entries {
            let texts = [&entry.version, &entry.what, &entry.detail].map(|text| short(text, usize::MAX));
            let [version, what, detail] = texts;
            rows.push([clock::seconds(entry.time), version, what, detail]);
        }
        output::print(&output::table(&rows));
    }
    DONE
}

fn whys(node: &Node, entries: &[WhyEntry]) -> Outcome {
    if !node.json {
        let mut rows = vec![["LAST", "TIMES", "DECISION"].map(str::to_owned)];
        for entry in entries {
            rows.push([
                clock::seconds(entry.time),
                entry.times.to_string(),
                short(&entry.decision, usize::MAX),
            ]);
        }
        output::print(&output::table(&rows));
    }
    DONE
}

/// Has something long begin, and follows it.
fn begin(node: &Node, path: &str, no_wait: bool) -> Outcome {
    let bytes = node.connect()?.call(Method::POST, path, Vec::new())?;
    if no_wait {
        return show(node, &node.understand(&bytes)?);
    }
    follow(node)
}

fn bar(length: u64, what: &str) -> ProgressBar {
    let bar = if std::io::stderr().is_terminal() { ProgressBar::new(length) } else { ProgressBar::hidden() };
    let style = ProgressStyle::with_template("{msg} [{bar:30}] {bytes}/{total_bytes} {eta}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.set_message(what.to_owned());
    bar
}

/// Asks how far it is until it is over.
fn follow(node: &Node) -> Outcome {
    let bar = bar(0, "update");
    let mut silent = 0;
    loop {
        std::thread::sleep(POLL);
        let asked =
            node.connect().and_then(|mut connection| connection.call(Method::GET, "/v1/update", Vec::new()));
        let status: UpdateStatus = match asked {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| ControlError::Answer {
                node: node.target().to_string(),
                problem: error.to_string(),
            })?,
            // It may have begun to restart.
            Err(ControlError::Unreachable { .. }) if silent < SILENCE => {
                silent += 1;
                continue;
            }
            Err(error) => return Err(error),
        };
        silent = 0;
        if let Some(progress) = status.progress {
            bar.set_length(progress.to_do);
            bar.set_position(progress.done.min(progress.to_do));
        }
        match status.phase {
            UpdatePhase::Checking | UpdatePhase::Staging => {}
            UpdatePhase::Locking => bar.set_message("waits for the reboot lock"),
            UpdatePhase::Restarting => {
                bar.finish_and_clear();
                if node.json {
                    output::print_raw(&serde_json::to_vec(&status).unwrap_or_default());
                } else {
                    let target = status.target.unwrap_or_default();
                    output::print(&format!(
                        "the machine restarts into release {target}; `ashlarctl update status` tells how it goes"
                    ));
                }
                return DONE;
            }
            UpdatePhase::Idle | UpdatePhase::Available | UpdatePhase::Staged | UpdatePhase::Trial => {
                bar.finish_and_clear();
                if node.json {
                    output::print_raw(&serde_json::to_vec(&status).unwrap_or_default());
                } else {
                    output::print(&page(&status));
                }
                return Ok(super::good(status.last_error.is_none()));
            }
        }
    }
}

fn bundle(node: &Node, path: &PathBuf, restart: bool, no_wait: bool) -> Outcome {
    let file = File::open(path).map_err(ControlError::io("open", path))?;
    let size = file.metadata().map_err(ControlError::io("read", path))?.len();
    let bar = bar(size, "bundle");
    let shown = bar.clone();
    let tell = Box::new(move |left: u64| shown.set_position(size.saturating_sub(left)));
    let answer = node.connect()?.upload(&format!("/v1/update/bundle?restart={restart}"), file, size, tell)?;
    bar.finish_and_clear();
    if no_wait {
        return show(node, &node.understand(&answer)?);
    }
    follow(node)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ashlar_image::update::Barred;

    #[test]
    fn a_page() {
        let status = UpdateStatus {
            running: "1.1".into(),
            slot: "b".into(),
            policy: "off".into(),
            last_error: Some("x\u{1b}[2J".into()),
            barred: vec![Barred {
                version: "1.2".into(),
                check: "kernel".into(),
                reason: "panic".into(),
                time: 0,
            }],
            lock: Some(LockStatus {
                group: "web".into(),
                phase: LockPhase::Waiting,
                detail: Some("all places are taken".into()),
                problem: Some("no answer".into()),
                problem_since: Some(60),
                available: Some(0),
                max: Some(1),
                holders: vec![ashlar_image::update::LockHolder {
                    id: "m1".into(),
                    since: 0,
                    reason: "update".into(),
                    failure: Some("network: none".into()),
                    gone: false,
                }],
                stopped: vec!["release 1.2: 2 of 5 machines have failed".into()],
            }),
            ..UpdateStatus::default()
        };
        let page = page(&status);
        for line in [
            "lock          group web, 0 of 1 places are free; waits for a place",
            "because       all places are taken",
            "lock trouble  no restart by itself since 1970-01-01 00:01:00 UTC: no answer",
            "down          m1 since 1970-01-01 00:00:00 UTC (update) has failed: network: none",
            "stopped       release 1.2: 2 of 5 machines have failed",
            "runs          release 1.1 in slot b",
            "phase         idle",
            "barred        release 1.2: kernel: panic",
        ] {
            assert!(page.contains(line), "{line}\n{page}");
        }
        assert!(!page.contains('\u{1b}'));
    }

    #[test]
    fn queries() {
        let choice = |version: Option<&str>, now, force| Choice {
            version: version.map(str::to_owned),
            now,
            force,
            no_wait: false,
        };
        assert_eq!(choice(None, false, false).query(), "");
        assert_eq!(choice(Some("1.1+x"), true, true).query(), "?version=1.1%2Bx&now=true&force=true");
    }
}
