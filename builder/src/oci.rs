//! Reading a container's root file system from an OCI image layout (image-spec 1.1, `image-layout.md`).
//!
//! Every blob is checked against the digest that refers to it before it is used. Layers are applied in
//! order with their whiteouts (image-spec, `layer.md`).

use crate::compose::ImageDefaults;
use ashlar_image::digest::Digest;
use ashlar_tree::{Kind, Metadata, Node, Tree};
use miette::Diagnostic;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Largest JSON blob that is read, in bytes.
const MAX_JSON: u64 = 4 << 20;
/// Largest sum of uncompressed layers, in bytes: a bomb ends here.
const MAX_LAYERS: u64 = 8 << 30;

/// Why a layout was refused.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum OciError {
    /// A file of the layout cannot be read.
    #[error("cannot read `{}` of the OCI layout", path.display())]
    #[diagnostic(help(
        "`oci-layout` names a folder with `index.json` and `blobs/`, as `skopeo copy … oci:FOLDER` writes it"
    ))]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A blob is not what its digest says.
    #[error("the blob `{}` does not have the digest that its name says; copy the image again", .0.display())]
    Digest(PathBuf),
    /// A digest is of an unknown algorithm or malformed.
    #[error("`{0}` is not a sha256 digest")]
    BadDigest(String),
    /// JSON that is not as the specification wants it.
    #[error("`{}` is not valid: {why}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// No image for this machine in the index.
    #[error("`{}` has no linux/amd64 image", .0.display())]
    NoImage(PathBuf),
    /// A layer type that cannot be read.
    #[error("layers of type `{0}` cannot be read; copy the image with gzip or zstd layers")]
    LayerType(String),
    /// A layer is larger than all layers may be.
    #[error("the layers are larger than {} when unpacked", crate::recipe::human(MAX_LAYERS))]
    TooLarge,
    /// An entry of a layer cannot be placed.
    #[error("a layer's entry cannot be placed: {0}")]
    Tree(#[from] ashlar_tree::TreeError),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    platform: Option<Platform>,
}

#[derive(Deserialize)]
struct Platform {
    architecture: String,
    os: String,
}

