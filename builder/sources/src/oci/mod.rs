//! Images as the Open Container Initiative specifies them (image-spec 1.1), from a layout on the build host or a registry.

pub(crate) mod document;
mod store;

use crate::archive::{Compression, Wanted, entries_in, source, unpack};
use crate::keep::{Devices, Keep};
use crate::layers::{Layers, Mode};
use crate::{Error, Source};
use ashlar_cache::Cache;
use ashlar_image::digest::Digest;
use document::{Descriptor, ImageConfig, MAX_DOCUMENT, Platform, parse_config, parse_index};
use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

pub(crate) use store::{LayoutStore, Store};

/// Deepest chain of indexes: a layout's own, one with platforms, one more.
const MAX_INDEXES: usize = 3;

/// How an image is chosen and read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageOptions {
    /// For which machine.
    pub platform: Platform,
    /// The name of the image in a layout with several (`org.opencontainers.image.ref.name`).
    pub name: Option<String>,
    /// The digest that the manifest (or the index that leads to it) must have.
    pub digest: Option<Digest>,
    /// Devices (left out unless it says otherwise: a runtime makes its own) and extended attributes.
    pub keep: Keep,
    /// Most bytes that all layers together may have when unpacked.
    pub max_unpacked: u64,
}

impl Default for ImageOptions {
    fn default() -> Self {
        Self {
            platform: Platform::default(),
            name: None,
            digest: None,
            keep: Keep { devices: Devices::Skip, xattrs: Vec::new() },
            max_unpacked: 16 << 30,
        }
    }
}

/// A layer of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// SHA-256 as it is stored.
    pub digest: Digest,
    /// Length as it is stored, in bytes.
    pub size: u64,
    /// SHA-256 of its tar.
    pub diff_id: Digest,
}

/// An image: the file tree of its layers and what is said about it.
#[derive(Debug, Clone)]
pub struct Image {
    /// The tree.
    pub source: Source,
    /// How to run it.
    pub config: ImageConfig,
    /// Annotations of the manifest.
    pub annotations: BTreeMap<String, String>,
    /// SHA-256 of the manifest: what a lock file keeps.
    pub digest: Digest,
    /// Whether [`ImageOptions::digest`] (or a lock file) said that it must be this image.
    pub pinned: bool,
    /// Its layers, lowest first.
    pub layers: Vec<Layer>,
}

/// Reads an image from an OCI layout: a directory with `index.json` and `blobs/`, or a plain tar archive of one
/// (`skopeo copy … oci:FOLDER` or `oci-archive:FILE`; `docker save` since version 25). Layers are unpacked into the cache once.
///
/// # Errors
/// [`Error::NoImage`] and [`Error::Ambiguous`] when no image or several fit, [`Error::Pinned`] when it is another one than
/// the pinned, [`Error::Digest`] names a damaged blob, [`Error::Document`] and [`Error::Archive`] what is not as it should be.
pub fn layout(path: &Path, options: &ImageOptions, cache: &Cache) -> Result<Image, Error> {
    let store = LayoutStore::open(path)?;
    let name = store.name();
    let mut chain = Vec::new();
    let mut manifests = parse_index(&store.index()?, &name)?;
    if let Some(wanted) = &options.name {
        let found = names(&manifests);
        manifests.retain(|manifest| manifest.name() == Some(wanted));
        if manifests.is_empty() {
            return Err(Error::NoImage { name, wanted: format!("the name `{wanted}`"), found });
        }
    }
    if let Some(pinned) = options.digest.filter(|pin| manifests.iter().any(|m| m.digest == *pin)) {
        manifests.retain(|manifest| manifest.digest == pinned);
    }
    let mut chosen = choose(&manifests, options, &name, true)?.clone();
    loop {
        chain.push(chosen.digest);
        if !chosen.is_index() {
            break;
        }
        if chain.len() > MAX_INDEXES {
            return Err(document::bad(&name, format!("more than {MAX_INDEXES} indexes lead to the image")));
        }
        let manifests = parse_index(&store.document(&chosen)?, &name)?;
        chosen = choose(&manifests, options, &name, false)?.clone();
    }
    if let Some(pinned) = options.digest.filter(|pinned| !chain.contains(pinned)) {
        let (pinned, got) = (pinned.to_string(), chosen.digest.to_string());
        return Err(Error::Pinned { name, pinned, got });
    }
    let mut image = load(&store, &chosen, options, cache)?;
    image.pinned = options.digest.is_some();
    Ok(image)
}

/// The manifest for the wanted platform. In a layout's index, where entries are different images, it has to be the only one;
/// in an index of platforms the first one counts.
pub(crate) fn choose<'a>(
    manifests: &'a [Descriptor],
    options: &ImageOptions,
    name: &str,
    only: bool,
) -> Result<&'a Descriptor, Error> {
    let wanted = &options.platform;
    let of_platform = |m: &&Descriptor| m.platform.as_ref().is_some_and(|other| wanted.fits(other));
    let mut fitting: Vec<&Descriptor> = manifests.iter().filter(of_platform).collect();
    if fitting.is_empty() {
        // Nothing said: its configuration will tell.
        fitting = manifests.iter().filter(|manifest| manifest.platform.is_none()).collect();
    }
    let first = fitting.first().ok_or_else(|| Error::NoImage {
        name: name.to_owned(),
        wanted: wanted.to_string(),
        found: platforms(manifests),
    })?;
    if only && fitting.iter().any(|other| other.digest != first.digest) {
        let fitting: Vec<Descriptor> = fitting.into_iter().cloned().collect();
        return Err(Error::Ambiguous { name: name.to_owned(), found: names(&fitting) });
    }
    Ok(first)
}

