//! Draws the engine's decisions into `docs/update-states.md`: each line is what the code decides. Where the page differs, run with
//! `WRITE_DOCS=1`.
#![allow(clippy::unwrap_used)] // a test fails by it

use ashlar_image::control::TrialFailure;
use ashlar_image::machine::{Seconds, TimeOfDay, TimeZone, Update, UpdatePolicy, Window};
use ashlar_image::update::Barred;
use ashlar_update::machine::{Boot, Next, Start, boot, next, place_after_boot};
use ashlar_update::saved::{Failures, Place, PlacePhase, Saved, Staged};
use std::collections::BTreeSet;
use std::fmt::Write as _;

/// Two o'clock: the window of the drawing is open from then on for an hour.
const OPEN: i64 = 7200;

fn staged(armed: bool, now: bool) -> Staged {
    Staged { version: "1.1".into(), slot: 'b', armed, back: false, time: 0, now }
}

fn update(policy: UpdatePolicy) -> Update {
    let window = Window {
        days: Vec::new(),
        from: TimeOfDay(120),
        duration: Seconds(3600),
        time_zone: TimeZone::default(),
    };
    Update { policy, windows: vec![window], ..Update::default() }
}

/// The states that the engine keeps, and what is seen of them.
fn states() -> Vec<(&'static str, &'static str, Saved)> {
    let with = |staged: Option<Staged>| Saved { staged, last_check: Some(OPEN - 1000), ..Saved::default() };
    let failed = Failures { version: "1.1".into(), count: 1, not_before: OPEN + 600 };
    vec![
        ("nothing is staged, the channel was looked at", "Idle", with(None)),
        ("nothing is staged, it is time to look", "Idle", Saved::default()),
        ("a release is staged", "Staged", with(Some(staged(false, false)))),
        ("… and the firmware has its order", "Staged", with(Some(staged(true, false)))),
        ("… and somebody has asked for the restart", "Staged", with(Some(staged(false, true)))),
        (
            "… and a restart has just failed",
            "Staged",
            Saved { failures: failed, ..with(Some(staged(false, true))) },
        ),
        (
            "somebody has asked for a restart without an update",
            "Idle",
            Saved { reboot: Some("disk".into()), ..with(None) },
        ),
    ]
}

fn decision(next: &Next) -> (&'static str, &'static str) {
    match next {
        Next::Wait(..) => ("waits", ""),
        Next::Check => ("looks at the channel", "Checking"),
        Next::Restart | Next::Reboot(_) => ("takes a place of the lock and restarts", "Locking"),
        Next::PutOff => ("puts it off", ""),
    }
}

