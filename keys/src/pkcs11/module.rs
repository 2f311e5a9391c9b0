//! PKCS#11 modules: shared libraries, each opened and initialized once in a program.

use super::{is, reason};
use crate::KeyError;
use crate::places::TokenPlace;
use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::RvError;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Folders that are searched for `module-name`.
const FOLDERS: [&str; 6] = [
    "/usr/lib/x86_64-linux-gnu/pkcs11",
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/pkcs11",
    "/usr/lib/softhsm",
    "/usr/lib64/pkcs11",
    "/usr/lib",
];

/// The module that a place names, and its path.
pub(super) fn load(place: &TokenPlace) -> Result<(PathBuf, Pkcs11), KeyError> {
    // What the loader of a static program opens has another C library than the program.
    if cfg!(target_feature = "crt-static") {
        return Err(KeyError::StaticProgram);
    }
    let path = match (&place.module, &place.uri.module_path, &place.uri.module_name) {
        (Some(path), ..) => path.clone(),
        (None, Some(path), _) if path.starts_with('/') => PathBuf::from(path),
        (None, None, Some(name)) => search(name)?,
        _ => return Err(KeyError::NoModule(place.uri.to_string())),
    };
    let context = initialized(&path)?;
    Ok((path, context))
}

fn search(name: &str) -> Result<PathBuf, KeyError> {
    let path = PathBuf::from(name);
    if name.contains('/') {
        return Err(KeyError::Module { path, why: "`module-name` is a name, not a path".to_owned() });
    }
    let files = [format!("{name}.so"), format!("lib{name}.so")];
    FOLDERS
        .iter()
        .flat_map(|folder| files.iter().map(move |file| Path::new(folder).join(file)))
        .find(|path| path.is_file())
        .ok_or_else(|| KeyError::Module { path, why: format!("it is in none of {}", FOLDERS.join(", ")) })
}

fn initialized(path: &Path) -> Result<Pkcs11, KeyError> {
    // Modules stay open until the program ends: many of them do not survive being closed.
    static LOADED: Mutex<BTreeMap<PathBuf, Pkcs11>> = Mutex::new(BTreeMap::new());
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(context) = loaded.get(path) {
        return Ok(context.clone());
    }
    let refused = |why: String| KeyError::Module { path: path.to_owned(), why };
    if !path.is_file() {
        return Err(refused("there is no such file".to_owned()));
    }
    let context = Pkcs11::new(path).map_err(|error| refused(reason(&error)))?;
    match context.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
        Ok(()) => {}
        // The same module under another path.
        Err(error) if is(&error, RvError::CryptokiAlreadyInitialized) => {}
        Err(error) => return Err(refused(reason(&error))),
    }
    loaded.insert(path.to_owned(), context.clone());
    Ok(context)
}
