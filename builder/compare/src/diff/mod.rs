//! What changed from one release to the next.

pub(crate) mod boot;
mod download;
pub(crate) mod files;
mod report;

pub use boot::{CmdlineChange, EventChange, KeyChange, PcrChange, SectionChange};
pub use download::{Download, Part};
pub use files::{Facts, FileChange};

use crate::CompareError;
use crate::folder::ReleaseFolder;
use crate::initramfs::Initramfs;
use crate::json::{ValueChange, differences};
use ashlar_image::manifest::{MANIFEST_PATH, MODULE_LIST, MODULES_DIR};
use ashlar_image::release::Release;
use ashlar_measured_boot::uki::Uki;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// A value before and after.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    /// What it is: `kernel`, `security version`.
    pub what: String,
    /// Before.
    pub before: String,
    /// After.
    pub after: String,
}

/// A package that was added, removed, or is there in another version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PackageChange {
    /// Part of the image: `root`, `container NAME`.
    pub part: String,
    /// Package.
    pub name: String,
    /// Version before; none when it was added.
    pub before: Option<String>,
    /// Version after; none when it was removed. The same as before for a package file with other bytes.
    pub after: Option<String>,
}

/// The size of a file of the release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SizeChange {
    /// File name.
    pub file: String,
    /// Bytes before.
    pub before: u64,
    /// Bytes after.
    pub after: u64,
    /// Whether the bytes are the same.
    pub same: bool,
}

/// Modules in the order file of initramfs and root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ModuleChange {
    /// `initramfs` or `root`.
    pub place: String,
    /// Modules that are new.
    pub added: Vec<String>,
    /// Modules that are gone.
    pub removed: Vec<String>,
    /// Whether those in both are loaded in another order.
    pub reordered: bool,
}

/// All that changed. Empty lists say that nothing did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diff {
    /// The first release: `IMAGE_ID IMAGE_VERSION`.
    pub from: String,
    /// The second one.
    pub to: String,
    /// Plain values of `release.json`: versions, kernel, stub, init, sizes of partitions.
    pub values: Vec<Change>,
    /// Packages, part by part.
    pub packages: Vec<PackageChange>,
    /// Sizes of the release's files, the unchanged too.
    pub artifacts: Vec<SizeChange>,
    /// The command line, word by word.
    pub cmdline: CmdlineChange,
    /// Sections of the UKI with other content.
    pub sections: Vec<SectionChange>,
    /// Modules.
    pub modules: Vec<ModuleChange>,
    /// Files of the initramfs.
    pub initramfs: Vec<FileChange>,
    /// Keys and certificates.
    pub keys: Vec<KeyChange>,
    /// Predicted PCRs that come to other values, and the measurements that make them.
    pub pcrs: Vec<PcrChange>,
    /// Containers and services in the image's manifest.
    pub manifest: Vec<ValueChange>,
    /// Files of the root.
    pub files: Vec<FileChange>,
    /// What an update would fetch.
    pub download: Download,
}

/// Compares two releases. Roots are read once each.
///
/// # Errors
/// When a file of either is missing or damaged.
pub fn diff(a: &ReleaseFolder, b: &ReleaseFolder) -> Result<Diff, CompareError> {
    let (of_a, of_b) = (a.release(), b.release());
    let (uki_a, uki_b) = (a.uki()?, b.uki()?);
    let parse = |folder: &ReleaseFolder, source| CompareError::Uki { path: folder.uki_path(), source };
    let uki_a = Uki::parse(&uki_a).map_err(|source| parse(a, source))?;
    let uki_b = Uki::parse(&uki_b).map_err(|source| parse(b, source))?;
    let initramfs = |folder: &ReleaseFolder, uki: &Uki<'_>| {
        Initramfs::read(uki.section(".initrd").unwrap_or_default())
            .map_err(|why| CompareError::Initramfs { path: folder.uki_path(), why })
    };
    let (init_a, init_b) = (initramfs(a, &uki_a)?, initramfs(b, &uki_b)?);
    let (root_a, root_b) = (a.root()?, b.root()?);

    let order = format!("{MODULES_DIR}/{MODULE_LIST}");
    let in_archive = |archive: &Initramfs| {
        let name = order.trim_start_matches('/').as_bytes();
        archive.members.iter().find(|member| member.name == name).map(|member| archive.data(member).to_vec())
    };
    let of_initramfs = modules("initramfs", in_archive(&init_a), in_archive(&init_b));
    let of_root = modules("root", root_a.read(&order)?, root_b.read(&order)?);

    let manifest = |bytes: Option<Vec<u8>>| {
        let value = bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        value.unwrap_or(serde_json::Value::Null)
    };
    let mut manifest =
        differences(&manifest(root_a.read(MANIFEST_PATH)?), &manifest(root_b.read(MANIFEST_PATH)?));
    // Those are among the plain values.
    manifest
        .retain(|change| !["/build_time", "/image_id", "/image_version"].contains(&change.pointer.as_str()));

    Ok(Diff {
        from: format!("{} {}", of_a.image_id, of_a.image_version),
        to: format!("{} {}", of_b.image_id, of_b.image_version),
        values: values(of_a, of_b),
        packages: packages(of_a, of_b),
        artifacts: artifacts(of_a, of_b),
        cmdline: boot::cmdline(&of_a.uki.cmdline, &of_b.uki.cmdline),
        sections: boot::sections(&uki_a, &uki_b),
        modules: of_initramfs.into_iter().chain(of_root).collect(),
        initramfs: files::of_archives(&init_a, &init_b),
        keys: boot::keys(a, b, &uki_a, &uki_b),
        pcrs: boot::pcrs(&of_a.pcrs, &of_b.pcrs),
        manifest,
        files: files::of_roots(&root_a, &root_b)?,
        download: download::download(a, b)?,
    })
}

