//! `[[container]]` and `[service.NAME]`

use super::{ByteSize, File, HostPath, Source};
use ashlar_image::manifest::{self, ContainerNetwork, Restart, Start, Supervision, SystemCalls};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// `[[container]]`
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Container {
    /// Name: lower-case letters, digits, `-`, `_`.
    pub name: String,
    /// Its root file system: packages, or
    #[serde(default)]
    pub packages: Vec<String>,
    /// an OCI image layout (a directory or an archive of one), or
    pub oci_layout: Option<HostPath>,
    /// an image of a registry: `host/name@sha256:…`; a tag is looked up once and kept in the lock file.
    pub oci: Option<String>,
    /// Packages that count as installed though they are not.
    #[serde(default)]
    pub exclude_packages: Vec<String>,
    /// Paths of its root file system to leave out, with all below them.
    #[serde(default)]
    pub remove: Vec<String>,
    /// Program and arguments; from the image's configuration otherwise.
    #[serde(default)]
    pub command: Vec<String>,
    /// Environment.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    /// Working directory.
    pub working_directory: Option<String>,
    /// User id; the one of an OCI image's configuration otherwise, or 0.
    pub uid: Option<u32>,
    /// Group id; the one of an OCI image's configuration otherwise, or 0.
    pub gid: Option<u32>,
    /// Capabilities kept.
    #[serde(default)]
    pub capabilities: Vec<String>,
    /// Network: `private` (the default) or `host`.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub network: ContainerNetwork,
    /// Memory limit.
    pub memory: Option<ByteSize>,
    /// Processor limit in processors: `0.5`.
    pub cpus: Option<f64>,
    /// Limit of the number of processes and threads; 2048 unless given.
    pub pids: Option<u32>,
    /// Limit of open files of each process.
    pub open_files: Option<u32>,
    /// When it is started: `boot` (the default: with the machine), or `on-request`: only when somebody asks for it, each
    /// time once, as hooks of updates and checks of new releases are.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub start: Start,
    /// When it is started again: `always` (the default), `on-failure` or `never`; one that is started on request never is.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub restart: Restart,
    /// Only for debugging: started while a signed machine configuration says so, and never otherwise.
    #[serde(default)]
    pub debug: bool,
    /// Names of services and containers that are started before it, if they are started at all.
    #[serde(default)]
    pub after: Vec<String>,
    /// Names of services and containers that it cannot do without: it is started when they are ready, and stopped
    /// before they are.
    #[serde(default)]
    pub requires: Vec<String>,
    /// When it is ready: `"started"` (the default), `"notify"` (sd_notify), `{ tcp = PORT }` or `{ file = PATH }`.
    #[serde(default)]
    pub ready: Ready,
    /// Seconds until it must be ready.
    pub start_timeout: Option<u32>,
    /// Seconds that it may take to stop before it is killed.
    pub stop_timeout: Option<u32>,
    /// After so many starts in so many seconds it is given up.
    pub start_limit: Option<StartLimit>,
    /// It must say that it is alive (`WATCHDOG=1` of sd_notify) at least every so many seconds.
    pub watchdog: Option<u32>,
    /// Trees to lay over its root file system.
    #[serde(default, rename = "source")]
    pub sources: Vec<Source>,
    /// Files to add to its root file system.
    #[serde(default, rename = "file")]
    pub files: Vec<File>,
}

impl Container {
    /// How many of the ways to a root file system the recipe names.
    pub(super) fn origins(&self) -> usize {
        let named = [!self.packages.is_empty(), self.oci_layout.is_some(), self.oci.is_some()];
        named.into_iter().filter(|there| *there).count()
    }

    /// Whether an OCI image says what the recipe does not.
    pub fn is_oci(&self) -> bool {
        self.oci_layout.is_some() || self.oci.is_some()
    }
}

