//! The text of the status page: what a tired person in front of the machine needs, in the order in which he needs it.

use ashlar_image::control::Status;
use ashlar_image::report::{ServicePhase, ServiceState};
use std::fmt::Write as _;

/// Width of the first column.
const LABEL: usize = 15;
/// Narrowest and widest page in characters.
const WIDTHS: std::ops::RangeInclusive<usize> = 40..=132;
/// Most problems that are shown; a page is not a log.
const MAX_PROBLEMS: usize = 12;
/// Most services that are named.
const MAX_SERVICES: usize = 24;
/// Most characters of one text from outside.
const MAX_TEXT: usize = 400;

/// Text from outside as a console may show it: printable ASCII. A name or a message must not move the cursor, change
/// the colours or the keyboard, or look like another line.
pub fn plain(text: &str) -> String {
    let shown = |c: char| if c.is_ascii_graphic() || c == ' ' { c } else { '?' };
    text.chars().take(MAX_TEXT).map(shown).collect()
}

/// Breaks `text` between words into lines of at most `width` characters; a longer word is cut.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let mut rest = word;
        while let Some(line) = lines.last_mut() {
            let space = usize::from(!line.is_empty());
            if line.len() + space + rest.len() <= width {
                if space == 1 {
                    line.push(' ');
                }
                line.push_str(rest);
                break;
            }
            if space == 1 {
                lines.push(String::new());
                continue;
            }
            // Plain text is ASCII, so every place is between characters.
            let (front, after) = rest.split_at(width.min(rest.len()));
            line.push_str(front);
            rest = after;
            lines.push(String::new());
        }
    }
    lines
}

/// Adds `label` and `text`, the text in a column of its own.
fn row(page: &mut String, label: &str, text: &str, width: usize) {
    for (number, line) in wrap(&plain(text), width.saturating_sub(LABEL + 2)).iter().enumerate() {
        let label = if number == 0 { label } else { "" };
        let _ = writeln!(page, "  {label:<LABEL$}{line}");
    }
}

/// A list item with `mark` before it and the rest indented.
fn item(page: &mut String, mark: &str, text: &str, width: usize) {
    let indent = mark.len();
    for (number, line) in wrap(&plain(text), width.saturating_sub(indent + 2)).iter().enumerate() {
        let mark = if number == 0 { mark } else { "" };
        let _ = writeln!(page, "  {mark:<indent$}{line}");
    }
}

fn service(service: &ServiceState) -> String {
    let state = match (service.phase, &service.last_exit) {
        (ServicePhase::Ended | ServicePhase::Failed, Some(exit)) => {
            format!("{}: {exit}", service.phase.name())
        }
        // A report of an older init has no phase.
        (ServicePhase::Off, _) if service.running => "running".into(),
        _ => service.phase.name().into(),
    };
    format!("{} ({state})", service.name)
}

fn services(status: &Status) -> String {
    let mut names: Vec<String> = status.services.iter().take(MAX_SERVICES).map(service).collect();
    let more = status.services.len().saturating_sub(MAX_SERVICES);
    if more > 0 {
        names.push(format!("and {more} more"));
    }
    if names.is_empty() {
        "nothing: this image has no services and no containers".into()
    } else {
        names.join(", ")
    }
}

