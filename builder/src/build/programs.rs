//! Finding the programs of the image, which are built apart from the builder: static.

use crate::error::BuildError;
use std::path::{Path, PathBuf};

/// File name of PID 1.
const INIT: &str = "ashlar-init";
/// File name of the control program.
const CONTROL: &str = "ashlarctl";
/// File name of the update engine.
const UPDATE: &str = "ashlar-update";

/// The programs of the image.
#[derive(Debug)]
pub struct Programs {
    /// PID 1, in the initramfs and in the root.
    pub init: Vec<u8>,
    /// The control program, in the root.
    pub control: Vec<u8>,
    /// The update engine, in the root.
    pub update: Vec<u8>,
}

impl Programs {
    /// Reads them: init from `init` where that is given, and the others beside it.
    pub fn load(init: Option<&Path>) -> Result<Self, BuildError> {
        let beside = |name: &'static str| load(name, init.map(|path| path.with_file_name(name)).as_deref());
        Ok(Self { init: load(INIT, init)?, control: beside(CONTROL)?, update: beside(UPDATE)? })
    }
}

/// The places where a program is looked for: beside this one, as `cargo xtask build` lays them, and where a
/// package puts it.
fn places(name: &str) -> Vec<PathBuf> {
    let beside = std::env::current_exe().ok().and_then(|exe| exe.parent().map(|folder| folder.join(name)));
    beside.into_iter().chain([PathBuf::from("/usr/lib/ashlar").join(name)]).collect()
}

/// Reads a program and sees that it can run in the image: an ELF program that needs no interpreter.
fn load(name: &'static str, given: Option<&Path>) -> Result<Vec<u8>, BuildError> {
    let places = given.map_or_else(|| places(name), |path| vec![path.to_owned()]);
    let found = places.iter().find(|path| path.is_file()).ok_or_else(|| BuildError::NoInit {
        name,
        looked: places.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", "),
    })?;
    let bytes = std::fs::read(found).map_err(|e| BuildError::input("read", found, e))?;
    let bad = |why: &'static str| BuildError::BadInit { path: found.clone(), why };
    let elf = goblin::elf::Elf::parse(&bytes).map_err(|_| bad("it is no ELF program"))?;
    if elf.header.e_machine != goblin::elf::header::EM_X86_64 {
        return Err(bad("it is not for x86-64"));
    }
    if elf.interpreter.is_some() || !elf.libraries.is_empty() {
        return Err(bad("it is linked dynamically, and the initramfs has no libraries"));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_needs_libraries_is_refused() {
        // The test itself is linked dynamically.
        let me = std::env::current_exe().unwrap();
        let error = load(INIT, Some(&me)).unwrap_err().to_string();
        assert!(error.contains("linked dynamically"), "{error}");
        let error = load(INIT, Some(Path::new("/nowhere/init"))).unwrap_err().to_string();
        assert!(error.contains("/nowhere/init"), "{error}");
    }
}
