//! The recipe: what a person writes to say what an image is.

mod error;
mod size;
mod time;

pub use error::{RecipeError, nearest};
pub use size::{ByteSize, human};
pub use time::Timestamp;

use ashlar_image::layout::{MIB, Sizes};
use ashlar_image::manifest::{ContainerNetwork, Restart};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A whole recipe.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Recipe {
    /// What the image is called.
    pub image: Image,
    /// Where packages come from.
    #[serde(default)]
    pub debian: Debian,
    /// Packages of the root.
    #[serde(default)]
    pub root: Root,
    /// Kernel, stub, modules, command line.
    pub kernel: Kernel,
    /// Partition sizes.
    #[serde(default)]
    pub partitions: Partitions,
    /// Baked-in containers.
    #[serde(default, rename = "container")]
    pub containers: Vec<Container>,
    /// Other programs that init supervises.
    #[serde(default, rename = "service")]
    pub services: BTreeMap<String, ashlar_image::manifest::Service>,
    /// Files to add to the root.
    #[serde(default, rename = "file")]
    pub files: Vec<File>,
}

/// `[image]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Image {
    /// `IMAGE_ID` in os-release: lower-case letters, digits, `-`, `_` and `.`.
    pub id: String,
    /// `IMAGE_VERSION` in os-release, same characters.
    pub version: String,
    /// `PRETTY_NAME` in os-release.
    pub name: Option<String>,
    /// Number that never falls from release to release.
    #[serde(default = "one")]
    pub security_version: u64,
    /// Host name before any configuration.
    pub hostname: Option<String>,
    /// Time stamp of every file in the image; the date of the package index in the lock file otherwise.
    pub build_time: Option<Timestamp>,
}

fn one() -> u64 {
    1
}

/// `[debian]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Debian {
    /// Suite.
    pub suite: String,
    /// Components of the suite.
    pub components: Vec<String>,
    /// Mirror; from the build host's apt sources otherwise.
    pub mirror: Option<String>,
}

impl Default for Debian {
    fn default() -> Self {
        Self { suite: "trixie".into(), components: vec!["main".into()], mirror: None }
    }
}

/// `[root]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Root {
    /// Packages; dependencies come with them.
    pub packages: Vec<String>,
    /// Packages that count as installed though they are not.
    pub exclude_packages: Vec<String>,
    /// Paths to leave out, with all below them.
    pub remove: Vec<String>,
}

/// `[kernel]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Kernel {
    /// Kernel package.
    #[serde(default = "default_kernel")]
    pub package: String,
    /// Package with systemd-stub.
    #[serde(default = "default_stub")]
    pub stub_package: String,
    /// Words for the command line beside those that name the root.
    #[serde(default)]
    pub cmdline: String,
    /// Modules that init loads before it opens the root.
    pub initramfs_modules: Vec<String>,
    /// Modules that init loads after the switch to the root.
    #[serde(default)]
    pub modules: Vec<String>,
}

fn default_kernel() -> String {
    "linux-image-amd64".into()
}

fn default_stub() -> String {
    "systemd-boot-efi".into()
}

/// `[partitions]`
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Partitions {
    /// Each EFI system partition.
    pub esp: Option<ByteSize>,
    /// Each root partition.
    pub root: Option<ByteSize>,
    /// Each verity partition.
    pub verity: Option<ByteSize>,
    /// The state partition in the image.
    pub state: Option<ByteSize>,
}

impl Partitions {
    /// The sizes in bytes, defaults filled in.
    pub fn sizes(&self) -> Sizes {
        let default = Sizes::default();
        let pick = |given: Option<ByteSize>, default| given.map_or(default, |size| size.0);
        Sizes {
            esp: pick(self.esp, default.esp),
            root: pick(self.root, default.root),
            verity: pick(self.verity, default.verity),
            state: pick(self.state, default.state),
        }
    }
}

/// `[[file]]` and `[[container.file]]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct File {
    /// Absolute path in the image.
    pub path: String,
    /// Its content as text, or:
    pub content: Option<String>,
    /// a file on the build host, relative to the recipe.
    pub source: Option<PathBuf>,
    /// Mode as an octal string; `0644` unless given.
    pub mode: Option<String>,
}

/// `[[container]]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Container {
    /// Name: lower-case letters, digits, `-`, `_`.
    pub name: String,
    /// Packages of its root file system, or:
    #[serde(default)]
    pub packages: Vec<String>,
    /// an OCI image layout directory, relative to the recipe.
    pub oci_layout: Option<PathBuf>,
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
    /// User id.
    #[serde(default)]
    pub uid: u32,
    /// Group id.
    #[serde(default)]
    pub gid: u32,
    /// Capabilities kept.
    #[serde(default)]
    pub capabilities: Vec<String>,
    /// Network.
    #[serde(default)]
    pub network: ContainerNetwork,
    /// Memory limit.
    pub memory: Option<ByteSize>,
    /// Processor limit in processors: `0.5`.
    pub cpus: Option<f64>,
    /// Limit of the number of processes.
    pub pids: Option<u32>,
    /// When it is started again.
    #[serde(default)]
    pub restart: Restart,
    /// Files to add to its root file system.
    #[serde(default, rename = "file")]
    pub files: Vec<File>,
}

/// Whether a name can be part of a path, a cgroup and an os-release value.
fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 64
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b))
        && !name.starts_with(['.', '-'])
}

