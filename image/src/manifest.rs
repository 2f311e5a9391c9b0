//! What the image tells its init: `/usr/lib/ashlar/image.json`, written by the builder, protected by
//! verity like every file of the root.

use crate::update::UPDATE_SERVICE;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Path of the manifest in the root.
pub const MANIFEST_PATH: &str = "/usr/lib/ashlar/image.json";
/// Path of init in the root; PID 1 executes it when it switches to the root.
pub const INIT_PATH: &str = "/usr/lib/ashlar/ashlar-init";
/// Path of the control program in the root.
pub const CONTROL_PATH: &str = "/usr/bin/ashlarctl";
/// Name of the service that init adds to those of the image: the control API.
pub const CONTROL_SERVICE: &str = "ashlarctl";
/// Directory in the root with one folder per baked-in container; its file tree is `NAME/rootfs`.
pub const CONTAINERS_DIR: &str = "/usr/lib/ashlar/containers";
/// Directory with the kernel modules and [`MODULE_LIST`], in the initramfs and in the root.
pub const MODULES_DIR: &str = "/usr/lib/ashlar/modules";
/// File in [`MODULES_DIR`]: file names of modules, one a line, in the order to load them.
pub const MODULE_LIST: &str = "order";

/// What init runs and how it names itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// `IMAGE_ID` of os-release.
    pub image_id: String,
    /// `IMAGE_VERSION` of os-release.
    pub image_version: String,
    /// The release's number that never falls.
    pub security_version: u64,
    /// Host name until a DHCP server or the machine configuration gives another.
    pub hostname: String,
    /// Time of the build, seconds since 1970: the clock never starts below it.
    pub build_time: i64,
    /// Containers to start, by name.
    #[serde(default)]
    pub containers: BTreeMap<String, Container>,
    /// Other programs to supervise, by name.
    #[serde(default)]
    pub services: BTreeMap<String, Service>,
}

impl Manifest {
    /// What each service and container waits for, by name.
    pub fn dependencies(&self) -> BTreeMap<&str, Vec<&str>> {
        let services = self.services.iter().map(|(name, service)| (name, &service.supervision));
        let containers = self.containers.iter().map(|(name, container)| (name, &container.supervision));
        services
            .chain(containers)
            .map(|(name, supervision)| {
                let all = supervision.after.iter().chain(&supervision.requires);
                (name.as_str(), all.map(String::as_str).collect())
            })
            .collect()
    }
}

/// A circle in what things wait for: each waits for the next, the last for the first. None if there is none.
/// Names that are no keys wait for nothing.
pub fn circle<'a>(dependencies: &BTreeMap<&'a str, Vec<&'a str>>) -> Option<Vec<&'a str>> {
    let mut done = BTreeSet::new();
    for start in dependencies.keys() {
        // The way from `start`: each with what is still to be looked at.
        let mut way = vec![(*start, dependencies.get(start).into_iter().flatten())];
        while let Some((name, rest)) = way.last_mut() {
            let Some(next) = rest.next() else {
                done.insert(*name);
                way.pop();
                continue;
            };
            if let Some(first) = way.iter().position(|(name, _)| name == next) {
                return Some(way.iter().skip(first).map(|(name, _)| *name).collect());
            }
            if !done.contains(next) {
                way.push((next, dependencies.get(next).into_iter().flatten()));
            }
        }
    }
    None
}

/// When a service or container is started again after it has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Restart {
    /// Whatever its exit status.
    #[default]
    Always,
    /// Only after a failure.
    OnFailure,
    /// Never.
    Never,
}

/// When a container is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Start {
    /// With the machine.
    #[default]
    Boot,
    /// Only when somebody asks for it, each time once: hooks of updates, checks of new releases. How it ends is the
    /// business of who has asked, and no problem of the machine.
    OnRequest,
}

