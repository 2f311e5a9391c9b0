//! A machine whose parts can be changed while it is off: its disk is a raw image, its TPM and its firmware's variables
//! are files.

use crate::disk;
use crate::machine::{UP, machine};
use crate::programs::Run;
use crate::release::Built;
use crate::{sparse, tools};
use ashlar_image::layout::PARTITIONS;
use ashlar_image::report::Report;
use ashlar_qemu::{Machine, MachineConfig};
use std::fs::{self, File};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// Guest port of the control API.
pub const API_PORT: u16 = 7443;

/// A machine that is off.
#[derive(Debug)]
pub struct Lab {
    folder: TempDir,
    config: MachineConfig,
}

impl Lab {
    /// A machine with the disk of `built`, a new TPM and the keys of `built` in its firmware.
    pub fn new(built: &Built) -> Self {
        let folder = tempfile::tempdir_in(built.out.parent().unwrap()).unwrap();
        sparse::copy(&built.file(&built.release.disk.file), &folder.path().join("disk.raw"));
        let run = folder.path().join("run");
        let disk = folder.path().join("disk.raw");
        let config = MachineConfig { folder: Some(run), cpus: 2, ..machine(built, &disk) };
        Self { folder, config }
    }

    /// A machine of its own with copies of all parts of this one.
    #[must_use]
    pub fn twin(&self) -> Self {
        let folder = tempfile::tempdir_in(self.folder.path().parent().unwrap()).unwrap();
        let (disk, run) = (folder.path().join("disk.raw"), folder.path().join("run"));
        sparse::copy(&self.disk(), &disk);
        let (from, to) = (self.tpm(), run.join("tpm"));
        fs::create_dir_all(&to).unwrap();
        for entry in fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
        let mut config = MachineConfig { folder: Some(run), disks: vec![disk], ..self.config.clone() };
        config.variables = Some(fs::read(self.run_folder().join("variables.fd")).unwrap());
        Self { folder, config }
    }

    /// What the machine is started with.
    pub fn config_mut(&mut self) -> &mut MachineConfig {
        &mut self.config
    }

    /// The raw disk. What a run wrote is in it when the run is over.
    pub fn disk(&self) -> PathBuf {
        self.folder.path().join("disk.raw")
    }

    fn run_folder(&self) -> PathBuf {
        self.folder.path().join("run")
    }

    /// The folder with the TPM's state.
    pub fn tpm(&self) -> PathBuf {
        self.run_folder().join("tpm")
    }

    /// Puts another TPM in.
    pub fn replace_tpm(&self) {
        fs::remove_dir_all(self.tpm()).unwrap();
    }

    /// Starts it, has `session` look at it, and when that is over takes its disk's content and its firmware's variables
    /// over. The machine is off when this is back: killed, unless `session` switched it off.
    pub fn run<T>(&mut self, session: impl FnOnce(&Machine) -> T) -> T {
        let machine = Machine::start(&self.config).unwrap();
        let result = session(&machine);
        drop(machine);
        let run = self.run_folder();
        let overlay = run.join("disk0.qcow2");
        let commit = tools::judge("qemu-img", "qemu-utils").map(|mut command| {
            Run::of(command.args(["commit", "-q", "-f", "qcow2"]).arg(&overlay)).ok()
        });
        assert!(commit.is_some());
        fs::remove_file(&overlay).unwrap();
        fs::remove_file(run.join("images")).unwrap();
        self.config.variables = Some(fs::read(run.join("variables.fd")).unwrap());
        result
    }

    /// Starts it and waits until it is ready, then switches it off in order.
    pub fn boot(&mut self) -> Report {
        self.run(|machine| {
            let report = machine.wait_report(UP).unwrap_or_else(|error| panic!("{error}\n{}", machine.console()));
            let exit = machine.power_down(UP).unwrap();
            assert!(exit.orderly(), "{exit}\n{}", machine.console());
            report
        })
    }

    /// Starts it and waits until it says that the state volume stays closed; gives the line that says why.
    pub fn refusal(&mut self) -> String {
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

    /// Where a partition lies on the disk, in bytes.
    pub fn partition(&self, label: &str) -> Range<u64> {
        let number = PARTITIONS.iter().find(|entry| entry.label == label).unwrap().number;
        disk::partition(&self.disk(), number)
    }

    /// The first bytes of a partition.
    pub fn read(&self, label: &str, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        File::open(self.disk()).unwrap().read_exact_at(&mut bytes, self.partition(label).start).unwrap();
        bytes
    }

    /// Writes over the first bytes of a partition.
    pub fn write(&self, label: &str, bytes: &[u8]) {
        let place = self.partition(label);
        assert!(bytes.len() as u64 <= place.end - place.start);
        let file = File::options().write(true).open(self.disk()).unwrap();
        file.write_all_at(bytes, place.start).unwrap();
    }

    /// Copies a partition of another machine's disk over this one's.
    pub fn take_partition(&self, label: &str, from: &Self) {
        let (ours, theirs) = (self.partition(label), from.partition(label));
        assert_eq!(ours.end - ours.start, theirs.end - theirs.start);
        let (source, target) =
            (File::open(from.disk()).unwrap(), File::options().write(true).open(self.disk()).unwrap());
        let mut buffer = vec![0; 4 << 20];
        let mut at = 0;
        while at < ours.end - ours.start {
            let length = usize::try_from((ours.end - ours.start - at).min(4 << 20)).unwrap();
            source.read_exact_at(&mut buffer[..length], theirs.start + at).unwrap();
            target.write_all_at(&buffer[..length], ours.start + at).unwrap();
            at += length as u64;
        }
    }

    /// Writes the slot of another release over slot A, as an update would.
    pub fn install(&self, release: &Path) {
        for (label, file) in [("esp-a", "esp.img"), ("root-a", "root.erofs"), ("verity-a", "root.verity")] {
            let mut bytes = fs::read(release.join(file)).unwrap();
            let place = self.partition(label);
            // A partition of zeros behind the new content would take long; what init reads ends before.
            bytes.truncate(usize::try_from(place.end - place.start).unwrap());
            self.write(label, &bytes);
        }
    }
}