/// `[service.NAME]`: a program of the root that init supervises.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Service {
    /// Program and arguments; the program is an absolute path.
    pub command: Vec<String>,
    /// Environment.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    /// When it is started again: `always` (the default), `on-failure` or `never`.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub restart: Restart,
    /// Memory limit.
    pub memory: Option<ByteSize>,
    /// Processor limit in processors: `0.5`.
    pub cpus: Option<f64>,
    /// Limit of the number of processes and threads; 2048 unless given.
    pub pids: Option<u32>,
    /// Limit of open files of each process.
    pub open_files: Option<u32>,
    /// As whom it runs: a name or number of the root's `/etc/passwd`; root otherwise, without capabilities.
    pub user: Option<String>,
    /// With which group: a name or number of the root's `/etc/group`; the user's otherwise.
    pub group: Option<String>,
    /// Capabilities kept: none unless named.
    #[serde(default)]
    pub capabilities: Vec<String>,
    /// Whether programs that it executes may have more privileges than it (`PR_SET_NO_NEW_PRIVS` otherwise).
    #[serde(default)]
    pub new_privileges: bool,
    /// System calls: `common` (the default: as containers) or `all`.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub system_calls: SystemCalls,
    /// Names of services and containers that are started before it, if they are started at all.
    #[serde(default)]
    pub after: Vec<String>,
    /// Names of services and containers that it cannot do without: it is started when they are ready, and stopped
    /// before they are.
    #[serde(default)]
    pub requires: Vec<String>,
    /// When it is ready: `"started"` (the default), `"notify"` (sd_notify), `{ tcp = PORT }` or `{ file = PATH }`.
    #[serde(default)]
    pub ready: Ready,
    /// Seconds until it must be ready.
    pub start_timeout: Option<u32>,
    /// Seconds that it may take to stop before it is killed.
    pub stop_timeout: Option<u32>,
    /// After so many starts in so many seconds it is given up.
    pub start_limit: Option<StartLimit>,
    /// It must say that it is alive (`WATCHDOG=1` of sd_notify) at least every so many seconds.
    pub watchdog: Option<u32>,
}

/// Thousandths of a processor.
// The recipe was checked: 0.01 to 1024 processors.
#[allow(clippy::cast_sign_loss)]
pub fn cpu_milli(cpus: Option<f64>) -> Option<u32> {
    cpus.map(|cpus| (cpus * 1000.0).round() as u32)
}

/// When a service or container is ready.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Ready {
    /// As soon as its process runs.
    #[default]
    Started,
    /// When it says so (`READY=1` of sd_notify).
    Notify,
    /// When it takes connections on this port of 127.0.0.1.
    Tcp(u16),
    /// When this file is there.
    File(String),
}

/// How often something may be started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StartLimit {
    /// So many times,
    pub count: u32,
    /// in so many seconds.
    pub interval: u32,
}

/// What a container's or service's keys say about its supervision.
pub(super) struct Keys<'a> {
    pub after: &'a [String],
    pub requires: &'a [String],
    pub ready: &'a Ready,
    pub start_timeout: Option<u32>,
    pub stop_timeout: Option<u32>,
    pub start_limit: Option<StartLimit>,
    pub watchdog: Option<u32>,
}

macro_rules! keys {
    ($of:expr) => {
        Keys {
            after: &$of.after,
            requires: &$of.requires,
            ready: &$of.ready,
            start_timeout: $of.start_timeout,
            stop_timeout: $of.stop_timeout,
            start_limit: $of.start_limit,
            watchdog: $of.watchdog,
        }
    };
}

impl Keys<'_> {
    fn manifest(&self) -> Supervision {
        Supervision {
            after: self.after.to_vec(),
            requires: self.requires.to_vec(),
            ready: match self.ready {
                Ready::Started => manifest::Readiness::Started,
                Ready::Notify => manifest::Readiness::Notify,
                Ready::Tcp(port) => manifest::Readiness::Tcp(*port),
                Ready::File(path) => manifest::Readiness::File(path.clone()),
            },
            start_timeout: self.start_timeout.unwrap_or(manifest::START_TIMEOUT),
            stop_timeout: self.stop_timeout.unwrap_or(manifest::STOP_TIMEOUT),
            start_limit: self
                .start_limit
                .map(|limit| manifest::StartLimit { count: limit.count, interval: limit.interval }),
            watchdog: self.watchdog,
        }
    }
}

impl Container {
    pub(super) fn keys(&self) -> Keys<'_> {
        keys!(self)
    }

    /// As the manifest tells init.
    pub fn supervision(&self) -> Supervision {
        self.keys().manifest()
    }
}

/// As whom a service runs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Identity {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Further groups.
    pub groups: Vec<u32>,
}

impl Service {
    pub(super) fn keys(&self) -> Keys<'_> {
        keys!(self)
    }

    /// As the manifest tells init; `identity` is what the names in it mean.
    pub fn manifest(&self, identity: Identity) -> manifest::Service {
        manifest::Service {
            command: self.command.clone(),
            environment: self.environment.clone(),
            uid: identity.uid,
            gid: identity.gid,
            groups: identity.groups,
            capabilities: self.capabilities.clone(),
            new_privileges: self.new_privileges,
            system_calls: self.system_calls,
            firmware_variables: false,
            restart: self.restart,
            memory_max: self.memory.map(|size| size.0),
            cpu_milli: cpu_milli(self.cpus),
            pids_max: self.pids,
            files_max: self.open_files,
            supervision: self.keys().manifest(),
        }
    }
}
