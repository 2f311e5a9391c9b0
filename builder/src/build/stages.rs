//! The graph of the stages that need no key.

use super::parts::{Facts, Parts};
use super::{Build, LintOutcome, Options, kernel, lint, materials, package_digest, part, root, write};
use crate::error::BuildError;
use crate::graph::Graph;
use crate::lock::Lock;
use crate::progress::Progresses;
use crate::timings::Timings;
use ashlar_cache::Cache;
use ashlar_debian::Package;
use ashlar_image::digest::Digest;
use ashlar_image::release;

/// What the graph has come to.
pub(super) struct Staged {
    pub(super) parts: Parts,
    pub(super) notes: Vec<String>,
    pub(super) lint: LintOutcome,
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

/// Runs them; root and verity tree are written to the output.
pub(super) fn run(
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
    let init = Digest::of(&build.programs.init);
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
        control: Digest::of(&build.programs.control),
        update: Digest::of(&build.programs.update),
        more_pcr7: recipe.state.pcr7.clone(),
        hardening: root.hardening.clone(),
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
