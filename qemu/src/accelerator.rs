//! KVM or emulation, decided by a guest that runs.
//!
//! `/dev/kvm` says little: in a virtual machine it may offer no System Management Mode, which secure flash
//! needs, or lose interrupts so that every guest hangs. So a guest is tried: QEMU's BIOS on the same machine
//! type enters SMM to install its handler, then starts the boot sector below, which waits for three timer
//! interrupts with `hlt` and ends QEMU with a status that nothing else gives.

use crate::error::{QemuError, io_error};
use crate::process::Process;
use crate::program::{Program, QEMU};
use std::process::Command;
use std::str::FromStr;
use std::sync::OnceLock;
use std::time::Duration;

/// How long the probe's guest may take; by emulation it takes a quarter of a second.
const LIMIT: Duration = Duration::from_secs(5);

/// Writing the value v to `isa-debug-exit` ends QEMU with the status `v << 1 | 1`.
const VALUE: u8 = 0x2a;

/// The guest, 16-bit code at 0000:7c00. The BIOS counts timer interrupts at 0000:046c.
const GUEST: [u8; 30] = [
    0x31, 0xc0, // xor ax, ax
    0x8e, 0xd8, // mov ds, ax
    0x8e, 0xd0, // mov ss, ax
    0xbc, 0x00, 0x7c, // mov sp, 7c00
    0xfb, // sti
    0x8b, 0x1e, 0x6c, 0x04, // mov bx, [046c]
    0xf4, // again: hlt
    0xa1, 0x6c, 0x04, // mov ax, [046c]
    0x29, 0xd8, // sub ax, bx
    0x83, 0xf8, 0x03, // cmp ax, 3
    0x72, 0xf5, // jb again
    0xb0, VALUE, // mov al, VALUE
    0xe6, 0xf4, // out f4, al
    0xf4, // hlt
];

/// What the user asks for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Accelerator {
    /// KVM if it runs the probe's guest, or else emulation.
    #[default]
    Auto,
    /// KVM, or an error.
    Kvm,
    /// Emulation.
    Tcg,
}

/// What executes the guest's instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// The processor.
    Kvm,
    /// QEMU's emulator, about ten times slower.
    Tcg,
}

/// What the probe found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    /// The guest ran to its end.
    Works,
    /// It did not, and why.
    Fails(String),
}

impl FromStr for Accelerator {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "kvm" => Ok(Self::Kvm),
            "tcg" => Ok(Self::Tcg),
            _ => Err(format!("`{text}` is no accelerator; there are auto, kvm and tcg")),
        }
    }
}

impl Accelerator {
    /// Decides. The probe runs once in a process.
    pub fn resolve(self) -> Result<Engine, QemuError> {
        static KVM: OnceLock<Probe> = OnceLock::new();
        if self == Self::Tcg {
            return Ok(Engine::Tcg);
        }
        // What keeps the probe from running at all is an error, not an answer.
        let known = KVM.get().cloned();
        let probe = if let Some(probe) = known { probe } else { Engine::Kvm.probe()? };
        let _ = KVM.set(probe.clone());
        match (self, probe) {
            (_, Probe::Works) => Ok(Engine::Kvm),
            (Self::Auto, Probe::Fails(_)) => Ok(Engine::Tcg),
            (_, Probe::Fails(reason)) => Err(QemuError::NoKvm(reason)),
        }
    }
}

impl Engine {
    /// QEMU's options for it.
    pub(crate) fn options(self) -> [&'static str; 4] {
        match self {
            Self::Kvm => ["-accel", "kvm", "-cpu", "host"],
            Self::Tcg => ["-accel", "tcg,thread=multi", "-cpu", "max"],
        }
    }

    /// How many processors a guest has that asks for no number.
    ///
    /// One where software executes the instructions: when a kernel changes its own code (a limit of
    /// processor time does, the scheduler's static keys), a second emulated processor can still run the
    /// breakpoint that stood there a moment ago, and the kernel dies of it with "int3".
    #[must_use]
    pub const fn cpus(self) -> u32 {
        match self {
            Self::Kvm => 2,
            Self::Tcg => 1,
        }
    }

