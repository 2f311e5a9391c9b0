//! All tables but `[network]`.

use super::is_default;
use super::values::{
    Bytes, Certificate, Cpus, Day, PublicKey, RootDigest, Seconds, TimeOfDay, TimeZone, Timestamp, Url,
};
use crate::control::API_PORT;
use serde::Serialize;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// `[time]`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(deny_unknown_fields))]
pub struct Time {
    /// Time servers (NTP): host names or addresses, at most 8. Without any, those that a DHCP server names.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "schema", schemars(default, length(max = 8)))]
    pub servers: Vec<String>,
}

/// `[control]`: without `trust-roots`, the machine is not reached from afar.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(deny_unknown_fields))]
pub struct Control {
    /// Addresses of the machine that are listened on; all unless given.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "schema", schemars(default))]
    pub listen: Vec<IpAddr>,
    /// TCP port: 1 to 65535; 7443 unless given.
    #[cfg_attr(feature = "schema", schemars(default = "api_port", range(min = 1)))]
    pub port: u16,
    /// Certificates (PEM) of the authorities that sign users' certificates.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "schema", schemars(default))]
    pub trust_roots: Vec<Certificate>,
}

#[cfg(feature = "schema")]
fn api_port() -> u16 {
    API_PORT
}

impl Default for Control {
    fn default() -> Self {
        Self { listen: Vec::new(), port: API_PORT, trust_roots: Vec::new() }
    }
}

/// `[cluster]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(deny_unknown_fields))]
pub struct Cluster {
    /// Its name: a label as in host names.
    pub name: String,
    /// Where it is reached: URLs (https), one at least.
    #[cfg_attr(feature = "schema", schemars(length(min = 1, max = 16)))]
    pub endpoints: Vec<Url>,
}

/// `[lock]`: the reboot lock of the machine's group. Exactly one of `etcd` and `fleetlock`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(deny_unknown_fields))]
pub struct Lock {
    /// The group: letters, digits, `.`, `-`, `_` and `/`, at most 128; `default` unless given. FleetLock knows no `_` and `/`.
    #[cfg_attr(feature = "schema", schemars(default = "lock_group", length(min = 1, max = 128)))]
    pub group: String,
    /// Members of the etcd cluster that keeps it: URLs (https).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "schema", schemars(default, length(max = 16)))]
    pub etcd: Vec<Url>,
    /// A FleetLock server: its base URL (https).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fleetlock: Option<Url>,
    /// Certificates (PEM) of the authorities that sign the servers' certificates; those of the web unless given, and for etcd
    /// none of those.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "schema", schemars(default))]
    pub trust_roots: Vec<Certificate>,
    /// Certificate (PEM, with those that lead to its authority) of the machine's own key, issued by whom etcd trusts
    /// (`ashlarctl update identity --request`); the one that the machine has signed itself unless given.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "schema", schemars(default))]
    pub certificate: Vec<Certificate>,
}

/// The group of who names none.
pub(super) const LOCK_GROUP: &str = "default";

#[cfg(feature = "schema")]
fn lock_group() -> String {
    LOCK_GROUP.into()
}

/// `[channel]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(deny_unknown_fields))]
pub struct Channel {
    /// Where releases are fetched.
    pub url: Url,
    /// Name of the channel: `stable`.
    pub name: String,
    /// The channel's public key (Ed25519, PEM), `channel.pub` of the key folder, which has signed version 1 of the
    /// repository's root. Either this or `root` is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<PublicKey>,
    /// SHA-256 of version 1 of the repository's root: `sha256:` and 64 hexadecimal digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root: Option<RootDigest>,
}

/// `[update]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(deny_unknown_fields))]
pub struct Update {
    /// How far the machine goes by itself; `off` unless given.
    #[cfg_attr(feature = "schema", schemars(default))]
    pub policy: UpdatePolicy,
    /// How often it looks for updates: 1 minute to 7 days; 1 hour unless given.
    #[cfg_attr(feature = "schema", schemars(default = "check_interval"))]
    pub check_interval: Seconds,
    /// Up to how much later, chosen at random, it looks or restarts, so that many machines do not come at once: at most 24
    /// hours; 5 minutes unless given.
    #[cfg_attr(feature = "schema", schemars(default = "jitter"))]
    pub jitter: Seconds,
    /// How much it fetches each second: 1KiB to 1TiB; as much as comes unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bandwidth: Option<Bytes>,
    /// Connections at once: 1 to 16; 4 unless given.
    #[cfg_attr(feature = "schema", schemars(default = "connections", range(min = 1, max = 16)))]
    pub connections: u32,
    /// How long a new release may take after its start to be found good: 30 seconds to 1 hour; 5 minutes unless given.
    #[cfg_attr(feature = "schema", schemars(default = "trial_deadline"))]
    pub trial_deadline: Seconds,
    /// When it may restart into an update; at any time unless given.
    #[serde(rename = "window", skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "schema", schemars(default))]
    pub windows: Vec<Window>,
    /// What the owner asks of a new release beside what every machine is asked.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "schema", schemars(default))]
    pub health: Vec<Health>,
    /// A container of the image that runs before the restart; it must end well, or there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pre_reboot: Option<Hook>,
    /// A container of the image that runs after a new release was found good.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub post_boot: Option<Hook>,
}

impl Default for Update {
    fn default() -> Self {
        Self {
            policy: UpdatePolicy::default(),
            check_interval: CHECK_INTERVAL,
            jitter: JITTER,
            bandwidth: None,
            connections: CONNECTIONS,
            trial_deadline: TRIAL_DEADLINE,
            windows: Vec::new(),
            health: Vec::new(),
            pre_reboot: None,
            post_boot: None,
        }
    }
}

