//! The root: its tree, the erofs image and the verity tree over it.

use super::kernel::{self, Kernel};
use super::parts::{ROOT_FILE, VERITY_FILE};
use super::{Build, part, trees, unpack};
use crate::compose;
use crate::error::BuildError;
use crate::identity::Identity;
use crate::output;
use crate::recipe::{self, Container};
use crate::store::{Entry, Key};
use ashlar_configure::Scripts;
use ashlar_debian::Package;
use ashlar_formats::erofs::{self, Plan};
use ashlar_formats::verity;
use ashlar_image::cmdline::VerityRoot;
use ashlar_image::digest::Digest;
use ashlar_image::hardening::{self, Expectation};
use ashlar_image::release::Artifact;
use ashlar_tree::Tree;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};

/// What the root is made from.
#[derive(Serialize)]
pub(super) struct Inputs<'a> {
    image: &'a recipe::Image,
    root: &'a recipe::Root,
    containers: &'a [Container],
    services: &'a BTreeMap<String, recipe::Service>,
    sources: &'a [recipe::Source],
    files: &'a [recipe::File],
    directories: &'a [recipe::Directory],
    symlinks: &'a [recipe::Symlink],
    users: &'a [recipe::User],
    groups: &'a [recipe::Group],
    packages: &'a [crate::lock::Part],
    host_files: Vec<Digest>,
    trees: Vec<Digest>,
    kernel: kernel::Inputs<'a>,
    init: Digest,
    control: Digest,
    update: Digest,
    time: i64,
}

impl<'a> Inputs<'a> {
    pub(super) fn new(build: &Build<'a>, kernel: kernel::Inputs<'a>, init: Digest) -> Self {
        let recipe = build.recipe;
        Self {
            image: &recipe.image,
            root: &recipe.root,
            containers: &recipe.containers,
            services: &recipe.services,
            sources: &recipe.sources,
            files: &recipe.files,
            directories: &recipe.directories,
            symlinks: &recipe.symlinks,
            users: &recipe.users,
            groups: &recipe.groups,
            packages: &build.lock.parts,
            host_files: build.files.digests(recipe),
            trees: build.trees.digests(),
            kernel,
            init,
            control: Digest::of(&build.programs.control),
            update: Digest::of(&build.programs.update),
            time: build.time,
        }
    }
}

/// A tree with what is to be said of it.
#[derive(Debug)]
pub(super) struct Composed {
    /// The tree.
    pub(super) tree: Tree,
    /// What a person may want to know.
    pub(super) notes: Vec<String>,
    /// What maintainer scripts would have done: what was done and what was left out, by part.
    pub(super) configured: BTreeMap<String, serde_json::Value>,
    /// What a machine that runs it must hold.
    pub(super) hardening: Vec<Expectation>,
}

/// A root of packages, configured: what their maintainer scripts would have done is done.
fn packaged(
    build: &Build<'_>,
    name: &str,
    packages: &[Package],
    modules: Option<Tree>,
    composed: &mut Composed,
) -> Result<Tree, BuildError> {
    let mut tree = compose::skeleton(build.time)?;
    unpack(&mut tree, packages)?;
    if let Some(modules) = modules {
        compose::graft_modules(&mut tree, &modules)?;
    }
    let scripts: Vec<Scripts<'_>> = packages
        .iter()
        .map(|package| Scripts {
            package: &package.locked.name,
            version: &package.locked.version,
            files: package.control_files().filter_map(|(name, text)| Some((name, text?))).collect(),
        })
        .collect();
    let root = name == "root";
    let recipe = build.recipe;
    let options = ashlar_configure::Options {
        time: build.time,
        users: if root { compose::users(recipe) } else { Vec::new() },
        groups: if root { compose::groups(recipe) } else { Vec::new() },
        time_zone: None,
        keep_package_database: (root && recipe.root.package_database)
            .then(|| packages.iter().map(Package::control).collect()),
    };
    let report = ashlar_configure::configure(&mut tree, &scripts, &options)?;
    let missing = report.missing().count();
    if missing > 0 {
        composed.notes.push(format!(
            "{name}: {missing} action(s) of maintainer scripts were left out; see `{REPORT_FILE}` in the release"
        ));
    }
    composed.configured.insert(name.to_owned(), serde_json::to_value(&report)?);
    Ok(tree)
}

