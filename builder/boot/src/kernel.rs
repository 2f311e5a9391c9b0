//! Where Debian's packages put the kernel and systemd-stub.

use ashlar_tree::{Kind, Tree};

/// Folder with one folder of modules for each kernel.
const MODULES: &str = "/usr/lib/modules";
/// systemd-stub for x86-64, in the package `systemd-boot-efi`.
const STUB: &str = "/usr/lib/systemd/boot/efi/linuxx64.efi.stub";

/// Why kernel or stub could not be taken from the tree.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// No kernel is there.
    #[error("there is no kernel in `{MODULES}`; name one in `kernel.package`, such as linux-image-amd64")]
    None,
    /// More than one kernel is there.
    #[error("there is more than one kernel: {}; name a package that brings one only", .0.join(", "))]
    Several(Vec<String>),
    /// A file is missing or is no file.
    #[error("there is no file `{path}`; it comes with the package {package}")]
    Missing {
        /// The file.
        path: String,
        /// The package that brings it in Debian.
        package: &'static str,
    },
    /// A file cannot be read.
    #[error("cannot read `{path}`: {source}")]
    Read {
        /// The file in the tree.
        path: String,
        /// Why not.
        source: std::io::Error,
    },
}

/// The release of the one kernel in the tree (`uname -r`).
pub fn version(tree: &Tree) -> Result<String, KernelError> {
    let entries = tree.get_followed(MODULES.as_bytes()).and_then(|(_, node)| node.entries());
    let mut names: Vec<String> = entries
        .into_iter()
        .flatten()
        .filter(|(_, node)| matches!(node.kind, Kind::Directory(_)))
        .map(|(name, _)| String::from_utf8_lossy(name).into_owned())
        .collect();
    match names.len() {
        0 => Err(KernelError::None),
        1 => Ok(names.remove(0)),
        _ => Err(KernelError::Several(names)),
    }
}

fn file(tree: &Tree, path: String, package: &'static str) -> Result<Vec<u8>, KernelError> {
    match tree.get_followed(path.as_bytes()).map(|(_, node)| &node.kind) {
        Some(Kind::File(content)) => content.read().map_err(|source| KernelError::Read { path, source }),
        _ => Err(KernelError::Missing { path, package }),
    }
}

/// The compressed kernel of this version, with its EFI stub.
pub fn image(tree: &Tree, version: &str) -> Result<Vec<u8>, KernelError> {
    file(tree, format!("/boot/vmlinuz-{version}"), "linux-image-*")
}

/// systemd-stub.
pub fn stub(tree: &Tree) -> Result<Vec<u8>, KernelError> {
    file(tree, STUB.to_owned(), "systemd-boot-efi")
}

#[cfg(test)]
mod tests {
    use super::*;
    use ashlar_tree::{Metadata, Node};

    fn tree(files: &[&str]) -> Tree {
        let mut tree = Tree::new(Metadata::root(0o755, 0));
        for path in files {
            tree.insert(path.as_bytes(), Node::file(Metadata::root(0o644, 0), path.as_bytes())).unwrap();
        }
        tree
    }

    #[test]
    fn the_one_kernel_is_found_and_several_are_named() {
        assert!(matches!(version(&tree(&[])), Err(KernelError::None)));
        let one = tree(&["/usr/lib/modules/6.1-a/modules.order", "/boot/vmlinuz-6.1-a"]);
        assert_eq!(version(&one).unwrap(), "6.1-a");
        assert_eq!(image(&one, "6.1-a").unwrap(), b"/boot/vmlinuz-6.1-a");
        let two = tree(&["/usr/lib/modules/6.1-a/modules.order", "/usr/lib/modules/6.2-b/modules.order"]);
        let error = version(&two).unwrap_err().to_string();
        assert!(error.contains("6.1-a, 6.2-b"), "{error}");
    }

    #[test]
    fn a_missing_stub_names_its_package() {
        let error = stub(&tree(&[])).unwrap_err().to_string();
        assert!(error.contains("systemd-boot-efi"), "{error}");
    }
}
