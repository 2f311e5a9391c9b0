//! A machine whose parts are changed while it is off.

use crate::machine::{UP, machine};
use crate::partition::Partition;
use crate::release::Built;
use crate::sparse;
use ashlar_image::report::Report;
use ashlar_qemu::{DiskFormat, Machine, MachineConfig, Stopped};
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// Guest port of the control API.
pub const API_PORT: u16 = 7443;

/// A machine that is off.
#[derive(Debug)]
pub struct Lab {
    folder: TempDir,
    /// What it is started with.
    pub config: MachineConfig,
}

impl Lab {
    /// A machine with the disk of `built`, a new TPM and the keys of `built` in its firmware. It was never started.
    pub fn new(built: &Built) -> Self {
        let folder = tempfile::tempdir_in(built.out.parent().unwrap()).unwrap();
        let config = MachineConfig {
            folder: Some(folder.path().join("machine")),
            disk_format: DiskFormat::Copy,
            ..machine(built, &built.file(&built.release.disk.file))
        };
        Self { folder, config }
    }

    /// A machine of its own with copies of all parts of this one.
    #[must_use]
    pub fn twin(&self) -> Self {
        let folder = tempfile::tempdir_in(self.folder.path().parent().unwrap()).unwrap();
        let (from, to) = (self.folder.path().join("machine"), folder.path().join("machine"));
        copy(&from, &to);
        Self { folder, config: MachineConfig { folder: Some(to), ..self.config.clone() } }
    }

    /// The machine as it lies there. It cannot be started while this exists.
    pub fn stopped(&self) -> Stopped {
        Stopped::open(&self.folder.path().join("machine")).unwrap()
    }

    /// Its raw disk.
    pub fn disk(&self) -> PathBuf {
        self.stopped().disk(0).unwrap()
    }

    /// A partition of its disk.
    pub fn partition(&self, label: &str) -> Partition {
        Partition::of(&self.disk(), label)
    }

    /// A path for something that goes with the machine.
    pub fn scratch(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Starts it and has `session` look at it. It is off when this is back: killed, unless `session` switched it off.
    pub fn run<T>(&self, session: impl FnOnce(&Machine) -> T) -> T {
        let machine = Machine::start(&self.config).unwrap();
        session(&machine)
    }

    /// Starts it and waits until it is ready, then switches it off in order.
    pub fn boot(&self) -> Report {
        self.run(|machine| {
            let report =
                machine.wait_report(UP).unwrap_or_else(|error| panic!("{error}\n{}", machine.console()));
            let exit = machine.power_down(UP).unwrap();
            assert!(exit.orderly(), "{exit}\n{}", machine.console());
            report
        })
    }

    /// Starts it and waits until it says that the state volume stays closed; gives the line that says why.
    pub fn refusal(&self) -> String {
        self.run(|machine| {
            machine
                .wait_console("What to do: ", UP)
                .unwrap_or_else(|error| panic!("{error}\n{}", machine.console()));
            let console = machine.console();
            assert!(!console.contains("ready after"), "{console}");
            let line = console.lines().find(|line| line.contains("state volume stays closed: "));
            line.unwrap_or_else(|| panic!("no reason in {console}")).trim().to_owned()
        })
    }

    /// Writes the slot of another release over slot A, as an update would.
    pub fn install(&self, release: &Path) {
        for (label, file) in [("esp-a", "esp.img"), ("root-a", "root.erofs"), ("verity-a", "root.verity")] {
            self.partition(label).copy_from(&release.join(file));
        }
    }
}

/// Copies a folder; large files keep their holes.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            sparse::copy(&entry.path(), &target);
        }
    }
}
