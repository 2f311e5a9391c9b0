//! `ashlar qemu` and `ashlar inspect` as a user types them.
#![allow(clippy::unwrap_used)] // a test fails by it

use ashlar_image::digest::Digest;
use ashlar_image::release::Release;
use ashlar_tests::machine::{CONTAINER_PORT, ready};
use ashlar_tests::programs::ashlar;
use ashlar_tests::{Built, Case, Run, built};
use rustix::process::{Pid, Signal};
use serde_json::Value;
use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

const MACHINE: i32 = 6;

fn wanted() -> Option<&'static Built> {
    if ready() { built() } else { None }
}

fn check(folder: &Path) -> Command {
    let mut command = ashlar();
    let port = CONTAINER_PORT.to_string();
    command.arg("qemu").arg(folder).args(["--check", "--json", "--cpus", "1"]);
    command.args(["--forward", &format!("0:{port}"), "--get", &format!("{port}/")]);
    command
}

#[test]
fn qemu_checks_a_release() {
    let Some(built) = wanted() else { return };
    let run = Run::of(&mut check(&built.out)).ok();
    let checked: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(checked["good"], true, "{run}");
    assert_eq!(checked["pages"], serde_json::json!(["Hello from a measured machine.\n"]));
    let rows = checked["pcrs"].as_array().unwrap();
    assert!(rows.len() == 6 && rows.iter().all(|row| row["same"] == true), "{run}");
    assert_eq!(checked["unlogged"], serde_json::json!([]));
}

/// A release whose promises are others: the machine runs, and the check says what differs.
#[test]
fn qemu_tells_a_release_that_promises_something_else() {
    let Some(built) = wanted() else { return };
    let dir = tempfile::tempdir_in(built.out.parent().unwrap()).unwrap();
    for file in ["disk.raw", "secure-boot"] {
        std::os::unix::fs::symlink(built.file(file), dir.path().join(file)).unwrap();
    }
    let mut release: Release = built.release.clone();
    for variant in release.pcrs.get_mut(&11).unwrap() {
        let last = variant.events.last_mut().unwrap();
        last.digest = Digest::of("something else");
        variant.value = Digest::of("something else");
    }
    std::fs::write(dir.path().join("release.json"), serde_json::to_vec(&release).unwrap()).unwrap();
    let run = Run::of(&mut check(dir.path()));
    assert_eq!(run.code, Some(MACHINE), "{run}");
    let checked: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(checked["good"], false, "{run}");
    for row in checked["pcrs"].as_array().unwrap() {
        assert_eq!(row["same"], row["pcr"] != 11, "{row}");
    }
}