/// What to do about what the status shows, each with what it is for.
fn advice(status: &Status) -> Vec<String> {
    let mut list = Vec::new();
    if status.addresses.is_empty() {
        list.push(
            "No address: see that the cable is in the right port and its light is on, and that a DHCP server \
             answers or the machine configuration gives an address."
                .to_owned(),
        );
    }
    if !status.secure_boot {
        list.push(
            "Secure Boot is off: switch it on in the firmware's set-up, with the owner's keys enrolled. Until then \
             anybody with a hand on the machine can start another system on it."
                .to_owned(),
        );
    }
    if status.state == "recovery-key" {
        list.push(
            "The state volume was opened with the recovery key: the TPM would not. If the firmware, its keys or the \
             TPM were changed on purpose, run `ashlarctl state reseal`, or the key is asked for again at the next start."
                .to_owned(),
        );
    }
    if status.ready && status.time_server.is_none() {
        list.push(
            "The clock was set by no time server yet: see that UDP port 123 of the servers in the machine \
             configuration can be reached."
                .to_owned(),
        );
    }
    let failed = |service: &&ServiceState| service.phase == ServicePhase::Failed || service.problem.is_some();
    for service in status.services.iter().filter(failed).take(4) {
        list.push(format!("{0} does not work: `ashlarctl logs {0}` shows what it wrote.", service.name));
    }
    if status.last_boot.as_deref().is_some_and(|last| last.starts_with("panic")) {
        list.push(
            "The boot before ended in a panic of the kernel: `ashlarctl logs kernel` has its last lines."
                .into(),
        );
    }
    if status
        .last_boot
        .as_deref()
        .is_some_and(|last| last.starts_with("power cut") || last.starts_with("hang"))
    {
        list.push("The boot before did not end in order: see whether the power failed.".into());
    }
    list
}

/// Days since 1970 as year, month, day (proleptic Gregorian calendar).
fn date(time: i64) -> (i64, i64, i64) {
    // Years begin in March, so that the odd day is the last of a year; 400 years are 146097 days.
    let days = time.div_euclid(86_400) + 719_468;
    let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (year + era * 400 + next, month, day_of_month)
}

/// The page, `width` characters wide or a little less. Nothing in it changes by itself but the date.
pub fn render(status: &Status, fingerprint: Option<&str>, width: usize) -> String {
    let width = width.clamp(*WIDTHS.start(), *WIDTHS.end()) - 1;
    let mut page = String::new();
    let rule = "-".repeat(width);
    let verdict = match (status.good, status.ready, status.problems.len()) {
        (true, ..) => "GOOD: everything runs as the release says".to_owned(),
        (_, false, 0) => "STARTING".to_owned(),
        (_, true, 0) => "READY: still being checked".to_owned(),
        (_, _, 1) => "NOT GOOD: one problem, see below".to_owned(),
        (_, _, count) => format!("NOT GOOD: {count} problems, see below"),
    };
    let title = format!("Ashlar {} {} on {}", status.image_id, status.image_version, status.hostname);
    for line in wrap(&plain(&title), width).iter().chain([&rule]) {
        let _ = writeln!(page, "{line}");
    }
    item(&mut page, "", &verdict, width);
    page.push('\n');

    let addresses = status.addresses.join(", ");
    row(&mut page, "addresses", if addresses.is_empty() { "none" } else { &addresses }, width);
    row(&mut page, "runs", &services(status), width);
    let floor = status.rollback_floor.map_or_else(String::new, |floor| format!(", floor {floor}"));
    let release = format!(
        "{} {}, security version {}{floor}, Linux {}",
        status.image_id, status.image_version, status.security_version, status.kernel
    );
    row(&mut page, "release", &release, width);
    let hash = status.root_hash.to_string();
    row(
        &mut page,
        "slot",
        &format!("{}, root {}...", status.slot, hash.get(..16).unwrap_or_default()),
        width,
    );
    row(&mut page, "Secure Boot", if status.secure_boot { "on" } else { "OFF" }, width);
    let state = match status.state.as_str() {
        "tpm" => "opened by the TPM",
        "new" => "made at this start and sealed to the TPM",
        "recovery-key" => "opened with the recovery key, NOT by the TPM",
        "" => "none",
        other => other,
    };
    row(&mut page, "state volume", state, width);
    if let Some(id) = &status.machine_id {
        row(&mut page, "machine", id, width);
    }
    let serial =
        status.configuration_serial.map_or_else(|| "none".into(), |serial| format!("serial {serial}"));
    row(&mut page, "configuration", &serial, width);
    let (year, month, day) = date(status.time);
    let source =
        status.time_server.as_deref().map_or_else(|| "not set yet".into(), |by| format!("set by {by}"));
    row(&mut page, "clock", &format!("{year:04}-{month:02}-{day:02} UTC, {source}"), width);
    if let Some(trial) = &status.trial {
        let text = format!(
            "this release runs for the first time; it must be found good within {} s",
            trial.seconds_left
        );
        row(&mut page, "trial", &text, width);
    }
    if let Some(failure) = &status.trial_failure {
        let text = format!(
            "release {} was tried and has failed: {}: {}",
            failure.version, failure.check, failure.reason
        );
        row(&mut page, "last trial", &text, width);
    }
    row(&mut page, "last boot", status.last_boot.as_deref().unwrap_or("this is the first"), width);
    row(&mut page, "watchdog", status.watchdog.as_deref().unwrap_or("none"), width);
    if let Some(fingerprint) = fingerprint {
        row(&mut page, "control", &format!("certificate SHA-256 {fingerprint}"), width);
    }

    if !status.problems.is_empty() {
        page.push_str("\nProblems\n");
        for problem in status.problems.iter().take(MAX_PROBLEMS) {
            item(&mut page, "- ", problem, width);
        }
        let more = status.problems.len().saturating_sub(MAX_PROBLEMS);
        if more > 0 {
            item(&mut page, "- ", &format!("and {more} more: `ashlarctl status` has them all"), width);
        }
    }
    let advice = advice(status);
    if status.ready && !advice.is_empty() {
        page.push_str("\nWhat to do\n");
        for line in advice {
            item(&mut page, "- ", &line, width);
        }
    }
    let _ = writeln!(page, "{rule}");
    page
}

