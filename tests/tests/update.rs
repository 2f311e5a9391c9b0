//! A machine through its updates: good ones, bad ones, and back.
#![allow(clippy::unwrap_used)] // a test fails by it

use ashlar_image::update::{HistoryEntry, UpdatePhase, UpdatePlan, WhyEntry};
use ashlar_qemu::{DiskFormat, Forward, Machine, MachineConfig, Network};
use ashlar_tests::case::Case;
use ashlar_tests::channel::Channel;
use ashlar_tests::desk::Desk;
use ashlar_tests::lab::API_PORT;
use ashlar_tests::machine::{CONTAINER_PORT, UP, machine, ready};
use ashlar_tests::nginx::Nginx;
use ashlar_tests::node::{Node, Running, STAGED};
use ashlar_tests::programs::Run;
use ashlar_tests::{built, skip, sparse, tools};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

/// Stops PID 1, as a debugger does, and leaves it so.
const HANG: &str = r#"
unsafe extern "C" {
    fn ptrace(request: i64, pid: i64, address: usize, data: usize) -> i64;
}
fn main() {
    // PTRACE_ATTACH
    let result = unsafe { ptrace(16, 1, 0, 0) };
    println!("attached to PID 1: {result}");
    loop {
        std::thread::sleep(std::time::Duration::from_secs(1000));
    }
}
"#;

/// A static program that makes the machine hang.
fn hanging_program(case: &Case) -> PathBuf {
    let (source, program) = (case.write("hang.rs", HANG), case.path("hang"));
    let mut rustc = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    rustc.args(["--edition", "2024", "-O", "-C", "target-feature=+crt-static"]);
    rustc.args(["--target", "x86_64-unknown-linux-gnu", "-o"]).arg(&program).arg(source);
    let _ = Run::of(&mut rustc).ok();
    program
}

/// The trial of a release fails: the machine restarts by itself and comes up with the old one, which knows why.
fn fails<'a>(lab: &'a Node<'_>, version: &str, check: &str, words: &[&str]) -> Running<'a> {
    let trial = Machine::start(&lab.config).unwrap();
    let exit = trial.wait_exit(UP);
    exit.unwrap_or_else(|error| panic!("{version} does not end: {error}\n{}", trial.console()));
    let console = trial.console();
    let watchdog = trial.watchdog_expired() > 0 || console.contains("softdog: Initiating system reboot");
    assert_eq!(watchdog, version == "1.3", "{version}\n{console}");
    drop(trial);
    let running = lab.start();
    let status = running
        .until("start of the old release", UP, |status| status.running == "1.1" && !status.policy.is_empty());
    let barred = status.barred.iter().find(|barred| barred.version == version);
    let barred = barred
        .unwrap_or_else(|| panic!("{version} is not barred: {status:?}\n{}", running.machine.console()));
    assert_eq!(barred.check, check, "{barred:?}");
    for word in words {
        assert!(barred.reason.contains(word), "{word}: {barred:?}");
    }
    // It is not tried again, unless somebody insists.
    let run = running.run(&["update", "stage", "--version", version]);
    assert_eq!(run.code, Some(4), "{run}");
    assert!(run.error_text().contains("failed on this machine"), "{run}");
    let history: Vec<HistoryEntry> = running.ask(&["update", "history"]);
    assert!(history.iter().any(|entry| entry.version == version && entry.what == "failed"), "{history:?}");
    running
}

/// The slot of a machine that is off, beside the release that should be in it.
fn holds(lab: &Node<'_>, letter: char, release: &Path) {
    for (part, file) in [("esp", "esp.img"), ("root", "root.erofs"), ("verity", "root.verity")] {
        let wanted = std::fs::read(release.join(file)).unwrap();
        let found = lab.partition(&format!("{part}-{letter}")).read(0, wanted.len());
        assert!(found == wanted, "{part} of slot {letter} is not that of {}", release.display());
    }
}

