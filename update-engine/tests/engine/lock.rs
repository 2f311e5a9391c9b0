//! The whole manoeuvre with the lock on real etcd, cut at every step: staged, a place, restart, judged, committed, given back.

use crate::lab::{Content, Init, Lab, Model, clock, content};
use ashlar_image::control::{Reply, Request, Status, Trial};
use ashlar_image::layout::Slot;
use ashlar_image::update::{LockPhase, UpdatePhase};
use ashlar_lock::{Etcd, EtcdOptions, Lock};
use ashlar_slots::SlotDisks;
use ashlar_slots::entries::Entries;
use ashlar_slots::model::Recorder;
use ashlar_slots::variables::Variables;
use ashlar_update::UpdateError;
use ashlar_update::engine::{Engine, Shared};
use ashlar_update::hardware::Hardware;
use ashlar_update::pid1::Pid1;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use std::cell::Cell;
use std::net::TcpListener;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

thread_local! {
    /// Hours that have passed since the first start: the channel is looked at once in an hour.
    static HOURS: Cell<i64> = const { Cell::new(0) };
}

fn later() -> i64 {
    clock() + HOURS.get() * 3600
}

/// What a death in the middle looks like from within.
struct Dead;

/// Kills the engine at its `left`th word to PID 1 or touch of disk and firmware; and never if that is negative.
#[derive(Debug, Clone)]
struct Life(Arc<AtomicI64>);

impl Life {
    fn step(&self) {
        if self.0.fetch_sub(1, Ordering::SeqCst) == 0 {
            resume_unwind(Box::new(Dead));
        }
    }
}

/// PID 1 at which the engine may die.
#[derive(Debug)]
struct Deadly {
    init: Init,
    life: Life,
}

/// Disk and firmware at which it may die.
#[derive(Debug)]
struct DeadlyModel {
    model: Model,
    life: Life,
}

impl Hardware for DeadlyModel {
    fn running(&self) -> Slot {
        self.model.running()
    }

    fn slot(&self, slot: Slot) -> Result<SlotDisks, UpdateError> {
        self.life.step();
        self.model.slot(slot)
    }

    fn variables(&self) -> Box<dyn Variables> {
        self.life.step();
        self.model.variables()
    }
}

impl Pid1 for Deadly {
    fn ask(&self, request: &Request) -> Result<Reply, UpdateError> {
        self.life.step();
        self.init.ask(request)
    }
}

/// etcd with a certificate.
struct Server {
    child: Child,
    folder: tempfile::TempDir,
    port: u16,
}

