//! The UEFI firmware: OVMF's build with SMM, whose variable store only the firmware can write.

use crate::error::QemuError;
use std::path::{Path, PathBuf};

/// Environment variable with a folder to look for the firmware in, before all others.
pub const OVERRIDE: &str = "ASHLAR_OVMF";

const CODE: &str = "OVMF_CODE_4M.secboot.fd";
const VARIABLES: &str = "OVMF_VARS_4M.fd";
const FOLDERS: [&str; 4] =
    ["/usr/share/OVMF", "/usr/share/edk2/ovmf", "/usr/share/edk2/x64", "/usr/share/qemu/ovmf"];

/// The two flash files of OVMF.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Firmware {
    /// The code, `OVMF_CODE_4M.secboot.fd`; never written.
    pub code: PathBuf,
    /// An empty variable store, `OVMF_VARS_4M.fd`; each machine gets a copy.
    pub variables: PathBuf,
}

impl Firmware {
    /// Finds the firmware in the folder that `ASHLAR_OVMF` names, or else where distributions put it.
    pub fn find() -> Result<Self, QemuError> {
        match std::env::var_os(OVERRIDE) {
            Some(folder) => Self::find_in(&[folder.into()]),
            None => Self::find_in(&FOLDERS.map(PathBuf::from)),
        }
    }

    /// Finds both files in the first of `folders` that has them.
    pub fn find_in(folders: &[PathBuf]) -> Result<Self, QemuError> {
        let has = |folder: &Path| folder.join(CODE).is_file();
        let missing = |file| QemuError::NoFirmware { file, searched: folders.to_vec() };
        let folder = folders.iter().find(|folder| has(folder)).ok_or_else(|| missing(CODE))?;
        let firmware = Self { code: folder.join(CODE), variables: folder.join(VARIABLES) };
        if firmware.variables.is_file() { Ok(firmware) } else { Err(missing(VARIABLES)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_files_are_wanted_and_the_package_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let folders = [dir.path().to_owned()];
        let error = Firmware::find_in(&folders).unwrap_err().to_string();
        assert!(error.contains("OVMF_CODE_4M.secboot.fd") && error.contains("package ovmf"), "{error}");
        std::fs::write(dir.path().join(CODE), "").unwrap();
        let error = Firmware::find_in(&folders).unwrap_err().to_string();
        assert!(error.contains("no OVMF_VARS_4M.fd"), "{error}");
        std::fs::write(dir.path().join(VARIABLES), "").unwrap();
        assert_eq!(Firmware::find_in(&folders).unwrap().code, dir.path().join(CODE));
    }
}
