//! Three machines and one lock: they update themselves one after the other, and a bad release stops at the first.
#![allow(clippy::unwrap_used)] // a test fails by it

use ashlar_image::update::{LockIdentity, LockPhase, LockStatus, UpdatePhase, UpdateStatus};
use ashlar_qemu::{DiskFormat, Forward, MachineConfig, Network};
use ashlar_tests::channel::Channel;
use ashlar_tests::desk::Desk;
use ashlar_tests::etcd::Etcd;
use ashlar_tests::lab::API_PORT;
use ashlar_tests::machine::{UP, machine, ready};
use ashlar_tests::nginx::Nginx;
use ashlar_tests::node::{Node, Running};
use ashlar_tests::{built, skip, sparse, tools};
use std::path::Path;
use std::time::{Duration, Instant};

const GROUP: &str = "web";
/// How long all three may take for one release, under emulation.
const ROLLED: Duration = Duration::from_secs(420);

/// What a machine says of the lock; nothing while its engine starts.
fn lock(status: &UpdateStatus) -> LockStatus {
    status.lock.clone().unwrap_or_default()
}

/// Waits until `is`, asking all machines; each says what it is.
fn until(
    what: &str,
    machines: &[Running<'_>],
    mut is: impl FnMut(&[UpdateStatus]) -> bool,
) -> Vec<UpdateStatus> {
    let end = Instant::now() + ROLLED;
    loop {
        let seen: Vec<UpdateStatus> = machines.iter().map(Running::status).collect();
        if is(&seen) {
            return seen;
        }
        assert!(
            Instant::now() < end,
            "{what}: {seen:#?}\n{}",
            machines.iter().map(|machine| machine.machine.console()).collect::<Vec<_>>().join("\n====\n")
        );
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// What the documentation can say of a text: machine IDs and times are others each time.
fn like(text: &str) -> String {
    let word = |word: &str| {
        let id = word.len() == 32 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
        let time = word.len() == 20 && word.ends_with('Z') && word.as_bytes()[10] == b'T';
        if id {
            "ID".to_owned()
        } else if time {
            "TIME".to_owned()
        } else {
            word.to_owned()
        }
    };
    let line = |line: &str| line.split_whitespace().map(word).collect::<Vec<_>>().join(" ");
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

/// What `lockctl` prints, as the how-to shows it.
fn documented(etcd: &Etcd, arguments: &[&str]) -> String {
    let run = etcd.lockctl(GROUP, arguments).ok();
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/how-to/reboot-lock.md");
    let page = like(&std::fs::read_to_string(page).unwrap());
    let shown = like(&format!("$ lockctl --group {GROUP} {}\n{}", arguments.join(" "), run.stdout));
    assert!(page.contains(&shown), "the how-to does not show:\n{shown}");
    run.stdout
}

#[test]
fn three_machines_and_one_lock() {
    if !ready() || tools::judge("etcd", "etcd-server").is_none() {
        return;
    }
    if !Path::new("/usr/sbin/nginx").exists() {
        skip("nginx is needed (package nginx)");
        return;
    }
    let Some(built) = built() else { return };
    let begun = Instant::now();
    let channel = Channel::new(built);
    let out = channel.release("1.0", &[]);
    let server = Nginx::serve(&channel.repository, &channel.case.path("nginx"));
    let mut etcd = Etcd::start(&channel.case.path("etcd"));
    let desk = Desk::new(built);
    let ca = desk.certificates();
    let key = std::fs::read_to_string(channel.case.keys.join("channel.pub")).unwrap();
    let text = format!(
        "serial = 1\n[control]\ntrust-roots = ['''\n{ca}''']\n[channel]\nurl = \"http://10.0.2.2:{}\"\nname = \"stable\"\n\
         key = '''\n{key}'''\n[update]\npolicy = \"automatic\"\ncheck-interval = \"1m\"\njitter = \"0s\"\ntrial-deadline = \"1m\"\n\
         [[update.health]]\nname = \"web\"\nhttp = \"http://127.0.0.1:8080/\"\ndeadline = \"5s\"\n\
         [lock]\ngroup = \"{GROUP}\"\netcd = [\"https://10.0.2.2:{}\"]\ntrust-roots = ['''\n{}''']\n",
        server.port,
        etcd.port,
        etcd.authority()
    );
    let seed = desk.sign("first", &text, &desk.keys);
    let nodes: Vec<Node<'_>> = (0..3)
        .map(|number| {
            let disk = desk.path(&format!("disk{number}.raw"));
            sparse::copy(&out.join("disk.raw"), &disk);
            let _ = desk.ashlar(&["machine", "seed", disk.to_str().unwrap(), seed.to_str().unwrap()]).ok();
            let config = MachineConfig {
                folder: Some(desk.path(&format!("machine{number}"))),
                disk_format: DiskFormat::Copy,
                forwards: vec![Forward { host: 0, guest: API_PORT }],
                network: Network::Open,
                no_reboot: false,
                lifetime: Some(Duration::from_secs(1500)),
                ..machine(built, &disk)
            };
            Node::new(&desk, config)
        })
        .collect();
    let machines: Vec<Running<'_>> = nodes.iter().map(Node::start).collect();

    // etcd does not know them yet: they say so, since when and why.
    let seen = until("trouble", &machines, |seen| seen.iter().all(|status| lock(status).problem.is_some()));
    assert!(seen.iter().all(|status| lock(status).problem_since.is_some()), "{seen:?}");
    let certificates: Vec<String> = machines
        .iter()
        .map(|machine| machine.ask::<LockIdentity>(&["update", "identity"]).certificate)
        .collect();
    etcd.trust(&certificates);
    let _ = until("the lock", &machines, |seen| {
        seen.iter().all(|status| {
            let lock = lock(status);
            (lock.problem.is_none(), lock.available, lock.max) == (true, Some(1), Some(1))
        })
    });
    assert_eq!(documented(&etcd, &["status"]), "Available: 1\nMax: 1\n");

    // A good release: one after the other.
    let _ = channel.release("1.1", &[("Hello from a measured machine.", "Hello again.")]);
    let mut down = 0;
    let _ = until("1.1", &machines, |seen| {
        let status = etcd.lockctl(GROUP, &["--json", "status"]).ok().stdout;
        let status: serde_json::Value = serde_json::from_str(&status).unwrap();
        let holders = status["holders"].as_array().unwrap().len();
        assert!(holders <= 1, "{status}");
        down = down.max(holders);
        let good = |status: &UpdateStatus| status.running == "1.1" && status.phase == UpdatePhase::Idle;
        holders == 0 && seen.iter().all(good)
    });
    assert_eq!(down, 1, "nobody was ever seen to be down");
    let history: serde_json::Value =
        serde_json::from_str(&etcd.lockctl(GROUP, &["--json", "history"]).ok().stdout).unwrap();
    let what: Vec<&str> = history.as_array().unwrap().iter().map(|e| e["what"].as_str().unwrap()).collect();
    assert_eq!(what, ["locked", "unlocked"].repeat(3), "{history}");
    println!("three machines run 1.1 after {:.0} s", begun.elapsed().as_secs_f64());

    // A bad one: the first machine that tries it fails, goes back, and keeps its place; the others see why they wait.
    let _ = channel.release("1.2", &[("\"-p\", \"8080\"", "\"-p\", \"8081\"")]);
    let seen = until("1.2", &machines, |seen| {
        let failed = seen.iter().filter(|status| lock(status).phase == LockPhase::Failed).count();
        let waiting = seen.iter().filter(|status| status.phase == UpdatePhase::Locking).count();
        assert!(failed <= 1, "{seen:?}");
        (failed, waiting) == (1, 2)
            && seen.iter().all(|s| lock(s).holders.iter().any(|h| h.failure.is_some()))
    });
    for status in &seen {
        assert_eq!(status.running, "1.1", "{status:?}");
        let lock = lock(status);
        let failure = lock.holders[0].failure.as_deref().unwrap();
        assert!(failure.starts_with("health web: "), "each machine's status says why: {failure}");
        assert_eq!(lock.available, Some(0));
    }
    std::thread::sleep(Duration::from_secs(15));
    let seen: Vec<UpdateStatus> = machines.iter().map(Running::status).collect();
    assert!(seen.iter().all(|status| status.running == "1.1"), "{seen:?}");
    assert_eq!(seen.iter().filter(|status| !status.barred.is_empty()).count(), 1, "{seen:?}");
    let told = documented(&etcd, &["status"]);
    let id = told.lines().last().unwrap().to_owned();
    let _ = documented(&etcd, &["status", "--wide"]);
    println!("1.2 has stopped after {:.0} s", begun.elapsed().as_secs_f64());

    // The owner withdraws it and gives the place free: nobody starts it any more.
    let _ = channel
        .ashlar(&[
            "channel",
            "withdraw",
            "REPOSITORY",
            "1.2",
            "--channel",
            "stable",
            "--reason",
            "no web",
            "--keys",
            "KEYS",
        ])
        .ok();
    let _ = etcd.lockctl(GROUP, &["unlock", &id]).ok();
    let _ = until("withdrawal", &machines, |seen| {
        let free = seen.iter().all(|s| lock(s).available == Some(1));
        free && seen.iter().all(|s| s.phase == UpdatePhase::Idle && lock(s).phase == LockPhase::None)
    });

    // A restart without an update takes a place too.
    let run = machines[0].run(&["update", "reboot", "--reason", "a disk was changed"]);
    assert_eq!(run.code, Some(0), "{run}");
    let end = Instant::now() + UP;
    let back = loop {
        let history: serde_json::Value =
            serde_json::from_str(&etcd.lockctl(GROUP, &["--json", "history", "--count", "2"]).ok().stdout)
                .unwrap();
        if history[0]["detail"] == "a disk was changed" && history[1]["what"] == "unlocked" {
            break history;
        }
        assert!(Instant::now() < end, "{history}\n{}", machines[0].machine.console());
        std::thread::sleep(Duration::from_secs(1));
    };
    assert_eq!(back[0]["id"], back[1]["id"]);
    println!("all of it in {:.0} s", begun.elapsed().as_secs_f64());
}
