//! What PID 1 and `ashlarctl` say to each other, and what the control API answers.
//!
//! PID 1 listens on [`INIT_SOCKET`], which only root may open. One connection carries one [`Request`] and its
//! [`Answer`], each a line of JSON of at most [`MAX_LINE`] bytes. The program that speaks to the network is another
//! process (`ashlarctl serve`): PID 1 itself parses nothing that comes from afar.

use crate::digest::Digest;
use crate::report::{InitEvent, ServiceState};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// PID 1's socket, mode 0600.
pub const INIT_SOCKET: &str = "/run/ashlar/init.sock";
/// The control API's socket on the machine, mode 0660.
pub const API_SOCKET: &str = "/run/ashlar/api.sock";
/// TCP port of the control API over mutual TLS, unless the machine configuration gives another.
pub const API_PORT: u16 = 7443;
/// Longest request or answer in bytes, the end of the line included.
pub const MAX_LINE: usize = 4 << 20;
/// Folder of the log: files `NNNNNNNNNNNNNNNN.jsonl` with ascending numbers, one [`LogEntry`] a line. The one with
/// the highest number is being written to; the oldest are removed.
pub const LOG_FOLDER: &str = "/var/log/ashlar";

/// What somebody asks of PID 1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// [`Reply::Status`].
    Status,
    /// [`Reply::Services`].
    Services,
    /// Starts, stops or restarts a service or container; [`Reply::Done`].
    Service {
        /// Its name.
        name: String,
        /// What to do.
        action: ServiceAction,
    },
    /// The machine configuration in force; [`Reply::Configuration`].
    Configuration,
    /// Verifies, measures, stores and applies a signed machine configuration (a DSSE envelope); [`Reply::Applied`].
    Configure {
        /// The envelope.
        envelope: String,
        /// Only verify and say what would change.
        dry_run: bool,
    },
    /// PCRs and what was measured; [`Reply::Measurements`].
    Measurements,
    /// Restarts the machine in order; [`Reply::Done`].
    Reboot,
    /// Switches it off in order; [`Reply::Done`].
    PowerOff,
    /// The boot is good: the update engine has found all its checks passed. In a trial the rollback floor is raised now;
    /// refused while the machine is not ready or has a problem, and while the firmware would still start the other
    /// release the next time (`BootOrder` comes first); [`Reply::Done`].
    Commit,
    /// The trial of a release has failed: noted for the old one, and the machine restarts into it; [`Reply::Done`].
    GiveUp(TrialFailure),
    /// Seals the state volume's key to this TPM anew; [`Reply::Done`].
    Reseal {
        /// The recovery key, as it was shown.
        recovery_key: String,
    },
}

/// Why the trial of a release has failed. It survives the restart as the EFI variable [`TRIAL_VARIABLE`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrialFailure {
    /// `IMAGE_VERSION` of the release.
    pub version: String,
    /// Which check: `network`, `container web`, `start`.
    pub check: String,
    /// What it said, for people.
    pub reason: String,
}

/// Name and vendor of the EFI variable with a [`TrialFailure`] in JSON.
pub const TRIAL_VARIABLE: &str = "AshlarTrial-5ecfdd4f-8ae4-4f7e-a0a2-1d0b6c6d1f57";
/// Longest value of that variable in bytes.
pub const MAX_TRIAL_VARIABLE: usize = 1024;

/// A boot that is tried: the machine goes back to the old release unless it is committed in time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trial {
    /// Seconds until PID 1 gives up by itself.
    pub seconds_left: u64,
    /// What PID 1 waits for before the machine is ready, for people; empty when it is.
    #[serde(default)]
    pub waits_for: Vec<String>,
}

/// What to do with a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ServiceAction {
    /// Start it now; the pause after failures is over.
    Start,
    /// Stop it and do not start it again until it is told to.
    Stop,
    /// Stop it, then start it.
    Restart,
}

/// PID 1's answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// It went well.
    Ok(Reply),
    /// It did not.
    Error(Refusal),
}

/// Why a request was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// For programs.
    pub kind: RefusalKind,
    /// What is wrong; each line names one thing.
    pub message: String,
    /// What to do next.
    pub advice: String,
}

