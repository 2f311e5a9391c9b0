//! EFI variables that init reads, as efivarfs gives them: four bytes of attributes, then the value.

use crate::guid::Guid;
use std::io;
use std::path::Path;

/// Where efivarfs is mounted.
pub const MOUNT: &str = "/sys/firmware/efi/efivars";
/// The partition that the stub was loaded from (Boot Loader Interface, vendor GUID
/// `4a67b082-0a4c-41cf-b6c7-440b29bb8c4f`). systemd-stub sets it.
pub const LOADER_PARTITION: &str = "LoaderDevicePartUUID-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f";
/// Whether the firmware checks signatures (UEFI Specification, section 3.3).
pub const SECURE_BOOT: &str = "SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c";
/// Size in bytes of the attributes before the value.
const ATTRIBUTES: usize = 4;
/// The longest value that is looked at, in bytes: a GUID in UTF-16 takes 74.
const MAX_VALUE: usize = 256;

/// Why a variable does not help.
#[derive(Debug, thiserror::Error)]
pub enum EfiError {
    /// The kernel has no EFI variables.
    #[error("the machine was not started by UEFI firmware, or the module efivarfs is missing")]
    NoVariables,
    /// The variable cannot be read.
    #[error("the EFI variable {name} cannot be read: {source}")]
    Io {
        /// Its name.
        name: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// The variable has another form.
    #[error("the EFI variable {0} is malformed")]
    Malformed(&'static str),
}

/// The text of a variable in UTF-16 with or without a NUL at its end.
pub fn text(variable: &[u8]) -> Option<String> {
    let value = variable.get(ATTRIBUTES..).filter(|value| value.len() <= MAX_VALUE)?;
    let (pairs, []) = value.as_chunks::<2>() else { return None };
    let units: Vec<u16> = pairs.iter().map(|pair| u16::from_le_bytes(*pair)).collect();
    let end = units.iter().position(|unit| *unit == 0).unwrap_or(units.len());
    String::from_utf16(units.get(..end)?).ok()
}

/// The value of a variable that is one byte, 0 or 1.
pub fn boolean(variable: &[u8]) -> Option<bool> {
    match variable.get(ATTRIBUTES..)? {
        [0] => Some(false),
        [1] => Some(true),
        _ => None,
    }
}

fn read(name: &'static str) -> Result<Vec<u8>, EfiError> {
    if !crate::mounts::is_mounted(Path::new(MOUNT)) {
        return Err(EfiError::NoVariables);
    }
    std::fs::read(format!("{MOUNT}/{name}")).map_err(|source| EfiError::Io { name, source })
}

/// The partition that the firmware started from.
pub fn loader_partition() -> Result<Guid, EfiError> {
    let malformed = || EfiError::Malformed(LOADER_PARTITION);
    text(&read(LOADER_PARTITION)?).ok_or_else(malformed)?.parse().map_err(|_| malformed())
}

/// Whether the firmware enforces Secure Boot. What cannot be read counts as no.
pub fn secure_boot() -> bool {
    read(SECURE_BOOT).ok().and_then(|variable| boolean(&variable)).unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variable(text: &str, terminated: bool) -> Vec<u8> {
        let mut bytes = vec![6, 0, 0, 0];
        bytes.extend(text.encode_utf16().flat_map(u16::to_le_bytes));
        if terminated {
            bytes.extend([0, 0]);
        }
        bytes
    }

    #[test]
    fn text_with_and_without_end() {
        let guid = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B";
        for terminated in [true, false] {
            assert_eq!(text(&variable(guid, terminated)).as_deref(), Some(guid));
        }
        let good = variable(guid, true);
        for length in 0..good.len() {
            let cut = text(&good[..length]);
            assert!(cut.is_none_or(|cut| guid.starts_with(&cut)), "cut to {length}");
        }
        assert_eq!(text(&[0, 0, 0, 0, 0, 0xd8]), None, "half a surrogate pair");
        assert_eq!(text(&vec![0; 4 + MAX_VALUE + 2]), None, "too long");
    }

    #[test]
    fn booleans() {
        assert_eq!(boolean(&[6, 0, 0, 0, 1]), Some(true));
        assert_eq!(boolean(&[6, 0, 0, 0, 0]), Some(false));
        assert_eq!(boolean(&[6, 0, 0, 0, 2]), None);
        assert_eq!(boolean(&[6, 0, 0, 0]), None);
        assert_eq!(boolean(&[1, 1]), None);
    }
}
