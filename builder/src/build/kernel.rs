//! What starts the root: kernel, stub and modules from the kernel's packages, and the initramfs.

use super::{Build, unpack};
use crate::error::BuildError;
use crate::recipe::Recipe;
use crate::store::{Key, Store};
use ashlar_boot::modules::{self, Module};
use ashlar_debian::Package;
use ashlar_image::digest::Digest;
use ashlar_tree::Kind;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// What init itself needs before the switch of root: dm-verity and erofs for the root, dm-crypt and ext4 for the state
/// volume. A recipe need not name them.
const REQUIRED: [&str; 7] = ["dm_mod", "dm_verity", "erofs", "dm_crypt", "xts", "crc32c_generic", "ext4"];

/// The modules of the initramfs: the recipe's, then those that it does not name.
fn initramfs_modules(recipe: &Recipe) -> Vec<String> {
    let named = &recipe.kernel.initramfs_modules;
    let is_named = |name: &str| named.iter().any(|other| other.replace('-', "_") == name);
    let required = REQUIRED.into_iter().filter(|name| !is_named(name)).map(str::to_owned);
    named.iter().cloned().chain(required).collect()
}

/// What is taken from the kernel's packages.
#[derive(Debug)]
pub struct Kernel {
    /// Release (`uname -r`).
    pub version: String,
    /// The compressed kernel with its EFI stub.
    pub image: Vec<u8>,
    /// systemd-stub.
    pub stub: Vec<u8>,
    /// The kernel's configuration, as Debian ships it in `/boot`.
    pub config: Option<String>,
    /// Modules that init loads before it opens the root, dependencies first.
    pub initramfs_modules: Vec<Module>,
    /// Modules that init loads from the root, without those of the initramfs.
    pub root_modules: Vec<Module>,
    /// Modules that the recipe names and the kernel has built in.
    pub built_in: Vec<String>,
    /// All that is built into the kernel, as `modules.builtin` names it.
    pub all_built_in: Vec<String>,
}

/// What the kernel's stage is made from.
#[derive(Serialize)]
pub(super) struct Inputs<'a> {
    packages: &'a [ashlar_debian::Locked],
    initramfs_modules: Vec<String>,
    modules: &'a [String],
}

impl<'a> Inputs<'a> {
    pub(super) fn new(recipe: &'a Recipe, packages: &'a [ashlar_debian::Locked]) -> Self {
        Self { packages, initramfs_modules: initramfs_modules(recipe), modules: &recipe.kernel.modules }
    }
}

/// Takes kernel, stub and the named modules out of the kernel's packages.
pub(super) fn take(packages: &[Package], recipe: &Recipe) -> Result<Kernel, BuildError> {
    let mut tree = crate::compose::skeleton(0)?;
    unpack(&mut tree, packages)?;
    let version = ashlar_boot::kernel::version(&tree)?;
    let initramfs = modules::closure(&tree, &version, &initramfs_modules(recipe))?;
    let root = modules::closure(&tree, &version, &recipe.kernel.modules)?;
    let built_in: BTreeSet<String> = initramfs.built_in.into_iter().chain(root.built_in).collect();
    let early: BTreeSet<String> = initramfs.modules.iter().map(|module| module.name.clone()).collect();
    let config = format!("/boot/config-{version}");
    let text = |path: &str| match tree.get_followed(path.as_bytes()).map(|(_, node)| &node.kind) {
        Some(Kind::File(content)) => content.read().ok().and_then(|bytes| String::from_utf8(bytes).ok()),
        _ => None,
    };
    let config = text(&config);
    let all_built_in = text(&format!("/usr/lib/modules/{version}/modules.builtin")).unwrap_or_default();
    Ok(Kernel {
        image: ashlar_boot::kernel::image(&tree, &version)?,
        stub: ashlar_boot::kernel::stub(&tree)?,
        config,
        initramfs_modules: initramfs.modules,
        root_modules: root.modules.into_iter().filter(|module| !early.contains(&module.name)).collect(),
        built_in: built_in.into_iter().collect(),
        all_built_in: all_built_in.lines().map(str::to_owned).collect(),
        version,
    })
}

