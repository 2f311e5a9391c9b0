//! Recipe to release.
//!
//! The stages are a graph (`crate::graph`): packages are fetched, kernel and modules taken, the tree composed, linted
//! and written, the initramfs packed; then what must be signed is signed, and the disk, the prediction and the bills of
//! materials follow. Stages whose inputs did not change since an earlier build are not run again (`crate::store`).
//! Nothing appears at the output before all of them are done.

mod assemble;
mod disk;
mod inputs;
mod kernel;
mod lint;
pub mod materials;
mod offline;
mod outputs;
mod parts;
mod programs;
mod recorded;
mod root;
mod secure_boot;
mod stages;
mod trees;
mod uki;
mod verify;

use crate::error::BuildError;
use crate::lock::{self, Lock};
use crate::os_release;
use crate::output::Output;
use crate::packages::{LockPolicy, Source};
use crate::progress::Progresses;
use crate::recipe::Recipe;
use crate::store::Store;
use crate::timings::{self, Timings};
use ashlar_cache::Cache;
use ashlar_debian::Package;
use ashlar_image::digest::Digest;
use ashlar_image::release::Release;
use ashlar_keys::{KeyFolder, Role};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

pub use assemble::{Assembly, SECURE_BOOT_DIR, UKI_FILE, assemble};
pub use disk::{DISK_FILE, ESP_FILE};
pub use inputs::HostFiles;
pub use lint::LintOutcome;
pub use offline::{KEYS_DIR, Signed, SignedSummary, attach, build_unsigned, sign};
pub use outputs::OutputKind;
pub use parts::{Facts, Parts, ROOT_FILE, UKI_DIR, UNSIGNED_FILE, VERITY_FILE};
pub use programs::Programs;
pub use secure_boot::SecureBoot;
pub use uki::UkiSigners;
pub use verify::verify;

/// What to build and from what.
#[derive(Debug, Clone)]
pub struct Options {
    /// The recipe.
    pub recipe: PathBuf,
    /// The profiles of the recipe that are chosen, in this order.
    pub profiles: Vec<String>,
    /// The lock file; beside the recipe otherwise.
    pub lock: Option<PathBuf>,
    /// How the lock file is treated.
    pub lock_policy: LockPolicy,
    /// Where packages come from.
    pub source: Source,
    /// The init program; looked for beside this program otherwise.
    pub init: Option<PathBuf>,
    /// How many stages may run at once.
    pub jobs: usize,
    /// The forms of the release.
    pub outputs: BTreeSet<OutputKind>,
}

impl Options {
    fn assembly<'a>(&'a self, timings: &'a Timings) -> Assembly<'a> {
        Assembly { outputs: &self.outputs, jobs: self.jobs, timings }
    }
}

/// A finished build.
#[derive(Debug)]
pub struct Built {
    /// What was built; none when it waits for its signatures.
    pub release: Option<Release>,
    /// Where the time went.
    pub timings: timings::Report,
    /// The lock file, if it was written anew.
    pub lock_written: Option<PathBuf>,
    /// What a person may want to know: paths to remove that were not there, modules that the kernel has built in.
    pub notes: Vec<String>,
    /// What the lint has found; none when it ran before.
    pub lint: Option<LintOutcome>,
}

/// What the stages share.
pub(crate) struct Build<'a> {
    recipe: &'a Recipe,
    lock: &'a Lock,
    files: &'a HostFiles,
    trees: &'a trees::Trees,
    programs: &'a Programs,
    time: i64,
    os_release: &'a str,
    store: &'a Store<'a>,
    output: &'a Output,
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

/// Adds the packages of a part to a tree.
fn unpack(tree: &mut ashlar_tree::Tree, packages: &[Package]) -> Result<(), BuildError> {
    Ok(ashlar_debian::compose(packages, tree)?)
}

/// The hash of a package file.
fn package_digest(locked: &ashlar_debian::Locked) -> Result<Digest, BuildError> {
    locked.sha256.parse().map_err(|_| BuildError::BadLock {
        path: PathBuf::from("image.lock"),
        why: format!("the hash of `{}` is no SHA-256", locked.name),
    })
}