    /// Tries the guest under this engine, for at most five seconds.
    pub fn probe(self) -> Result<Probe, QemuError> {
        self.probe_guest(QEMU, &GUEST, LIMIT)
    }

    fn probe_guest(self, qemu: Program, guest: &[u8], limit: Duration) -> Result<Probe, QemuError> {
        let program = qemu.find()?;
        if self == Self::Kvm {
            let device = std::fs::OpenOptions::new().read(true).write(true).open("/dev/kvm");
            if let Err(error) = device {
                return Ok(Probe::Fails(format!("cannot open /dev/kvm: {error}")));
            }
        }
        let folder = tempfile::tempdir().map_err(io_error("make", std::env::temp_dir()))?;
        let disk = folder.path().join("probe.raw");
        // The BIOS reads no disk that is smaller than a cylinder.
        let mut sectors = guest.to_vec();
        sectors.resize(510, 0);
        sectors.extend([0x55, 0xaa]);
        sectors.resize(1 << 20, 0);
        std::fs::write(&disk, sectors).map_err(io_error("write", &disk))?;
        let mut command = Command::new(program);
        command
            .args(["-machine", "q35,smm=on"])
            .args(self.options())
            .args(["-m", "64", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"])
            .args(["-device", "isa-debug-exit,iobase=0xf4,iosize=1"])
            .args(["-device", "virtio-blk-pci,drive=disk,bootindex=0"])
            .args(["-drive", "if=none,id=disk,format=raw,read-only=on,file=probe.raw"])
            .current_dir(folder.path());
        let log = folder.path().join("log");
        let process = Process::start(qemu, command, &log, Some(limit), |_| ())?;
        Ok(match process.wait(limit * 2) {
            Some(ended) if ended.status.code() == Some(i32::from(VALUE) << 1 | 1) => Probe::Works,
            Some(ended) if !ended.overran => Probe::Fails(one_line(&process.failure(&log).to_string())),
            _ => Probe::Fails(format!("a guest hung for {} seconds", limit.as_secs())),
        })
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn no_qemu() -> bool {
        let absent = QEMU.find().is_err();
        if absent {
            eprintln!("skipped: qemu-system-x86_64 is needed (package qemu-system-x86)");
        }
        absent
    }

    #[test]
    fn the_probe_tells_a_guest_that_runs_from_one_that_hangs() {
        if no_qemu() {
            return;
        }
        assert_eq!(Engine::Tcg.probe().unwrap(), Probe::Works);
        // cli; hlt
        let hung = Engine::Tcg.probe_guest(QEMU, &[0xfa, 0xf4], Duration::from_secs(2)).unwrap();
        assert_eq!(hung, Probe::Fails("a guest hung for 2 seconds".into()));
        // A guest that resets: QEMU ends well, but not with the status of one that finished.
        let reset = [0xba, 0xf9, 0x0c, 0xb0, 0x06, 0xee, 0xf4];
        assert!(matches!(Engine::Tcg.probe_guest(QEMU, &reset, LIMIT).unwrap(), Probe::Fails(_)));
    }

    #[test]
    fn auto_always_finds_an_engine_and_kvm_says_why_not() {
        if no_qemu() {
            return;
        }
        let engine = Accelerator::Auto.resolve().unwrap();
        match (engine, Accelerator::Kvm.resolve()) {
            (Engine::Kvm, Ok(Engine::Kvm)) => {}
            (Engine::Tcg, Err(QemuError::NoKvm(reason))) => assert!(!reason.is_empty()),
            (engine, other) => panic!("auto is {engine:?}, kvm is {other:?}"),
        }
    }

    #[test]
    fn a_missing_program_names_its_package() {
        let absent = Program { name: "no-such-program", package: "qemu-system-x86" };
        let error = Engine::Tcg.probe_guest(absent, &GUEST, LIMIT).unwrap_err().to_string();
        assert_eq!(error, "`no-such-program` is not installed; install the package qemu-system-x86");
    }
}