fn page() -> String {
    let mut edges = BTreeSet::new();
    let mut text = "# States of the update engine\n\nDrawn from the code by `cargo test -p ashlar-update --test states`.\n\n\
        ## What comes next\n\n`update-engine/src/machine.rs`, `next`. The window of the drawing is open or closed.\n\n\
        | state | policy | window | session | the engine |\n|---|---|---|---|---|\n"
        .to_owned();
    for (state, node, saved) in states() {
        for (name, policy) in UpdatePolicy::ALL {
            let mut seen: Vec<(&str, &str, &str)> = Vec::new();
            for (window, now) in [("open", OPEN), ("closed", OPEN - 60)] {
                for (session, active) in [("none", false), ("active", true)] {
                    let next = next(&saved, &update(policy), true, active, 0, now);
                    let (what, to) = decision(&next);
                    if !to.is_empty() {
                        edges.insert(format!("    {node} --> {to}"));
                    }
                    seen.push((window, session, what));
                }
            }
            // One line where nothing depends on it.
            if seen.iter().all(|(.., what)| *what == seen[0].2) {
                let _ = writeln!(text, "| {state} | `{name}` | any | any | {} |", seen[0].2);
            } else {
                for (window, session, what) in seen {
                    let _ = writeln!(text, "| {state} | `{name}` | {window} | {session} | {what} |");
                }
            }
        }
    }
    text += "\n## What a boot was\n\n`boot`, for a staged release whose start was ordered; and what it makes of a place of the lock that was held \
        (`place_after_boot`).\n\n| runs | PID 1 says | `BootNext` | the boot was | the place |\n|---|---|---|---|---|\n";
    let failure =
        TrialFailure { version: "1.1".into(), check: "network".into(), reason: "no address".into() };
    let place = Place { token: String::new(), to: None, reason: String::new(), phase: PlacePhase::Held };
    let saved = Saved { staged: Some(staged(true, false)), ..Saved::default() };
    for (runs, slot) in [("the new slot", 'b'), ("the old slot", 'a')] {
        for (says, trial, note, last) in [
            ("a trial", true, None, None),
            ("no trial", false, None, Some("in order: restarting")),
            ("no trial, a note of a failure", false, Some(&failure), None),
            ("no trial, the last boot panicked", false, None, Some("panic: BUG")),
            ("no trial, the last boot hung", false, None, Some("hang: the watchdog")),
        ] {
            // What cannot be: a trial is of the new slot, notes of failures are read by the old one.
            if (slot == 'a' && trial)
                || (slot == 'b' && (note.is_some() || last.is_some_and(|l| !l.starts_with("in order"))))
            {
                continue;
            }
            for (set, next_is_set) in [("gone", false), ("still set", true)] {
                if slot == 'b' && next_is_set {
                    continue;
                }
                let start = Start {
                    slot,
                    trial,
                    failure: note,
                    last_boot: last,
                    last_release: None,
                    next_is_set,
                    now: 0,
                };
                let found = boot(&saved, &start);
                let what = match &found {
                    Boot::Plain => "nothing was tried".to_owned(),
                    Boot::Trial(_) => "its trial".to_owned(),
                    Boot::Committed(_) => "committed before".to_owned(),
                    Boot::Failed(_, Barred { check, .. }) => format!("failed at `{check}`, barred"),
                };
                let (from, to) = if slot == 'b' { ("Restarting", "Trial") } else { ("Trial", "Idle") };
                match &found {
                    Boot::Trial(_) => drop(edges.insert(format!("    {from} --> {to}"))),
                    Boot::Committed(_) => drop(edges.insert("    Trial --> Idle: committed".into())),
                    Boot::Failed(..) => drop(edges.insert("    Trial --> Idle: failed, barred".into())),
                    Boot::Plain => {}
                }
                let kept = match place_after_boot(&place, &found) {
                    PlacePhase::Wanted | PlacePhase::Held => "kept".to_owned(),
                    PlacePhase::Leaving { good } => {
                        format!("given back{}", if good { ", the release is good" } else { "" })
                    }
                    PlacePhase::Failed { .. } => "kept, with the reason".to_owned(),
                };
                let _ = writeln!(text, "| {runs} | {says} | {set} | {what} | {kept} |");
            }
        }
    }
    text += "\n## The way\n\n```mermaid\nstateDiagram-v2\n    [*] --> Idle\n";
    // What the engine does without deciding: staging ends one way or the other, a place comes.
    for edge in [
        "    Checking --> Idle: nothing for this machine",
        "    Checking --> Staging: an update",
        "    Staging --> Staged: written, read back, judged",
        "    Staging --> Idle: failed or cancelled",
        "    Locking --> Restarting: a place, hooks, the fence",
        "    Locking --> Staged: the window has closed",
    ] {
        edges.insert(edge.into());
    }
    for edge in edges {
        text += &edge;
        text.push('\n');
    }
    text + "```\n"
}

#[test]
fn the_page_is_what_the_code_decides() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/update-states.md");
    let page = page();
    if std::env::var_os("WRITE_DOCS").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    assert!(
        std::fs::read_to_string(&path).unwrap_or_default() == page,
        "docs/update-states.md is not what the code decides: WRITE_DOCS=1"
    );
    assert!(page.contains("failed at `network`, barred") && page.contains("Staged --> Locking"));
}