#[test]
fn a_machine_goes_through_its_updates() {
    if !ready() {
        return;
    }
    if !Path::new("/usr/sbin/nginx").exists() {
        skip("nginx is needed (package nginx)");
        return;
    }
    let Some(built) = built() else { return };
    let channel = Channel::new(built);
    let begun = Instant::now();
    let out = channel.release("1.0", &[]);
    let good = channel.release("1.1", &[("Hello from a measured machine.", "Hello again.")]);
    let _ =
        channel.release("1.2", &[("lockdown=integrity panic=30", "rdinit=/none lockdown=integrity panic=3")]);
    let hang = hanging_program(&channel.case);
    let service = format!(
        "[[file]]\npath = \"/usr/bin/hang\"\nsource = \"{}\"\nmode = \"0755\"\n[service.hang]\ncommand = [\"/usr/bin/hang\"]\n\
         capabilities = [\"CAP_SYS_PTRACE\"]\nsystem-calls = \"all\"\n[[container]]\nname = \"hello\"",
        hang.display()
    );
    let _ = channel.release("1.3", &[("[[container]]\nname = \"hello\"", &service)]);
    let _ = channel.release("1.4", &[("\"-p\", \"8080\"", "\"-p\", \"8081\"")]);
    let _ = channel.release("1.5", &[("\"virtio_net\", ", "")]);
    let corrupted = channel.release("1.6", &[("Hello from a measured machine.", "Hello once more.")]);
    let last = channel.release("1.7", &[("Hello from a measured machine.", "Hello for the last time.")]);
    println!("seven releases in {:.1} s", begun.elapsed().as_secs_f64());
    let server = Nginx::serve(&channel.repository, &channel.case.path("nginx"));

    let desk = Desk::new(built);
    let ca = desk.certificates();
    let key = std::fs::read_to_string(channel.case.keys.join("channel.pub")).unwrap();
    let text = format!(
        "serial = 1\n[control]\ntrust-roots = ['''\n{ca}''']\n[channel]\nurl = \"http://10.0.2.2:{}\"\nname = \"stable\"\n\
         key = '''\n{key}'''\n[watchdog]\ntimeout = \"10s\"\n[update]\ntrial-deadline = \"40s\"\n[[update.health]]\nname = \"web\"\n\
         http = \"http://127.0.0.1:8080/\"\ndeadline = \"5s\"\n",
        server.port
    );
    let seed = desk.sign("first", &text, &desk.keys);
    let disk = desk.path("disk.raw");
    sparse::copy(&out.join("disk.raw"), &disk);
    let _ = desk.ashlar(&["machine", "seed", disk.to_str().unwrap(), seed.to_str().unwrap()]).ok();
    let config = MachineConfig {
        folder: Some(desk.path("machine")),
        disk_format: DiskFormat::Copy,
        forwards: [CONTAINER_PORT, API_PORT].map(|guest| Forward { host: 0, guest }).into(),
        network: Network::Open,
        watchdog: true,
        ..machine(built, &disk)
    };
    let lab = Node::new(&desk, config);

    // 1.0 runs and says what it would do.
    let running = lab.start();
    running.committed("1.0");
    let plan: UpdatePlan = running.ask(&["update", "plan", "--version", "1.1"]);
    assert_eq!(
        (plan.version.as_str(), plan.slot.as_str(), &plan.obstacles),
        ("1.1", "b", &Vec::new()),
        "{plan:?}"
    );
    let root = plan.parts.iter().find(|part| part.part == "root").unwrap();
    let whole = std::fs::metadata(good.join("root.erofs")).unwrap().len();
    assert!(root.bytes < whole / 10, "one file has changed: {} of {whole} bytes are fetched", root.bytes);
    assert!(plan.checks.iter().any(|check| check == "health web"), "{plan:?}");
    running.update_to("1.1");
    assert!(server.requests().contains("206"), "ranges were fetched");
    holds(&lab, 'b', &good);
    let copy = |part: &str, file: &str| {
        let length = usize::try_from(std::fs::metadata(good.join(file)).unwrap().len()).unwrap();
        let path = lab.desk.path(part);
        std::fs::write(&path, lab.partition(&format!("{part}-b")).read(0, length)).unwrap();
        path
    };
    let (tree, hashes) = (copy("root", "root.erofs"), copy("verity", "root.verity"));
    let release: ashlar_image::release::Release =
        serde_json::from_slice(&std::fs::read(good.join("release.json")).unwrap()).unwrap();
    if let Some(mut verify) = tools::judge("veritysetup", "cryptsetup-bin") {
        verify.arg("verify").args([&tree, &hashes]).arg(release.root_hash.to_string());
        let _ = Run::of(&mut verify).ok();
    }

    // 1.1 is found good.
    let running = lab.start();
    running.committed("1.1");
    let history: Vec<HistoryEntry> = running.ask(&["update", "history"]);
    let done: Vec<(&str, &str)> =
        history.iter().map(|entry| (entry.version.as_str(), entry.what.as_str())).collect();
    assert_eq!(done, [("1.1", "staged"), ("1.1", "started"), ("1.1", "committed")]);
    let whys: Vec<WhyEntry> = running.ask(&["update", "why"]);
    assert!(whys.iter().any(|why| why.decision == "release 1.1 is good and stays"), "{whys:?}");

    // A kernel that panics.
    running.update_to("1.2");
    let running = fails(&lab, "1.2", "start", &["kernel"]);
    // PID 1 hangs: nothing but the watchdog ends that.
    running.update_to("1.3");
    let running = fails(&lab, "1.3", "machine", &["hang"]);
    // A container that does not answer.
    running.update_to("1.4");
    let running = fails(&lab, "1.4", "health web", &["does not answer"]);
    // No network.
    running.update_to("1.5");
    let running = fails(&lab, "1.5", "network", &["no address"]);

    // Bytes that the disk changes after they were read back.
    let run = running.run(&["update", "stage", "--version", "1.6", "--no-wait"]);
    assert_eq!(run.code, Some(0), "{run}");
    let staged = running.until("staging", STAGED, |status| status.phase == UpdatePhase::Staged);
    assert_eq!(staged.target.as_deref(), Some("1.6"));
    running.switch_off();
    holds(&lab, 'a', &corrupted);
    let root = lab.partition("root-a");
    let mut block = root.read(8192, 4096);
    block[100] ^= 0xff;
    root.write(8192, &block);
    // The superblock of the file system, so that nothing depends on what is read.
    let mut block = root.read(0, 4096);
    block[1024] ^= 0xff;
    root.write(0, &block);
    let running = fails(&lab, "1.6", "start", &[]);

    // A good one, then back by hand, and forth again.
    running.update_to("1.7");
    holds(&lab, 'a', &last);
    let running = lab.start();
    running.committed("1.7");
    let run = running.run(&["update", "rollback"]);
    assert_eq!(run.code, Some(0), "{run}");
    running.restarts();
    let running = lab.start();
    running.committed("1.1");
    let barred = running.status().barred;
    assert!(barred.iter().any(|barred| barred.version == "1.7" && barred.check == "rollback"), "{barred:?}");
    let run = running.run(&["update", "unbar", "1.7"]);
    assert_eq!(run.code, Some(0), "{run}");
    running.update_to("1.7");
    let running = lab.start();
    running.committed("1.7");
    running.switch_off();
    println!("all of it in {:.0} s", begun.elapsed().as_secs_f64());
}
