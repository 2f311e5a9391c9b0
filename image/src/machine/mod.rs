//! `machine.toml`: what one machine is told by its owner, in words of its own and signed.
//!
//! The image is the same for all machines; what differs is here: names, addresses, whom to trust. The text is at most
//! [`MAX_TEXT`] bytes of TOML. Unknown keys are errors, and all errors of a file are told at once.

mod changes;
mod check;
mod decode;
mod error;
mod names;
mod network;
mod reader;
#[cfg(feature = "schema")]
mod schema;
pub mod seed;
mod settings;
mod signed;
mod values;

pub use changes::{Changes, diff};
pub use error::{ConfigError, MAX_ERRORS, TextError, nearest};
pub use network::{Addressing, Bond, BondMode, Dns, Interface, MIIMON, Network, Proxy, Route, Vlan};
#[cfg(feature = "schema")]
pub use schema::schema;
pub use settings::{
    Channel, Cluster, Container, Control, Debug, Health, Hook, Lock, Log, Time, Update, UpdatePolicy,
    Watchdog, Window,
};
pub use signed::{MAX_ENVELOPE, PAYLOAD_TYPE, Serial, Verified, payload, sign, verify};
pub use values::{
    Bytes, Certificate, Cidr, Cpus, Day, LinkName, Mac, PublicKey, RootDigest, Seconds, TimeOfDay, TimeZone,
    Timestamp, Url, UtcOffset,
};

use serde::Serialize;
use std::collections::BTreeMap;

/// Longest text of a machine configuration, in bytes.
pub const MAX_TEXT: usize = 256 << 10;

/// A machine configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(deny_unknown_fields))]
pub struct MachineConfig {
    /// Number of this configuration: each one that replaces another has a higher one.
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = 9_223_372_036_854_775_807u64)))]
    pub serial: u64,
    /// Host name (RFC 1123): labels of letters, digits and `-`, separated by dots. Without it, the name that a DHCP
    /// server gives, or the image's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// Interfaces, addresses, name servers, proxies.
    #[serde(skip_serializing_if = "is_default")]
    #[cfg_attr(feature = "schema", schemars(default))]
    pub network: Network,
    /// Where the clock is set from.
    #[serde(skip_serializing_if = "is_default")]
    #[cfg_attr(feature = "schema", schemars(default))]
    pub time: Time,
    /// The control API over mutual TLS.
    #[serde(skip_serializing_if = "is_default")]
    #[cfg_attr(feature = "schema", schemars(default))]
    pub control: Control,
    /// The cluster that the machine belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster: Option<Cluster>,
    /// The reboot lock of its group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lock: Option<Lock>,
    /// Where releases come from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channel: Option<Channel>,
    /// When and how far the machine updates itself.
    #[serde(skip_serializing_if = "is_default")]
    #[cfg_attr(feature = "schema", schemars(default))]
    pub update: Update,
    /// What differs from the image for containers that are part of it.
    #[serde(rename = "container", skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "schema", schemars(default))]
    pub containers: Vec<Container>,
    /// Labels, for whoever looks after many machines; the rules for keys and values are those of Kubernetes.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[cfg_attr(feature = "schema", schemars(default))]
    pub labels: BTreeMap<String, String>,
    /// A container for looking at the machine from within, for a limited time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub debug: Option<Debug>,
    /// The watchdog.
    #[serde(skip_serializing_if = "is_default")]
    #[cfg_attr(feature = "schema", schemars(default))]
    pub watchdog: Watchdog,
    /// The log on the state volume.
    #[serde(skip_serializing_if = "is_default")]
    #[cfg_attr(feature = "schema", schemars(default))]
    pub log: Log,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl MachineConfig {
    /// Reads the text of a configuration.
    ///
    /// # Errors
    /// All that is wrong with it, in the order of the text, [`MAX_ERRORS`] at most.
    pub fn parse(text: &str) -> Result<Self, Vec<ConfigError>> {
        if text.len() > MAX_TEXT {
            return Err(vec![ConfigError::TooLarge(text.len())]);
        }
        let mut reader = reader::Reader::new(text);
        let (document, errors) = toml::de::DeTable::parse_recoverable(text);
        for error in &errors {
            reader.syntax(error);
        }
        if !errors.is_empty() {
            // What lies around such a place is guesswork, and so would be its errors.
            return Err(reader.into_errors());
        }
        let table = reader::Table::root(document.get_ref());
        let config = decode::machine(&mut reader, table);
        check::check(&mut reader, &config);
        if reader.is_good() { Ok(config) } else { Err(reader.into_errors()) }
    }

    /// A configuration with this serial that leaves all else as it is without one: for tests, and for machines that
    /// have none, with the serial 0.
    pub fn empty(serial: u64) -> Self {
        Self {
            serial,
            hostname: None,
            network: Network::default(),
            time: Time::default(),
            control: Control::default(),
            cluster: None,
            lock: None,
            channel: None,
            update: Update::default(),
            containers: Vec::new(),
            labels: BTreeMap::new(),
            debug: None,
            watchdog: Watchdog::default(),
            log: Log::default(),
        }
    }
}
