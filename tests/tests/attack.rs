//! PID 1 under attack by its children: it lives, tells what is wrong, and ends in order.
#![allow(clippy::unwrap_used)] // a test fails by it

use ashlar_qemu::{DiskFormat, Forward, Machine, MachineConfig};
use ashlar_tests::desk::Desk;
use ashlar_tests::lab::API_PORT;
use ashlar_tests::machine::{UP, machine, ready};
use ashlar_tests::{Case, built, sparse};
use std::time::{Duration, Instant};

/// What is added to the example. The root gets a shell, because orphans of a container are its own first process's.
const ATTACKERS: &str = r#"
[service.orphans]
command = ["/usr/bin/busybox", "sh", "-c", "i=0; while [ $i -lt 10000 ]; do (: &); i=$((i+1)); done; echo made > /run/orphans; exec /usr/bin/busybox sleep 100000"]
ready = { file = "/run/orphans" }
start-timeout = 900

[service.deaf]
command = ["/usr/bin/busybox", "sh", "-c", "trap '' TERM; while :; do /usr/bin/busybox sleep 1000; done"]
stop-timeout = 3

[service.filler]
command = ["/usr/bin/busybox", "sh", "-c", "/usr/bin/busybox dd if=/dev/zero of=/var/tmp/fill bs=1M; echo filled; while :; do echo and a line for the log that finds no room on the disk any more; /usr/bin/busybox usleep 5000; done"]

[[container]]
name = "bomb"
packages = ["busybox-static"]
command = ["/usr/bin/busybox", "sh", "-c", "f() { f | f & }; f; while :; do /usr/bin/busybox sleep 1000; done"]
pids = 64
memory = "64MiB"
"#;

#[test]
fn pid_1_lives_and_tells() {
    if !ready() {
        return;
    }
    let Some(built) = built() else { return };
    let case = Case::of(built);
    case.edit("packages = [\"crun\",", "packages = [\"busybox-static\", \"crun\",");
    case.edit("state = \"1GiB\"", "state = \"256MiB\"");
    case.add(ATTACKERS);
    // Another lock than the example's: the root has one package more.
    let _ = case.build(&[]).ok();
    let desk = Desk::new(built);
    let ca = desk.certificates();
    let text = format!("serial = 1\n[control]\ntrust-roots = ['''\n{ca}''']\n[log]\nsize = \"8MiB\"\n");
    let signed = desk.sign("machine", &text, &desk.keys);
    let disk = desk.path("disk.raw");
    sparse::copy(&case.path("out/disk.raw"), &disk);
    let _ = desk.ashlar(&["machine", "seed", disk.to_str().unwrap(), signed.to_str().unwrap()]).ok();
    let config = MachineConfig {
        folder: Some(desk.path("machine")),
        disk_format: DiskFormat::Copy,
        forwards: vec![Forward { host: 0, guest: API_PORT }],
        ..machine(built, &disk)
    };
    let running = Machine::start(&config).unwrap();
    let report = running.wait_report(UP).unwrap_or_else(|error| panic!("{error}\n{}", running.console()));
    assert!(report.status.unwrap().ready);
    let node = format!("127.0.0.1:{}", running.forwards()[0].host);
    let fingerprint = desk.fingerprint(&node);
    let _ = desk.ctl(&["trust", &node, "--fingerprint", &format!("sha256:{fingerprint}")]).ok();

    // Until every attack is at its height; PID 1 answers all the while.
    let until = Instant::now() + 2 * UP;
    loop {
        let seen = desk.status(&node);
        let service = |name: &str| seen.services.iter().find(|service| service.name == name).unwrap();
        let full = seen.problems.iter().any(|problem| problem.contains("log"));
        let orphans = service("orphans").ready;
        if full && orphans && service("deaf").running {
            assert!(service("hello").running && service("ashlarctl").running, "{:?}", seen.services);
            break;
        }
        assert!(Instant::now() < until, "{:?}\n{:?}\norphans: {orphans}", seen.problems, seen.services);
        std::thread::sleep(Duration::from_secs(1));
    }
    // Who ignores SIGTERM is killed; the machine ends in order.
    let exit = running.power_down(UP).unwrap();
    assert!(exit.orderly(), "{exit}\n{}", running.console());
    assert!(!running.console().contains("Kernel panic"), "{}", running.console());
}
