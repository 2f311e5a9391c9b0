//! A machine that is asked over the network, through all its starts.

use crate::desk::Desk;
use crate::lab::API_PORT;
use crate::machine::UP;
use crate::partition::Partition;
use crate::programs::Run;
use ashlar_image::update::{UpdatePhase, UpdateStatus};
use ashlar_qemu::{Machine, MachineConfig};
use serde::de::DeserializeOwned;
use std::cell::OnceCell;
use std::time::{Duration, Instant};

/// How long staging may take under emulation.
pub const STAGED: Duration = Duration::from_secs(180);

/// A machine and whoever looks after it.
#[derive(Debug)]
pub struct Node<'a> {
    /// The operator's computer.
    pub desk: &'a Desk,
    /// What it is started with.
    pub config: MachineConfig,
    fingerprint: OnceCell<String>,
}

impl<'a> Node<'a> {
    /// One that was never started.
    pub const fn new(desk: &'a Desk, config: MachineConfig) -> Self {
        Self { desk, config, fingerprint: OnceCell::new() }
    }

    /// Starts it. At the first start the operator comes to trust it.
    pub fn start(&self) -> Running<'_> {
        let machine = Machine::start(&self.config).unwrap();
        let port = machine.forwards().iter().find(|forward| forward.guest == API_PORT).unwrap().host;
        let node = format!("127.0.0.1:{port}");
        let _ = self.fingerprint.get_or_init(|| format!("sha256:{}", self.desk.fingerprint(&node)));
        Running { lab: self, machine, node }
    }

    /// A partition of its disk, while it is off.
    pub fn partition(&self, label: &str) -> Partition {
        let stopped = ashlar_qemu::Stopped::open(self.config.folder.as_ref().unwrap()).unwrap();
        Partition::of(&stopped.disk(0).unwrap(), label)
    }
}

/// A machine that runs.
#[derive(Debug)]
pub struct Running<'a> {
    lab: &'a Node<'a>,
    /// It.
    pub machine: Machine,
    /// Where its API is.
    pub node: String,
}

impl Running<'_> {
    /// `ashlarctl` for this machine, as an administrator.
    pub fn run(&self, arguments: &[&str]) -> Run {
        let trust = [
            "--node",
            &self.node,
            "--fingerprint",
            self.lab.fingerprint.get().unwrap(),
            "--identity",
            "admin.pem",
            "--json",
        ];
        self.lab.desk.ctl(&[&trust[..], arguments].concat())
    }

    /// Asks until the machine answers.
    pub fn ask<T: DeserializeOwned>(&self, arguments: &[&str]) -> T {
        let until = Instant::now() + UP;
        loop {
            let run = self.run(arguments);
            if let Ok(answer) = serde_json::from_str(&run.stdout) {
                return answer;
            }
            assert!(Instant::now() < until, "{run}\n{}", self.machine.console());
            std::thread::sleep(Duration::from_millis(700));
        }
    }

    /// What the update engine says.
    pub fn status(&self) -> UpdateStatus {
        self.ask(&["update", "status"])
    }

    /// Waits until the engine is in this phase.
    pub fn until(&self, what: &str, limit: Duration, is: impl Fn(&UpdateStatus) -> bool) -> UpdateStatus {
        let until = Instant::now() + limit;
        loop {
            let status = self.status();
            if is(&status) {
                return status;
            }
            assert!(Instant::now() < until, "{what}: {status:?}\n{}", self.machine.console());
            std::thread::sleep(Duration::from_secs(1));
        }
    }

    /// Waits until the release that runs was found good.
    pub fn committed(&self, version: &str) {
        let status = self
            .until("commit", UP, |status| status.phase == UpdatePhase::Idle && !status.running.is_empty());
        assert_eq!(status.running, version, "{status:?}\n{}", self.machine.console());
    }

    /// Updates to a version and waits for the end of this start of the machine.
    pub fn update_to(self, version: &str) {
        let run = self.run(&["update", "apply", "--version", version, "--no-wait"]);
        assert_eq!(run.code, Some(0), "{run}");
        self.restarts();
    }

    /// Waits for the end of this start of the machine.
    pub fn restarts(self) {
        let exit = self.machine.wait_exit(STAGED);
        let exit = exit.unwrap_or_else(|error| panic!("{error}\n{}", self.machine.console()));
        assert_eq!(exit.reason.as_deref(), Some("guest-reset"), "{exit}\n{}", self.machine.console());
    }

    /// Switches it off.
    pub fn switch_off(self) {
        let _ = self.machine.power_down(UP).unwrap();
    }
}