impl Server {
    fn start() -> Option<Self> {
        if !Path::new("/usr/bin/etcd").exists() {
            let strict = std::env::var_os("ASHLAR_TESTS_NO_SKIP").is_some();
            assert!(!strict, "ASHLAR_TESTS_NO_SKIP is set, and etcd is not installed (package etcd-server)");
            eprintln!("skipped: etcd is not installed (package etcd-server)");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let key = KeyPair::generate().unwrap();
        let mut authority = CertificateParams::default();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        std::fs::write(folder.path().join("ca.pem"), authority.self_signed(&key).unwrap().pem()).unwrap();
        let issuer = Issuer::new(authority, key);
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        std::fs::write(folder.path().join("server.pem"), params.signed_by(&key, &issuer).unwrap().pem())
            .unwrap();
        std::fs::write(folder.path().join("server.key"), key.serialize_pem()).unwrap();
        let port = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let (own, peer) = (port(), format!("http://127.0.0.1:{}", port()));
        let url = format!("https://127.0.0.1:{own}");
        let child = Command::new("etcd")
            .current_dir(folder.path())
            .args(["--data-dir", "data", "--logger", "zap", "--log-level", "error"])
            .args([
                "--listen-client-urls",
                &url,
                "--advertise-client-urls",
                &url,
                "--listen-peer-urls",
                &peer,
            ])
            .args(["--initial-advertise-peer-urls", &peer, "--initial-cluster", &format!("default={peer}")])
            .args(["--cert-file", "server.pem", "--key-file", "server.key"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Some(Self { child, folder, port: own })
    }

    fn ca(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("ca.pem")).unwrap()
    }

    fn lock(&self, group: &str) -> Lock<Etcd> {
        let endpoints = vec![format!("https://127.0.0.1:{}", self.port)];
        let options = EtcdOptions { endpoints, ca: Some(self.ca()), ..EtcdOptions::default() };
        let mut lock = Lock::new(Etcd::new(options).unwrap(), group.parse().unwrap());
        let until = Instant::now() + Duration::from_secs(30);
        while let Err(error) = lock.read() {
            assert!(Instant::now() < until, "{error}");
        }
        lock
    }

    fn settings(&self, group: &str) -> String {
        format!(
            "[update]\npolicy = \"automatic\"\njitter = \"0s\"\n[lock]\ngroup = \"{group}\"\netcd = [\"https://127.0.0.1:{}\"]\n\
             trust-roots = ['''\n{}''']\n",
            self.port,
            self.ca()
        )
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How a start of the machine ended.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Died,
    Restarts,
    Done,
}

/// A machine through its starts.
struct Machine<'a> {
    lab: Lab,
    releases: [&'a Content; 2],
    recorder: Recorder,
    settings: String,
    /// Whether the new release is a good one.
    good: bool,
}

impl<'a> Machine<'a> {
    fn new(server: &Server, group: &str, releases: [&'a Content; 2], good: bool) -> Self {
        HOURS.set(0);
        let lab = Lab::new(releases[0], releases[1], true, |_, _| {});
        let settings = format!("{}{}", lab.init.configuration, server.settings(group));
        let recorder = lab.recorder.clone();
        Self { lab, releases, recorder, settings, good }
    }

    /// Starts, as the firmware does it, and runs until the engine dies at its `steps`th word to PID 1, the machine restarts, or `done`.
    fn start(&mut self, steps: i64, lock: &mut Lock<Etcd>) -> End {
        HOURS.set(HOURS.get() + 1);
        let mut machine = self.recorder.machine();
        let signed = self.releases.map(|content| content.release.uki.artifact.sha256);
        // The first start is not noted anywhere yet.
        let slot = machine.start(&signed).unwrap_or(Slot::A);
        let order = Entries::read(&machine.variables).unwrap();
        let usual = order.order.first().and_then(|number| order.slot_of(*number)).unwrap_or(Slot::A);
        let trial = slot != usual;
        let version = &self.releases[usize::from(slot == Slot::B)].release.image_version;
        if slot == Slot::B && trial {
            let seen = lock.read().unwrap().semaphore;
            let own = seen.holder("a").expect("a machine starts a new release without a place");
            assert_eq!(own.to.as_deref(), Some("1.2"));
        }
        let status = Status {
            image_version: version.clone(),
            slot: format!("root-{}", slot.letter()),
            trial: trial.then(|| Trial { seconds_left: 60, waits_for: Vec::new() }),
            problems: if trial && !self.good {
                vec!["a check of PID 1 has failed".into()]
            } else {
                Vec::new()
            },
            ..self.lab.init.status.clone()
        };
        let life = Life(Arc::new(AtomicI64::new(steps)));
        let init = Init { status, configuration: self.settings.clone(), told: Mutex::default() };
        let init = Arc::new(Deadly { init, life: life.clone() });
        self.recorder = Recorder::new(machine);
        let model = Model { recorder: self.recorder.clone(), running: slot };
        let hardware = DeadlyModel { model, life };
        let shared = Arc::new(Shared::default());
        let state = self.lab.folder.path().join("state");
        let told = init.clone();
        let work = AssertUnwindSafe(|| {
            let mut engine = Engine::new(Box::new(hardware), init, &state, shared.clone(), later, 0).unwrap();
            let until = Instant::now() + Duration::from_secs(60);
            loop {
                engine.tick();
                if told
                    .init
                    .told
                    .lock()
                    .unwrap()
                    .iter()
                    .any(|told| matches!(told, Request::Reboot | Request::GiveUp(_)))
                {
                    return End::Restarts;
                }
                let status = shared.status();
                let phase = status.lock.as_ref().map(|lock| lock.phase);
                let committed = status.running == "1.2" && status.phase == UpdatePhase::Idle;
                let failed = phase == Some(LockPhase::Failed);
                if (committed && phase == Some(LockPhase::None)) || failed {
                    return End::Done;
                }
                assert!(Instant::now() < until, "{status:?} {:?}", shared.whys());
                std::thread::sleep(Duration::from_millis(10));
            }
        });
        match catch_unwind(work) {
            Ok(end) => end,
            Err(death) if death.is::<Dead>() => End::Died,
            Err(panic) => resume_unwind(panic),
        }
    }

    /// Runs until it is done.
    fn finish(&mut self, lock: &mut Lock<Etcd>) -> u32 {
        for starts in 1..6 {
            if self.start(-1, lock) == End::Done {
                return starts;
            }
        }
        panic!("it does not come to an end");
    }
}

#[test]
fn an_update_that_is_cut_at_every_step_ends_without_a_place() {
    let Some(server) = Server::start() else { return };
    let (one, two) = (content(1), content(2));
    let mut deaths = 0;
    // It dies in its first start, which stages and restarts; then in its second, which judges and gives the place back.
    for second in [false, true] {
        for steps in 0.. {
            let group = format!("cut-{second}-{steps}");
            let mut lock = server.lock(&group);
            let mut machine = Machine::new(&server, &group, [&one, &two], true);
            if second {
                assert_eq!(machine.start(-1, &mut lock), End::Restarts);
            }
            let end = machine.start(steps, &mut lock);
            if end != End::Done {
                machine.finish(&mut lock);
            }
            // What it has to tell of a failure it tells a moment later.
            let until = Instant::now() + Duration::from_secs(10);
            let seen = loop {
                let seen = lock.read().unwrap();
                if !seen.semaphore.results.is_empty() {
                    break seen;
                }
                assert!(Instant::now() < until, "died at step {steps}: {seen:?}");
            };
            assert!(seen.waiting.is_empty(), "died at step {steps}: {seen:?}");
            let results: Vec<_> =
                seen.semaphore.results.iter().map(|outcomes| (outcomes.good, outcomes.failed)).collect();
            match seen.semaphore.holders.as_slice() {
                [] => assert_eq!(results, [(1, 0)], "died at step {steps}"),
                // One that dies while it is judged has failed, and keeps its place for that.
                [own] => {
                    assert!(second && own.failure.is_some(), "died at step {steps}: {seen:?}");
                    assert_eq!(results, [(0, 1)], "died at step {steps}");
                }
                _ => panic!("{seen:?}"),
            }
            if end != End::Died {
                break;
            }
            deaths += 1;
        }
    }
    println!("{deaths} deaths, each mended");
    assert!(deaths > 20, "{deaths}");
}

#[test]
fn a_release_that_fails_keeps_its_place_until_somebody_frees_it() {
    let Some(server) = Server::start() else { return };
    let (one, two) = (content(1), content(2));
    let mut lock = server.lock("bad");
    let mut machine = Machine::new(&server, "bad", [&one, &two], false);
    // The deadline of the trial is not waited for: the power goes during it.
    assert_eq!(machine.start(-1, &mut lock), End::Restarts);
    assert_eq!(machine.start(12, &mut lock), End::Died);
    assert_eq!(machine.finish(&mut lock), 1);
    let until = Instant::now() + Duration::from_secs(10);
    let failure = loop {
        let seen = lock.read().unwrap().semaphore;
        let own = seen.holder("a").expect("it has let its place go").clone();
        if let Some(failure) = own.failure {
            break failure;
        }
        assert!(Instant::now() < until);
    };
    assert!(failure.starts_with("start: "), "{failure}");
    assert_eq!(lock.read().unwrap().semaphore.results[0].failed, 1);
    // Told once, however often it starts.
    assert_eq!(machine.finish(&mut lock), 1);
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(lock.read().unwrap().semaphore.results[0].failed, 1);
}
