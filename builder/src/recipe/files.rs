//! What a recipe adds to a file tree: files, directories, links, users, whole trees.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};
use std::ops::Range;
use std::path::PathBuf;
use toml::Spanned;

/// A path on the build host, relative to the file that it is written in.
#[derive(Clone, Deserialize, Serialize, JsonSchema)]
#[serde(transparent)]
pub struct HostPath(
    // Only the path itself is written: where it stands in the text is nothing that a build depends on.
    #[serde(serialize_with = "path_only")]
    #[schemars(with = "PathBuf")]
    Spanned<PathBuf>,
);

fn path_only<S: Serializer>(path: &Spanned<PathBuf>, serializer: S) -> Result<S::Ok, S::Error> {
    path.get_ref().serialize(serializer)
}

impl std::fmt::Debug for HostPath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.get_ref().fmt(f)
    }
}

impl HostPath {
    /// Where it is written.
    pub(super) fn span(&self) -> Range<usize> {
        self.0.span()
    }

    /// As it is written, for reports.
    pub fn as_text(&self) -> String {
        self.0.get_ref().display().to_string()
    }

    pub(super) fn written(&self) -> &PathBuf {
        self.0.get_ref()
    }
}

/// Mode, user and group of something that is added.
#[derive(Debug, Clone, Default)]
pub struct Ownership {
    /// Low twelve bits of the mode.
    pub mode: u32,
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

/// `[[file]]` and `[[container.file]]`
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct File {
    /// Absolute path in the image.
    pub path: String,
    /// Its content as text, or:
    pub content: Option<String>,
    /// a file on the build host, relative to this recipe.
    pub source: Option<HostPath>,
    /// Mode as an octal string; `0644` unless given.
    pub mode: Option<String>,
    /// User id; 0 unless given.
    #[serde(default)]
    pub uid: u32,
    /// Group id; 0 unless given.
    #[serde(default)]
    pub gid: u32,
}

/// `[[directory]]`
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Directory {
    /// Absolute path in the image.
    pub path: String,
    /// Mode as an octal string; `0755` unless given.
    pub mode: Option<String>,
    /// User id; 0 unless given.
    #[serde(default)]
    pub uid: u32,
    /// Group id; 0 unless given.
    #[serde(default)]
    pub gid: u32,
}

/// `[[symlink]]`
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Symlink {
    /// Absolute path in the image.
    pub path: String,
    /// What it points at, as it is stored.
    pub target: String,
}

/// `[[source]]` and `[[container.source]]`: a tree that is laid over what is there.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Source {
    /// A directory on the build host, or:
    pub directory: Option<HostPath>,
    /// a tar archive, plain or compressed with gzip, xz or zstd,
    pub tar: Option<HostPath>,
    /// the SHA-256 that the archive must have;
    pub sha256: Option<String>,
    /// Where its root goes; `/` unless given.
    #[serde(default = "slash")]
    pub into: String,
    /// Globs of paths to leave out.
    #[serde(default)]
    pub exclude: Vec<String>,
    /// Keep the owners of a directory's files; they belong to root otherwise. An archive's are always kept.
    #[serde(default)]
    pub keep_owner: bool,
}

fn slash() -> String {
    "/".into()
}

/// `[[user]]`
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct User {
    /// Name.
    pub name: String,
    /// User id; one is given by name order otherwise.
    pub uid: Option<u32>,
    /// Number of the first group; the group of the user's name otherwise, which is made where it is missing.
    pub gid: Option<u32>,
    /// Further groups by name.
    #[serde(default)]
    pub groups: Vec<String>,
    /// Home directory; `/nonexistent` unless given.
    pub home: Option<String>,
    /// Shell; `/usr/sbin/nologin` unless given.
    pub shell: Option<String>,
    /// Full name.
    pub description: Option<String>,
    /// Password as crypt(5) has it (`$y$…`); the account is locked otherwise.
    pub password_hash: Option<String>,
}

/// `[[group]]`
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Group {
    /// Name.
    pub name: String,
    /// Group id; one is given by name order otherwise.
    pub gid: Option<u32>,
    /// Members by name.
    #[serde(default)]
    pub members: Vec<String>,
}

/// An octal mode of at most 07777.
fn mode(text: Option<&str>, default: u32) -> Option<u32> {
    match text {
        None => Some(default),
        Some(text) => u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o7777),
    }
}

impl File {
    /// Mode and owner; none when the mode is not octal or above 07777.
    pub fn ownership(&self) -> Option<Ownership> {
        Some(Ownership { mode: mode(self.mode.as_deref(), 0o644)?, uid: self.uid, gid: self.gid })
    }
}

impl Directory {
    /// Mode and owner; none when the mode is not octal or above 07777.
    pub fn ownership(&self) -> Option<Ownership> {
        Some(Ownership { mode: mode(self.mode.as_deref(), 0o755)?, uid: self.uid, gid: self.gid })
    }
}
