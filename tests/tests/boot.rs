//! One boot of the example with Secure Boot and a TPM, and everything that it shows.
//!
//! The boot is done once and leaves evidence: the machine's report, the container's answer, the console, how
//! the power button ended it. Each test looks at one side of it.
#![allow(clippy::unwrap_used)] // a test fails by it

use ashlar_image::digest::Digest;
use ashlar_image::measure::PHASES;
use ashlar_image::report::Report;
use ashlar_keys::{KeyFolder, NewKeys};
use ashlar_measured_boot::compare::{Outcome, compare};
use ashlar_measured_boot::eventlog::EventLog;
use ashlar_measured_boot::predict::{Site, predict};
use ashlar_qemu::{Exit, Machine, MachineConfig};
use ashlar_tests::machine::{UP, get, machine, ready};
use ashlar_tests::{Built, built, tools};
use base64::Engine;
use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::time::Duration;

struct Evidence {
    report: Report,
    log: EventLog,
    log_bytes: Vec<u8>,
    answer: String,
    exit: Exit,
    console: String,
    /// Of a second start of the same machine.
    second: Report,
}

/// The release and what one boot of it showed; none when it cannot be had here.
fn booted() -> Option<(&'static Built, &'static Evidence)> {
    static EVIDENCE: OnceLock<Result<Evidence, String>> = OnceLock::new();
    if !ready() {
        return None;
    }
    let built = built()?;
    let evidence = EVIDENCE.get_or_init(|| boot(built)).as_ref();
    Some((built, evidence.unwrap_or_else(|error| panic!("the boot failed: {error}"))))
}

fn boot(built: &Built) -> Result<Evidence, String> {
    let text = |error: ashlar_qemu::QemuError| error.to_string();
    let disk = built.file(&built.release.disk.file);
    let config = MachineConfig { folder: Some(built.out.with_file_name("machine")), ..machine(built, &disk) };
    let machine = Machine::start(&config).map_err(text)?;
    let report = machine.wait_report(UP).map_err(text)?;
    let answer = get(machine.forwards()[0].host, Duration::from_secs(60))?;
    let exit = machine.power_down(Duration::from_secs(120)).map_err(text)?;
    let log_bytes =
        base64::prelude::BASE64_STANDARD.decode(&report.firmware_log).map_err(|e| e.to_string())?;
    let log = EventLog::parse(&log_bytes).map_err(|error| error.to_string())?;
    let console = machine.console();
    drop(machine);
    let second = Machine::start(&config).and_then(|machine| machine.wait_report(UP)).map_err(text)?;
    Ok(Evidence { report, log, log_bytes, answer, exit, console, second })
}

#[test]
fn secure_boot_is_enforced_and_the_kernel_locked_down() {
    let Some((_, evidence)) = booted() else { return };
    assert!(evidence.report.secure_boot, "the firmware does not enforce Secure Boot");
    assert!(evidence.report.lockdown.contains("[integrity]"), "lockdown is {:?}", evidence.report.lockdown);
}

#[test]
fn every_prediction_is_what_was_measured() {
    let Some((built, evidence)) = booted() else { return };
    let comparisons = compare(&built.release.pcrs, &evidence.report.pcrs, Some(&evidence.log));
    let pcrs: Vec<u32> = comparisons.iter().map(|comparison| comparison.pcr).collect();
    assert_eq!(pcrs, [4, 7, 9, 11, 12, 13]);
    for comparison in &comparisons {
        assert!(comparison.is_same(), "{comparison}");
    }
    let variant = |pcr: u32| &comparisons.iter().find(|c| c.pcr == pcr).unwrap().variant().unwrap().name;
    assert_eq!(variant(11), "after ready");
    // One disk and nothing else is tried.
    assert!(variant(4).starts_with("first boot option"), "{}", variant(4));
    for untouched in [8, 12, 13] {
        assert_eq!(evidence.report.pcrs[&untouched], Digest::ZERO, "PCR {untouched}");
    }
}

#[test]
fn the_event_logs_replay_to_the_pcrs() {
    let Some((_, evidence)) = booted() else { return };
    // PCR 10 is the kernel's integrity measurement; its log is another.
    let mut replayed = evidence.log.replay_sha256().unwrap();
    for event in &evidence.report.init_log {
        let value = replayed.entry(event.pcr).or_default();
        *value = value.extend(event.event.digest);
    }
    for pcr in [0, 1, 2, 3, 4, 5, 6, 7, 9, 11, 15] {
        assert_eq!(replayed.get(&pcr), evidence.report.pcrs.get(&pcr), "PCR {pcr}");
    }
    let phases: Vec<Digest> = PHASES.iter().map(Digest::of).collect();
    let seen: Vec<Digest> = evidence
        .report
        .init_log
        .iter()
        .filter(|event| event.pcr == 11)
        .map(|event| event.event.digest)
        .collect();
    assert_eq!(seen, phases);
}

