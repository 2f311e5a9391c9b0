//! Finding the init program, which is built apart from the builder: static, for the image.

use crate::error::BuildError;
use std::path::{Path, PathBuf};

/// File name of the program.
const NAME: &str = "ashlar-init";

/// The places where the program is looked for: beside this one, as `cargo xtask build` lays them, and where a
/// package puts it.
fn places() -> Vec<PathBuf> {
    let beside = std::env::current_exe().ok().and_then(|exe| exe.parent().map(|folder| folder.join(NAME)));
    beside.into_iter().chain([PathBuf::from("/usr/lib/ashlar").join(NAME)]).collect()
}

/// Reads the program and sees that it can run as PID 1 of the image: an ELF program that needs no interpreter.
pub fn load(given: Option<&Path>) -> Result<Vec<u8>, BuildError> {
    let places = given.map_or_else(places, |path| vec![path.to_owned()]);
    let found = places.iter().find(|path| path.is_file()).ok_or_else(|| BuildError::NoInit {
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
        let error = load(Some(&me)).unwrap_err().to_string();
        assert!(error.contains("linked dynamically"), "{error}");
        let error = load(Some(Path::new("/nowhere/init"))).unwrap_err().to_string();
        assert!(error.contains("/nowhere/init"), "{error}");
    }
}
