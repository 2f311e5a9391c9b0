//! Variables of the firmware (UEFI Specification 2.10, section 8.2).

use crate::error::SlotsError;
use ashlar_measured_boot::efi::Guid;
use std::collections::BTreeMap;
use std::fmt::{self, Debug};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// Kept without power, and visible to the boot services and at run time.
pub const ATTRIBUTES: u32 = 7;
/// Longest variable that is read, in bytes.
const MAX_VALUE: u64 = 64 << 10;

/// Name of a variable with its vendor.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    /// Name.
    pub name: String,
    /// Vendor GUID.
    pub vendor: Guid,
}

impl Name {
    /// One of the specification's own: `BootOrder`.
    pub fn global(name: impl Into<String>) -> Self {
        Self { name: name.into(), vendor: Guid::GLOBAL }
    }

    /// One of the signature databases: `db`, `dbx`.
    pub fn security(name: impl Into<String>) -> Self {
        Self { name: name.into(), vendor: Guid::IMAGE_SECURITY }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.name.escape_debug(), self.vendor)
    }
}

/// The firmware's variables. One write is one transaction of the firmware: it happens whole or not at all.
pub trait Variables: Debug + Send {
    /// The value without attributes; none if there is no such variable.
    fn get(&self, name: &Name) -> Result<Option<Vec<u8>>, SlotsError>;

    /// Sets a variable with [`ATTRIBUTES`].
    fn set(&mut self, name: &Name, value: &[u8]) -> Result<(), SlotsError>;

    /// Removes a variable; nothing happens if there is none.
    fn remove(&mut self, name: &Name) -> Result<(), SlotsError>;

    /// Names of all variables of a vendor.
    fn list(&self, vendor: Guid) -> Result<Vec<String>, SlotsError>;
}

/// The kernel's file system of variables.
#[derive(Debug, Clone)]
pub struct Efivarfs {
    folder: PathBuf,
}

/// Where it is mounted.
pub const EFIVARFS: &str = "/sys/firmware/efi/efivars";

impl Efivarfs {
    /// The one that is mounted at `folder`: [`EFIVARFS`].
    pub fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    fn path(&self, name: &Name) -> PathBuf {
        self.folder.join(format!("{}-{}", name.name, name.vendor))
    }
}

fn fail(name: &Name, what: &'static str, error: &io::Error) -> SlotsError {
    let reason = match error.raw_os_error().map(rustix::io::Errno::from_raw_os_error) {
        Some(rustix::io::Errno::NOSPC) => {
            "the firmware's memory for variables is full; remove entries or let the firmware clean up (set-up, or a restart)".into()
        }
        Some(rustix::io::Errno::ROFS) => "the firmware lets nobody change variables, or efivarfs is mounted read-only".into(),
        Some(rustix::io::Errno::NOENT) => "it has vanished, or efivarfs is not mounted".into(),
        _ => error.to_string(),
    };
    SlotsError::Variable { name: name.clone(), what, reason }
}

impl Variables for Efivarfs {
    fn get(&self, name: &Name) -> Result<Option<Vec<u8>>, SlotsError> {
        let mut bytes = Vec::new();
        match File::open(self.path(name)).and_then(|file| file.take(MAX_VALUE).read_to_end(&mut bytes)) {
            // Between its creation and its first value a file is empty.
            Ok(_) => Ok(bytes.get(4..).map(<[u8]>::to_vec)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(fail(name, "read", &error)),
        }
    }

    fn set(&mut self, name: &Name, value: &[u8]) -> Result<(), SlotsError> {
        if self.get(name)?.as_deref() == Some(value) {
            // The firmware's memory wears with each write.
            return Ok(());
        }
        let path = self.path(name);
        let mut bytes = ATTRIBUTES.to_le_bytes().to_vec();
        bytes.extend_from_slice(value);
        let write = || {
            // One write is one call of SetVariable.
            let mut file = OpenOptions::new().write(true).create(true).truncate(false).open(&path)?;
            let written = file.write(&bytes)?;
            if written == bytes.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
        };
        write().map_err(|error| fail(name, "written", &error))?;
        match self.get(name)? {
            Some(back) if back == value => Ok(()),
            _ => Err(fail(name, "written", &io::Error::other("the firmware gives back another value"))),
        }
    }

    fn remove(&mut self, name: &Name) -> Result<(), SlotsError> {
        match std::fs::remove_file(self.path(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(fail(name, "removed", &error)),
            _ => Ok(()),
        }
    }

    fn list(&self, vendor: Guid) -> Result<Vec<String>, SlotsError> {
        let suffix = format!("-{vendor}");
        let fail = |error: io::Error| fail(&Name { name: "*".into(), vendor }, "listed", &error);
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.folder).map_err(fail)? {
            let file = entry.map_err(fail)?.file_name();
            names.extend(file.to_str().and_then(|name| name.strip_suffix(&suffix)).map(str::to_owned));
        }
        names.sort();
        Ok(names)
    }
}

/// Variables in memory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemoryVariables {
    /// Values.
    pub values: BTreeMap<Name, Vec<u8>>,
}

impl Variables for MemoryVariables {
    fn get(&self, name: &Name) -> Result<Option<Vec<u8>>, SlotsError> {
        Ok(self.values.get(name).cloned())
    }

    fn set(&mut self, name: &Name, value: &[u8]) -> Result<(), SlotsError> {
        self.values.insert(name.clone(), value.to_vec());
        Ok(())
    }

    fn remove(&mut self, name: &Name) -> Result<(), SlotsError> {
        self.values.remove(name);
        Ok(())
    }

    fn list(&self, vendor: Guid) -> Result<Vec<String>, SlotsError> {
        Ok(self.values.keys().filter(|name| name.vendor == vendor).map(|name| name.name.clone()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_as_files() {
        let folder = tempfile::tempdir().unwrap();
        let mut variables = Efivarfs::new(folder.path());
        let name = Name::global("BootNext");
        assert_eq!(variables.get(&name).unwrap(), None);
        variables.set(&name, &[1, 0]).unwrap();
        let file = folder.path().join("BootNext-8be4df61-93ca-11d2-aa0d-00e098032b8c");
        assert_eq!(std::fs::read(&file).unwrap(), [7, 0, 0, 0, 1, 0]);
        assert_eq!(variables.get(&name).unwrap().unwrap(), [1, 0]);
        assert_eq!(variables.list(Guid::GLOBAL).unwrap(), ["BootNext"]);
        assert!(variables.list(Guid::IMAGE_SECURITY).unwrap().is_empty());
        variables.remove(&name).unwrap();
        variables.remove(&name).unwrap();
        assert!(!file.exists());
        let error = Efivarfs::new(Path::new("/nowhere")).set(&name, &[1]).unwrap_err().to_string();
        assert!(error.contains("BootNext-8be4df61") && error.contains("not mounted"), "{error}");
    }
}
