//! Composing the root: what the builder itself puts into the tree, and what it takes out.

use crate::error::BuildError;
use crate::recipe::{Container, File, Recipe};
use ashlar_boot::modules::Module;
use ashlar_image::manifest::{
    self, CONTAINERS_DIR, INIT_PATH, MANIFEST_PATH, MODULE_LIST, MODULES_DIR, Manifest,
};
use ashlar_tree::{Kind, Metadata, Node, Tree};
use std::path::Path;

/// An empty root with merged `/usr` and the mount points that init needs.
pub fn skeleton(time: i64) -> Result<Tree, BuildError> {
    let mut tree = Tree::new(Metadata::root(0o755, time));
    for (path, mode) in [
        ("/dev", 0o755),
        ("/etc", 0o755),
        ("/home", 0o755),
        ("/proc", 0o555),
        ("/root", 0o700),
        ("/run", 0o755),
        ("/sys", 0o555),
        ("/tmp", 0o1777),
        ("/usr/bin", 0o755),
        ("/usr/lib", 0o755),
        ("/usr/lib64", 0o755),
        ("/usr/sbin", 0o755),
        ("/var", 0o755),
    ] {
        tree.insert(path.as_bytes(), Node::directory(Metadata::root(mode, time)))?;
    }
    for name in ["bin", "lib", "lib64", "sbin"] {
        tree.insert(
            format!("/{name}").as_bytes(),
            Node::symlink(Metadata::root(0o777, time), format!("usr/{name}")),
        )?;
    }
    Ok(tree)
}

/// Adds to a container's root file system what its runtime mounts over and would have to make, were it not read
/// only. What is there already stays as it is.
pub fn add_mount_points(tree: &mut Tree, time: i64) -> Result<(), BuildError> {
    for (path, mode) in
        [("/dev", 0o755), ("/proc", 0o555), ("/run", 0o755), ("/sys", 0o555), ("/tmp", 0o1777)]
    {
        if tree.get(path.as_bytes()).is_none() {
            tree.insert(path.as_bytes(), Node::directory(Metadata::root(mode, time)))?;
        }
    }
    for path in ["/etc/hostname", "/etc/hosts", "/etc/resolv.conf"] {
        if tree.get(path.as_bytes()).is_none() {
            tree.insert(path.as_bytes(), Node::file(Metadata::root(0o644, time), *b""))?;
        }
    }
    Ok(())
}

/// Puts the modules that init loads from the root where it looks for them, with the list that gives the order.
pub fn add_modules(tree: &mut Tree, modules: &[Module], time: i64) -> Result<(), BuildError> {
    let mut order = String::new();
    for module in modules {
        let path = format!("{MODULES_DIR}/{}", module.file_name);
        tree.insert(path.as_bytes(), Node::file(Metadata::root(0o644, time), module.bytes.clone()))?;
        order.push_str(&module.file_name);
        order.push('\n');
    }
    let path = format!("{MODULES_DIR}/{MODULE_LIST}");
    tree.insert(path.as_bytes(), Node::file(Metadata::root(0o644, time), order.into_bytes()))?;
    Ok(())
}

/// Adds the files of the recipe; sources are relative to `folder`.
pub fn add_files(tree: &mut Tree, files: &[File], folder: &Path, time: i64) -> Result<(), BuildError> {
    for file in files {
        let bytes = match (&file.content, &file.source) {
            (Some(text), _) => text.clone().into_bytes(),
            (None, Some(source)) => {
                let path = folder.join(source);
                std::fs::read(&path)
                    .map_err(|e| BuildError::input("read the file of the recipe", &path, e))?
            }
            (None, None) => Vec::new(),
        };
        let mode = file.mode().unwrap_or(0o644);
        tree.insert(file.path.as_bytes(), Node::file(Metadata::root(mode, time), bytes))?;
    }
    Ok(())
}

/// Takes out the paths that the recipe names; those that are not there are returned.
pub fn remove<'a>(tree: &mut Tree, paths: &'a [String]) -> Vec<&'a str> {
    paths.iter().filter(|path| tree.remove(path.as_bytes()).is_none()).map(String::as_str).collect()
}