/// A container's root file system and what its image says.
fn container<'a>(
    build: &Build<'a>,
    recipe: &'a Container,
    packages: &BTreeMap<String, Vec<Package>>,
    composed: &mut Composed,
) -> Result<compose::ContainerTree<'a>, BuildError> {
    let time = build.time;
    let name = format!("container {}", recipe.name);
    let (mut tree, defaults) = match build.trees.image(&recipe.name) {
        Some(image) => (image.source.tree.clone(), trees::defaults(recipe, image)?),
        None => {
            let tree = packaged(build, &name, part(packages, &name), None, composed)?;
            (tree, compose::ImageDefaults::default())
        }
    };
    compose::add_mount_points(&mut tree, time)?;
    for (into, source) in build.trees.over_container(&recipe.name) {
        compose::overlay(&mut tree, into, source)?;
    }
    compose::add_files(&mut tree, &recipe.files, build.recipe, build.files, time)?;
    for path in compose::remove(&mut tree, &recipe.remove) {
        composed.notes.push(format!("{name}: `{path}` was to be removed and is not there"));
    }
    Ok(compose::ContainerTree { recipe, tree, defaults })
}

/// The whole tree of the root. `kernel_packages` are there where the recipe wants all modules in it.
pub(super) fn compose(
    build: &Build<'_>,
    packages: &BTreeMap<String, Vec<Package>>,
    kernel: &Kernel,
    kernel_packages: Option<&[Package]>,
) -> Result<Composed, BuildError> {
    let (recipe, time) = (build.recipe, build.time);
    let mut composed = Composed {
        tree: compose::skeleton(time)?,
        notes: Vec::new(),
        configured: BTreeMap::new(),
        hardening: Vec::new(),
    };
    let modules = match kernel_packages {
        Some(packages) => {
            let mut tree = compose::skeleton(time)?;
            unpack(&mut tree, packages)?;
            Some(tree)
        }
        None => None,
    };
    let mut tree = packaged(build, "root", part(packages, "root"), modules, &mut composed)?;
    for (into, source) in build.trees.over_root() {
        compose::overlay(&mut tree, into, source)?;
    }
    for path in compose::remove(&mut tree, &recipe.root.remove) {
        composed.notes.push(format!("`{path}` was to be removed and is not there"));
    }
    let mut containers = Vec::new();
    for one in &recipe.containers {
        containers.push(container(build, one, packages, &mut composed)?);
    }
    let manifest =
        compose::add_system(&mut tree, recipe, containers, build.programs, build.os_release, time)?;
    compose::add_modules(&mut tree, &kernel.root_modules, time)?;
    compose::add_directories(&mut tree, &recipe.directories, time)?;
    compose::add_files(&mut tree, &recipe.files, recipe, build.files, time)?;
    compose::add_symlinks(&mut tree, &recipe.symlinks, time)?;
    compose::set_times(&mut tree, time);
    composed.hardening = hardening::expectations(&manifest);
    composed.tree = tree;
    Ok(composed)
}

/// The written root.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Root {
    /// The erofs image.
    pub(super) image: Artifact,
    /// The verity superblock and tree.
    pub(super) verity: Artifact,
    /// What opens it.
    #[serde(with = "verity_text")]
    pub(super) opened_by: VerityRoot,
    /// What a person may want to know.
    pub(super) notes: Vec<String>,
    /// What maintainer scripts would have done, by part.
    pub(super) configured: BTreeMap<String, serde_json::Value>,
    /// What a machine that runs it must hold.
    pub(super) hardening: Vec<Expectation>,
}

