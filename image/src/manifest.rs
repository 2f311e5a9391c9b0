//! What the image tells its init: `/usr/lib/ashlar/image.json`, written by the builder, protected by
//! verity like every file of the root.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Path of the manifest in the root.
pub const MANIFEST_PATH: &str = "/usr/lib/ashlar/image.json";
/// Path of init in the root; PID 1 executes it when it switches to the root.
pub const INIT_PATH: &str = "/usr/lib/ashlar/ashlar-init";
/// Path of the control program in the root.
pub const CONTROL_PATH: &str = "/usr/bin/ashlarctl";
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

/// A program of the root that init supervises.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// Program and arguments; the program is an absolute path.
    pub command: Vec<String>,
    /// Environment.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    /// When to start it again.
    #[serde(default)]
    pub restart: Restart,
    /// Limit of memory in bytes.
    #[serde(default)]
    pub memory_max: Option<u64>,
    /// Limit of processor time in thousandths of one processor.
    #[serde(default)]
    pub cpu_milli: Option<u32>,
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
    /// Limit of the number of processes.
    #[serde(default)]
    pub pids_max: Option<u32>,
    /// When to start it again.
    #[serde(default)]
    pub restart: Restart,
}

fn root_directory() -> String {
    "/".into()
}
