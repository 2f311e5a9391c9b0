//! Recipe to release.
//!
//! The stages are a graph (`crate::graph`): packages are fetched, kernel and modules taken, the tree composed, linted
//! and written, the initramfs packed; then what must be signed is signed, and the disk, the prediction and the bills of
//! materials follow. Stages whose inputs did not change since an earlier build are not run again (`crate::store`).
//! Nothing appears at the output before all of them are done.

mod assemble;
mod disk;
mod init;
mod inputs;
mod kernel;
mod lint;
pub mod materials;
mod outputs;
mod parts;
mod recorded;
mod root;
mod secure_boot;
mod trees;
mod uki;
mod verify;

use crate::error::BuildError;
use crate::graph::Graph;
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
use ashlar_image::release::{self, Release};
use ashlar_keys::offline::{About, Recorder, SignatureSet, SigningRequest};
use ashlar_keys::{KeyError, KeyFolder, Role};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

pub use assemble::{Assembly, SECURE_BOOT_DIR, UKI_FILE, assemble};
pub use disk::{DISK_FILE, ESP_FILE};
pub use inputs::HostFiles;
pub use lint::LintOutcome;
pub use outputs::OutputKind;
pub use parts::{Facts, Parts, ROOT_FILE, UKI_DIR, UNSIGNED_FILE, VERITY_FILE};
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
    init: &'a [u8],
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