#[derive(Deserialize)]
struct Index {
    manifests: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct ImageManifest {
    config: Descriptor,
    layers: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct ImageConfig {
    #[serde(default)]
    config: RunConfig,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct RunConfig {
    env: Option<Vec<String>>,
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    working_dir: Option<String>,
}

/// A layout on the build host.
struct Layout<'a>(&'a Path);

impl Layout<'_> {
    fn blob(&self, digest: &str, limit: u64) -> Result<(PathBuf, Vec<u8>), OciError> {
        let bad = || OciError::BadDigest(digest.to_owned());
        let wanted: Digest = digest.strip_prefix("sha256:").ok_or_else(bad)?.parse().map_err(|_| bad())?;
        let path = self.0.join("blobs/sha256").join(wanted.to_string());
        let bytes = read(&path, limit)?;
        if Digest::of(&bytes) != wanted {
            return Err(OciError::Digest(path));
        }
        Ok((path, bytes))
    }

    fn json<T: for<'de> Deserialize<'de>>(&self, digest: &str) -> Result<T, OciError> {
        let (path, bytes) = self.blob(digest, MAX_JSON)?;
        parse(&path, &bytes)
    }
}

fn read(path: &Path, limit: u64) -> Result<Vec<u8>, OciError> {
    let fail = |source| OciError::Read { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(fail)?;
    file.take(limit + 1).read_to_end(&mut bytes).map_err(fail)?;
    if bytes.len() as u64 > limit {
        return Err(fail(std::io::Error::other(format!("it is larger than {limit} bytes"))));
    }
    Ok(bytes)
}

fn parse<T: for<'de> Deserialize<'de>>(path: &Path, bytes: &[u8]) -> Result<T, OciError> {
    serde_json::from_slice(bytes)
        .map_err(|error| OciError::Json { path: path.to_owned(), why: error.to_string() })
}

/// The image in the layout at `folder` for linux/amd64: its file tree, what its configuration says, and
/// the digest of its manifest.
pub fn load(folder: &Path) -> Result<(Tree, ImageDefaults, Digest), OciError> {
    let layout = Layout(folder);
    let index_path = folder.join("index.json");
    let mut index: Index = parse(&index_path, &read(&index_path, MAX_JSON)?)?;
    // An index may point to one more index: one level for the architectures, no deeper.
    for _ in 0..2 {
        let chosen = index
            .manifests
            .into_iter()
            .find(|m| m.platform.as_ref().is_none_or(|p| p.architecture == "amd64" && p.os == "linux"))
            .ok_or_else(|| OciError::NoImage(folder.to_owned()))?;
        if chosen.media_type.ends_with("index.v1+json")
            || chosen.media_type.ends_with("manifest.list.v2+json")
        {
            index = layout.json(&chosen.digest)?;
            continue;
        }
        let (path, bytes) = layout.blob(&chosen.digest, MAX_JSON)?;
        let manifest: ImageManifest = parse(&path, &bytes)?;
        let config: ImageConfig = layout.json(&manifest.config.digest)?;
        let mut tree = Tree::new(Metadata::root(0o755, 0));
        let mut left = MAX_LAYERS;
        for layer in &manifest.layers {
            let tar = decompress(&layer.media_type, &layout.blob(&layer.digest, MAX_LAYERS)?.1, left)?;
            left -= tar.len() as u64;
            apply(&mut tree, &tar, &layout.0.join(&layer.digest))?;
        }
        return Ok((tree, defaults(config.config), Digest::of(&bytes)));
    }
    Err(OciError::NoImage(folder.to_owned()))
}

fn defaults(config: RunConfig) -> ImageDefaults {
    let mut command = config.entrypoint.unwrap_or_default();
    command.extend(config.cmd.unwrap_or_default());
    let environment: BTreeMap<_, _> = config
        .env
        .unwrap_or_default()
        .iter()
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    ImageDefaults { command, environment, working_directory: config.working_dir.filter(|d| !d.is_empty()) }
}

/// Unpacks a layer blob, at most `limit` bytes of it.
fn decompress(media_type: &str, blob: &[u8], limit: u64) -> Result<Vec<u8>, OciError> {
    let suffix = media_type.rsplit_once("tar").map_or(media_type, |(_, suffix)| suffix);
    let reader: Box<dyn Read + '_> = match suffix {
        "" => Box::new(blob),
        "+gzip" | ".gzip" => Box::new(flate2::read::MultiGzDecoder::new(blob)),
        "+zstd" => Box::new(
            zstd::stream::read::Decoder::new(blob).map_err(|_| OciError::LayerType(media_type.to_owned()))?,
        ),
        _ => return Err(OciError::LayerType(media_type.to_owned())),
    };
    let mut bytes = Vec::new();
    reader
        .take(limit.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(|source| OciError::Read { path: PathBuf::from("a layer"), source })?;
    if bytes.len() as u64 > limit {
        return Err(OciError::TooLarge);
    }
    Ok(bytes)
}

/// Applies one uncompressed layer; `name` is for errors.
fn apply(tree: &mut Tree, tar: &[u8], name: &Path) -> Result<(), OciError> {
    let fail = |source| OciError::Read { path: name.to_owned(), source };
    let mut archive = tar::Archive::new(tar);
    for entry in archive.entries().map_err(fail)? {
        let mut entry = entry.map_err(fail)?;
        let path = entry.path_bytes().into_owned();
        let (folder, file) = match path.iter().rposition(|&b| b == b'/') {
            Some(at) => (&path[..at], &path[at + 1..]),
            None => (&path[..0], path.as_slice()),
        };
        if file == b".wh..wh..opq" {
            if let Some(Node { kind: Kind::Directory(entries), .. }) = tree.get_mut(folder) {
                entries.clear();
            }
            continue;
        }
        if let Some(hidden) = file.strip_prefix(b".wh.") {
            tree.remove(&[folder, b"/", hidden].concat());
            continue;
        }
        let node = node(&mut entry).map_err(fail)?;
        let Some(mut node) = node else { continue };
        if let Kind::HardLink(target) = &mut node.kind {
            // The tree wants the resolved name of a node that is no hard link itself.
            match tree.get_followed(target) {
                Some((real, _)) => *target = real,
                None => return Err(fail(std::io::Error::other("a hard link to a file that is not there"))),
            }
        } else if !matches!(node.kind, Kind::Directory(_))
            && matches!(tree.get(&path), Some(Node { kind: Kind::Directory(_), .. }))
        {
            tree.remove(&path);
        }
        tree.insert(&path, node)?;
    }
    Ok(())
}

/// The node of a tar entry; none for what is no file (global headers).
fn node<R: Read>(entry: &mut tar::Entry<'_, R>) -> std::io::Result<Option<Node>> {
    use tar::EntryType as T;
    let header = entry.header();
    let number = |value: u64| u32::try_from(value).map_err(std::io::Error::other);
    let mut metadata = Metadata {
        mode: header.mode()? & 0o7777,
        uid: number(header.uid()?)?,
        gid: number(header.gid()?)?,
        mtime: i64::try_from(header.mtime()?).map_err(std::io::Error::other)?,
        xattrs: BTreeMap::new(),
    };
    let kind = header.entry_type();
    // Only devices have these fields; elsewhere writers leave them empty.
    let (major, minor) = match kind {
        T::Char | T::Block => (header.device_major()?.unwrap_or(0), header.device_minor()?.unwrap_or(0)),
        _ => (0, 0),
    };
    if let Some(extensions) = entry.pax_extensions()? {
        for extension in extensions {
            let extension = extension?;
            if let Some(name) = extension.key_bytes().strip_prefix(b"SCHILY.xattr.") {
                metadata.xattrs.insert(name.to_vec(), extension.value_bytes().to_vec());
            }
        }
    }
    let link = || {
        entry
            .link_name_bytes()
            .map(std::borrow::Cow::into_owned)
            .ok_or_else(|| std::io::Error::other("a link without a target"))
    };
    let kind = match kind {
        T::Directory => Kind::Directory(BTreeMap::new()),
        T::Symlink => Kind::Symlink(link()?),
        T::Link => Kind::HardLink(link()?),
        T::Char => Kind::CharDevice { major, minor },
        T::Block => Kind::BlockDevice { major, minor },
        T::Fifo => Kind::Fifo,
        T::Regular | T::Continuous | T::GNUSparse => {
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes)?;
            Kind::File(ashlar_tree::Content::Inline(bytes.into()))
        }
        _ => return Ok(None),
    };
    Ok(Some(Node { metadata, kind }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(entries: &[(&str, &str)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, text) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_size(text.len() as u64);
            header.set_mode(0o644);
            header.set_uid(0);
            header.set_gid(0);
            header.set_mtime(0);
            builder.append_data(&mut header, path, text.as_bytes()).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn put(folder: &Path, bytes: &[u8]) -> String {
        let digest = Digest::of(bytes);
        std::fs::create_dir_all(folder.join("blobs/sha256")).unwrap();
        std::fs::write(folder.join("blobs/sha256").join(digest.to_string()), bytes).unwrap();
        format!("sha256:{digest}")
    }

    fn layout(folder: &Path) -> String {
        let gz = {
            use std::io::Write;
            let mut e = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            e.write_all(&layer(&[("srv/.wh.old", ""), ("srv/new", "new")])).unwrap();
            e.finish().unwrap()
        };
        let one = put(folder, &layer(&[("srv/old", "old"), ("bin/app", "app")]));
        let two = put(folder, &gz);
        let config =
            put(folder, br#"{"config":{"Entrypoint":["/bin/app"],"Env":["A=b"],"WorkingDir":"/srv"}}"#);
        let manifest = serde_json::json!({"config": {"digest": config}, "layers": [
            {"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": one},
            {"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": two}]});
        let manifest = put(folder, manifest.to_string().as_bytes());
        let index = serde_json::json!({"manifests": [{"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": manifest}]});
        std::fs::write(folder.join("index.json"), index.to_string()).unwrap();
        two
    }

    #[test]
    fn layers_and_whiteouts_apply_in_order() {
        let dir = tempfile::tempdir().unwrap();
        layout(dir.path());
        let (tree, defaults, _) = load(dir.path()).unwrap();
        assert!(tree.get(b"/srv/old").is_none());
        assert!(tree.get(b"/srv/new").is_some() && tree.get(b"/bin/app").is_some());
        assert_eq!(defaults.command, ["/bin/app"]);
        assert_eq!(defaults.working_directory.as_deref(), Some("/srv"));
    }

    #[test]
    fn a_changed_blob_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let digest = layout(dir.path());
        let path = dir.path().join("blobs/sha256").join(&digest[7..]);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[20] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        assert!(matches!(load(dir.path()), Err(OciError::Digest(p)) if p == path));
    }
}
