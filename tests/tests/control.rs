//! A machine that has a configuration and is asked and told from afar, in one life of two starts.
#![allow(clippy::unwrap_used)] // a test fails by it

use ashlar_image::control::Status;
use ashlar_image::digest::Digest;
use ashlar_qemu::{DiskFormat, Forward, Machine, MachineConfig};
use ashlar_tests::desk::Desk;
use ashlar_tests::lab::API_PORT;
use ashlar_tests::machine::{CONTAINER_PORT, UP, get, machine, ready};
use ashlar_tests::{built, sparse};
use std::time::{Duration, Instant};

fn text(serial: u64, hostname: &str, ca: &str, more: &str) -> String {
    format!(
        "serial = {serial}\nhostname = \"{hostname}\"\n[control]\ntrust-roots = ['''\n{ca}''']\n\
         [labels]\nsite = \"test\"\n{more}"
    )
}

#[test]
fn a_machine_is_configured_asked_and_told() {
    if !ready() {
        return;
    }
    let Some(built) = built() else { return };
    let desk = Desk::new(built);
    let ca = desk.certificates();
    let first = text(3, "edge-1", &ca, "");
    let seed = desk.sign("first", &first, &desk.keys);

    // The installer's way: a seed on the still blank state partition.
    let disk = desk.path("disk.raw");
    sparse::copy(&built.file(&built.release.disk.file), &disk);
    let _ = desk.ashlar(&["machine", "seed", disk.to_str().unwrap(), seed.to_str().unwrap()]).ok();
    let config = MachineConfig {
        folder: Some(desk.path("machine")),
        disk_format: DiskFormat::Copy,
        forwards: [CONTAINER_PORT, API_PORT].map(|guest| Forward { host: 0, guest }).into(),
        ..machine(built, &disk)
    };
    let running = Machine::start(&config).unwrap();
    let report = running.wait_report(UP).unwrap_or_else(|error| panic!("{error}\n{}", running.console()));
    let told = report.status.as_deref().unwrap();
    assert_eq!((told.configuration_serial, told.hostname.as_str()), (Some(3), "edge-1"));
    assert!(told.good, "{:?}", told.problems);
    // Its digest is what PCR 12 has, and nothing else.
    assert_eq!(report.pcrs[&12], Digest::ZERO.extend(Digest::of(&first)));

    let node = format!("127.0.0.1:{}", running.forwards().iter().find(|f| f.guest == API_PORT).unwrap().host);
    let node = node.as_str();
    let shown = desk.fingerprint(node);
    assert_eq!(shown.len(), 64, "{shown}");
    let console: String = running.console().split_whitespace().collect();
    assert!(console.contains(&shown), "the console does not show the fingerprint {shown}");
    let _ = desk.ctl(&["trust", node, "--fingerprint", &format!("sha256:{shown}")]).ok();

    let seen = desk.status(node);
    assert_eq!(seen.machine_id, told.machine_id);
    let services = desk.ctl(&["--node", node, "--identity", "reader.pem", "services"]).ok().stdout;
    assert!(services.contains("hello") && services.contains("ashlarctl"), "{services}");
    let logs =
        desk.ctl(&["--node", node, "--identity", "reader.pem", "logs", "--unit", "init", "-n", "50"]).ok();
    assert!(logs.stdout.contains("measured ready"), "{}", logs.stdout);
    let kernel = desk
        .ctl(&["--node", node, "--identity", "reader.pem", "logs", "--unit", "kernel", "-n", "5000"])
        .ok();
    assert!(kernel.stdout.contains("Linux version"), "{}", kernel.stdout);

    // A reader reads.
    for command in [&["service", "stop", "hello"][..], &["config", "show"], &["reboot"]] {
        let run = desk.ctl(&[&["--node", node, "--identity", "reader.pem"][..], command].concat());
        assert_eq!(run.code, Some(4), "{run}");
    }
    // Somebody with another CA's certificate is not even heard.
    let other = Desk::new(built);
    let _ = other.ctl(&["identity", "new-ca"]).ok();
    let _ = other.ctl(&["identity", "new", "admin", "--role", "admin"]).ok();
    let fingerprint = format!("sha256:{shown}");
    let run =
        other.ctl(&["--node", node, "--fingerprint", &fingerprint, "--identity", "admin.pem", "status"]);
    assert_eq!(run.code, Some(5), "{run}");

    let operator =
        |command: &[&str]| desk.ctl(&[&["--node", node, "--identity", "operator.pem"][..], command].concat());
    let web = running.forwards().iter().find(|forward| forward.guest == CONTAINER_PORT).unwrap().host;
    assert!(get(web, UP).unwrap().contains("Hello"));
    let _ = operator(&["service", "stop", "hello"]).ok();
    let hello = |seen: &Status| seen.services.iter().find(|service| service.name == "hello").unwrap().running;
    let until = Instant::now() + UP;
    while hello(&desk.status(node)) {
        assert!(Instant::now() < until, "hello runs on");
        std::thread::sleep(Duration::from_millis(500));
    }
    let _ = operator(&["service", "start", "hello"]).ok();
    assert!(get(web, UP).unwrap().contains("Hello"));

    // Configurations: wrong ones are refused whole, a good one is in force at once.
    let admin =
        |command: &[&str]| desk.ctl(&[&["--node", node, "--identity", "admin.pem"][..], command].concat());
    let _ = desk.ashlar(&["keys", "new", "others"]).ok();
    for (name, text, keys, words) in [
        ("forged", text(9, "evil", &ca, ""), desk.path("others"), "signature"),
        ("older", text(2, "edge-2", &ca, ""), desk.keys.clone(), "older"),
    ] {
        let run = admin(&["config", "apply", desk.sign(name, &text, &keys).to_str().unwrap()]);
        assert_eq!(run.code, Some(4), "{run}");
        assert!(run.error_text().contains(words), "{run}");
        assert_eq!(desk.status(node).configuration_serial, Some(3));
    }
    let second = text(4, "edge-2", &ca, "[log]\nsize = \"16MiB\"\n");
    let signed = desk.sign("second", &second, &desk.keys);
    let dry = admin(&["config", "apply", signed.to_str().unwrap(), "--dry-run"]).ok();
    assert!(dry.stdout.contains("hostname"), "{}", dry.stdout);
    assert_eq!(desk.status(node).configuration_serial, Some(3));
    let _ = admin(&["config", "apply", signed.to_str().unwrap()]).ok();
    let seen = desk.status(node);
    assert_eq!((seen.configuration_serial, seen.hostname.as_str()), (Some(4), "edge-2"));
    let shown = admin(&["config", "show"]).ok().stdout;
    assert!(shown.contains("edge-2"), "{shown}");
    let measured: serde_json::Value =
        serde_json::from_str(&admin(&["--json", "measurements"]).ok().stdout).unwrap();
    let both = Digest::ZERO.extend(Digest::of(&first)).extend(Digest::of(&second));
    assert_eq!(measured["pcrs"]["12"], both.to_string());

    // Switched off from afar, in order; the next start knows the configuration and how this one ended.
    let _ = operator(&["power-off"]).ok();
    let exit = running.wait_exit(UP).unwrap();
    assert!(exit.orderly(), "{exit}\n{}", running.console());
    drop(running);
    let running = Machine::start(&config).unwrap();
    let report = running.wait_report(UP).unwrap_or_else(|error| panic!("{error}\n{}", running.console()));
    let told = report.status.as_deref().unwrap();
    assert_eq!((told.configuration_serial, told.hostname.as_str()), (Some(4), "edge-2"));
    assert!(told.last_boot.as_deref().unwrap().starts_with("in order: "), "{:?}", told.last_boot);
    assert_eq!(report.pcrs[&12], Digest::ZERO.extend(Digest::of(&second)));
    // The boot before is in the log.
    let node = format!("127.0.0.1:{}", running.forwards().iter().find(|f| f.guest == API_PORT).unwrap().host);
    let before = desk.ctl(&[
        "--node",
        &node,
        "--fingerprint",
        &fingerprint,
        "--identity",
        "reader.pem",
        "logs",
        "--boot",
        "previous",
        "-n",
        "20",
    ]);
    assert!(before.ok().stdout.contains("powering off"), "the last lines are missing");

    // The key is sealed anew by who has the recovery key, and nobody else; the next start opens with that copy.
    let _ = desk.ctl(&["trust", &node, "--fingerprint", &fingerprint]).ok();
    let disk = desk.path("disk-now.raw");
    sparse::copy(&desk.path("machine/disk0.raw"), &disk);
    let key = desk
        .ashlar(&["keys", "recovery-key", desk.keys.to_str().unwrap(), disk.to_str().unwrap()])
        .ok()
        .stdout;
    let reseal = |key: &str| {
        desk.ctl_with(&["--node", &node, "--identity", "admin.pem", "state", "reseal"], key.trim())
    };
    let other: String = key.trim().chars().rev().collect();
    assert_eq!(reseal(&other).code, Some(4));
    let _ = reseal(&key).ok();
    let exit = running.power_down(UP).unwrap();
    assert!(exit.orderly(), "{exit}");
    drop(running);
    let running = Machine::start(&config).unwrap();
    let report = running.wait_report(UP).unwrap_or_else(|error| panic!("{error}\n{}", running.console()));
    assert_eq!(report.status.as_deref().unwrap().state, "tpm");
}
