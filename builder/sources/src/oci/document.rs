//! The JSON documents of an image (OCI image-spec 1.1: `descriptor.md`, `image-index.md`, `manifest.md`, `config.md`; Docker's
//! schema 2 has the same fields).

use crate::Error;
use ashlar_image::digest::Digest;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Largest document, in bytes: registries need not take larger manifests than this (distribution-spec 1.1).
pub(crate) const MAX_DOCUMENT: u64 = 4 << 20;
/// Most manifests of an index.
const MAX_MANIFESTS: usize = 4096;
/// Most layers of an image: overlayfs can stack 500, Docker makes at most 127.
const MAX_LAYERS: usize = 512;

/// Two readers could take such a document for two things.
const BOTH: &str = "it is an index and a manifest at once";

pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
pub(crate) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// The annotation with a name of an image in a layout (`annotations.md`).
pub(crate) const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// For which machine an image is, in Go's words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    /// `linux`.
    pub os: String,
    /// `amd64`, `arm64`.
    pub architecture: String,
    /// `v8`; if a platform is looked for without a variant, any will do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

impl Default for Platform {
    fn default() -> Self {
        Self { os: "linux".into(), architecture: "amd64".into(), variant: None }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.as_ref().map_or(Ok(()), |variant| write!(f, "/{variant}"))
    }
}

impl Platform {
    /// Whether what is looked for is found in `other`.
    pub(crate) fn fits(&self, other: &Self) -> bool {
        self.os == other.os
            && self.architecture == other.architecture
            && (self.variant.is_none() || self.variant == other.variant)
    }
}

/// Refers to a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptor {
    /// What it is; empty when nothing is said.
    pub media_type: String,
    /// SHA-256 of the blob.
    pub digest: Digest,
    /// Length in bytes.
    pub size: u64,
    /// For which machine, in an index.
    pub platform: Option<Platform>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
}

impl Descriptor {
    pub(crate) fn is_index(&self) -> bool {
        matches!(self.media_type.as_str(), INDEX | DOCKER_INDEX)
    }

    /// The name in a layout's index.
    pub(crate) fn name(&self) -> Option<&str> {
        self.annotations.get(REF_NAME).map(String::as_str)
    }
}

/// What the image's author says about running it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ImageConfig {
    /// First part of the command.
    pub entrypoint: Vec<String>,
    /// Rest of the command.
    pub command: Vec<String>,
    /// Environment.
    pub environment: BTreeMap<String, String>,
    /// Working directory, if one is given.
    pub working_directory: Option<String>,
    /// `user`, `user:group`, by name or number, if one is given.
    pub user: Option<String>,
    /// `80/tcp`.
    pub exposed_ports: BTreeSet<String>,
    /// Directories for data.
    pub volumes: BTreeSet<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// `SIGTERM`.
    pub stop_signal: Option<String>,
    /// For which machine it is.
    pub platform: Option<Platform>,
    /// SHA-256 of each layer's tar.
    pub diff_ids: Vec<Digest>,
}

/// A manifest of one image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// Its configuration.
    pub config: Descriptor,
    /// Its layers, lowest first.
    pub layers: Vec<Descriptor>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
}

