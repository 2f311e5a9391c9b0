//! Offline bundles: the part of a repository that an update to certain releases needs, in one tar file.

use super::release::MAX_RELEASE;
use super::{ChannelError, Channels, Signers, list};
use crate::error::BuildError;
use crate::output::RELEASE_FILE;
use ashlar_channel::{document_target, release_target};
use ashlar_tuf::TARGETS_FOLDER;
use serde::Serialize;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

/// What was written.
#[derive(Debug, Serialize)]
pub struct BundleReport {
    /// The releases.
    pub versions: Vec<String>,
    /// Files in it.
    pub files: usize,
    /// Size of the bundle in bytes.
    pub bytes: u64,
    /// Machines take it until then, seconds since 1970.
    pub good_until: i64,
}

/// Writes the bundle of some releases of a channel. With a `lifetime` in seconds the bundle is good for so long: a
/// timestamp is signed for it, and then another for the channels, so that machines on the network do not get it.
pub fn bundle(
    channels: &mut Channels,
    channel: &str,
    versions: &[String],
    lifetime: Option<u32>,
    signers: &Signers<'_>,
    output: &Path,
    now: i64,
) -> Result<BundleReport, BuildError> {
    let document = channels.document(channel)?;
    let mut names = vec![document_target(channel)];
    let mut found = Vec::new();
    for version in versions {
        let offer = document.offer(version).ok_or_else(|| {
            let there: Vec<String> = document.releases.iter().map(|offer| offer.version.clone()).collect();
            ChannelError::NoRelease {
                channel: channel.to_owned(),
                version: version.clone(),
                there: list(&there),
            }
        })?;
        let folder = format!("{}/", release_target(&document.image_id, &offer.version));
        // Refused here, not by the machine: a damaged repository.
        let release = format!("{folder}{RELEASE_FILE}");
        let _ = channels.repository().read_target(&release, MAX_RELEASE).map_err(ChannelError::Tuf)?;
        let of_release =
            channels.repository().targets().targets.keys().filter(|name| name.starts_with(&folder));
        names.extend(of_release.cloned());
        found.push(offer.version.clone());
    }
    if let Some(seconds) = lifetime {
        channels.require(signers, false)?;
        channels.refresh_for(seconds, signers, now)?;
    }
    let written = write(channels, &names, output);
    if lifetime.is_some() {
        channels.refresh(signers, now)?;
    }
    let (files, bytes, good_until) = written?;
    Ok(BundleReport { versions: found, files, bytes, good_until })
}

fn write(channels: &Channels, names: &[String], output: &Path) -> Result<(usize, u64, i64), BuildError> {
    let repository = channels.repository();
    let mut paths: Vec<String> =
        (1..=repository.root().version).map(|version| format!("{version}.root.json")).collect();
    paths.push("timestamp.json".into());
    paths.push(format!("{}.snapshot.json", repository.snapshot_version()));
    paths.push(format!("{}.targets.json", repository.targets().version));
    for name in names {
        paths.push(format!("{TARGETS_FOLDER}{}", repository.target_file(name).map_err(ChannelError::Tuf)?));
    }
    let parent = output.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let fail = |e: io::Error| BuildError::io("write", output, e);
    let file = tempfile::NamedTempFile::new_in(parent).map_err(fail)?;
    let mut tar = tar::Builder::new(BufWriter::with_capacity(1 << 20, file));
    for path in &paths {
        append(&mut tar, &channels.folder, path).map_err(fail)?;
    }
    let mut writer = tar.into_inner().map_err(fail)?;
    writer.flush().map_err(fail)?;
    let file = writer.into_inner().map_err(|error| fail(error.into_error()))?;
    file.as_file().sync_all().map_err(fail)?;
    let bytes = file.as_file().metadata().map_err(fail)?.len();
    let readable = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    file.as_file().set_permissions(readable).map_err(fail)?;
    file.persist(output).map_err(|error| fail(error.error))?;
    let good_until = repository.expiries().iter().map(|(_, time)| *time).min().unwrap_or(0);
    Ok((paths.len(), bytes, good_until))
}

/// The same files give the same bytes.
fn append(tar: &mut tar::Builder<impl Write>, folder: &Path, path: &str) -> io::Result<()> {
    let mut file = File::open(folder.join(path))?;
    let mut header = tar::Header::new_ustar();
    header.set_size(file.metadata()?.len());
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    tar.append_data(&mut header, path, &mut file)
}