/// What is kept of a [`Kernel`] beside its large parts.
#[derive(Serialize, Deserialize)]
struct Kept {
    version: String,
    built_in: Vec<String>,
    all_built_in: Vec<String>,
    config: Option<String>,
    initramfs_modules: Vec<KeptModule>,
    root_modules: Vec<KeptModule>,
}

/// A module as a range of the file that holds all of them.
#[derive(Serialize, Deserialize)]
struct KeptModule {
    name: String,
    file_name: String,
    offset: usize,
    len: usize,
}

const LINUX: &str = "linux.efi";
const STUB: &str = "stub.efi";
const MODULES: &str = "modules.bin";
const REST: &str = "kernel.json";

/// Keeps a kernel for later builds.
pub(super) fn keep(kernel: &Kernel, store: &Store<'_>, key: &Key) -> Result<(), BuildError> {
    let mut bytes = Vec::new();
    let mut pack = |modules: &[Module]| -> Vec<KeptModule> {
        let one = |module: &Module| {
            let offset = bytes.len();
            bytes.extend_from_slice(&module.bytes);
            let (name, file_name) = (module.name.clone(), module.file_name.clone());
            KeptModule { name, file_name, offset, len: module.bytes.len() }
        };
        modules.iter().map(one).collect()
    };
    let kept = Kept {
        version: kernel.version.clone(),
        built_in: kernel.built_in.clone(),
        all_built_in: kernel.all_built_in.clone(),
        config: kernel.config.clone(),
        initramfs_modules: pack(&kernel.initramfs_modules),
        root_modules: pack(&kernel.root_modules),
    };
    let mut draft = store.draft()?;
    draft.write(LINUX, &kernel.image)?;
    draft.write(STUB, &kernel.stub)?;
    draft.write(MODULES, &bytes)?;
    draft.write(REST, &serde_json::to_vec(&kept)?)?;
    store.keep(draft, key)
}

/// Takes a kept kernel out again; none when it is not there or damaged.
pub(super) fn restore(store: &Store<'_>, key: &Key) -> Result<Option<Kernel>, BuildError> {
    let Some(item) = store.load(key)? else { return Ok(None) };
    let mut read = Vec::new();
    for name in [LINUX, STUB, MODULES, REST] {
        let Some(bytes) = store.read(&item, name)? else { return Ok(None) };
        read.push(bytes);
    }
    let Ok([image, stub, modules, rest]) = <[Vec<u8>; 4]>::try_from(read) else { return Ok(None) };
    let kept: Kept = serde_json::from_slice(&rest)?;
    let unpack = |list: Vec<KeptModule>| -> Option<Vec<Module>> {
        let one = |kept: KeptModule| {
            let bytes = modules.get(kept.offset..kept.offset.checked_add(kept.len)?)?;
            Some(Module { name: kept.name, file_name: kept.file_name, bytes: bytes.into() })
        };
        list.into_iter().map(one).collect()
    };
    let lists = unpack(kept.initramfs_modules).zip(unpack(kept.root_modules));
    Ok(lists.map(|(initramfs_modules, root_modules)| Kernel {
        version: kept.version,
        image,
        stub,
        config: kept.config,
        initramfs_modules,
        root_modules,
        built_in: kept.built_in,
        all_built_in: kept.all_built_in,
    }))
}

/// What the initramfs is made from beside the kernel's stage.
#[derive(Serialize)]
pub(super) struct InitramfsInputs<'a> {
    pub(super) kernel: Inputs<'a>,
    pub(super) init: Digest,
    pub(super) time: i64,
}

const INITRAMFS: &str = "initramfs.cpio.zst";

/// The compressed archive of init and its modules, kept for later builds.
pub(super) fn initramfs(build: &Build<'_>, kernel: &Kernel, key: &Key) -> Result<Vec<u8>, BuildError> {
    let bytes = ashlar_boot::initramfs::build(&build.programs.init, &kernel.initramfs_modules, build.time)?;
    let mut draft = build.store.draft()?;
    draft.write(INITRAMFS, &bytes)?;
    build.store.keep(draft, key)?;
    Ok(bytes)
}

/// The kept archive; none when it is not there or damaged.
pub(super) fn restore_initramfs(store: &Store<'_>, key: &Key) -> Result<Option<Vec<u8>>, BuildError> {
    match store.load(key)? {
        Some(item) => store.read(&item, INITRAMFS),
        None => Ok(None),
    }
}
