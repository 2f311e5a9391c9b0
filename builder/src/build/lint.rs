//! Linting what was composed, before anything is signed.

use super::kernel::Kernel;
use super::root::{self, Root};
use super::{Build, Options};
use crate::error::BuildError;
use crate::recipe::{self, Recipe};
use crate::store::{Key, Store};
use ashlar_boot::modules::Module;
use ashlar_image::manifest::CONTAINERS_DIR;
use ashlar_lint::{Allow, HostFacts, PartitionBytes};
use ashlar_tree::Tree;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// What the lint has found.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LintOutcome {
    /// Number of errors.
    pub errors: usize,
    /// Number of warnings.
    pub warnings: usize,
    /// Number of notes.
    pub notes: usize,
    /// The report for people.
    pub text: String,
    /// The report for programs.
    pub report: serde_json::Value,
}

/// What the lint's result depends on.
#[derive(Serialize)]
pub(super) struct Inputs<'a> {
    root: &'a root::Inputs<'a>,
    lint: &'a recipe::Lint,
    partitions: &'a recipe::Partitions,
    cmdline: &'a str,
    host: (Option<String>, Option<String>, Option<String>, Vec<String>),
}

impl<'a> Inputs<'a> {
    pub(super) fn new(build: &Build<'a>, options: &Options, root: &'a root::Inputs<'a>) -> Self {
        let host = host(options);
        Self {
            root,
            lint: &build.recipe.lint,
            partitions: &build.recipe.partitions,
            cmdline: &build.recipe.kernel.cmdline,
            host: (host.host_name, host.user_name, host.home, host.paths),
        }
    }
}

/// What is looked at.
pub(super) struct Subject<'a> {
    pub(super) tree: &'a Tree,
    pub(super) root: &'a Root,
    pub(super) kernel: &'a Kernel,
    pub(super) initramfs: &'a [u8],
}

/// What of this machine has no business in an image.
fn host(options: &Options) -> HostFacts {
    let recipe = options.recipe.parent().filter(|folder| !folder.as_os_str().is_empty());
    HostFacts::of_this_machine(&[recipe.unwrap_or(Path::new(".")), &options.source.cache])
}

/// The recipe's allowances in the lint's words.
pub(super) fn allowances(recipe: &Recipe) -> Vec<Allow> {
    let one = |allow: &recipe::Allow| Allow {
        rule: allow.rule.clone(),
        path: allow.path.clone(),
        part: allow.part.clone(),
        reason: allow.reason.clone(),
    };
    recipe.lint.allow.iter().map(one).collect()
}

/// Modules with what they depend on; all of them were read when the closure was made.
fn with_dependencies(modules: &[Module]) -> Vec<ashlar_lint::Module> {
    let one = |module: &Module| ashlar_lint::Module::from_bytes(&module.name, &module.bytes);
    modules.iter().filter_map(one).collect()
}

/// Paths in the whole tree that no package brought.
fn own_files(recipe: &Recipe) -> Vec<String> {
    let root = recipe.files.iter().map(|file| file.path.clone());
    let containers = recipe.containers.iter().flat_map(|container| {
        let prefix = format!("{CONTAINERS_DIR}/{}/rootfs", container.name);
        container.files.iter().map(move |file| format!("{prefix}{}", file.path))
    });
    root.chain(containers).collect()
}

const KEPT: &str = "lint.json";

/// Lints, and keeps the result.
pub(super) fn run(
    build: &Build<'_>,
    subject: &Subject<'_>,
    options: &Options,
    key: &Key,
) -> Result<LintOutcome, BuildError> {
    let recipe = build.recipe;
    let prefixes: Vec<(&str, String)> = recipe
        .containers
        .iter()
        .map(|c| (c.name.as_str(), format!("{CONTAINERS_DIR}/{}/rootfs", c.name)))
        .collect();
    let containers: Vec<ashlar_lint::Container<'_>> =
        prefixes.iter().map(|(name, prefix)| ashlar_lint::Container { name, prefix }).collect();
    let kernel = subject.kernel;
    let (early, late) =
        (with_dependencies(&kernel.initramfs_modules), with_dependencies(&kernel.root_modules));
    // The UKI is signed later; its sections and a page for each, and one signature, come close enough.
    let uki = kernel.stub.len() + kernel.image.len() + subject.initramfs.len() + (64 << 10);
    let needed = PartitionBytes {
        esp: ashlar_formats::esp::required(uki as u64),
        root: subject.root.image.size,
        verity: subject.root.verity.size,
    };
    let sizes = ashlar_lint::Sizes {
        needed,
        partitions: PartitionBytes::from(&recipe.partitions.sizes()),
        smallest_in_field: recipe.lint.smallest_slot.map(|slot| PartitionBytes::from(&slot.sizes())),
    };
    let own_files = own_files(recipe);
    let whole = ashlar_lint::Subject {
        tree: subject.tree,
        containers: &containers,
        os_release: build.os_release,
        kernel_config: kernel.config.as_deref(),
        kernel_version: &kernel.version,
        modules: ashlar_lint::Modules { initramfs: &early, root: &late, built_in: &kernel.all_built_in },
        cmdline: &recipe.kernel.cmdline,
        compression: match recipe.root.compression {
            recipe::Compression::None => ashlar_lint::Compression::None,
            recipe::Compression::Lz4 | recipe::Compression::Lz4hc => ashlar_lint::Compression::Lz4,
            recipe::Compression::Zstd => ashlar_lint::Compression::Zstd,
        },
        sizes: Some(sizes),
        host: host(options),
        certificates: &[],
        own_files: &own_files,
        build_time: build.time,
    };
    let report = ashlar_lint::lint(&whole, &allowances(recipe))?;
    let outcome = LintOutcome {
        errors: report.errors,
        warnings: report.warnings,
        notes: report.notes,
        text: report.text(),
        report: serde_json::to_value(&report)?,
    };
    let mut draft = build.store.draft()?;
    draft.write(KEPT, &serde_json::to_vec(&outcome)?)?;
    build.store.keep(draft, key)?;
    Ok(outcome)
}

/// The kept result; none when it is not there or damaged.
pub(super) fn restore(store: &Store<'_>, key: &Key) -> Result<Option<LintOutcome>, BuildError> {
    let Some(item) = store.load(key)? else { return Ok(None) };
    let Some(bytes) = store.read(&item, KEPT)? else { return Ok(None) };
    Ok(Some(serde_json::from_slice(&bytes)?))
}
