//! Lints a folder as if it were the root of an image, and says what it cost:
//!
//! ```text
//! cargo run --release -p ashlar-lint --example lint-folder -- FOLDER [CONFIG [INITRAMFS [MODULES.BUILTIN]]]
//! ```
//!
//! Owners and modes are the folder's; CONFIG is a kernel's configuration, INITRAMFS the folder of an unpacked initramfs,
//! MODULES.BUILTIN the kernel's list of what is built in. Containers and modules are looked for where Ashlar has them.

use ashlar_lint::{Compression, Container, HostFacts, Module, Modules, Subject, lint};
use ashlar_tree::{Content, Kind, Metadata, Node, Tree};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::sync::Arc;

fn node(path: &Path) -> std::io::Result<Option<Node>> {
    let found = std::fs::symlink_metadata(path)?;
    let kind = if found.is_dir() {
        Kind::Directory(std::collections::BTreeMap::new())
    } else if found.is_symlink() {
        Kind::Symlink(std::fs::read_link(path)?.into_os_string().into_encoded_bytes())
    } else if found.is_file() {
        Kind::File(Content::Range { path: Arc::new(path.to_owned()), offset: 0, len: found.len() })
    } else if found.file_type().is_char_device() {
        Kind::CharDevice { major: rustix::fs::major(found.rdev()), minor: rustix::fs::minor(found.rdev()) }
    } else {
        return Ok(None);
    };
    let metadata = Metadata {
        mode: found.mode() & 0o7777,
        uid: found.uid(),
        gid: found.gid(),
        mtime: found.mtime(),
        ..Metadata::default()
    };
    Ok(Some(Node { metadata, kind }))
}

fn load(tree: &mut Tree, folder: &Path, inside: &str) -> Result<(), Box<dyn std::error::Error>> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let path = format!("{inside}/{}", entry.file_name().to_string_lossy());
        if let Some(node) = node(&entry.path())? {
            let is_folder = matches!(node.kind, Kind::Directory(_));
            tree.insert(path.as_bytes(), node)?;
            if is_folder {
                load(tree, &entry.path(), &path)?;
            }
        }
    }
    Ok(())
}

/// The modules of a root or an initramfs, in the order in which init loads them.
fn modules(folder: &Path) -> std::io::Result<Vec<Module>> {
    let folder = folder.join("usr/lib/ashlar/modules");
    let Ok(order) = std::fs::read_to_string(folder.join("order")) else { return Ok(Vec::new()) };
    let mut out = Vec::new();
    for file in order.lines() {
        let name = file.strip_suffix(".ko").unwrap_or(file);
        let bytes = std::fs::read(folder.join(file))?;
        out.push(
            Module::from_bytes(name, &bytes)
                .ok_or_else(|| std::io::Error::other(format!("{file}: no module")))?,
        );
    }
    Ok(out)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().ok_or("usage: lint-folder FOLDER [CONFIG]")?;
    let config = arguments.next().map(std::fs::read_to_string).transpose()?;
    let initramfs =
        arguments.next().map(|folder| modules(Path::new(&folder))).transpose()?.unwrap_or_default();
    let built_in = arguments.next().map(std::fs::read_to_string).transpose()?.unwrap_or_default();
    let built_in: Vec<String> = built_in.lines().map(str::to_owned).collect();
    let root = modules(Path::new(&folder))?;
    let mut tree = Tree::new(Metadata::root(0o755, 0));
    load(&mut tree, Path::new(&folder), "")?;
    let prefix = "/usr/lib/ashlar/containers";
    let names: Vec<String> = tree
        .get(prefix.as_bytes())
        .and_then(Node::entries)
        .map(|entries| entries.keys().map(|name| String::from_utf8_lossy(name).into_owned()).collect())
        .unwrap_or_default();
    let prefixes: Vec<String> = names.iter().map(|name| format!("{prefix}/{name}/rootfs")).collect();
    let containers: Vec<Container<'_>> =
        names.iter().zip(&prefixes).map(|(name, prefix)| Container { name, prefix }).collect();
    let os_release = match tree.get_followed(b"/etc/os-release") {
        Some((_, Node { kind: Kind::File(content), .. })) => String::from_utf8(content.read()?)?,
        _ => String::new(),
    };
    let subject = Subject {
        tree: &tree,
        containers: &containers,
        os_release: &os_release,
        kernel_config: config.as_deref(),
        kernel_version: "",
        modules: Modules { initramfs: &initramfs, root: &root, built_in: &built_in },
        cmdline: "lockdown=integrity",
        compression: Compression::None,
        sizes: None,
        host: HostFacts::of_this_machine(&[Path::new(&folder)]),
        certificates: &[],
        own_files: &[],
        build_time: i64::MAX,
    };
    let seconds = || {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        #[allow(clippy::cast_precision_loss)] // milliseconds are printed
        let seconds = time.tv_sec as f64 + time.tv_nsec as f64 / 1e9;
        seconds
    };
    // Once to have the files in the page cache.
    lint(&subject, &[])?;
    let before = seconds();
    let report = lint(&subject, &[])?;
    let after = seconds();
    print!("{}", report.text());
    println!("{:.3} s of processor time", after - before);
    Ok(())
}