fn values(a: &Release, b: &Release) -> Vec<Change> {
    let list = |r: &Release| {
        let sizes = &r.partition_sizes;
        vec![
            ("image id", r.image_id.clone()),
            ("image version", r.image_version.clone()),
            ("security version", r.security_version.to_string()),
            ("build time", r.build_time.to_string()),
            ("kernel", r.kernel.clone()),
            ("stub version", r.uki.stub_version.clone()),
            ("init program", r.init.to_string()),
            ("root hash", r.root_hash.to_string()),
            ("size of the EFI system partition", sizes.esp.to_string()),
            ("size of the root partition", sizes.root.to_string()),
            ("size of the verity partition", sizes.verity.to_string()),
            ("size of the state partition", sizes.state.to_string()),
        ]
    };
    list(a)
        .into_iter()
        .zip(list(b))
        .filter(|(a, b)| a != b)
        .map(|((what, before), (_, after))| Change { what: what.into(), before, after })
        .collect()
}

fn packages(a: &Release, b: &Release) -> Vec<PackageChange> {
    let by_name =
        |release: &Release| -> BTreeMap<(String, String, String), (String, ashlar_image::digest::Digest)> {
            release
                .packages
                .iter()
                .map(|p| {
                    ((p.part.clone(), p.name.clone(), p.architecture.clone()), (p.version.clone(), p.sha256))
                })
                .collect()
        };
    let (of_a, of_b) = (by_name(a), by_name(b));
    let keys: BTreeSet<_> = of_a.keys().chain(of_b.keys()).collect();
    keys.into_iter()
        .filter(|key| of_a.get(*key) != of_b.get(*key))
        .map(|key| PackageChange {
            part: key.0.clone(),
            name: key.1.clone(),
            before: of_a.get(key).map(|(version, _)| version.clone()),
            after: of_b.get(key).map(|(version, _)| version.clone()),
        })
        .collect()
}

fn artifacts(a: &Release, b: &Release) -> Vec<SizeChange> {
    let list = |r: &Release| {
        [&r.slot.esp, &r.slot.root, &r.slot.verity, &r.uki.artifact]
            .map(|file| (file.file.clone(), file.size, file.sha256))
    };
    list(a)
        .into_iter()
        .zip(list(b))
        .map(|((_, before, old), (file, after, new))| SizeChange { file, before, after, same: old == new })
        .collect()
}

fn modules(place: &str, a: Option<Vec<u8>>, b: Option<Vec<u8>>) -> Option<ModuleChange> {
    let lines = |bytes: Option<Vec<u8>>| -> Vec<String> {
        String::from_utf8_lossy(&bytes.unwrap_or_default()).lines().map(str::to_owned).collect()
    };
    let (a, b) = (lines(a), lines(b));
    let only = |of: &[String], not: &[String]| -> Vec<String> {
        let not: BTreeSet<&String> = not.iter().collect();
        of.iter().filter(|line| !not.contains(line)).cloned().collect()
    };
    let (removed, added) = (only(&a, &b), only(&b, &a));
    let reordered = only(&a, &removed) != only(&b, &added);
    let changed = reordered || !removed.is_empty() || !added.is_empty();
    changed.then(|| ModuleChange { place: place.into(), added, removed, reordered })
}
