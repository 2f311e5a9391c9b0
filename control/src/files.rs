//! Files that must be whole and private.

use crate::error::ControlError;
use std::fs::{self, File, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Puts a file in place, whole or not at all, also when power goes.
///
/// # Errors
/// It cannot be written, or is there already and `replace` is not set.
pub fn write(path: &Path, mode: u32, bytes: &[u8], replace: bool) -> Result<(), ControlError> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let fail = || ControlError::io("write", path);
    // Made with mode 0600: nobody else opens it on the way.
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(fail())?;
    file.write_all(bytes).map_err(fail())?;
    file.as_file().set_permissions(Permissions::from_mode(mode)).map_err(fail())?;
    file.as_file().sync_all().map_err(fail())?;
    let placed = if replace { file.persist(path) } else { file.persist_noclobber(path) };
    placed.map_err(|error| fail()(error.error))?;
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(fail())
}

/// Reads a file of at most `max` bytes.
pub fn read(path: &Path, max: usize) -> Result<Vec<u8>, ControlError> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(ControlError::io("read", path))?;
    file.take(max as u64 + 1).read_to_end(&mut bytes).map_err(ControlError::io("read", path))?;
    if bytes.len() > max {
        return Err(ControlError::File {
            path: path.to_owned(),
            problem: format!("longer than {max} bytes"),
            advice: "is it the right file?".into(),
        });
    }
    Ok(bytes)
}

/// Makes a folder that only its owner enters, and those above it.
pub fn private_folder(path: &Path) -> Result<(), ControlError> {
    if path.as_os_str().is_empty() || path.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(path).map_err(ControlError::io("make", path))?;
    fs::set_permissions(path, Permissions::from_mode(0o700)).map_err(ControlError::io("make", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_private_and_never_over_another() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b");
        private_folder(path.parent().unwrap()).unwrap();
        write(&path, 0o600, b"one", false).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().permissions().mode() & 0o777, 0o700);
        assert!(write(&path, 0o600, b"two", false).is_err());
        assert_eq!(read(&path, 3).unwrap(), b"one");
        write(&path, 0o644, b"three", true).unwrap();
        assert_eq!(read(&path, 5).unwrap(), b"three");
        assert!(read(&path, 4).unwrap_err().to_string().contains("longer than 4 bytes"));
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }
}
