//! Trees from the host's files and back, and judges with a deadline.
#![allow(dead_code)]

use ashlar_tree::{Content, Kind, Metadata, Node, Tree};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub fn empty() -> Tree {
    Tree::new(Metadata::root(0o755, 0))
}

/// An empty root with merged `/usr`.
pub fn merged() -> Tree {
    let mut tree = empty();
    for path in ["/usr/bin", "/usr/lib", "/usr/sbin", "/etc", "/var", "/root"] {
        tree.insert(path.as_bytes(), Node::directory(Metadata::root(0o755, 0))).unwrap();
    }
    for name in ["bin", "lib", "sbin"] {
        let node = Node::symlink(Metadata::root(0o777, 0), format!("usr/{name}"));
        tree.insert(format!("/{name}").as_bytes(), node).unwrap();
    }
    tree
}

pub fn put(tree: &mut Tree, path: &str, text: &str) {
    tree.insert(path.as_bytes(), Node::file(Metadata::root(0o644, 0), text.as_bytes().to_vec())).unwrap();
}

/// Adds a file or a folder of the host to the tree; what is neither file, folder nor link is passed over.
pub fn add_host(tree: &mut Tree, from: &Path, to: &str) {
    let Ok(metadata) = std::fs::symlink_metadata(from) else { return };
    let meta = Metadata::root(metadata.permissions().mode() & 0o7777, 0);
    if metadata.is_symlink() {
        let target = std::fs::read_link(from).unwrap();
        tree.insert(to.as_bytes(), Node::symlink(meta, target.as_os_str().as_bytes())).unwrap();
    } else if metadata.is_dir() {
        tree.insert(to.as_bytes(), Node::directory(meta)).unwrap();
        let Ok(entries) = std::fs::read_dir(from) else { return };
        for entry in entries.flatten() {
            if let Some(name) = entry.file_name().to_str() {
                add_host(tree, &entry.path(), &format!("{to}/{name}"));
            }
        }
    } else if metadata.is_file() && std::fs::File::open(from).is_ok() {
        let content = Content::Range { path: Arc::new(from.to_owned()), offset: 0, len: metadata.size() };
        tree.insert(to.as_bytes(), Node { metadata: meta, kind: Kind::File(content) }).unwrap();
    }
}

/// Writes the tree below `folder`: folders, files and links, modes kept, owners not.
pub fn write_out(tree: &Tree, folder: &Path) {
    tree.walk(|path, node| {
        let path = std::ffi::OsStr::from_bytes(path.strip_prefix(b"/").unwrap_or(path));
        let path: PathBuf = folder.join(path);
        match &node.kind {
            Kind::Directory(_) => std::fs::create_dir_all(&path).unwrap(),
            Kind::File(content) => {
                std::fs::write(&path, content.read().unwrap()).unwrap();
                let mode = std::fs::Permissions::from_mode(node.metadata.mode);
                std::fs::set_permissions(&path, mode).unwrap();
            }
            Kind::Symlink(target) => {
                std::os::unix::fs::symlink(std::ffi::OsStr::from_bytes(target), &path).unwrap();
            }
            _ => {}
        }
    });
}

pub fn text(tree: &Tree, path: &str) -> String {
    String::from_utf8(bytes(tree, path)).unwrap()
}

pub fn bytes(tree: &Tree, path: &str) -> Vec<u8> {
    match &tree.get_followed(path.as_bytes()).unwrap_or_else(|| panic!("no {path}")).1.kind {
        Kind::File(content) => content.read().unwrap(),
        other => panic!("{path} is {other:?}"),
    }
}

pub fn target(tree: &Tree, path: &str) -> Option<String> {
    match &tree.get(path.as_bytes())?.kind {
        Kind::Symlink(target) => Some(String::from_utf8(target.clone()).unwrap()),
        _ => None,
    }
}

/// Where a tool is, or a message that the test is skipped. The folder `ASHLAR_TOOLS` is looked at first.
pub fn tool(name: &str) -> Option<PathBuf> {
    let first = std::env::var_os("ASHLAR_TOOLS").map(PathBuf::from);
    let found = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"].map(PathBuf::from);
    let found = first.into_iter().chain(found).map(|folder| folder.join(name)).find(|path| path.exists());
    if found.is_none() {
        eprintln!("skipped: no {name} on this machine");
    }
    found
}

/// Runs a judge for at most a minute, in the C locale.
pub fn run(command: &mut Command) -> Output {
    command.env("LC_ALL", "C").env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| std::fs::File::create(folder.path().join(name)).unwrap();
    let (out, error) = (file("out"), file("error"));
    let mut child = command.stdin(Stdio::null()).stdout(out).stderr(error).spawn().unwrap();
    let end = Instant::now() + Duration::from_secs(60);
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if Instant::now() > end {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("{command:?} does not end");
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    let read = |name: &str| std::fs::read(folder.path().join(name)).unwrap();
    Output { status, stdout: read("out"), stderr: read("error") }
}

pub fn succeed(command: &mut Command) -> String {
    let output = run(command);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{command:?}: {error}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
