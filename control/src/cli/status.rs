//! `ashlarctl status`

use super::output::{self, Colour};
use super::{Outcome, good, services};
use crate::cli::node::Node;
use crate::clock;
use crate::text::{printable, short};
use ashlar_image::control::Status;
use std::fmt::Write as _;
use std::time::Duration;

/// Digits of a hash that are shown.
const SHORT_HASH: usize = 16;

pub(super) fn run(node: &Node) -> Outcome {
    let status: Status = node.get("/v1/status")?;
    if !node.json {
        let verdict = if status.good {
            output::coloured("good", Colour::Green)
        } else {
            output::coloured("NOT GOOD", Colour::Red)
        };
        output::print_raw(page(&status, &verdict).trim_end().as_bytes());
    }
    Ok(good(status.good))
}

/// The page, printable.
fn page(status: &Status, verdict: &str) -> String {
    let or = |text: &Option<String>, other: &str| text.clone().unwrap_or_else(|| other.to_owned());
    let floor = status.rollback_floor.map_or(String::new(), |floor| format!(", floor {floor}"));
    let uptime = Duration::try_from_secs_f64(status.uptime_seconds).unwrap_or_default();
    let state = match status.state.as_str() {
        "tpm" => "opened by the TPM".to_owned(),
        "new" => "new: made at this boot".to_owned(),
        "recovery-key" => "opened with the recovery key; seal it anew: ashlarctl state reseal".to_owned(),
        other => other.to_owned(),
    };
    let addresses = if status.addresses.is_empty() { "none".to_owned() } else { status.addresses.join(", ") };
    let clock = match &status.time_server {
        Some(server) => format!("{}, set by {server}", clock::seconds(status.time)),
        None => format!("{}, not set by a time server", clock::seconds(status.time)),
    };
    let lines = [
        ("machine", or(&status.machine_id, "no identity: there is no state volume")),
        (
            "release",
            format!(
                "{} {}, security version {}{floor}",
                status.image_id, status.image_version, status.security_version
            ),
        ),
        ("slot", format!("{}, root hash {}…", status.slot, short(&status.root_hash.to_string(), SHORT_HASH))),
        ("kernel", status.kernel.clone()),
        ("Secure Boot", if status.secure_boot { "on" } else { "OFF" }.to_owned()),
        ("state volume", state),
        (
            "configuration",
            status.configuration_serial.map_or("none".to_owned(), |serial| format!("serial {serial}")),
        ),
        ("addresses", addresses),
        ("clock", clock),
        ("watchdog", or(&status.watchdog, "none")),
        ("last boot", or(&status.last_boot, "this is the first")),
    ];
    let rows = lines.map(|(name, value)| [format!("  {name}"), short(&value, usize::MAX)]);
    let ready = if status.ready { "" } else { ", not ready yet" };
    let mut page = format!(
        "{}  {verdict}, up {}{ready}\n{}",
        short(&status.hostname, usize::MAX),
        clock::span(uptime),
        output::table(&rows)
    );
    if !status.problems.is_empty() {
        page.push_str("\nwhat is wrong\n");
        for problem in &status.problems {
            let _ = writeln!(page, "  {}", printable(problem).replace('\n', "\n    "));
        }
    }
    if !status.services.is_empty() {
        page.push('\n');
        page.push_str(&services::table(&status.services));
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;
    use ashlar_image::digest::Digest;
    use ashlar_image::report::{ServicePhase, ServiceState, Usage};

    fn status() -> Status {
        Status {
            machine_id: Some("5f0c".repeat(8)),
            hostname: "edge-1".into(),
            image_id: "my-host".into(),
            image_version: "7".into(),
            security_version: 4,
            rollback_floor: Some(3),
            slot: "root-a".into(),
            root_hash: Digest::of(b"root"),
            kernel: "6.12.48".into(),
            secure_boot: true,
            state: "tpm".into(),
            good: false,
            ready: true,
            problems: vec!["web: ended 5 times in a minute\nsee its log".into(), "\x1b[2J".into()],
            last_boot: Some("power cut or hang".into()),
            last_boot_release: None,
            addresses: vec!["eth0 10.0.2.15/24".into()],
            time_server: None,
            trial: None,
            trial_failure: None,
            watchdog: Some("i6300esb, 30 s".into()),
            uptime_seconds: 273_900.4,
            time: 1_795_577_114,
            configuration_serial: Some(12),
            services: vec![
                ServiceState {
                    name: "db".into(),
                    container: true,
                    phase: ServicePhase::Running,
                    running: true,
                    ready: true,
                    starts: 1,
                    usage: Usage { memory: Some(3 << 20), cpu: Some(90_500_000), ..Usage::default() },
                    ..ServiceState::default()
                },
                ServiceState {
                    name: "web".into(),
                    phase: ServicePhase::Failed,
                    starts: 5,
                    last_exit: Some("exit status 1".into()),
                    problem: Some("ended 5 times in a minute".into()),
                    ..ServiceState::default()
                },
            ],
        }
    }

    #[test]
    fn the_page() {
        let expected = "\
edge-1  NOT GOOD, up 3 d 4 h
  machine        5f0c5f0c5f0c5f0c5f0c5f0c5f0c5f0c
  release        my-host 7, security version 4, floor 3
  slot           root-a, root hash 4813494d137e1631…
  kernel         6.12.48
  Secure Boot    on
  state volume   opened by the TPM
  configuration  serial 12
  addresses      eth0 10.0.2.15/24
  clock          2026-11-25 03:25:14 UTC, not set by a time server
  watchdog       i6300esb, 30 s
  last boot      power cut or hang

what is wrong
  web: ended 5 times in a minute
    see its log
  \u{fffd}[2J

NAME  KIND       STATE    READY  STARTS  MEMORY   CPU         LAST END OR PROBLEM
db    container  running  yes    1       3.0 MiB  1 min 30 s  -
web   service    failed   no     5       -        -           ended 5 times in a minute
";
        assert_eq!(page(&status(), "NOT GOOD"), expected);
    }

    #[test]
    fn a_machine_without_much() {
        let mut bare = status();
        bare.machine_id = None;
        bare.addresses.clear();
        bare.problems.clear();
        bare.services.clear();
        bare.last_boot = None;
        bare.uptime_seconds = f64::NAN;
        bare.hostname = "a\nb".into();
        let page = page(&bare, "good");
        assert!(
            page.starts_with("a\u{fffd}b  good, up 0 s\n") && page.contains("this is the first"),
            "{page}"
        );
        assert!(!page.contains("what is wrong") && !page.contains("NAME"), "{page}");
    }
}
