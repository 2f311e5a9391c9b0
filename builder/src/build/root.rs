//! The root: its tree, the erofs image and the verity tree over it.

use super::boot::Kernel;
use super::{part, unpack};
use crate::compose;
use crate::error::BuildError;
use crate::identity::Identity;
use crate::output::Output;
use crate::recipe::{Container, Recipe};
use ashlar_debian::Package;
use ashlar_formats::erofs::{self, Plan};
use ashlar_formats::verity;
use ashlar_image::cmdline::VerityRoot;
use ashlar_image::layout::Sizes;
use ashlar_tree::Tree;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

/// Name of the root's erofs image in a release's folder.
pub const ROOT_FILE: &str = "root.erofs";
/// Name of its verity superblock and tree.
pub const VERITY_FILE: &str = "root.verity";

/// A container's root file system and what its image says.
fn container<'a>(
    recipe: &'a Container,
    recipe_folder: &Path,
    packages: &BTreeMap<String, Vec<Package>>,
    time: i64,
    notes: &mut Vec<String>,
) -> Result<compose::ContainerTree<'a>, BuildError> {
    let (mut tree, defaults) = match &recipe.oci_layout {
        Some(layout) => {
            let (tree, defaults, _) = crate::oci::load(&recipe_folder.join(layout))?;
            (tree, defaults)
        }
        None => {
            let mut tree = compose::skeleton(time)?;
            unpack(&mut tree, part(packages, &format!("container {}", recipe.name)))?;
            (tree, compose::ImageDefaults::default())
        }
    };
    compose::add_mount_points(&mut tree, time)?;
    compose::add_files(&mut tree, &recipe.files, recipe_folder, time)?;
    for path in compose::remove(&mut tree, &recipe.remove) {
        notes.push(format!("container `{}`: `{path}` was to be removed and is not there", recipe.name));
    }
    Ok(compose::ContainerTree { recipe, tree, defaults })
}

/// The whole tree of the root.
#[allow(clippy::too_many_arguments)] // each is one source of the tree
pub fn compose(
    recipe: &Recipe,
    recipe_path: &Path,
    packages: &BTreeMap<String, Vec<Package>>,
    kernel: &Kernel,
    init: &[u8],
    os_release: &str,
    time: i64,
    notes: &mut Vec<String>,
) -> Result<Tree, BuildError> {
    let folder = recipe_path.parent().unwrap_or(Path::new("."));
    let mut tree = compose::skeleton(time)?;
    unpack(&mut tree, part(packages, "root"))?;
    for path in compose::remove(&mut tree, &recipe.root.remove) {
        notes.push(format!("`{path}` was to be removed and is not there"));
    }
    let containers = recipe
        .containers
        .iter()
        .map(|recipe| container(recipe, folder, packages, time, notes))
        .collect::<Result<Vec<_>, _>>()?;
    compose::add_system(&mut tree, recipe, containers, init, os_release, time)?;
    compose::add_modules(&mut tree, &kernel.root_modules, time)?;
    compose::add_files(&mut tree, &recipe.files, folder, time)?;
    compose::set_times(&mut tree, time);
    Ok(tree)
}

/// Lays the root out and refuses what does not fit, before anything is written.
pub fn plan<'a>(
    tree: &'a Tree,
    identity: &Identity,
    sizes: &Sizes,
    time: i64,
) -> Result<Plan<'a>, BuildError> {
    let options =
        erofs::Options { uuid: identity.uuid("root"), volume_name: "root".into(), build_time: time };
    let plan = Plan::new(tree, options)?;
    let verity = ashlar_image::verity::size(plan.size() / erofs::BLOCK);
    for (name, needed, available) in [("root", plan.size(), sizes.root), ("verity", verity, sizes.verity)] {
        if needed > available {
            return Err(BuildError::TooLarge { part: name, needed, available });
        }
    }
    Ok(plan)
}

/// Writes the erofs image.
pub fn write(plan: &Plan<'_>, output: &Output) -> Result<(), BuildError> {
    let path = output.path(ROOT_FILE);
    let file = File::create(&path).map_err(|e| BuildError::io("create", &path, e))?;
    Ok(plan.write(&file)?)
}

/// Hashes the erofs image and writes superblock and tree.
pub fn verity(plan: &Plan<'_>, output: &Output, identity: &Identity) -> Result<VerityRoot, BuildError> {
    let data_path = output.path(ROOT_FILE);
    let data = File::open(&data_path).map_err(|e| BuildError::io("open", &data_path, e))?;
    let path = output.path(VERITY_FILE);
    let file = File::create(&path).map_err(|e| BuildError::io("create", &path, e))?;
    let mut out = BufWriter::with_capacity(1 << 20, file);
    let root = verity::write(&data, plan.size(), identity.salt(), identity.uuid("verity"), &mut out)?;
    out.flush().map_err(|e| BuildError::io("write", &path, e))?;
    Ok(root)
}