/// A field whose value does not matter here.
type Present = serde::de::IgnoredAny;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawDescriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    size: u64,
    platform: Option<Platform>,
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawIndex {
    schema_version: u64,
    manifests: Vec<RawDescriptor>,
    layers: Option<Present>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawManifest {
    schema_version: u64,
    config: RawDescriptor,
    layers: Vec<RawDescriptor>,
    annotations: Option<BTreeMap<String, String>>,
    manifests: Option<Present>,
}

#[derive(Deserialize)]
struct RawConfig {
    architecture: Option<String>,
    os: Option<String>,
    variant: Option<String>,
    config: Option<RawRun>,
    rootfs: RawRootfs,
}

#[derive(Deserialize)]
struct RawRootfs {
    diff_ids: Vec<String>,
}

/// An object whose keys alone say something.
type KeySet = BTreeMap<String, serde_json::Value>;

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct RawRun {
    user: Option<String>,
    exposed_ports: Option<KeySet>,
    env: Option<Vec<String>>,
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    volumes: Option<KeySet>,
    working_dir: Option<String>,
    labels: Option<BTreeMap<String, String>>,
    stop_signal: Option<String>,
}

fn parse<'a, T: Deserialize<'a>>(bytes: &'a [u8], name: &str) -> Result<T, Error> {
    if bytes.len() as u64 > MAX_DOCUMENT {
        return Err(Error::TooLarge { name: name.to_owned(), limit: MAX_DOCUMENT, ours: true });
    }
    serde_json::from_slice(bytes).map_err(|error| bad(name, error.to_string()))
}

pub(crate) fn bad(name: &str, why: impl Into<String>) -> Error {
    Error::Document { name: name.to_owned(), why: why.into() }
}

/// `sha256:` and 64 hexadecimal digits; other algorithms are not used by anybody.
pub(crate) fn digest(text: &str, name: &str) -> Result<Digest, Error> {
    let parsed = text.strip_prefix("sha256:").and_then(|hex| hex.parse().ok());
    // One spelling for one digest.
    parsed
        .filter(|digest: &Digest| text.get(7..) == Some(digest.to_string().as_str()))
        .ok_or_else(|| bad(name, format!("`{text}` is not a sha256 digest")))
}

fn descriptor(raw: RawDescriptor, name: &str) -> Result<Descriptor, Error> {
    Ok(Descriptor {
        media_type: raw.media_type,
        digest: digest(&raw.digest, name)?,
        size: raw.size,
        platform: raw.platform,
        annotations: raw.annotations.unwrap_or_default(),
    })
}

/// Whether a document is an index; where nothing else says so, as in a registry's answer that lies in the cache.
pub(crate) fn is_index(bytes: &[u8], name: &str) -> Result<bool, Error> {
    #[derive(Deserialize)]
    struct Either {
        manifests: Option<Present>,
        layers: Option<Present>,
    }
    let either: Either = parse(bytes, name)?;
    match (either.manifests.is_some(), either.layers.is_some()) {
        (true, true) => Err(bad(name, BOTH)),
        (index, _) => Ok(index),
    }
}

/// Reads an index, of a layout or of the platforms of an image; `name` is for errors.
///
/// # Errors
/// [`Error::Document`] or [`Error::TooLarge`].
pub fn parse_index(bytes: &[u8], name: &str) -> Result<Vec<Descriptor>, Error> {
    let raw: RawIndex = parse(bytes, name)?;
    if raw.schema_version != 2 {
        return Err(bad(name, format!("its schema version is {} and not 2", raw.schema_version)));
    }
    if raw.layers.is_some() {
        return Err(bad(name, BOTH));
    }
    if raw.manifests.len() > MAX_MANIFESTS {
        return Err(bad(name, format!("it has more than {MAX_MANIFESTS} manifests")));
    }
    // What is not addressed by SHA-256 cannot be chosen, but does no harm beside.
    Ok(raw.manifests.into_iter().filter_map(|manifest| descriptor(manifest, name).ok()).collect())
}

/// Reads the manifest of an image.
///
/// # Errors
/// [`Error::Document`] or [`Error::TooLarge`].
pub fn parse_manifest(bytes: &[u8], name: &str) -> Result<Manifest, Error> {
    let raw: RawManifest = parse(bytes, name)?;
    if raw.schema_version != 2 {
        return Err(bad(name, format!("its schema version is {} and not 2", raw.schema_version)));
    }
    if raw.manifests.is_some() {
        return Err(bad(name, BOTH));
    }
    if raw.layers.len() > MAX_LAYERS {
        return Err(bad(name, format!("it has more than {MAX_LAYERS} layers")));
    }
    let config = descriptor(raw.config, name)?;
    let known =
        ["", "application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"];
    if !known.contains(&config.media_type.as_str()) {
        return Err(bad(name, format!("it is an artifact of type `{}` and no image", config.media_type)));
    }
    let layers = raw.layers.into_iter().map(|layer| descriptor(layer, name)).collect::<Result<_, _>>()?;
    Ok(Manifest { config, layers, annotations: raw.annotations.unwrap_or_default() })
}

/// Reads the configuration of an image.
///
/// # Errors
/// [`Error::Document`] or [`Error::TooLarge`].
pub fn parse_config(bytes: &[u8], name: &str) -> Result<ImageConfig, Error> {
    let raw: RawConfig = parse(bytes, name)?;
    let run = raw.config.unwrap_or_default();
    let filled = |text: Option<String>| text.filter(|text| !text.is_empty());
    let keys = |set: Option<KeySet>| set.unwrap_or_default().into_keys().collect();
    let environment = run.env.unwrap_or_default();
    let environment = environment.iter().filter_map(|pair| pair.split_once('='));
    Ok(ImageConfig {
        entrypoint: run.entrypoint.unwrap_or_default(),
        command: run.cmd.unwrap_or_default(),
        environment: environment.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        working_directory: filled(run.working_dir),
        user: filled(run.user),
        exposed_ports: keys(run.exposed_ports),
        volumes: keys(run.volumes),
        labels: run.labels.unwrap_or_default(),
        stop_signal: filled(run.stop_signal),
        platform: match (filled(raw.os), filled(raw.architecture)) {
            (Some(os), Some(architecture)) => {
                Some(Platform { os, architecture, variant: filled(raw.variant) })
            }
            _ => None,
        },
        diff_ids: raw.rootfs.diff_ids.iter().map(|id| digest(id, name)).collect::<Result<_, _>>()?,
    })
}