/// The lines of `page` that a screen of `rows` can show, its last one free. What is left out is said.
pub fn fit(page: &str, rows: usize) -> String {
    let room = rows.max(8) - 1;
    let lines: Vec<&str> = page.lines().collect();
    if lines.len() <= room {
        return page.to_owned();
    }
    let mut shown: String = lines.iter().take(room - 1).flat_map(|line| [*line, "\n"]).collect();
    let _ = writeln!(shown, "  ({} more lines: `ashlarctl status`)", lines.len() - (room - 1));
    shown
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use ashlar_image::digest::Digest;
    use proptest::prelude::*;

    pub fn status() -> Status {
        Status {
            machine_id: Some("0f".repeat(16)),
            hostname: "node-7".into(),
            image_id: "container-host".into(),
            image_version: "12".into(),
            security_version: 3,
            rollback_floor: Some(2),
            slot: "root-a".into(),
            root_hash: Digest([0xab; 32]),
            kernel: "6.12.1".into(),
            secure_boot: true,
            state: "tpm".into(),
            good: true,
            ready: true,
            problems: Vec::new(),
            last_boot: Some("in order: restarting".into()),
            last_boot_release: None,
            addresses: vec!["eth0 10.0.2.15/24".into()],
            time_server: Some("10.0.2.2".into()),
            trial: None,
            trial_failure: None,
            watchdog: Some("iTCO_wdt, 60 seconds".into()),
            uptime_seconds: 7.0,
            time: 1_790_000_000,
            configuration_serial: Some(4),
            services: vec![
                ServiceState {
                    name: "hello".into(),
                    phase: ServicePhase::Running,
                    ..ServiceState::default()
                },
                ServiceState {
                    name: "once".into(),
                    phase: ServicePhase::Ended,
                    last_exit: Some("exit status 0".into()),
                    ..ServiceState::default()
                },
            ],
        }
    }

    #[test]
    fn a_good_machine_in_one_screen() {
        let page = render(&status(), Some("ab:cd"), 80);
        let expected = "\
Ashlar container-host 12 on node-7
-------------------------------------------------------------------------------
  GOOD: everything runs as the release says

  addresses      eth0 10.0.2.15/24
  runs           hello (running), once (ended: exit status 0)
  release        container-host 12, security version 3, floor 2, Linux 6.12.1
  slot           root-a, root abababababababab...
  Secure Boot    on
  state volume   opened by the TPM
  machine        0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f
  configuration  serial 4
  clock          2026-09-21 UTC, set by 10.0.2.2
  last boot      in order: restarting
  watchdog       iTCO_wdt, 60 seconds
  control        certificate SHA-256 ab:cd
-------------------------------------------------------------------------------
";
        assert_eq!(page, expected);
        assert_eq!(fit(&page, 25), page);
        let later = Status { uptime_seconds: 99.0, time: 1_790_000_999, ..status() };
        assert_eq!(render(&later, Some("ab:cd"), 80), page, "the page does not change by itself");
    }

    #[test]
    fn what_is_wrong_comes_with_what_to_do() {
        let mut ill = status();
        ill.good = false;
        ill.addresses.clear();
        ill.secure_boot = false;
        ill.state = "recovery-key".into();
        ill.time_server = None;
        ill.last_boot = Some("panic: BUG: x".into());
        ill.problems = vec!["sysctl kernel.sysrq: expected `0`, found `1`".into(); 2];
        ill.services[0].phase = ServicePhase::Failed;
        let page = render(&ill, None, 80);
        // A line may break between any two words.
        let flat = page.split_whitespace().collect::<Vec<_>>().join(" ");
        for part in [
            "NOT GOOD: 2 problems, see below",
            "addresses none",
            "Secure Boot OFF",
            "- sysctl kernel.sysrq: expected `0`, found `1`",
            "- No address: see that the cable",
            "`ashlarctl state reseal`",
            "UDP port 123",
            "- hello does not work: `ashlarctl logs hello`",
            "last boot panic: BUG: x",
            "not set yet",
        ] {
            assert!(flat.contains(part), "{part} in\n{page}");
        }
        assert!(page.lines().all(|line| line.len() < 80), "{page}");
        let cut = fit(&page, 25);
        assert_eq!(cut.lines().count(), 24);
        assert!(cut.ends_with("more lines: `ashlarctl status`)\n"), "{cut}");
        ill.ready = false;
        ill.problems.clear();
        assert!(render(&ill, None, 80).contains("  STARTING\n"));
    }

    #[test]
    fn nothing_from_outside_reaches_the_console_as_it_is() {
        let mut status = status();
        status.hostname = "a\u{1b}[2Jb\nGOOD\u{9b}31m".into();
        status.problems = vec!["\u{1b}]0;title\u{7}\u{202e}".into()];
        status.services[0].name = "x\r\u{8}".into();
        status.last_boot = Some("in order: \u{1b}c".into());
        let page = render(&status, Some("\u{1b}[31m"), 80);
        assert!(page.chars().all(|c| c.is_ascii_graphic() || c == ' ' || c == '\n'), "{page}");
        assert!(page.contains("on a?[2Jb?GOOD?31m\n"), "{page}");
    }

    #[test]
    fn dates() {
        for (time, expected) in [
            (0, (1970, 1, 1)),
            (-1, (1969, 12, 31)),
            (951_782_400, (2000, 2, 29)),
            (951_868_800, (2000, 3, 1)),
            (4_107_542_400, (2100, 3, 1)),
            (1_798_761_599, (2026, 12, 31)),
        ] {
            assert_eq!(date(time), expected, "{time}");
        }
        let _ = (date(i64::MAX), date(i64::MIN));
    }

    proptest! {
        #[test]
        fn every_width(width in 0usize..300, rows in 0usize..80, text in "\\PC{0,200}", time in any::<i64>()) {
            let mut status = status();
            status.time = time;
            status.problems = vec![text.clone(); 3];
            status.addresses = vec![text.clone()];
            status.kernel = text;
            let page = render(&status, None, width);
            let limit = width.clamp(40, 132);
            for line in page.lines() {
                prop_assert!(line.len() < limit, "{} in {limit}: {line}", line.len());
            }
            prop_assert!(fit(&page, rows).lines().count() < rows.max(8));
        }
    }
}