const CHECK_INTERVAL: Seconds = Seconds(3600);
const JITTER: Seconds = Seconds(300);
const CONNECTIONS: u32 = 4;
const TRIAL_DEADLINE: Seconds = Seconds(300);
/// How long a hook or a health check may take unless given.
pub(super) const DEADLINE: Seconds = Seconds(60);

#[cfg(feature = "schema")]
fn check_interval() -> Seconds {
    CHECK_INTERVAL
}

#[cfg(feature = "schema")]
fn jitter() -> Seconds {
    JITTER
}

#[cfg(feature = "schema")]
fn connections() -> u32 {
    CONNECTIONS
}

#[cfg(feature = "schema")]
fn trial_deadline() -> Seconds {
    TRIAL_DEADLINE
}

#[cfg(feature = "schema")]
fn deadline() -> Seconds {
    DEADLINE
}

/// `[[update.health]]`: exactly one of `http` and `container` is given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(deny_unknown_fields))]
#[cfg_attr(
    feature = "schema",
    schemars(extend("oneOf" = [{ "required": ["http"] }, { "required": ["container"] }]))
)]
pub struct Health {
    /// Its name, which is told when it fails.
    pub name: String,
    /// A URL on this machine (`http://127.0.0.1:8080/healthz`) that must answer with a status from 200 to 299.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<Url>,
    /// A container of the image that must end with status 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// How long it may take until it is good: 1 second to 30 minutes; 60 seconds unless given.
    #[cfg_attr(feature = "schema", schemars(default = "deadline"))]
    pub deadline: Seconds,
}

/// A container that runs once at a certain time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(deny_unknown_fields))]
pub struct Hook {
    /// Its name in the image.
    pub container: String,
    /// How long it may take: 1 second to 30 minutes; 60 seconds unless given.
    #[cfg_attr(feature = "schema", schemars(default = "deadline"))]
    pub deadline: Seconds,
}

/// How far a machine goes by itself with an update.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum UpdatePolicy {
    /// It does not look for updates.
    #[default]
    Off,
    /// It fetches and verifies them.
    Download,
    /// It writes them to the other slot; the next restart, whoever asks for it, starts them.
    Stage,
    /// It restarts into them, in a window.
    Automatic,
}

impl UpdatePolicy {
    /// All policies with their names.
    pub const ALL: [(&'static str, Self); 4] = [
        ("off", Self::Off),
        ("download", Self::Download),
        ("stage", Self::Stage),
        ("automatic", Self::Automatic),
    ];
}

/// `[[update.window]]`: a time of the week.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(deny_unknown_fields))]
pub struct Window {
    /// The days on which it begins; each day unless given.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "schema", schemars(default))]
    pub days: Vec<Day>,
    /// When it begins: `02:30`.
    pub from: TimeOfDay,
    /// How long it is: 10 minutes to 24 hours.
    pub duration: Seconds,
    /// The time zone of `days` and `from`: `UTC` (unless given), an offset from it (`+01:00`), or a place with its summer
    /// time (`Europe/Berlin`).
    #[serde(skip_serializing_if = "is_default")]
    #[cfg_attr(feature = "schema", schemars(default))]
    pub time_zone: TimeZone,
}

/// `[[container]]`: what differs from the image for a container that is part of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(deny_unknown_fields))]
pub struct Container {
    /// Its name in the image.
    pub name: String,
    /// Whether it is started; it is unless given.
    #[cfg_attr(feature = "schema", schemars(default = "yes"))]
    pub enabled: bool,
    /// Environment, over the image's.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[cfg_attr(feature = "schema", schemars(default))]
    pub environment: BTreeMap<String, String>,
    /// Memory limit in place of the image's: `512MiB`; 1 MiB at least.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<Bytes>,
    /// Processor limit in place of the image's, in processors: 0.01 to 1024.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpus: Option<Cpus>,
    /// Limit of the number of processes in place of the image's: 1 to 4194304.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = 4_194_304)))]
    pub pids: Option<u32>,
}

#[cfg(feature = "schema")]
fn yes() -> bool {
    true
}

/// `[debug]`: exactly one of `until` and `duration` is given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(deny_unknown_fields))]
#[cfg_attr(
    feature = "schema",
    schemars(extend("oneOf" = [{ "required": ["until"] }, { "required": ["duration"] }]))
)]
pub struct Debug {
    /// Name of the container in the image.
    pub container: String,
    /// When it is stopped and no longer started: `2026-11-30T18:00:00Z`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// For how long it runs after the configuration was applied, and after each start of the machine: at most 24 hours.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration: Option<Seconds>,
}

/// `[watchdog]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(deny_unknown_fields))]
pub struct Watchdog {
    /// The machine restarts when nobody feeds the watchdog for so long: 10 seconds to 10 minutes; 60 seconds unless given.
    #[cfg_attr(feature = "schema", schemars(default = "watchdog_timeout"))]
    pub timeout: Seconds,
}

const WATCHDOG_TIMEOUT: Seconds = Seconds(60);

#[cfg(feature = "schema")]
fn watchdog_timeout() -> Seconds {
    WATCHDOG_TIMEOUT
}

impl Default for Watchdog {
    fn default() -> Self {
        Self { timeout: WATCHDOG_TIMEOUT }
    }
}

/// `[log]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(deny_unknown_fields))]
pub struct Log {
    /// How large the log on the state volume may become: 8MiB to 1TiB; 256MiB unless given.
    #[cfg_attr(feature = "schema", schemars(default = "log_size"))]
    pub size: Bytes,
}

const LOG_SIZE: Bytes = Bytes(256 << 20);

#[cfg(feature = "schema")]
fn log_size() -> Bytes {
    LOG_SIZE
}

impl Default for Log {
    fn default() -> Self {
        Self { size: LOG_SIZE }
    }
}
