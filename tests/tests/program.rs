//! `ashlar qemu` and `ashlar inspect` as a user types them.
#![allow(clippy::unwrap_used)] // a test fails by it

use ashlar_image::digest::Digest;
use ashlar_image::release::Release;
use ashlar_tests::machine::{CONTAINER_PORT, ready};
use ashlar_tests::programs::ashlar;
use ashlar_tests::{Built, Run, built};
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