impl Recipe {
    /// Reads the recipe at `path`.
    ///
    /// # Errors
    /// A [`RecipeError`] that shows the line for what is wrong in the text.
    pub fn load(path: &Path) -> Result<Self, RecipeError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| RecipeError::Read { path: path.to_owned(), source })?;
        Self::parse(&path.display().to_string(), &text)
    }

    /// Reads a recipe from `text`; `name` is what errors call it.
    pub fn parse(name: &str, text: &str) -> Result<Self, RecipeError> {
        let recipe: Self = toml::from_str(text).map_err(|error| RecipeError::syntax(name, text, &error))?;
        recipe.check().map_err(|(needle, message)| RecipeError::value(name, text, &needle, message))?;
        Ok(recipe)
    }

    /// What the types do not say. The error is the text to point at and the message.
    fn check(&self) -> Result<(), (String, String)> {
        let bad = |needle: &str, message: String| Err((needle.to_owned(), message));
        for (key, value) in [("id", &self.image.id), ("version", &self.image.version)] {
            if !is_name(value) {
                return bad(
                    value,
                    format!(
                        "image.{key} `{value}`: use lower-case letters, digits, `-`, `_`, `.` (at most 64)"
                    ),
                );
            }
        }
        let sizes = self.partitions.sizes();
        for (key, size) in
            [("esp", sizes.esp), ("root", sizes.root), ("verity", sizes.verity), ("state", sizes.state)]
        {
            if size == 0 || !size.is_multiple_of(MIB) {
                return bad(
                    "[partitions]",
                    format!("partitions.{key}: use a whole number of MiB, at least one"),
                );
            }
        }
        if self.kernel.cmdline.split_ascii_whitespace().any(|word| {
            word.starts_with("roothash=") || word.starts_with("ashlar.") || word.starts_with("root=")
        }) {
            return bad(
                &self.kernel.cmdline,
                "kernel.cmdline: `root=`, `roothash=` and `ashlar.…` are written by the builder".into(),
            );
        }
        let mut seen = std::collections::BTreeSet::new();
        for container in &self.containers {
            let name = &container.name;
            if !is_name(name) || !seen.insert(name) {
                return bad(
                    name,
                    format!(
                        "container `{name}`: names are unique and use lower-case letters, digits, `-`, `_`"
                    ),
                );
            }
            if container.packages.is_empty() == container.oci_layout.is_none() {
                return bad(name, format!("container `{name}`: give either `packages` or `oci-layout`"));
            }
            if container.command.is_empty() && container.oci_layout.is_none() {
                return bad(name, format!("container `{name}`: `command` is missing"));
            }
            if container.cpus.is_some_and(|cpus| !(0.01..=1024.0).contains(&cpus)) {
                return bad(name, format!("container `{name}`: `cpus` is a number from 0.01 to 1024"));
            }
        }
        for file in self.files.iter().chain(self.containers.iter().flat_map(|c| &c.files)) {
            if !file.path.starts_with('/') {
                return bad(&file.path, format!("file `{}`: the path must be absolute", file.path));
            }
            if file.content.is_some() == file.source.is_some() {
                return bad(&file.path, format!("file `{}`: give either `content` or `source`", file.path));
            }
            if file.mode().is_none() {
                return bad(
                    &file.path,
                    format!("file `{}`: `mode` is an octal string such as \"0644\"", file.path),
                );
            }
        }
        for (name, service) in &self.services {
            if !is_name(name) || !service.command.first().is_some_and(|program| program.starts_with('/')) {
                return bad(
                    name,
                    format!("service `{name}`: `command` starts with the program's absolute path"),
                );
            }
        }
        Ok(())
    }
}

impl File {
    /// The mode as a number; none when it is not octal or above 07777.
    pub fn mode(&self) -> Option<u32> {
        match &self.mode {
            None => Some(0o644),
            Some(text) => u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o7777),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "[image]\nid = \"a\"\nversion = \"1\"\n[kernel]\ninitramfs-modules = [\"erofs\"]\n";

    fn error(text: &str) -> String {
        let report = miette::Report::new(Recipe::parse("image.toml", text).unwrap_err());
        let mut out = String::new();
        miette::NarratableReportHandler::new().render_report(&mut out, report.as_ref()).unwrap();
        out
    }

    #[test]
    fn the_least_recipe_has_defaults() {
        let recipe = Recipe::parse("image.toml", GOOD).unwrap();
        assert_eq!(recipe.debian.suite, "trixie");
        assert_eq!(recipe.partitions.sizes(), Sizes::default());
        assert_eq!(recipe.kernel.package, "linux-image-amd64");
    }

    #[test]
    fn an_unknown_key_is_shown_with_its_place_and_the_nearest_key() {
        let text = GOOD.replace("initramfs-modules", "initramfs-module");
        let shown = error(&text);
        assert!(shown.contains("`initramfs-module`"), "{shown}");
        assert!(shown.contains("did you mean `initramfs-modules`"), "{shown}");
        assert!(shown.contains("line 5"), "{shown}");
        assert!(shown.contains("column 1"), "{shown}");
    }

    #[test]
    fn values_are_checked() {
        assert!(error(&GOOD.replace("\"a\"", "\"A B\"")).contains("image.id `A B`"));
        let text = format!("{GOOD}[[container]]\nname = \"web\"\ncommand = [\"/x\"]\n");
        assert!(error(&text).contains("give either `packages` or `oci-layout`"));
        let text = format!("{GOOD}[partitions]\nesp = \"1000\"\n");
        assert!(error(&text).contains("esp"), "{}", error(&text));
        let text = format!("{GOOD}cmdline = \"quiet roothash=00\"\n");
        assert!(error(&text).contains("are written by the builder"));
    }
}
