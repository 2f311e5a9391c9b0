//! What a booted machine tells about itself. Init writes it as one line of JSON to the virtio port
//! [`REPORT_PORT`] where the hypervisor gives one, when the machine is ready. Nothing in it is secret, and
//! nothing is read from the port.

use crate::digest::Digest;
use crate::measure::Event;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Name of the virtio-serial port.
pub const REPORT_PORT: &str = "org.ashlar.report";

/// State of one supervised service or container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceState {
    /// Its name.
    pub name: String,
    /// Whether it runs now.
    pub running: bool,
    /// How often it was started.
    pub starts: u32,
    /// Exit status or signal of the last end, for people.
    pub last_exit: Option<String>,
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
}
