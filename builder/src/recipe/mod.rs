//! The recipe: what a person writes to say what an image is.

mod check;
mod container;
mod debian;
mod error;
mod files;
mod merge;
mod schema;
mod size;
mod texts;
mod time;

pub use ashlar_image::machine::nearest;
pub use container::{Container, Identity, Ready, Service, StartLimit, cpu_milli};
pub use debian::{Debian, Pin, Suite};
pub use error::RecipeError;
pub use files::{Directory, File, Group, HostPath, Ownership, Source, Symlink, User};
pub use schema::schema;
pub use size::{ByteSize, human};
pub use texts::Texts;
pub use time::Timestamp;

use ashlar_image::digest::Digest;
use ashlar_image::layout::Sizes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use toml::Spanned;
use toml::de::DeTable;

/// A whole recipe.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
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
    /// The state volume.
    #[serde(default)]
    pub state: State,
    /// Baked-in containers.
    #[serde(default, rename = "container")]
    pub containers: Vec<Container>,
    /// Other programs that init supervises.
    #[serde(default, rename = "service")]
    pub services: BTreeMap<String, Service>,
    /// Trees to lay over the root.
    #[serde(default, rename = "source")]
    pub sources: Vec<Source>,
    /// Files to add to the root.
    #[serde(default, rename = "file")]
    pub files: Vec<File>,
    /// Directories to add to the root.
    #[serde(default, rename = "directory")]
    pub directories: Vec<Directory>,
    /// Symbolic links to add to the root.
    #[serde(default, rename = "symlink")]
    pub symlinks: Vec<Symlink>,
    /// Users of the root.
    #[serde(default, rename = "user")]
    pub users: Vec<User>,
    /// Groups of the root.
    #[serde(default, rename = "group")]
    pub groups: Vec<Group>,
    /// What the lint allows.
    #[serde(default)]
    pub lint: Lint,
    /// The files that it was read from.
    #[serde(skip)]
    pub texts: Texts,
    /// The profiles that were chosen.
    #[serde(skip)]
    pub profiles: Vec<String>,
}

/// `[image]`
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
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

/// `[root]`
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Root {
    /// Packages; dependencies come with them.
    pub packages: Vec<String>,
    /// Packages that count as installed though they are not.
    pub exclude_packages: Vec<String>,
    /// Paths to leave out, with all below them.
    pub remove: Vec<String>,
    /// How files are compressed: `none`, `lz4` (the default), `lz4hc` or `zstd`.
    pub compression: Compression,
    /// Level of `lz4hc` (3 to 12) and `zstd` (1 to 22).
    pub compression_level: Option<u32>,
    /// Largest compressed piece: a power of two from `4KiB` to `1MiB`; `64KiB` unless given.
    pub cluster_size: Option<ByteSize>,
    /// Write dpkg's status file, by which scanners find out what is installed.
    pub package_database: bool,
    /// Keep all modules of the kernel with their index, for programs that load modules by themselves.
    pub all_modules: bool,
}

/// How the files of the root are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Compression {
    /// Not.
    None,
    /// LZ4: fast to write and to read.
    #[default]
    Lz4,
    /// LZ4 with more search: smaller, as fast to read.
    Lz4hc,
    /// Zstandard: smallest; the kernel must have `CONFIG_EROFS_FS_ZIP_ZSTD` (Linux 6.10).
    Zstd,
}

/// `[lint]`
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Lint {
    /// Findings that are as they should be.
    pub allow: Vec<Allow>,
    /// The smallest slot that machines in the field have, where it is smaller than `[partitions]`.
    pub smallest_slot: Option<Partitions>,
}

/// `[[lint.allow]]`
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Allow {
    /// Name of the rule (`ashlar lint --rules`).
    pub rule: String,
    /// Glob of the paths that it is allowed for; everywhere otherwise.
    pub path: Option<String>,
    /// Only in this part: `root`, `kernel`, `image` or `container NAME`.
    pub part: Option<String>,
    /// Why it is right, for the next person.
    pub reason: String,
}

/// `[kernel]`
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
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

/// `[state]`
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct State {
    /// Values of PCR 7 with which a machine may open its state volume beside the one that follows from the keys: that of
    /// a planned change of db or dbx (`ashlar keys pcr7`), or that of a firmware which measures more.
    #[schemars(with = "Vec<String>")]
    pub pcr7: Vec<Digest>,
}

/// `[partitions]`
#[derive(Debug, Clone, Copy, Default, Deserialize, Serialize, JsonSchema)]
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

impl Recipe {
    /// Reads the recipe at `path`, what it extends and the profiles of these names.
    ///
    /// # Errors
    /// A [`RecipeError`] that shows the line for what is wrong in the text.
    pub fn load(path: &Path, profiles: &[String]) -> Result<Self, RecipeError> {
        let mut texts = Texts::default();
        let file = merge::gather(&mut texts, path, &mut Vec::new())?;
        Self::from_file(texts, &file, profiles)
    }

    /// Reads a recipe from `text`, which extends nothing; `name` is what errors call it.
    pub fn parse(name: &str, text: &str) -> Result<Self, RecipeError> {
        let mut texts = Texts::default();
        let file = merge::single(&mut texts, Path::new(name), text.to_owned());
        Self::from_file(texts, &file, &[])
    }

    fn from_file(texts: Texts, file: &merge::File, chosen: &[String]) -> Result<Self, RecipeError> {
        let mut recipe = Self::from_texts(&texts, file, chosen)?;
        recipe.texts = texts;
        recipe.profiles = chosen.to_vec();
        Ok(recipe)
    }

    fn from_texts(texts: &Texts, file: &merge::File, chosen: &[String]) -> Result<Self, RecipeError> {
        let merge::Layers { table, profiles } = merge::layers(texts, file)?;
        let known: BTreeSet<&str> = profiles.iter().map(|(name, _)| name.as_str()).collect();
        let mut whole = table.clone();
        for name in chosen {
            if !known.contains(name.as_str()) {
                let known = known.into_iter().collect::<Vec<_>>().join(", ");
                return Err(RecipeError::Profile { name: name.clone(), known });
            }
            merge::choose(&profiles, name, &mut whole);
        }
        // A profile that nobody chose today is still part of the recipe, and may be chosen tomorrow.
        for name in &known {
            let mut other = table.clone();
            merge::choose(&profiles, name, &mut other);
            Self::from_whole(texts, other)?;
        }
        Self::from_whole(texts, whole)
    }

    fn from_whole(texts: &Texts, table: DeTable<'_>) -> Result<Self, RecipeError> {
        let deserializer = toml::de::Deserializer::from(Spanned::new(0..0, table));
        let recipe =
            Self::deserialize(deserializer).map_err(|error| RecipeError::syntax(texts, 0, &error))?;
        recipe.check().map_err(|(needle, message)| texts.value_error(&needle, message))?;
        Ok(recipe)
    }

    /// Where a path of the recipe lies on the build host.
    pub fn host_path(&self, path: &HostPath) -> PathBuf {
        self.texts.folder(path.span().start).join(path.written())
    }
}

#[cfg(test)]
mod tests;
