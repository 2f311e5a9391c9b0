//! The initramfs: init, the modules that it loads, and the directories that it mounts upon. Nothing else, and
//! no shell.

use crate::modules::Module;
use ashlar_formats::cpio::{self, CpioError};
use ashlar_image::manifest::{MODULE_LIST, MODULES_DIR};
use ashlar_tree::{Kind, Metadata, Node, Tree, TreeError};

/// Level of zstd. Measured on the example image's 6.4 MB: 0.1 s for 1.94 MB; level 19 takes 1.7 s for 1.74 MB.
pub const LEVEL: i32 = 9;

/// `os-release` of an initramfs: software tells by this file that it runs in one (os-release(5)).
const INITRD_RELEASE: &str = "ID=ashlar\nNAME=\"Ashlar\"\nPRETTY_NAME=\"Ashlar (initramfs)\"\n";

/// Why the archive could not be made.
#[derive(Debug, thiserror::Error)]
pub enum InitramfsError {
    /// The init program is empty.
    #[error("the init program of the initramfs is empty; build it with `cargo xtask build`")]
    NoInit,
    /// A module has a name that no file can have.
    #[error("cannot put a module into the initramfs: {0}")]
    Tree(#[from] TreeError),
    /// The archive cannot be written.
    #[error(transparent)]
    Cpio(#[from] CpioError),
    /// The archive cannot be compressed.
    #[error("cannot compress the initramfs: {0}")]
    Compress(#[source] std::io::Error),
}

/// The files of the initramfs; all have the same time.
fn tree(init: &[u8], modules: &[Module], time: i64) -> Result<Tree, InitramfsError> {
    if init.is_empty() {
        return Err(InitramfsError::NoInit);
    }
    let directory = || Node::directory(Metadata::root(0o755, time));
    let mut tree = Tree::new(Metadata::root(0o755, time));
    for path in ["/dev", "/proc", "/run", "/sys", "/sysroot", MODULES_DIR] {
        tree.insert(path.as_bytes(), directory())?;
    }
    // The kernel opens it as init's standard input, output and error before init mounts /dev.
    let console =
        Node { metadata: Metadata::root(0o600, time), kind: Kind::CharDevice { major: 5, minor: 1 } };
    tree.insert(b"/dev/console", console)?;
    tree.insert(b"/init", Node::file(Metadata::root(0o755, time), init))?;
    tree.insert(b"/etc/initrd-release", Node::file(Metadata::root(0o644, time), INITRD_RELEASE.as_bytes()))?;
    let mut order = String::new();
    for module in modules {
        let path = format!("{MODULES_DIR}/{}", module.file_name);
        let node = Node::file(Metadata::root(0o644, time), module.bytes.clone());
        tree.insert(path.as_bytes(), node)?;
        order.push_str(&module.file_name);
        order.push('\n');
    }
    let path = format!("{MODULES_DIR}/{MODULE_LIST}");
    tree.insert(path.as_bytes(), Node::file(Metadata::root(0o644, time), order.into_bytes()))?;
    Ok(tree)
}

/// The archive with `init` as `/init` and `modules` in the order to load them; all files have the time
/// `time`, seconds since 1970.
///
/// It is one zstd frame that tells its length, as `CONFIG_RD_ZSTD` reads it, with a window of at most 8 MiB.
/// One thread compresses it, so that the bytes do not depend on the machine.
pub fn build(init: &[u8], modules: &[Module], time: i64) -> Result<Vec<u8>, InitramfsError> {
    let mut archive = Vec::new();
    cpio::write(&tree(init, modules, time)?, &mut archive)?;
    zstd::bulk::compress(&archive, LEVEL).map_err(InitramfsError::Compress)
}