/// When a service or container is ready, which is when what depends on it may start.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Readiness {
    /// As soon as its process runs.
    #[default]
    Started,
    /// When it says so: `READY=1` to the socket in `$NOTIFY_SOCKET` (sd_notify(3)).
    Notify,
    /// When it takes connections on this TCP port of 127.0.0.1.
    Tcp(u16),
    /// When this file is there. A service's lies below `/run` and is removed before each start; a container's is
    /// a path in the container.
    File(String),
}

/// How often something may be started before it is given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StartLimit {
    /// Starts, 1 to [`MAX_START_COUNT`].
    pub count: u32,
    /// In so many seconds.
    pub interval: u32,
}

/// Largest [`StartLimit::count`].
pub const MAX_START_COUNT: u32 = 100;
/// Seconds until something must be ready, unless the recipe says otherwise.
pub const START_TIMEOUT: u32 = 60;
/// Seconds that something may take to stop, unless the recipe says otherwise.
pub const STOP_TIMEOUT: u32 = 10;
/// Processes and threads of a service or container, unless the recipe says otherwise.
pub const PIDS_MAX: u32 = 2048;
/// Longest name of a service or container in bytes.
pub const MAX_NAME: usize = 64;
/// What the log calls the kernel, init, the control program and the update engine: no service or container of a recipe has these names.
pub const RESERVED_NAMES: [&str; 4] = ["kernel", "init", CONTROL_SERVICE, UPDATE_SERVICE];

/// What a service or container needs, and what init expects of it. Times are in seconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Supervision {
    /// Names of those that are started before it, if they are started at all.
    pub after: Vec<String>,
    /// Names of those that it cannot do without: it is started when they are ready, and stopped before they are.
    pub requires: Vec<String>,
    /// When it is ready.
    pub ready: Readiness,
    /// It must be ready after so long, or its start has failed.
    pub start_timeout: u32,
    /// So long after it was asked to stop it is killed.
    pub stop_timeout: u32,
    /// After more starts than these it is given up; without a limit never.
    pub start_limit: Option<StartLimit>,
    /// It must say `WATCHDOG=1` (sd_notify(3)) at least so often, or it is killed as hanging.
    pub watchdog: Option<u32>,
}

impl Default for Supervision {
    fn default() -> Self {
        Self {
            after: Vec::new(),
            requires: Vec::new(),
            ready: Readiness::default(),
            start_timeout: START_TIMEOUT,
            stop_timeout: STOP_TIMEOUT,
            start_limit: None,
            watchdog: None,
        }
    }
}

/// Which system calls a service may make.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SystemCalls {
    /// Those of containers: what programs use, and what its capabilities are for.
    #[default]
    Common,
    /// All.
    All,
}

/// A program of the root that init supervises.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// Program and arguments; the program is an absolute path.
    pub command: Vec<String>,
    /// Environment.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    /// User id.
    #[serde(default)]
    pub uid: u32,
    /// Group id.
    #[serde(default)]
    pub gid: u32,
    /// Ids of further groups.
    #[serde(default)]
    pub groups: Vec<u32>,
    /// Capabilities kept, by name (`CAP_NET_BIND_SERVICE`); none unless named.
    #[serde(default)]
    pub capabilities: Vec<String>,
    /// Whether it can become more than it is by executing a program (`PR_SET_NO_NEW_PRIVS`).
    #[serde(default)]
    pub new_privileges: bool,
    /// System calls that it may make.
    #[serde(default)]
    pub system_calls: SystemCalls,
    /// Whether it may write the firmware's variables, which are read only for all others.
    #[serde(default)]
    pub firmware_variables: bool,
    /// When to start it again.
    #[serde(default)]
    pub restart: Restart,
    /// Limit of memory in bytes.
    #[serde(default)]
    pub memory_max: Option<u64>,
    /// Limit of processor time in thousandths of one processor.
    #[serde(default)]
    pub cpu_milli: Option<u32>,
    /// Limit of the number of processes and threads; [`PIDS_MAX`] unless given.
    #[serde(default)]
    pub pids_max: Option<u32>,
    /// Limit of open files of each process.
    #[serde(default)]
    pub files_max: Option<u32>,
    /// Dependencies, readiness, times.
    #[serde(default)]
    pub supervision: Supervision,
}

