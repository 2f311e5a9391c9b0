//! Virtual machines: QEMU with OVMF in enforced Secure Boot and swtpm as TPM 2.0.
//!
//! A [`Machine`] never changes the disk image that it starts from, every wait has a deadline, and no
//! process outlives the [`Machine`] or the program that holds it.
//!
//! ```no_run
//! use ashlar_qemu::{Machine, MachineConfig};
//! use std::time::Duration;
//!
//! let machine = Machine::start(&MachineConfig::new("out/disk.raw"))?;
//! let report = machine.wait_report(Duration::from_secs(120))?;
//! println!("Secure Boot: {}", report.secure_boot);
//! machine.power_down(Duration::from_secs(60))?;
//! # Ok::<(), ashlar_qemu::QemuError>(())
//! ```

mod accelerator;
mod command;
mod config;
mod error;
mod firmware;
mod folder;
mod machine;
mod off;
mod process;
mod program;
mod qmp;
mod spawn;
mod stream;
mod terminal;
mod tpm;

pub use accelerator::{Accelerator, Engine, Probe};
pub use config::{Boot, ConsoleCopy, DiskFormat, Forward, MachineConfig, Network};
pub use error::QemuError;
pub use firmware::Firmware;
pub use machine::{Exit, Machine};
pub use off::Stopped;
pub use qmp::parse_message;
pub use stream::{REPORT_LIMIT, parse_report};
pub use terminal::Plain;
pub use tpm::OfflineTpm;