/// Every package of a lock, sorted.
fn package_list(lock: &Lock) -> Result<Vec<release::Package>, BuildError> {
    let mut packages = Vec::new();
    for part in &lock.parts {
        for package in &part.packages {
            packages.push(release::Package {
                part: part.name.clone(),
                name: package.name.clone(),
                version: package.version.clone(),
                architecture: package.architecture.clone(),
                sha256: package_digest(package)?,
            });
        }
    }
    packages.sort();
    Ok(packages)
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

/// What the graph has come to.
struct Staged {
    parts: Parts,
    notes: Vec<String>,
    lint: LintOutcome,
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
///
/// `pcr_public_key` is the key of the PCR policy, in PEM; it is part of the UKI.
pub fn prepare(
    options: &Options,
    output: &Output,
    timings: &Timings,
    progress: &dyn Progresses,
) -> Result<Prepared, BuildError> {
    let notes = progress.part();
    let recipe = Recipe::load(&options.recipe, &options.profiles)?;
    ashlar_lint::check_allows(&lint::allowances(&recipe))?;
    let init = init::load(options.init.as_deref())?;
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
        init: &init,
        time,
        os_release: &os_release,
        store: &store,
        output,
    };
    let staged = stages(&build, options, &cache, timings, progress)?;
    files.unchanged()?;
    trees.unchanged()?;
    let Staged { parts, notes, lint } = staged;
    Ok(Prepared { parts, new_lock: new_lock.then_some((lock, lock_path)), notes, lint })
}

/// The graph of the stages that need no key.
fn stages(
    build: &Build<'_>,
    options: &Options,
    cache: &Cache,
    timings: &Timings,
    progress: &dyn Progresses,
) -> Result<Staged, BuildError> {
    let (recipe, lock, store) = (build.recipe, build.lock, build.store);
    let kernel_packages = lock.part("kernel");
    let kernel_inputs = || kernel::Inputs::new(recipe, kernel_packages);
    let kernel_key = store.key("kernel", &kernel_inputs())?;
    let init = Digest::of(build.init);
    let initramfs_inputs = kernel::InitramfsInputs { kernel: kernel_inputs(), init, time: build.time };
    let initramfs_key = store.key("initramfs", &initramfs_inputs)?;
    let licences_key = store.key("licences", &lock.parts)?;
    let root_inputs = root::Inputs::new(build, kernel_inputs(), init);
    let root_key = store.key("root", &root_inputs)?;
    let lint_key = store.key("lint", &lint::Inputs::new(build, options, &root_inputs))?;

    let others: &[&str] = &lock
        .parts
        .iter()
        .map(|part| part.name.as_str())
        .filter(|name| *name != "kernel")
        .collect::<Vec<_>>();
    let fetch = &|names: &[&str]| {
        let progress = progress.part();
        options.source.fetch(recipe, &options.recipe, lock, names, cache, progress.as_ref())
    };
    let keys = (&kernel_key, &initramfs_key, &licences_key, &root_key, &lint_key);
    let (kernel_key, initramfs_key, licences_key, root_key, lint_key) = keys;

    let mut graph = Graph::default();
    let fetched_kernel = graph.stage("fetch kernel", &[], move |_| fetch(&["kernel"]));
    let fetched = graph.stage("fetch", &[], move |_| fetch(others));
    let kernel = graph.kept_stage(
        "kernel",
        &[fetched_kernel.id()],
        move || kernel::restore(store, kernel_key),
        move |results| {
            let kernel = kernel::take(part(results.get(fetched_kernel), "kernel"), recipe)?;
            kernel::keep(&kernel, store, kernel_key)?;
            Ok(kernel)
        },
    );
    let initramfs = graph.kept_stage(
        "initramfs",
        &[kernel.id()],
        move || kernel::restore_initramfs(store, initramfs_key),
        move |results| kernel::initramfs(build, results.get(kernel), initramfs_key),
    );
    let licences = graph.kept_stage(
        "licences",
        &[fetched_kernel.id(), fetched.id()],
        move || materials::restore(store, licences_key),
        move |results| {
            let all = results.get(fetched_kernel).iter().chain(results.get(fetched));
            let all: Vec<(&str, &[Package])> =
                all.map(|(name, packages)| (name.as_str(), packages.as_slice())).collect();
            materials::packages(build, &all, licences_key)
        },
    );
    let mut tree_needs = vec![fetched.id(), kernel.id()];
    if recipe.root.all_modules {
        tree_needs.push(fetched_kernel.id());
    }
    let tree = graph.stage("compose", &tree_needs, move |results| {
        let all = recipe.root.all_modules.then(|| part(results.get(fetched_kernel), "kernel"));
        root::compose(build, results.get(fetched), results.get(kernel), all)
    });
    let root = graph.kept_stage(
        "root",
        &[tree.id()],
        move || root::restore(build, root_key),
        move |results| root::write(build, results.get(tree), root_key),
    );
    let linted = graph.kept_stage(
        "lint",
        &[tree.id(), root.id(), kernel.id(), initramfs.id()],
        move || lint::restore(store, lint_key),
        move |results| {
            let subject = lint::Subject {
                tree: &results.get(tree).tree,
                root: results.get(root),
                kernel: results.get(kernel),
                initramfs: results.get::<Vec<u8>>(initramfs),
            };
            lint::run(build, &subject, options, lint_key)
        },
    );
    let wanted = [kernel.id(), initramfs.id(), licences.id(), root.id(), linted.id()];
    let results = graph.run(&wanted, options.jobs, timings)?;

    let (kernel, root) = (results.get(kernel), results.get(root));
    let mut configured = serde_json::to_vec_pretty(&root.configured)?;
    configured.push(b'\n');
    write(build.output, root::REPORT_FILE, &configured)?;
    let mut notes = root.notes.clone();
    notes.extend(build.trees.notes().cloned());
    if !kernel.built_in.is_empty() {
        notes.push(format!("built into the kernel, so no modules: {}", kernel.built_in.join(", ")));
    }
    let words: Vec<&str> = recipe.kernel.cmdline.split_ascii_whitespace().collect();
    let (containers, sources) = materials::origins(build);
    let facts = Facts {
        format: Facts::FORMAT,
        image_id: recipe.image.id.clone(),
        image_version: recipe.image.version.clone(),
        security_version: recipe.image.security_version,
        build_time: build.time,
        kernel: kernel.version.clone(),
        partition_sizes: recipe.partitions.sizes(),
        root: root.image.clone(),
        verity: root.verity.clone(),
        root_hash: root.opened_by.root_hash,
        init,
        packages: package_list(lock)?,
        os_release: build.os_release.to_owned(),
        cmdline: format!("{} {}", words.join(" "), root.opened_by).trim_start().to_owned(),
        materials: materials::Materials {
            indexes: lock.indexes()?,
            packages: results.get(licences).clone(),
            containers,
            sources,
            recipe: materials::recipe_digest(recipe),
            profiles: recipe.profiles.clone(),
        },
    };
    let parts = Parts {
        facts,
        stub: kernel.stub.clone(),
        kernel: kernel.image.clone(),
        initramfs: results.get(initramfs).clone(),
    };
    Ok(Staged { parts, notes, lint: results.get(linted).clone() })
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

/// Builds all but what needs a key, for signing elsewhere. Only public halves of keys are read.
pub fn build_unsigned(
    options: &Options,
    keys: &KeyFolder,
    target: &Path,
    progress: &dyn Progresses,
) -> Result<Built, BuildError> {
    let timings = Timings::start();
    let secure_boot = SecureBoot::from_keys(keys)?;
    let output = Output::begin(target)?;
    let prepared = prepare(options, &output, &timings, progress)?;
    prepared.signable()?;
    prepared.parts.save(&output)?;
    assemble::enrolment(&output, &secure_boot)?;
    public_halves(keys, &output)?;
    let lock_written = prepared.save_lock()?;
    output.finish()?;
    Ok(Built {
        release: None,
        timings: timings.report(),
        lock_written,
        notes: prepared.notes,
        lint: Some(prepared.lint),
    })
}

/// Folder of an unsigned release with the public halves of its keys.
pub const KEYS_DIR: &str = "keys";

/// Puts the public halves of all keys beside an unsigned release: what finishes it later must be the same owner's.
fn public_halves(keys: &KeyFolder, output: &Output) -> Result<(), BuildError> {
    let folder = output.path(KEYS_DIR);
    std::fs::create_dir(&folder).map_err(|e| BuildError::io("create", &folder, e))?;
    let fail = |e| BuildError::input("read the key folder", keys.path(), e);
    for entry in std::fs::read_dir(keys.path()).map_err(fail)? {
        let name = entry.map_err(fail)?.file_name().to_string_lossy().into_owned();
        if [".crt", ".pub", ".esl", ".auth", ".guid"].iter().any(|ending| name.ends_with(ending)) {
            let bytes = std::fs::read(keys.path().join(&name)).map_err(fail)?;
            write(output, &format!("{KEYS_DIR}/{name}"), &bytes)?;
        }
    }
    Ok(())
}

/// What [`sign`] has come to.
#[derive(Debug)]
pub struct Signed {
    /// What was asked for and has no signature yet.
    pub request: SigningRequest,
    /// The signatures, older ones included.
    pub answers: SignatureSet,
    /// What was signed, when nothing is missing: for the person whose keys they are.
    pub summary: Option<SignedSummary>,
}

/// What the signatures of a release are about.
#[derive(Debug, Clone, Copy)]
pub struct SignedSummary {
    /// Authenticode SHA-256 of the UKI: what the db key has signed.
    pub authenticode: Digest,
    /// PCR 11 in which the state volume opens: what the pcr key has signed.
    pub pcr11: Digest,
}

/// Signs the unsigned release in `folder` with those keys of `roles`, where `answers` do not have the signature already.
pub fn sign(
    folder: &Path,
    keys: &KeyFolder,
    roles: &[Role],
    answers: SignatureSet,
) -> Result<Signed, BuildError> {
    let parts = Parts::load(folder)?;
    // They may have stayed at home; then `attach` sees whose signatures these are.
    let wanted = folder.join(KEYS_DIR);
    if wanted.exists() {
        let wanted = KeyFolder::open(&wanted)?;
        for role in Role::BUILD {
            if wanted.fingerprint(role)? != keys.fingerprint(role)? {
                return Err(BuildError::OtherKeys { role: role.to_string(), keys: keys.path().to_owned() });
            }
        }
    }
    let recorder = Recorder::new(answers);
    let recording = keys.answering(&recorder, roles)?;
    let signers = UkiSigners { db: recording.db(), pcr: recording.pcr(), verify: true };
    let summary = match uki::sign(&parts, signers) {
        Ok(signed) => Some(uki::summary(&signed)?),
        Err(BuildError::Keys(KeyError::Unanswered(_))) => None,
        Err(error) => return Err(error),
    };
    let about = About {
        image_id: parts.facts.image_id.clone(),
        image_version: parts.facts.image_version.clone(),
        root_hash: Some(parts.facts.root_hash),
        cmdline: Some(parts.facts.cmdline.clone()),
    };
    Ok(Signed { request: recorder.request(about), answers: recorder.answers(), summary })
}

/// Makes a release from an unsigned one and its signatures: the same bytes as if it had been signed at once.
pub fn attach(
    folder: &Path,
    answers: SignatureSet,
    target: &Path,
    outputs: &BTreeSet<OutputKind>,
    jobs: usize,
) -> Result<Built, BuildError> {
    let timings = Timings::start();
    let parts = Parts::load(folder)?;
    let keys = KeyFolder::open(&folder.join(KEYS_DIR))?.replaying(answers)?;
    let secure_boot = SecureBoot::from_keys(&keys)?;
    let output = Output::begin(target)?;
    let copy = |name: &str| {
        let (from, to) = (folder.join(name), output.path(name));
        crate::output::copy(&from, &to).map(|()| (from, to))
    };
    copy(root::REPORT_FILE)?;
    for artifact in [&parts.facts.root, &parts.facts.verity] {
        let (from, to) = copy(&artifact.file)?;
        let (sha256, size) = crate::output::digest(&to)?;
        if (sha256, size) != (artifact.sha256, artifact.size) {
            let why = format!("`{}` is not the file that it describes", artifact.file);
            return Err(BuildError::NotUnsigned { path: from, why });
        }
    }
    let signers = UkiSigners { db: keys.db(), pcr: keys.pcr(), verify: true };
    let release =
        assemble(&parts, &output, signers, &secure_boot, Assembly { outputs, jobs, timings: &timings })?;
    output.finish()?;
    Ok(Built {
        release: Some(release),
        timings: timings.report(),
        lock_written: None,
        notes: Vec::new(),
        lint: None,
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