/// tpm2-tools reads the log independently and computes the same values.
#[test]
fn tpm2_eventlog_agrees() {
    let Some((built, evidence)) = booted() else { return };
    let path = built.out.with_file_name("firmware.log");
    std::fs::write(&path, &evidence.log_bytes).unwrap();
    let Some(run) = tools::accepts("tpm2_eventlog", "tpm2-tools", &[path.as_os_str()]) else { return };
    // At the end, of each bank: "pcrs:\n  sha256:\n    0  : 0x4f2c...".
    let bank = run.stdout.rsplit_once("pcrs:").unwrap().1.split("  sha256:\n").nth(1).unwrap();
    let values: BTreeMap<u32, Digest> = bank
        .lines()
        .map_while(|line| {
            let (pcr, value) = line.split_once(" : 0x")?;
            Some((pcr.trim().parse().ok()?, value.trim().parse().ok()?))
        })
        .collect();
    let ours = evidence.log.replay_sha256().unwrap();
    assert!(values.len() >= 8, "{bank}");
    assert_eq!(values, ours);
}

/// The comparison can fail: other keys, another command line.
#[test]
fn a_machine_of_another_owner_or_release_is_told() {
    let Some((built, evidence)) = booted() else { return };
    let dir = tempfile::tempdir().unwrap();
    let new = NewKeys { owner_name: "Somebody else".into(), not_before: 1_700_000_000, years: 1 };
    let other = KeyFolder::create(&dir.path().join("keys"), &new).unwrap();
    let (variables, authority) = (other.secure_boot(), other.db_authority());
    let site = Site { variables: &variables, authority: &authority };
    let differing = |prediction| -> Vec<u32> {
        compare(&prediction, &evidence.report.pcrs, Some(&evidence.log))
            .iter()
            .filter(|comparison| matches!(comparison.outcome, Outcome::Different { .. }))
            .map(|comparison| comparison.pcr)
            .collect()
    };
    assert_eq!(differing(predict(&built.uki(), &site).unwrap()), [7]);

    let keys = built.key_folder();
    let (variables, authority) = (keys.secure_boot(), keys.db_authority());
    let site = Site { variables: &variables, authority: &authority };
    let mut uki = built.uki();
    let place = uki.windows(9).position(|bytes| bytes == b"roothash=").unwrap() + 9;
    uki[place] = if uki[place] == b'0' { b'1' } else { b'0' };
    assert_eq!(differing(predict(&uki, &site).unwrap()), [4, 9, 11]);
}

#[test]
fn the_root_is_the_signed_one_and_all_services_run() {
    let Some((built, evidence)) = booted() else { return };
    let (release, report) = (&built.release, &evidence.report);
    assert_eq!(report.root_hash, release.root_hash);
    assert_eq!(report.root_partition, "root-a");
    assert_eq!((&report.image_id, &report.image_version), (&release.image_id, &release.image_version));
    assert_eq!(report.kernel, release.kernel);
    assert!(report.uptime_seconds > 0.0);
    assert!(report.services.iter().any(|service| service.name == "hello"), "{:?}", report.services);
    for service in &report.services {
        assert!(service.running && service.starts == 1, "{service:?}");
    }
    assert!(report.addresses.iter().any(|address| address.contains("10.0.2.15")), "{:?}", report.addresses);
}

/// The firmware has now made its own boot entries and the TPM has been started before.
#[test]
fn a_second_start_measures_the_same() {
    let Some((built, evidence)) = booted() else { return };
    for comparison in compare(&built.release.pcrs, &evidence.second.pcrs, None) {
        assert!(comparison.is_same(), "{comparison}");
    }
    for pcr in [0, 2, 3, 5, 6] {
        assert_eq!(evidence.second.pcrs[&pcr], evidence.report.pcrs[&pcr], "PCR {pcr}");
    }
}

#[test]
fn the_container_answers() {
    let Some((_, evidence)) = booted() else { return };
    let (head, body) = evidence.answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1") && head.contains(" 200 "), "{head}");
    assert_eq!(body, "Hello from a measured machine.\n");
}

#[test]
fn the_power_button_ends_it_in_order() {
    let Some((_, evidence)) = booted() else { return };
    assert!(evidence.exit.orderly(), "{}\n{}", evidence.exit, evidence.console);
    assert_eq!(evidence.exit.status.code(), Some(0));
    assert!(!evidence.console.contains("Kernel panic"), "{}", evidence.console);
}
