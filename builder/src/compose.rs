//! Composing the root: what the builder itself puts into the tree, and what it takes out.

use crate::accounts;
use crate::build::{HostFiles, Programs};
use crate::error::BuildError;
use crate::recipe::{Container, Directory, File, Ownership, Recipe, Symlink, cpu_milli};
use ashlar_boot::modules::Module;
use ashlar_image::manifest::{
    self, CONTAINERS_DIR, CONTROL_PATH, INIT_PATH, MANIFEST_PATH, MODULE_LIST, MODULES_DIR, Manifest,
};
use ashlar_image::update::UPDATE_PATH;
use ashlar_tree::{Kind, Metadata, Node, Tree};

/// The accounts of a root whose packages bring none.
const ACCOUNTS: [(&str, &str); 2] = [
    (
        "/etc/passwd",
        "root:x:0:0:root:/root:/usr/sbin/nologin\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
    ),
    ("/etc/group", "root:x:0:\nnogroup:x:65534:\n"),
];

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

/// Metadata with what the recipe says.
fn owned(ownership: &Ownership, time: i64) -> Metadata {
    Metadata { uid: ownership.uid, gid: ownership.gid, ..Metadata::root(ownership.mode, time) }
}

/// Adds files of the recipe.
pub fn add_files(
    tree: &mut Tree,
    files: &[File],
    recipe: &Recipe,
    host: &HostFiles,
    time: i64,
) -> Result<(), BuildError> {
    for file in files {
        let ownership = file.ownership().unwrap_or_default();
        let kind = Kind::File(host.content(recipe, file));
        tree.replace(file.path.as_bytes(), Node { metadata: owned(&ownership, time), kind })?;
    }
    Ok(())
}

/// Adds directories of the recipe; one that is there gets mode and owner.
pub fn add_directories(tree: &mut Tree, directories: &[Directory], time: i64) -> Result<(), BuildError> {
    for directory in directories {
        let ownership = directory.ownership().unwrap_or_default();
        tree.insert(directory.path.as_bytes(), Node::directory(owned(&ownership, time)))?;
    }
    Ok(())
}

/// Adds symbolic links of the recipe.
pub fn add_symlinks(tree: &mut Tree, links: &[Symlink], time: i64) -> Result<(), BuildError> {
    for link in links {
        let node = Node::symlink(Metadata::root(0o777, time), link.target.clone());
        tree.insert(link.path.as_bytes(), node)?;
    }
    Ok(())
}

/// Takes out the paths that the recipe names; those that are not there are returned.
pub fn remove<'a>(tree: &mut Tree, paths: &'a [String]) -> Vec<&'a str> {
    let missing = tree.remove_all(paths.iter().map(String::as_bytes));
    paths.iter().map(String::as_str).filter(|path| missing.contains(&path.as_bytes())).collect()
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
        uid: recipe.uid.unwrap_or(defaults.user.0),
        gid: recipe.gid.unwrap_or(defaults.user.1),
        capabilities: recipe.capabilities.clone(),
        network: recipe.network,
        memory_max: recipe.memory.map(|size| size.0),
        cpu_milli: cpu_milli(recipe.cpus),
        pids_max: recipe.pids,
        files_max: recipe.open_files,
        start: recipe.start,
        restart: recipe.restart,
        debug: recipe.debug,
        supervision: recipe.supervision(),
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
    /// User and group.
    pub user: (u32, u32),
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