/// What the manifest says of a container; `defaults` is what its image's configuration says.
fn container(recipe: &Container, defaults: &ImageDefaults) -> manifest::Container {
    let mut environment = defaults.environment.clone();
    environment.extend(recipe.environment.clone());
    manifest::Container {
        command: if recipe.command.is_empty() { defaults.command.clone() } else { recipe.command.clone() },
        environment,
        working_directory: recipe
            .working_directory
            .clone()
            .or_else(|| defaults.working_directory.clone())
            .unwrap_or_else(|| "/".into()),
        uid: recipe.uid,
        gid: recipe.gid,
        capabilities: recipe.capabilities.clone(),
        network: recipe.network,
        memory_max: recipe.memory.map(|size| size.0),
        // The recipe was checked: 0.01 to 1024 processors.
        #[allow(clippy::cast_sign_loss)]
        cpu_milli: recipe.cpus.map(|cpus| (cpus * 1000.0).round() as u32),
        pids_max: recipe.pids,
        restart: recipe.restart,
    }
}

/// What an OCI image's configuration says where the recipe is silent.
#[derive(Debug, Clone, Default)]
pub struct ImageDefaults {
    /// Entry point and command.
    pub command: Vec<String>,
    /// Environment.
    pub environment: std::collections::BTreeMap<String, String>,
    /// Working directory.
    pub working_directory: Option<String>,
}

/// A container's recipe, its root file system and its image's defaults.
#[derive(Debug)]
pub struct ContainerTree<'a> {
    /// Its part of the recipe.
    pub recipe: &'a Container,
    /// Its root file system.
    pub tree: Tree,
    /// What its image says.
    pub defaults: ImageDefaults,
}

/// Puts the manifest, init, os-release and the containers into the root.
pub fn add_system(
    tree: &mut Tree,
    recipe: &Recipe,
    containers: Vec<ContainerTree<'_>>,
    init: &[u8],
    os_release: &str,
    time: i64,
) -> Result<(), BuildError> {
    let manifest = Manifest {
        image_id: recipe.image.id.clone(),
        image_version: recipe.image.version.clone(),
        hostname: recipe.image.hostname.clone().unwrap_or_else(|| recipe.image.id.clone()),
        build_time: time,
        containers: containers
            .iter()
            .map(|c| (c.recipe.name.clone(), container(c.recipe, &c.defaults)))
            .collect(),
        services: recipe.services.clone(),
    };
    let mut json = serde_json::to_vec_pretty(&manifest)?;
    json.push(b'\n');
    let file = |mode| Metadata::root(mode, time);
    tree.insert(MANIFEST_PATH.as_bytes(), Node::file(file(0o644), json))?;
    tree.insert(INIT_PATH.as_bytes(), Node::file(file(0o755), init.to_vec()))?;
    tree.insert(b"/usr/lib/os-release", Node::file(file(0o644), os_release.as_bytes().to_vec()))?;
    tree.insert(b"/etc/os-release", Node::symlink(file(0o777), "../usr/lib/os-release"))?;
    tree.insert(b"/etc/resolv.conf", Node::symlink(file(0o777), "../run/ashlar/resolv.conf"))?;
    tree.insert(b"/etc/hostname", Node::file(file(0o644), format!("{}\n", manifest.hostname).into_bytes()))?;
    tree.insert(b"/etc/passwd", Node::file(file(0o644), *b"root:x:0:0:root:/root:/usr/sbin/nologin\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"))?;
    tree.insert(b"/etc/group", Node::file(file(0o644), *b"root:x:0:\nnogroup:x:65534:\n"))?;
    for c in containers {
        let prefix = format!("{CONTAINERS_DIR}/{}/rootfs", c.recipe.name);
        graft(tree, &prefix, c.tree)?;
    }
    Ok(())
}

/// Hangs `part` into `tree` at `prefix`; hard links inside keep pointing inside.
fn graft(tree: &mut Tree, prefix: &str, mut part: Tree) -> Result<(), BuildError> {
    part.walk_mut(|node| {
        if let Kind::HardLink(target) = &mut node.kind {
            target.splice(0..0, prefix.bytes());
        }
    });
    tree.insert(prefix.as_bytes(), part.root().clone())?;
    Ok(())
}

/// Makes every time the image's time, so that package times and the order of builds do not matter.
pub fn set_times(tree: &mut Tree, time: i64) {
    tree.walk_mut(|node| node.metadata.mtime = node.metadata.mtime.clamp(0, time));
}
