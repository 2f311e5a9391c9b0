//! QEMU is killed at random moments of staging and of the trial boot, again and again: the machine always starts, whole, with the old
//! release or the new one, and the next attempt finishes.
//!
//! `cargo test -p ashlar-tests --test cuts -- --ignored --nocapture`, with `cargo xtask build` before it. `CUTS` is how often (10),
//! `SEED` where the times begin.
#![allow(clippy::unwrap_used)] // a test fails by it

use ashlar_image::update::{UpdatePhase, UpdateStatus};
use ashlar_qemu::{DiskFormat, Forward, MachineConfig, Network};
use ashlar_tests::channel::Channel;
use ashlar_tests::desk::Desk;
use ashlar_tests::lab::API_PORT;
use ashlar_tests::machine::{UP, machine, ready};
use ashlar_tests::nginx::Nginx;
use ashlar_tests::node::{Node, STAGED};
use ashlar_tests::{built, skip, sparse};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Longest time after the order at which the power goes, in milliseconds: staging, restart and trial take about as long.
const LONGEST: u64 = 60_000;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// The next of evenly distributed numbers (SplitMix64).
fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn settled(status: &UpdateStatus) -> bool {
    !status.running.is_empty()
        && matches!(status.phase, UpdatePhase::Idle | UpdatePhase::Available | UpdatePhase::Staged)
}

#[test]
#[ignore = "takes a quarter of an hour"]
fn killed_at_random_moments_of_an_update() {
    if !ready() {
        return;
    }
    if !Path::new("/usr/sbin/nginx").exists() {
        skip("nginx is needed (package nginx)");
        return;
    }
    let Some(built) = built() else { return };
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let (cuts, seed) = (number("CUTS").unwrap_or(10), number("SEED").unwrap_or(clock));
    println!("SEED={seed}");
    let channel = Channel::new(built);
    let out = channel.release("1.0", &[]);
    let _ = channel.release("1.1", &[("Hello from a measured machine.", "Hello again.")]);
    let server = Nginx::serve(&channel.repository, &channel.case.path("nginx"));
    let desk = Desk::new(built);
    let ca = desk.certificates();
    let key = std::fs::read_to_string(channel.case.keys.join("channel.pub")).unwrap();
    let text = format!(
        "serial = 1\n[control]\ntrust-roots = ['''\n{ca}''']\n[channel]\nurl = \"http://10.0.2.2:{}\"\nname = \"stable\"\n\
         key = '''\n{key}'''\n[update]\ntrial-deadline = \"60s\"\n",
        server.port
    );
    let seed_file = desk.sign("first", &text, &desk.keys);
    let disk = desk.path("disk.raw");
    sparse::copy(&out.join("disk.raw"), &disk);
    let _ = desk.ashlar(&["machine", "seed", disk.to_str().unwrap(), seed_file.to_str().unwrap()]).ok();
    let config = MachineConfig {
        folder: Some(desk.path("machine")),
        disk_format: DiskFormat::Copy,
        forwards: vec![Forward { host: 0, guest: API_PORT }],
        network: Network::Open,
        no_reboot: false,
        ..machine(built, &disk)
    };
    let node = Node::new(&desk, config);
    let mut state = seed;
    let mut ended = BTreeMap::<String, u32>::new();
    for cut in 1..=cuts + 1 {
        let running = node.start();
        // Whatever was cut: it comes up, and knows where it is. A trial that was cut off is over by now.
        let status = running.until("start", UP + UP, settled);
        assert!(["1.0", "1.1"].contains(&status.running.as_str()), "{status:?}");
        let target = if status.running == "1.0" { "1.1" } else { "1.0" };
        *ended.entry(format!("runs {}, {} barred", status.running, status.barred.len())).or_default() += 1;
        for barred in &status.barred {
            println!("  {}: {}: {}", barred.version, barred.check, barred.reason);
            let run = running.run(&["update", "unbar", &barred.version]);
            assert_eq!(run.code, Some(0), "{run}");
        }
        let run = running.run(&["update", "apply", "--version", target, "--no-wait"]);
        assert_eq!(run.code, Some(0), "{run}");
        if cut > cuts {
            // The last one is let alone, and finishes.
            running
                .until("the last update", STAGED + UP, |status| status.running == target && settled(status));
            running.switch_off();
            break;
        }
        let after = Duration::from_millis(random(&mut state) % LONGEST);
        std::thread::sleep(after);
        running.machine.kill();
        let console = running.machine.console();
        let boots = console.matches("Linux version").count();
        println!(
            "cut {cut} after {:.1} s on the way from {} to {target}, in start {boots}",
            after.as_secs_f64(),
            status.running
        );
    }
    println!("{ended:?}");
}
