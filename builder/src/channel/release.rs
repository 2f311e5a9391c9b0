//! A release's folder: verified, then turned into what machines fetch.

use super::ChannelError;
use crate::build::materials::{CYCLONEDX_FILE, PROVENANCE_FILE, SPDX_FILE};
use crate::error::BuildError;
use crate::inspect::read_whole;
use crate::output::{self, RELEASE_FILE};
use crate::progress::Progresses;
use ashlar_blocks::{BlocksError, Hashing, publish, verity};
use ashlar_debian::Progress;
use ashlar_image::digest::Digest;
use ashlar_image::release::{Artifact, FORMAT, Release};
use ashlar_image::verity::SUPERBLOCK_SIZE;
use std::fs::File;
use std::io::{BufReader, BufWriter, Read};
use std::path::{Path, PathBuf};

/// Largest `release.json` in bytes.
pub const MAX_RELEASE: u64 = 64 << 20;
/// Largest file that comes along (bills of materials, provenance), in bytes.
const MAX_BESIDE: u64 = 256 << 20;

/// A folder whose files are what its `release.json` says.
#[derive(Debug)]
pub struct Verified {
    /// What it says.
    pub release: Release,
    /// Its bytes.
    pub json: Vec<u8>,
    folder: PathBuf,
}

fn bad(path: &Path, key: &'static str, why: impl Into<String>) -> BuildError {
    ChannelError::BadRelease { path: path.to_owned(), key, why: why.into() }.into()
}

/// Ends a progress, however its task ends.
struct Task(Box<dyn Progress>);

impl Task {
    fn begin(progress: &dyn Progresses, what: &str, bytes: u64) -> Self {
        let part = progress.part();
        part.begin(what, bytes);
        Self(part)
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.end();
    }
}

impl Verified {
    /// Reads `release.json` and every image that it names.
    pub fn open(folder: &Path, progress: &dyn Progresses) -> Result<Self, BuildError> {
        let path = folder.join(RELEASE_FILE);
        let json = read_whole(&path, MAX_RELEASE, "a release.json")?;
        let release: Release =
            serde_json::from_slice(&json).map_err(|error| bad(&path, "format", error.to_string()))?;
        if release.format != FORMAT {
            let why = format!("it is {}, and this program knows {FORMAT}", release.format);
            return Err(bad(&path, "format", why));
        }
        for (key, artifact) in artifacts(&release) {
            let name = Path::new(&artifact.file);
            if name.file_name().is_none_or(|last| last != name.as_os_str()) {
                return Err(bad(&path, key, format!("`{}` is no file's name", artifact.file.escape_debug())));
            }
            let file = folder.join(name);
            let task = Task::begin(progress, &format!("reading {}", artifact.file), artifact.size);
            let (sha256, size) = output::digest(&file)?;
            task.0.advance(size);
            if size != artifact.size {
                return Err(bad(&file, key, format!("it has {size} bytes, not {}", artifact.size)));
            }
            if sha256 != artifact.sha256 {
                return Err(bad(&file, key, format!("its SHA-256 is {sha256}, not {}", artifact.sha256)));
            }
        }
        Ok(Self { release, json, folder: folder.to_owned() })
    }