/// A [`VerityRoot`] as the words of the command line that name it.
mod verity_text {
    use ashlar_image::cmdline::VerityRoot;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(root: &VerityRoot, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(root)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<VerityRoot, D::Error> {
        VerityRoot::parse(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

/// Name of the report on maintainer scripts in a release's folder.
pub const REPORT_FILE: &str = "configuration.json";

const REST: &str = "root.json";

/// Refuses what does not fit.
fn fits(build: &Build<'_>, root: u64) -> Result<(), BuildError> {
    let sizes = build.recipe.partitions.sizes();
    let verity = ashlar_image::verity::size(root / erofs::BLOCK);
    for (name, needed, available) in [("root", root, sizes.root), ("verity", verity, sizes.verity)] {
        if needed > available {
            return Err(BuildError::TooLarge { part: name, needed, available });
        }
    }
    Ok(())
}

/// The recipe's choice in the writer's words.
fn compression(root: &recipe::Root) -> erofs::Compression {
    let level = |default| root.compression_level.map_or(default, u32::cast_signed);
    match root.compression {
        recipe::Compression::None => erofs::Compression::None,
        recipe::Compression::Lz4 => erofs::Compression::Lz4,
        recipe::Compression::Lz4hc => erofs::Compression::Lz4hc { level: level(9) },
        recipe::Compression::Zstd => erofs::Compression::Zstd { level: level(9) },
    }
}

/// Largest compressed piece in bytes; the recipe was checked.
fn cluster_size(root: &recipe::Root) -> u32 {
    root.cluster_size.and_then(|size| u32::try_from(size.0).ok()).unwrap_or(64 << 10)
}

/// Writes the erofs image and the verity tree over it, and keeps both.
pub(super) fn write(build: &Build<'_>, composed: &Composed, key: &Key) -> Result<Root, BuildError> {
    let identity = Identity::new(&build.recipe.image.id);
    let options = erofs::Options {
        uuid: identity.uuid("root"),
        volume_name: "root".into(),
        build_time: build.time,
        compression: compression(&build.recipe.root),
        cluster_size: cluster_size(&build.recipe.root),
        spool_folder: Some(build.output.folder().to_owned()),
    };
    let plan = Plan::new(&composed.tree, options)?;
    fits(build, plan.size())?;
    let create = |name: &str| {
        let path = build.output.path(name);
        File::create_new(&path).map_err(|e| BuildError::io("create", &path, e))
    };
    let mut root = verity::Hashing::new(create(ROOT_FILE)?, identity.salt());
    plan.write(&mut root)?;
    let (_, hashes) = root.finish()?;
    let image = Artifact { file: ROOT_FILE.to_owned(), size: plan.size(), sha256: hashes.sha256 };

    let mut out = BufWriter::with_capacity(1 << 20, create(VERITY_FILE)?);
    let opened_by = hashes.leaves.write(identity.uuid("verity"), &mut out)?;
    let path = build.output.path(VERITY_FILE);
    out.flush().map_err(|e| BuildError::io("write", &path, e))?;
    let (sha256, size) = output::digest(&path)?;
    let verity = Artifact { file: VERITY_FILE.to_owned(), size, sha256 };
    let root = Root {
        image,
        verity,
        opened_by,
        notes: composed.notes.clone(),
        configured: composed.configured.clone(),
        hardening: composed.hardening.clone(),
    };
    // What changed meanwhile must not be kept under the hash of what was there before.
    build.files.unchanged()?;
    build.trees.unchanged()?;
    let mut draft = build.store.draft()?;
    for artifact in [&root.image, &root.verity] {
        let entry = Entry { size: artifact.size, sha256: artifact.sha256 };
        draft.copy(&artifact.file, &build.output.path(&artifact.file), entry)?;
    }
    draft.write(REST, &serde_json::to_vec(&root)?)?;
    build.store.keep(draft, key)?;
    Ok(root)
}

/// The kept root, copied to the output; none when it is not there or damaged.
pub(super) fn restore(build: &Build<'_>, key: &Key) -> Result<Option<Root>, BuildError> {
    let store = build.store;
    let Some(item) = store.load(key)? else { return Ok(None) };
    let Some(rest) = store.read(&item, REST)? else { return Ok(None) };
    let root: Root = serde_json::from_slice(&rest)?;
    fits(build, root.image.size)?;
    let to = |name: &str| build.output.path(name);
    if store.copy(&item, ROOT_FILE, &to(ROOT_FILE))?.is_none() {
        return Ok(None);
    }
    if store.copy(&item, VERITY_FILE, &to(VERITY_FILE))?.is_none() {
        std::fs::remove_file(to(ROOT_FILE)).map_err(|e| BuildError::io("remove", &to(ROOT_FILE), e))?;
        return Ok(None);
    }
    Ok(Some(root))
}