/// Interrupted at the terminal, `ashlar qemu` switches the machine off in order and leaves nothing behind; the
/// release is as it was.
#[test]
fn qemu_ends_in_order_when_it_is_interrupted() {
    let Some(built) = wanted() else { return };
    let disk = built.file(&built.release.disk.file);
    let modified = || std::fs::metadata(&disk).unwrap().modified().unwrap();
    let before: SystemTime = modified();
    let dir = tempfile::tempdir().unwrap();
    let (output, errors) = (dir.path().join("output"), dir.path().join("errors"));
    let mut command = ashlar();
    command.arg("qemu").arg(&built.out).args(["--cpus", "1"]).env("TMPDIR", dir.path());
    command.stdin(Stdio::null());
    command.stdout(File::create(&output).unwrap()).stderr(File::create(&errors).unwrap());
    let mut child = command.spawn().unwrap();
    let text = |path: &Path| String::from_utf8_lossy(&std::fs::read(path).unwrap()).into_owned();
    let wait = |what: &str, child: &mut std::process::Child, done: &dyn Fn() -> bool| {
        let until = Instant::now() + Duration::from_secs(300);
        while !done() && child.try_wait().unwrap().is_none() {
            if Instant::now() > until {
                child.kill().unwrap();
                child.wait().unwrap();
                panic!("{what} did not come\n{}{}", text(&output), text(&errors));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    wait("the table", &mut child, &|| text(&output).contains("event log replay matches all PCRs"));
    rustix::process::kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    wait("the end", &mut child, &|| false);
    let status = child.wait().unwrap();
    let console = text(&output);
    assert_eq!(status.code(), Some(0), "{console}{}", text(&errors));
    assert!(console.contains("Secure Boot enforced, kernel lockdown on"), "{console}");
    assert!(console.contains("reboot: Power down"), "{console}");
    assert_eq!(modified(), before);
    // Its output and nothing of the machine.
    let left: Vec<_> =
        std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "{left:?}");
}

#[test]
fn inspect_knows_every_file_of_a_release() {
    let Some(built) = built() else { return };
    let release = &built.release;
    let root_hash = release.root_hash.to_string();
    for (name, words) in [
        ("", vec![root_hash.clone(), release.kernel.clone()]),
        ("release.json", vec![root_hash.clone(), release.image_id.clone()]),
        ("uki.efi", vec![release.uki.authenticode.to_string(), root_hash, ".pcrsig".into()]),
        ("disk.raw", vec!["esp-a".into(), "root-b".into(), "state".into()]),
        ("esp.img", vec!["EFI/BOOT/BOOTX64.EFI".into(), release.uki.artifact.sha256.to_string()]),
        ("root.erofs", vec!["erofs".into()]),
        ("root.verity", vec!["4096".into(), "sha256".into()]),
    ] {
        let run = Run::of(ashlar().arg("inspect").arg(built.out.join(name))).ok();
        for word in words {
            assert!(run.stdout.contains(&word), "`{word}` is not in {run}");
        }
        let run = Run::of(ashlar().args(["inspect", "--json"]).arg(built.out.join(name))).ok();
        serde_json::from_str::<Value>(&run.stdout).unwrap();
    }
    for foreign in ["secure-boot/db.crt", "absent"] {
        let run = Run::of(ashlar().arg("inspect").arg(built.out.join(foreign)));
        assert_eq!(run.code, Some(2), "{run}");
        assert!(run.error_text().contains(foreign), "{run}");
    }
}

/// Where the time went: for people, for programs, and as a trace that Perfetto reads.
#[test]
fn build_tells_where_the_time_went() {
    let Some(built) = built() else { return };
    let case = Case::of(built);
    let run = case.build(&["--locked", "--json", "--trace", "trace.json"]).ok();
    let report: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(report["release"]["root_hash"], built.release.root_hash.to_string());
    let stages = report["timings"]["stages"].as_array().unwrap();
    let whole = report["timings"]["wall_seconds"].as_f64().unwrap();
    for name in ["kernel", "initramfs", "root", "lint", "uki", "esp", "disk", "predict", "release"] {
        let stage = stages.iter().find(|stage| stage["name"] == name).unwrap_or_else(|| panic!("{name}"));
        let (start, wall) =
            (stage["start_seconds"].as_f64().unwrap(), stage["wall_seconds"].as_f64().unwrap());
        assert!(start >= 0.0 && wall >= 0.0 && start + wall <= whole, "{stage} in {whole}");
    }
    // Trace Event Format: an array of complete events in microseconds.
    let trace: Value = serde_json::from_slice(&std::fs::read(case.path("trace.json")).unwrap()).unwrap();
    let events = trace.as_array().unwrap();
    assert_eq!(events.len(), stages.len());
    for (event, stage) in events.iter().zip(stages) {
        assert_eq!((&event["name"], &event["ph"]), (&stage["name"], &Value::from("X")));
        let kept = if stage["kept"] == true { "kept" } else { "run" };
        assert_eq!(event["cat"], kept);
        for number in ["ts", "dur", "pid", "tid"] {
            assert!(event[number].as_f64().unwrap() >= 0.0, "{event}");
        }
        let seconds = event["dur"].as_f64().unwrap() / 1e6;
        assert!((seconds - stage["wall_seconds"].as_f64().unwrap()).abs() < 1e-5, "{event} {stage}");
    }
    // The same once more: the stages without keys are kept ones.
    let run = case.build(&["--locked", "--timings"]).ok();
    for name in ["kernel", "initramfs", "root", "lint"] {
        let line = run.stdout.lines().find(|line| line.starts_with(&format!("{name} "))).unwrap();
        assert!(line.ends_with("kept"), "{run}");
    }
    assert!(run.stdout.lines().any(|line| line.starts_with("all ")), "{run}");
    // A trace that cannot be written is an error.
    let run = case.build(&["--locked", "--trace", "absent/trace.json"]);
    assert_eq!(run.code, Some(5), "{run}");
}