    /// SHA-256 of `release.json`.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.json)
    }

    /// Writes what machines fetch into `staging`: names of targets below the release's, with the files.
    ///
    /// # Errors
    /// An image cannot be published, or root and verity tree do not belong together.
    pub fn publish(
        &self,
        staging: &Path,
        progress: &dyn Progresses,
    ) -> Result<Vec<(String, PathBuf)>, BuildError> {
        let slot = &self.release.slot;
        let verity_file = self.folder.join(&slot.verity.file);
        let tree = read_whole(&verity_file, slot.verity.size, "a verity tree")?;
        let (hashing, uuid) = superblock(&tree).ok_or_else(|| {
            bad(&verity_file, "slot.verity", "it does not begin with a superblock of dm-verity")
        })?;
        let mut files = Vec::new();
        let root = self.part("root", &slot.root, (hashing, uuid), staging, progress, &mut files)?;
        let made = verity::partition(hashing, uuid, &root, self.release.root_hash)
            .map_err(|error| bad(&verity_file, "root_hash", error.to_string()))?;
        if Digest::of(&made) != slot.verity.sha256 {
            let why = "the tree that machines make from the root is another one";
            return Err(bad(&verity_file, "slot.verity", why));
        }
        let _ = self.part("esp", &slot.esp, (Hashing::Plain, [0; 16]), staging, progress, &mut files)?;
        Ok(files)
    }

    /// What describes the release beside `release.json`: bills of materials, provenance; those that are there.
    pub fn beside(&self) -> Result<Vec<(&'static str, Vec<u8>)>, BuildError> {
        [SPDX_FILE, CYCLONEDX_FILE, PROVENANCE_FILE]
            .into_iter()
            .map(|name| (name, self.folder.join(name)))
            .filter(|(_, path)| path.exists())
            .map(|(name, path)| Ok((name, read_whole(&path, MAX_BESIDE, "a description of a release")?)))
            .collect()
    }

    fn part(
        &self,
        name: &str,
        artifact: &Artifact,
        (hashing, uuid): (Hashing, [u8; 16]),
        staging: &Path,
        progress: &dyn Progresses,
        files: &mut Vec<(String, PathBuf)>,
    ) -> Result<ashlar_blocks::Leaves, BuildError> {
        let path = self.folder.join(&artifact.file);
        let image = File::open(&path).map_err(|e| BuildError::input("open", &path, e))?;
        let mut image = BufReader::with_capacity(1 << 20, image).take(artifact.size);
        let frames_path = staging.join(format!("{name}.frames"));
        let frames = File::create(&frames_path).map_err(|e| BuildError::io("create", &frames_path, e))?;
        let mut frames = BufWriter::with_capacity(1 << 20, frames);
        let task = Task::begin(progress, &format!("packing {}", artifact.file), artifact.size);
        let mut told = 0;
        let published = publish(&mut image, artifact.size, hashing, uuid, &mut frames, |done| {
            task.0.advance(done.saturating_sub(told));
            told = done;
        });
        let published = published.map_err(|error| match error {
            BlocksError::Io { what, source } => BuildError::io(what, &path, source),
            other => ChannelError::Blocks(other).into(),
        })?;
        drop(task);
        files.push((format!("{name}.frames"), frames_path));
        let index = published.index.to_bytes().map_err(ChannelError::Blocks)?;
        for (kind, bytes) in [("index", index.as_slice()), ("leaves", published.leaves.as_bytes())] {
            let path = staging.join(format!("{name}.{kind}"));
            std::fs::write(&path, bytes).map_err(|e| BuildError::io("write", &path, e))?;
            files.push((format!("{name}.{kind}"), path));
        }
        Ok(published.leaves)
    }
}

/// The files that `release.json` names, with their keys.
fn artifacts(release: &Release) -> [(&'static str, &Artifact); 4] {
    let slot = &release.slot;
    [
        ("slot.esp", &slot.esp),
        ("slot.root", &slot.root),
        ("slot.verity", &slot.verity),
        ("uki", &release.uki.artifact),
    ]
}

/// Salt and UUID of a verity tree (cryptsetup's on-disk format, version 1).
fn superblock(tree: &[u8]) -> Option<(Hashing, [u8; 16])> {
    let block = tree.get(..SUPERBLOCK_SIZE)?;
    let salt_length = u16::from_le_bytes(block.get(80..82)?.try_into().ok()?);
    if block.get(..8)? != b"verity\0\0" || salt_length != 32 {
        return None;
    }
    let uuid = block.get(16..32)?.try_into().ok()?;
    Some((Hashing::Verity { salt: block.get(88..120)?.try_into().ok()? }, uuid))
}