/// Kinds of refusals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RefusalKind {
    /// The request is malformed or what it carries is wrong.
    Invalid,
    /// The signature or the recovery key is wrong.
    Forbidden,
    /// There is no such thing.
    NotFound,
    /// Not in this state of the machine.
    Conflict,
    /// PID 1 could not do it.
    Failed,
}

/// What went well.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reply {
    /// Nothing more to say.
    Done,
    /// The machine's state.
    Status(Box<Status>),
    /// All services and containers.
    Services(Vec<ServiceState>),
    /// The configuration.
    Configuration(ConfigurationState),
    /// What a new configuration changes.
    Applied(Applied),
    /// What was measured.
    Measurements(Measurements),
}

/// The machine's state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Identity of the machine: follows from its state volume; none without one.
    pub machine_id: Option<String>,
    /// Host name.
    pub hostname: String,
    /// `IMAGE_ID`.
    pub image_id: String,
    /// `IMAGE_VERSION`.
    pub image_version: String,
    /// The release's number that never falls.
    pub security_version: u64,
    /// The lowest one that opens this machine's state volume.
    pub rollback_floor: Option<u64>,
    /// Label of the root's partition.
    pub slot: String,
    /// Root hash.
    pub root_hash: Digest,
    /// Release of the kernel.
    pub kernel: String,
    /// Whether the firmware enforces Secure Boot.
    pub secure_boot: bool,
    /// How the state volume was opened: `tpm`, `new`, `recovery-key`.
    pub state: String,
    /// Whether the boot is good: hardened as the release says, everything started and healthy.
    pub good: bool,
    /// Whether `ready` was reached.
    pub ready: bool,
    /// What is wrong, one line each; empty when the machine is good.
    pub problems: Vec<String>,
    /// How the boot before ended, for people: `in order`, `power cut or hang`, `panic: ...`; none at the first.
    pub last_boot: Option<String>,
    /// `IMAGE_VERSION` of the release that ran in the boot before, as far as it came to note it on the state volume: one
    /// that died earlier leaves the note of the boot before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_boot_release: Option<String>,
    /// Addresses, as `eth0 10.0.2.15/24`.
    pub addresses: Vec<String>,
    /// Whether the clock was set by a time server, and by which.
    pub time_server: Option<String>,
    /// Whether this boot is a trial.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trial: Option<Trial>,
    /// Why the trial before ended on this release; none if it did not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trial_failure: Option<TrialFailure>,
    /// The watchdog that is fed, for people; none without one.
    pub watchdog: Option<String>,
    /// Seconds since the kernel's start.
    pub uptime_seconds: f64,
    /// Clock, seconds since 1970.
    pub time: i64,
    /// Serial of the machine configuration in force; none without one.
    pub configuration_serial: Option<u64>,
    /// Services and containers.
    pub services: Vec<ServiceState>,
}

/// The machine configuration in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigurationState {
    /// The text of `machine.toml`; none without one.
    pub text: Option<String>,
    /// Its SHA-256, as measured into PCR 12.
    pub digest: Option<Digest>,
    /// Its serial.
    pub serial: Option<u64>,
    /// Where it came from: `state volume`, `installation`, `image`, `control`.
    pub source: Option<String>,
    /// Why the last one that was offered was refused, if it was.
    pub refused: Option<String>,
}

/// What a configuration changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// Serial.
    pub serial: u64,
    /// What was changed at once, one line each.
    pub changed: Vec<String>,
    /// What waits for a restart of the machine.
    pub needs_reboot: Vec<String>,
}

/// What was measured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Measurements {
    /// SHA-256 PCRs.
    pub pcrs: BTreeMap<u32, Digest>,
    /// The firmware's event log, base64.
    pub firmware_log: String,
    /// What init extended, in order.
    pub init_log: Vec<InitEvent>,
}

/// One line of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogEntry {
    /// Clock, microseconds since 1970.
    pub time: u64,
    /// Microseconds since the kernel's start.
    pub uptime: u64,
    /// The kernel's boot id (`/proc/sys/kernel/random/boot_id`), 32 hexadecimal digits.
    pub boot: String,
    /// `kernel`, `init`, or the name of a service or container.
    pub unit: String,
    /// Priority as in syslog (RFC 5424, section 6.2.1): 0 emergency to 7 debug.
    pub priority: u8,
    /// The line.
    pub message: String,
}
