//! Recipe to release: the stages in order. Each stage reads what the one before has made; nothing appears at the
//! output before all of them are done.

mod boot;
mod disk;
mod init;
mod root;

use crate::error::BuildError;
use crate::identity::Identity;
use crate::lock::{self, Lock};
use crate::os_release;
use crate::output::{Output, RELEASE_FILE};
use crate::packages::{LockPolicy, Source};
use crate::recipe::Recipe;
use crate::timings::Timings;
use ashlar_debian::{Cache, Package, Progress};
use ashlar_image::digest::Digest;
use ashlar_image::release::{self, Artifact, Release};
use ashlar_keys::KeyFolder;
use ashlar_measured_boot::predict::{self, Site};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

pub use disk::{DISK_FILE, ESP_FILE};
pub use root::{ROOT_FILE, VERITY_FILE};

/// Name of the signed UKI in a release's folder.
pub const UKI_FILE: &str = "uki.efi";
/// Folder of a release with what the owner enrols in a machine's firmware.
pub const SECURE_BOOT_DIR: &str = "secure-boot";

/// What to build, from what, to where.
#[derive(Debug, Clone)]
pub struct Options {
    /// The recipe.
    pub recipe: PathBuf,
    /// The lock file; beside the recipe otherwise.
    pub lock: Option<PathBuf>,
    /// How the lock file is treated.
    pub lock_policy: LockPolicy,
    /// Folder of keys.
    pub keys: PathBuf,
    /// Folder of the release.
    pub output: PathBuf,
    /// Where packages come from.
    pub source: Source,
    /// The init program; looked for beside this program otherwise.
    pub init: Option<PathBuf>,
}

/// A finished build.
#[derive(Debug)]
pub struct Built {
    /// What was built.
    pub release: Release,
    /// Where the time went.
    pub timings: Timings,
    /// The lock file, if it was written anew.
    pub lock_written: Option<PathBuf>,
    /// What a person may want to know: paths to remove that were not there, modules that the kernel has built in.
    pub notes: Vec<String>,
}

/// The digest and size of a finished file of the output.
fn artifact(output: &Output, file: &str) -> Result<Artifact, BuildError> {
    let path = output.path(file);
    let (sha256, size) = crate::output::digest(&path)?;
    Ok(Artifact { file: file.to_owned(), size, sha256 })
}

/// Writes a file of the output.
fn write(output: &Output, file: &str, bytes: &[u8]) -> Result<(), BuildError> {
    let path = output.path(file);
    std::fs::write(&path, bytes).map_err(|e| BuildError::io("write", &path, e))
}

/// The packages of a part; the lock was made from the same list of parts.
fn part<'a>(packages: &'a BTreeMap<String, Vec<Package>>, name: &str) -> &'a [Package] {
    packages.get(name).map_or(&[], Vec::as_slice)
}

/// Builds.
pub fn build(options: &Options, progress: &dyn Progress) -> Result<Built, BuildError> {
    let mut timings = Timings::default();
    let mut notes = Vec::new();
    // What can be wrong without a byte being fetched comes first.
    let recipe = Recipe::load(&options.recipe)?;
    let keys = KeyFolder::open(&options.keys)?;
    let init = init::load(options.init.as_deref())?;
    let output = Output::begin(&options.output)?;
    let cache = Cache::open(&options.source.cache)?;
    let lock_path = options.lock.clone().unwrap_or_else(|| lock::beside(&options.recipe));

    let (lock, new_lock) = timings
        .run("resolve", || options.source.lock(&recipe, &lock_path, options.lock_policy, &cache, progress))?;
    let packages = timings.run("fetch", || options.source.fetch(&recipe, &lock, &cache, progress))?;
    let time = recipe.image.build_time.map_or(lock.index_date, |time| time.0);
    let identity = Identity::new(&recipe.image.id);
    let sizes = recipe.partitions.sizes();
    let os_release = os_release::text(&recipe.image);

    let kernel = timings.run("modules", || boot::kernel(part(&packages, "kernel"), &recipe, &mut notes))?;
    let tree = timings.run("compose", || {
        root::compose(&recipe, &options.recipe, &packages, &kernel, &init, &os_release, time, &mut notes)
    })?;
    let plan = root::plan(&tree, &identity, &sizes, time)?;
    timings.run("erofs", || root::write(&plan, &output))?;
    let verity = timings.run("verity", || root::verity(&plan, &output, &identity))?;
    let initramfs = timings.run("initramfs", || boot::initramfs(&init, &kernel, time))?;
    let uki =
        timings.run("uki", || boot::uki(&kernel, &recipe, &verity, &os_release, &initramfs, &keys, time))?;
    write(&output, UKI_FILE, &uki)?;
    timings.run("disk", || disk::write(&output, &uki, &identity, &sizes, time))?;
    timings.run("keys", || secure_boot(&output, &keys, &options.keys))?;

    let release = timings.run("release", || {
        release(&output, &recipe, &lock, &keys, &kernel.version, &uki, verity.root_hash, &init, time)
    })?;
    let mut json = serde_json::to_vec_pretty(&release)?;
    json.push(b'\n');
    write(&output, RELEASE_FILE, &json)?;
    // The lock file goes first: a release without the lock that it was built from could not be built again.
    if new_lock {
        lock.save(&lock_path)?;
    }
    output.finish()?;
    Ok(Built { release, timings, lock_written: new_lock.then_some(lock_path), notes })
}

