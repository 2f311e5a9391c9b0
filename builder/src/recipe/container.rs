//! `[[container]]` and `[service.NAME]`

use super::{ByteSize, File, HostPath, Source};
use ashlar_image::manifest::{self, ContainerNetwork, Restart};
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
    /// Limit of the number of processes.
    pub pids: Option<u32>,
    /// When it is started again: `always` (the default), `on-failure` or `never`.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub restart: Restart,
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
}

/// Thousandths of a processor.
// The recipe was checked: 0.01 to 1024 processors.
#[allow(clippy::cast_sign_loss)]
pub fn cpu_milli(cpus: Option<f64>) -> Option<u32> {
    cpus.map(|cpus| (cpus * 1000.0).round() as u32)
}

impl Service {
    /// As the manifest tells init.
    pub fn manifest(&self) -> manifest::Service {
        manifest::Service {
            command: self.command.clone(),
            environment: self.environment.clone(),
            restart: self.restart,
            memory_max: self.memory.map(|size| size.0),
            cpu_milli: cpu_milli(self.cpus),
        }
    }
}
