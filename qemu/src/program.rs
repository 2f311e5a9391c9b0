//! Finding the programs that a machine is made of.

use crate::error::QemuError;
use std::path::{Path, PathBuf};

/// A program and the Debian package that has it.
#[derive(Debug, Clone, Copy)]
pub struct Program {
    /// Name.
    pub name: &'static str,
    /// Debian package.
    pub package: &'static str,
}

/// The emulator.
pub const QEMU: Program = Program { name: "qemu-system-x86_64", package: "qemu-system-x86" };
/// Makes overlays.
pub const QEMU_IMG: Program = Program { name: "qemu-img", package: "qemu-utils" };
/// Copies disk images.
pub const CP: Program = Program { name: "cp", package: "coreutils" };
/// The TPM.
pub const SWTPM: Program = Program { name: "swtpm", package: "swtpm" };

impl Program {
    /// Where it is, by `PATH`.
    pub fn find(self) -> Result<PathBuf, QemuError> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        // An ordinary user's PATH may lack /usr/sbin, where nothing of ours lies today but may tomorrow.
        let usual = ["/usr/bin", "/usr/sbin"].map(PathBuf::from);
        std::env::split_paths(&path)
            .chain(usual)
            .map(|folder| folder.join(self.name))
            .find(|program| is_executable(program))
            .ok_or(QemuError::Missing { program: self.name, package: self.package })
    }
}

fn is_executable(path: &Path) -> bool {
    path.is_file() && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok()
}