/// Puts the manifest, init, os-release and the containers into the root, and gives the manifest.
pub fn add_system(
    tree: &mut Tree,
    recipe: &Recipe,
    containers: Vec<ContainerTree<'_>>,
    programs: &Programs,
    os_release: &str,
    time: i64,
) -> Result<Manifest, BuildError> {
    // Names of users are looked up in them.
    for (path, text) in ACCOUNTS {
        if tree.get(path.as_bytes()).is_none() {
            let file = Node::file(Metadata::root(0o644, time), text.as_bytes().to_vec());
            tree.insert(path.as_bytes(), file)?;
        }
    }
    let services = recipe.services.iter().map(|(name, service)| {
        let identity = accounts::identity(tree, name, service)?;
        Ok((name.clone(), service.manifest(identity)))
    });
    let services = services.collect::<Result<_, BuildError>>()?;
    let manifest = Manifest {
        image_id: recipe.image.id.clone(),
        image_version: recipe.image.version.clone(),
        hostname: recipe.image.hostname.clone().unwrap_or_else(|| recipe.image.id.clone()),
        security_version: recipe.image.security_version,
        build_time: time,
        containers: containers
            .iter()
            .map(|c| (c.recipe.name.clone(), container(c.recipe, &c.defaults)))
            .collect(),
        services,
    };
    let mut json = serde_json::to_vec_pretty(&manifest)?;
    json.push(b'\n');
    let file = |mode| Metadata::root(mode, time);
    tree.insert(MANIFEST_PATH.as_bytes(), Node::file(file(0o644), json))?;
    tree.insert(INIT_PATH.as_bytes(), Node::file(file(0o755), programs.init.clone()))?;
    tree.insert(CONTROL_PATH.as_bytes(), Node::file(file(0o755), programs.control.clone()))?;
    tree.insert(UPDATE_PATH.as_bytes(), Node::file(file(0o755), programs.update.clone()))?;
    tree.insert(b"/usr/lib/os-release", Node::file(file(0o644), os_release.as_bytes().to_vec()))?;
    tree.insert(b"/etc/os-release", Node::symlink(file(0o777), "../usr/lib/os-release"))?;
    tree.insert(b"/etc/resolv.conf", Node::symlink(file(0o777), "../run/ashlar/resolv.conf"))?;
    tree.insert(b"/etc/hostname", Node::file(file(0o644), format!("{}\n", manifest.hostname).into_bytes()))?;
    for c in containers {
        let prefix = format!("{CONTAINERS_DIR}/{}/rootfs", c.recipe.name);
        graft(tree, &prefix, c.tree)?;
    }
    Ok(manifest)
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

/// Puts the kernel's folder of modules from `from` into `tree`.
pub fn graft_modules(tree: &mut Tree, from: &Tree) -> Result<(), BuildError> {
    const MODULES: &[u8] = b"/usr/lib/modules";
    if let Some(node) = from.get(MODULES) {
        tree.insert(MODULES, node.clone())?;
    }
    Ok(())
}

/// Lays `source` over `tree` at `into`: directories are joined, everything else is replaced.
pub fn overlay(tree: &mut Tree, into: &str, source: &Tree) -> Result<(), BuildError> {
    let base = into.trim_end_matches('/').as_bytes();
    overlay_node(tree, base, base, source.root())
}

fn overlay_node(tree: &mut Tree, base: &[u8], path: &[u8], node: &Node) -> Result<(), BuildError> {
    let Some(entries) = node.entries() else {
        let mut node = node.clone();
        if let Kind::HardLink(target) = &mut node.kind {
            target.splice(0..0, base.iter().copied());
        }
        tree.replace(path, node)?;
        return Ok(());
    };
    if !path.is_empty() {
        tree.insert(path, Node::directory(node.metadata.clone()))?;
    }
    for (name, child) in entries {
        overlay_node(tree, base, &[path, b"/", name].concat(), child)?;
    }
    Ok(())
}

/// The recipe's users.
pub fn users(recipe: &Recipe) -> Vec<ashlar_configure::User> {
    let one = |user: &crate::recipe::User| ashlar_configure::User {
        name: user.name.clone(),
        uid: user.uid,
        gid: user.gid,
        comment: user.description.clone().unwrap_or_default(),
        home: user.home.clone(),
        shell: user.shell.clone(),
        groups: user.groups.clone(),
        password_hash: user.password_hash.clone(),
    };
    recipe.users.iter().map(one).collect()
}

/// The recipe's groups.
pub fn groups(recipe: &Recipe) -> Vec<ashlar_configure::Group> {
    let one = |group: &crate::recipe::Group| ashlar_configure::Group {
        name: group.name.clone(),
        gid: group.gid,
        members: group.members.clone(),
    };
    recipe.groups.iter().map(one).collect()
}

/// Makes every time the image's time, so that package times and the order of builds do not matter.
pub fn set_times(tree: &mut Tree, time: i64) {
    tree.walk_mut(|node| node.metadata.mtime = node.metadata.mtime.clamp(0, time));
}
