//! What a booted machine tells about itself. Init writes it as one line of JSON to the virtio port
//! [`REPORT_PORT`] where the hypervisor gives one, when the machine is ready. Nothing in it is secret, and
//! nothing is read from the port.

use crate::control::Status;
use crate::digest::Digest;
use crate::measure::Event;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Name of the virtio-serial port.
pub const REPORT_PORT: &str = "org.ashlar.report";

/// Where a service or container is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ServicePhase {
    /// It is switched off: by the configuration, or because somebody stopped it.
    #[default]
    Off,
    /// It will be started: what it depends on is not ready, or the pause after a failure is not over.
    Waiting,
    /// It runs and is not ready yet.
    Starting,
    /// It runs and is ready.
    Running,
    /// It was asked to end.
    Stopping,
    /// It has ended and is not to be started again.
    Ended,
    /// It was started too often, or it cannot be stopped.
    Failed,
}

impl ServicePhase {
    /// As in JSON, for people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Waiting => "waiting",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Stopping => "stopping",
            Self::Ended => "ended",
            Self::Failed => "failed",
        }
    }
}

/// What the processes of a service or container use (Linux, `Documentation/admin-guide/cgroup-v2.rst`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Usage {
    /// Memory in bytes, page cache included (`memory.current`).
    pub memory: Option<u64>,
    /// The most that it was, in bytes (`memory.peak`).
    pub memory_peak: Option<u64>,
    /// Processor time in microseconds (`usage_usec` of `cpu.stat`).
    pub cpu: Option<u64>,
    /// Processes and threads (`pids.current`).
    pub processes: Option<u64>,
    /// Processes that were killed because memory ran out (`oom_kill` of `memory.events`).
    pub oom_kills: Option<u64>,
    /// Times that no process could be made because of the limit (`max` of `pids.events`).
    pub refused_processes: Option<u64>,
}

/// State of one supervised service or container.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ServiceState {
    /// Its name.
    pub name: String,
    /// Whether it is a container.
    #[serde(default)]
    pub container: bool,
    /// Where it is.
    #[serde(default)]
    pub phase: ServicePhase,
    /// Whether it runs now.
    pub running: bool,
    /// Whether what depends on it may start.
    #[serde(default)]
    pub ready: bool,
    /// How often it was started.
    pub starts: u32,
    /// Exit status or signal of the last end, for people.
    pub last_exit: Option<String>,
    /// Whether the last end was one with status 0; none before the first end.
    #[serde(default)]
    pub ended_well: Option<bool>,
    /// What it said of itself (`STATUS=` of sd_notify).
    #[serde(default)]
    pub status: Option<String>,
    /// What is wrong with it, for people; none if nothing is.
    #[serde(default)]
    pub problem: Option<String>,
    /// What it uses.
    #[serde(default)]
    pub usage: Usage,
    /// Lines that were not logged because it wrote too many.
    #[serde(default)]
    pub suppressed_lines: u64,
}

/// A measurement that init itself made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InitEvent {
    /// Which PCR was extended.
    pub pcr: u32,
    /// What was extended.
    #[serde(flatten)]
    pub event: Event,
}

/// The report.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// `IMAGE_ID` of the running image.
    pub image_id: String,
    /// `IMAGE_VERSION` of the running image.
    pub image_version: String,
    /// Root hash of the mounted root.
    pub root_hash: Digest,
    /// Label of the partition that the root was opened from.
    pub root_partition: String,
    /// Release of the kernel (`uname -r`).
    pub kernel: String,
    /// Whether the firmware enforces Secure Boot (`SecureBoot` = 1).
    pub secure_boot: bool,
    /// `/sys/kernel/security/lockdown` as read.
    pub lockdown: String,
    /// SHA-256 PCRs 0 to 23 as read from the TPM.
    pub pcrs: BTreeMap<u32, Digest>,
    /// The firmware's event log (`binary_bios_measurements`), base64.
    pub firmware_log: String,
    /// What init extended, in order.
    pub init_log: Vec<InitEvent>,
    /// Services and containers.
    pub services: Vec<ServiceState>,
    /// Addresses of the wired interfaces, as `eth0 10.0.2.15/24`.
    pub addresses: Vec<String>,
    /// Seconds from the start of the kernel until ready.
    pub uptime_seconds: f64,
    /// The machine's state as the control API gives it; none from an older init.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<Box<Status>>,
}