/// What the firmware must know to start this release, beside the release.
fn secure_boot(output: &Output, keys: &KeyFolder, folder: &Path) -> Result<(), BuildError> {
    let directory = output.path(SECURE_BOOT_DIR);
    std::fs::create_dir(&directory).map_err(|e| BuildError::io("create", &directory, e))?;
    let variables = keys.secure_boot();
    for (name, list) in [("PK", &variables.pk), ("KEK", &variables.kek), ("db", &variables.db)] {
        write(output, &format!("{SECURE_BOOT_DIR}/{name}.esl"), list)?;
        let signed = folder.join(format!("{name}.auth"));
        let bytes =
            std::fs::read(&signed).map_err(|e| BuildError::input("read the signed variable", &signed, e))?;
        write(output, &format!("{SECURE_BOOT_DIR}/{name}.auth"), &bytes)?;
    }
    let certificate = ashlar_keys::certificate::pem(keys.db().certificate_der())?;
    write(output, &format!("{SECURE_BOOT_DIR}/db.crt"), certificate.as_bytes())
}

/// Measures what was built.
#[allow(clippy::too_many_arguments)] // each is one fact of the release
fn release(
    output: &Output,
    recipe: &Recipe,
    lock: &Lock,
    keys: &KeyFolder,
    kernel_version: &str,
    uki: &[u8],
    root_hash: Digest,
    init: &[u8],
    time: i64,
) -> Result<Release, BuildError> {
    let variables = keys.secure_boot();
    let authority = keys.db_authority();
    let pcrs = predict::predict(uki, &Site { variables: &variables, authority: &authority })?;
    let mut packages: Vec<release::Package> = Vec::new();
    for part in &lock.parts {
        for package in &part.packages {
            packages.push(release::Package {
                part: part.name.clone(),
                name: package.name.clone(),
                version: package.version.clone(),
                architecture: package.architecture.clone(),
                sha256: package.sha256.parse().map_err(|_| BuildError::BadLock {
                    path: PathBuf::from("image.lock"),
                    why: format!("the hash of `{}` is no SHA-256", package.name),
                })?,
            });
        }
    }
    packages.sort();
    let disk = output.path(DISK_FILE);
    let disk_size = std::fs::metadata(&disk).map_err(|e| BuildError::io("read the size of", &disk, e))?.len();
    Ok(Release {
        format: release::FORMAT,
        image_id: recipe.image.id.clone(),
        image_version: recipe.image.version.clone(),
        security_version: recipe.image.security_version,
        build_time: time,
        kernel: kernel_version.to_owned(),
        partition_sizes: recipe.partitions.sizes(),
        slot: release::SlotArtifacts {
            esp: artifact(output, ESP_FILE)?,
            root: artifact(output, ROOT_FILE)?,
            verity: artifact(output, VERITY_FILE)?,
        },
        disk: release::DiskImage { file: DISK_FILE.to_owned(), size: disk_size },
        root_hash,
        uki: boot::describe(uki, artifact(output, UKI_FILE)?)?,
        pcrs,
        init: Digest::of(init),
        packages,
    })
}

/// Adds the packages of a part to a tree.
fn unpack(tree: &mut ashlar_tree::Tree, packages: &[Package]) -> Result<(), BuildError> {
    Ok(ashlar_debian::compose(packages, tree)?)
}