/// Which network a container sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ContainerNetwork {
    /// A network namespace of its own with nothing but a loopback interface.
    #[default]
    Private,
    /// The machine's network.
    Host,
}

/// A container that is part of the image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Container {
    /// Program and arguments.
    pub command: Vec<String>,
    /// Environment.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    /// Working directory in the container.
    #[serde(default = "root_directory")]
    pub working_directory: String,
    /// User id.
    #[serde(default)]
    pub uid: u32,
    /// Group id.
    #[serde(default)]
    pub gid: u32,
    /// Capabilities kept, by name (`CAP_NET_BIND_SERVICE`); none unless named.
    #[serde(default)]
    pub capabilities: Vec<String>,
    /// Network.
    #[serde(default)]
    pub network: ContainerNetwork,
    /// Limit of memory in bytes.
    #[serde(default)]
    pub memory_max: Option<u64>,
    /// Limit of processor time in thousandths of one processor.
    #[serde(default)]
    pub cpu_milli: Option<u32>,
    /// Limit of the number of processes and threads; [`PIDS_MAX`] unless given.
    #[serde(default)]
    pub pids_max: Option<u32>,
    /// Limit of open files of each process.
    #[serde(default)]
    pub files_max: Option<u32>,
    /// When it is started.
    #[serde(default)]
    pub start: Start,
    /// When to start it again.
    #[serde(default)]
    pub restart: Restart,
    /// Whether it is for debugging: started only while a signed machine configuration says so.
    #[serde(default)]
    pub debug: bool,
    /// Dependencies, readiness, times.
    #[serde(default)]
    pub supervision: Supervision,
}

fn root_directory() -> String {
    "/".into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn circles() {
        let of = |pairs: &[(&'static str, &[&'static str])]| -> BTreeMap<&'static str, Vec<&'static str>> {
            pairs.iter().map(|(name, needs)| (*name, needs.to_vec())).collect()
        };
        assert_eq!(circle(&of(&[])), None);
        assert_eq!(circle(&of(&[("a", &["b", "c"]), ("b", &["c"]), ("c", &["gone"])])), None);
        assert_eq!(circle(&of(&[("a", &["a"])])), Some(vec!["a"]));
        assert_eq!(
            circle(&of(&[("a", &["b"]), ("b", &["c"]), ("c", &["d"]), ("d", &["b"])])),
            Some(vec!["b", "c", "d"])
        );
        // Many ways through the same names are walked once each.
        let names: Vec<String> = (0..400).map(|n| n.to_string()).collect();
        let ladder =
            (0..398).map(|n| (names[n].as_str(), vec![names[n + 1].as_str(), names[n + 2].as_str()]));
        assert_eq!(circle(&ladder.collect()), None);
    }

    #[test]
    fn manifests_of_older_builders_are_read() {
        let text = r#"{"image_id":"a","image_version":"1","hostname":"a","security_version":1,"build_time":0,
            "containers":{"web":{"command":["/a"],"restart":"on-failure"}},
            "services":{"one":{"command":["/b"]}}}"#;
        let manifest: Manifest = serde_json::from_str(text).unwrap();
        let web = &manifest.containers["web"];
        assert_eq!((web.debug, web.start, web.supervision.stop_timeout), (false, Start::Boot, STOP_TIMEOUT));
        let hook: Container = serde_json::from_str(r#"{"command":["/a"],"start":"on-request"}"#).unwrap();
        assert_eq!(hook.start, Start::OnRequest);
        assert_eq!(manifest.services["one"].system_calls, SystemCalls::Common);
        for (text, ready) in [
            (r#""notify""#, Readiness::Notify),
            (r#"{"tcp":80}"#, Readiness::Tcp(80)),
            (r#"{"file":"/run/x"}"#, Readiness::File("/run/x".into())),
        ] {
            assert_eq!(serde_json::from_str::<Readiness>(text).unwrap(), ready);
            assert_eq!(serde_json::to_string(&ready).unwrap(), text);
        }
    }
}