/// What the first half of a build has come to.
#[derive(Debug)]
pub struct Prepared {
    /// The release before it is signed.
    pub parts: Parts,
    /// The lock file, if it differs from what lies there.
    new_lock: Option<(Lock, PathBuf)>,
    /// What a person may want to know.
    pub notes: Vec<String>,
    /// What the lint has found.
    pub lint: LintOutcome,
}

impl Prepared {
    /// Refuses to go on to signing when the lint has found an error.
    fn signable(&self) -> Result<(), BuildError> {
        match self.lint.errors {
            0 => Ok(()),
            errors => Err(BuildError::Lint { errors, findings: self.lint.text.clone() }),
        }
    }

    /// Writes the lock file if it is new: a release without the lock that it was built from could not be built again.
    fn save_lock(&self) -> Result<Option<PathBuf>, BuildError> {
        match &self.new_lock {
            Some((lock, path)) => lock.save(path).map(|()| Some(path.clone())),
            None => Ok(None),
        }
    }
}

/// Runs the stages that need no key; root and verity tree are written to `output`.
pub fn prepare(
    options: &Options,
    output: &Output,
    timings: &Timings,
    progress: &dyn Progresses,
) -> Result<Prepared, BuildError> {
    let notes = progress.part();
    let recipe = Recipe::load(&options.recipe, &options.profiles)?;
    ashlar_lint::check_allows(&lint::allowances(&recipe))?;
    let programs = Programs::load(options.init.as_deref())?;
    let cache = Cache::open(&options.source.cache)?;
    let lock_path = options.lock.clone().unwrap_or_else(|| lock::beside(&options.recipe));
    let (lock, new_lock) = timings.run("resolve", || {
        options.source.lock(&recipe, &options.recipe, &lock_path, options.lock_policy, &cache, notes.as_ref())
    })?;
    let (files, trees) = timings.run("inputs", || {
        Ok::<_, BuildError>((
            HostFiles::read(&recipe)?,
            trees::Trees::read(&recipe, &lock, &options.source, &cache)?,
        ))
    })?;
    let store = Store::new(&cache, notes.as_ref())?;
    let time = recipe.image.build_time.map_or(lock.index_date, |time| time.0);
    let os_release = os_release::text(&recipe.image);
    let build = Build {
        recipe: &recipe,
        lock: &lock,
        files: &files,
        trees: &trees,
        programs: &programs,
        time,
        os_release: &os_release,
        store: &store,
        output,
    };
    let staged = stages::run(&build, options, &cache, timings, progress)?;
    let stages::Staged { parts, notes, lint } = staged;
    Ok(Prepared { parts, new_lock: new_lock.then_some((lock, lock_path)), notes, lint })
}

/// Builds a release with keys that are at hand.
pub fn build(
    options: &Options,
    keys: &KeyFolder,
    target: &Path,
    progress: &dyn Progresses,
) -> Result<Built, BuildError> {
    let timings = Timings::start();
    // A key that is missing is said before anything is built.
    keys.require(&[Role::Db, Role::Pcr])?;
    let secure_boot = SecureBoot::from_keys(keys)?;
    let output = Output::begin(target)?;
    let prepared = prepare(options, &output, &timings, progress)?;
    prepared.signable()?;
    let signers = UkiSigners { db: keys.db(), pcr: keys.pcr(), verify: true };
    let release = assemble(&prepared.parts, &output, signers, &secure_boot, options.assembly(&timings))?;
    let lock_written = prepared.save_lock()?;
    output.finish()?;
    Ok(Built {
        release: Some(release),
        timings: timings.report(),
        lock_written,
        notes: prepared.notes,
        lint: Some(prepared.lint),
    })
}

/// Composes and lints, in a temporary folder; nothing is signed and nothing stays.
pub fn lint(options: &Options, progress: &dyn Progresses) -> Result<LintOutcome, BuildError> {
    let timings = Timings::start();
    let folder = temporary_folder()?;
    let output = Output::begin(&folder.path().join("linted"))?;
    Ok(prepare(options, &output, &timings, progress)?.lint)
}

/// A folder that is gone when it is dropped.
fn temporary_folder() -> Result<tempfile::TempDir, BuildError> {
    let fail = |e| BuildError::io("create a temporary folder in", &std::env::temp_dir(), e);
    tempfile::Builder::new().prefix("ashlar-").tempdir().map_err(fail)
}