/// What is there, for messages.
fn names(manifests: &[Descriptor]) -> String {
    let name = |m: &Descriptor| m.name().map_or_else(|| format!("sha256:{}", m.digest), |n| format!("`{n}`"));
    listed(manifests.iter().map(name))
}

fn platforms(manifests: &[Descriptor]) -> String {
    listed(manifests.iter().filter_map(|manifest| Some(manifest.platform.as_ref()?.to_string())))
}

fn listed(items: impl Iterator<Item = String>) -> String {
    let items: Vec<String> = items.take(12).collect();
    if items.is_empty() { "none".into() } else { items.join(", ") }
}

/// Reads the image with this manifest: configuration, then the layers in order.
pub(crate) fn load(
    store: &impl Store,
    chosen: &Descriptor,
    options: &ImageOptions,
    cache: &Cache,
) -> Result<Image, Error> {
    let name = format!("the manifest sha256:{} of {}", chosen.digest, store.name());
    let manifest = document::parse_manifest(&store.document(chosen)?, &name)?;
    let config_name = format!("the configuration sha256:{} of {}", manifest.config.digest, store.name());
    let config = parse_config(&store.config(&manifest.config)?, &config_name)?;
    if let Some(other) = config.platform.as_ref().filter(|other| !options.platform.fits(other)) {
        let (wanted, found) = (options.platform.to_string(), other.to_string());
        return Err(Error::NoImage { name: store.name(), wanted, found });
    }
    if config.diff_ids.len() != manifest.layers.len() {
        let (ids, layers) = (config.diff_ids.len(), manifest.layers.len());
        return Err(document::bad(&config_name, format!("it names {ids} layers, the manifest {layers}")));
    }
    let mut tree = Layers::new(&options.keep);
    let mut left = options.max_unpacked;
    let mut layers = Vec::new();
    for (descriptor, diff_id) in manifest.layers.iter().zip(&config.diff_ids) {
        let compression = layer_compression(descriptor, &name)?;
        let layer_name = format!("the layer sha256:{} of {}", descriptor.digest, store.name());
        let _lock = cache.lock(&format!("layer-{diff_id}"), || ())?;
        let entries = match entries_in(cache, *diff_id, &layer_name, &mut tree.notes)? {
            Some(entries) => entries,
            None => {
                let wanted = Wanted { packed: descriptor.digest, tar: Some(*diff_id), limit: left };
                unpack(store.layer(descriptor)?, compression, &layer_name, &wanted, cache)?;
                // A layer that is not packed is itself the tar that stays.
                if descriptor.digest != *diff_id {
                    store.unpacked(descriptor);
                }
                entries_in(cache, *diff_id, &layer_name, &mut tree.notes)?
                    .ok_or_else(|| Error::Offline(layer_name.clone()))?
            }
        };
        let blob = cache.blob_path(&diff_id.to_string());
        let size = std::fs::metadata(&blob).map_err(Error::io("read", &blob))?.len();
        left = left.checked_sub(size).ok_or_else(|| Error::TooLarge {
            name: format!("the unpacked layers of {}", store.name()),
            limit: options.max_unpacked,
            ours: true,
        })?;
        tree.apply(entries, &Arc::new(blob), Mode::Layer)
            .map_err(|why| Error::Archive { name: layer_name, why })?;
        layers.push(Layer { digest: descriptor.digest, size: descriptor.size, diff_id: *diff_id });
    }
    let (tree, notes) = tree.finish();
    Ok(Image {
        source: source(tree, notes),
        config,
        annotations: manifest.annotations,
        digest: chosen.digest,
        pinned: false,
        layers,
    })
}

/// By the layer's media type (`layer.md`; Docker's are the same with other words).
fn layer_compression(layer: &Descriptor, name: &str) -> Result<Compression, Error> {
    const FAMILIES: [&str; 4] = [
        "application/vnd.oci.image.layer.v1.tar",
        "application/vnd.oci.image.layer.nondistributable.v1.tar",
        "application/vnd.docker.image.rootfs.diff.tar",
        "application/vnd.docker.image.rootfs.foreign.diff.tar",
    ];
    let rest = FAMILIES.iter().find_map(|family| layer.media_type.strip_prefix(family));
    match rest {
        Some("") => Ok(Compression::None),
        Some("+gzip" | ".gzip") => Ok(Compression::Gzip),
        Some("+zstd" | ".zstd") => Ok(Compression::Zstd),
        _ => Err(document::bad(
            name,
            format!(
                "layers of type `{}` cannot be read; copy the image with gzip or zstd layers",
                layer.media_type
            ),
        )),
    }
}

/// Reads a small blob whole and verifies it.
pub(crate) fn verified(reader: impl Read, descriptor: &Descriptor, name: &str) -> Result<Vec<u8>, Error> {
    let too_large = |limit, ours| Error::TooLarge { name: name.to_owned(), limit, ours };
    if descriptor.size > MAX_DOCUMENT {
        return Err(too_large(MAX_DOCUMENT, true));
    }
    let mut bytes = Vec::new();
    reader
        .take(descriptor.size + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| document::bad(name, format!("it cannot be read: {error}")))?;
    if bytes.len() as u64 > descriptor.size {
        return Err(too_large(descriptor.size, false));
    }
    let got = Digest::of(&bytes);
    if got != descriptor.digest {
        return Err(crate::archive::digest_error(name, descriptor.digest, got));
    }
    Ok(bytes)
}
