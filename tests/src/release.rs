//! One release of the example recipe for all tests of a process.

use crate::programs::{self, Run, ashlar};
use crate::skip;
use ashlar_image::release::Release;
use ashlar_keys::KeyFolder;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// A release that the `ashlar` program built.
#[derive(Debug)]
pub struct Built {
    /// The release's folder.
    pub out: PathBuf,
    /// The keys that it was built with.
    pub keys: PathBuf,
    /// The recipe.
    pub recipe: PathBuf,
    /// The lock file.
    pub lock: PathBuf,
    /// The cache that now has all packages.
    pub cache: PathBuf,
    /// What `release.json` says.
    pub release: Release,
}

/// The folder for what tests share: package cache and lock file. It stays, so that only the first test
/// process ever fetches.
pub fn shared() -> PathBuf {
    let folder = programs::target().join("ashlar-tests");
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// A folder of this test program, emptied when it starts.
fn own() -> PathBuf {
    let program = std::env::current_exe().unwrap();
    let name = program.file_stem().unwrap().to_str().unwrap();
    // A name that nothing else in the shared folder has.
    let folder = shared().join(format!("test-{}", name.rsplit_once('-').map_or(name, |(name, _)| name)));
    if folder.exists() {
        std::fs::remove_dir_all(&folder).unwrap();
    }
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// The recipe of the example.
pub fn recipe() -> PathBuf {
    programs::workspace().join("examples/container-host.toml")
}

/// Makes a key folder with the program.
pub fn new_keys(folder: &Path, owner: &str) {
    let _ = Run::of(ashlar().args(["keys", "new"]).arg(folder).args(["--name", owner])).ok();
}

/// The command that builds the example into `out`, with the shared cache and lock file.
pub fn build(keys: &Path, out: &Path) -> Command {
    let mut command = ashlar();
    command.arg("build").arg(recipe()).arg("--keys").arg(keys).arg("-o").arg(out);
    command.arg("--cache").arg(shared().join("cache")).arg("--lock").arg(shared().join("image.lock"));
    command
}

/// The release of this test process; none, with the reason said, when neither cache nor mirror has the
/// packages.
pub fn built() -> Option<&'static Built> {
    static BUILT: OnceLock<Option<Built>> = OnceLock::new();
    let built = BUILT.get_or_init(first).as_ref();
    if built.is_none() {
        skip("no Debian mirror can be reached, and the cache has not all packages");
    }
    built
}

fn first() -> Option<Built> {
    let folder = own();
    let (keys, out) = (folder.join("keys"), folder.join("out"));
    new_keys(&keys, "Ashlar tests");
    let run = Run::of(&mut build(&keys, &out));
    // The only excuse: a mirror that cannot be reached. Whatever else fails is a fault.
    let text = run.error_text();
    if run.code == Some(3) && (text.contains("does not give") || text.contains("no Debian archive")) {
        eprintln!("{run}");
        return None;
    }
    let _ = run.ok();
    let json = std::fs::read(out.join("release.json")).unwrap();
    Some(Built {
        release: serde_json::from_slice(&json).unwrap(),
        recipe: recipe(),
        lock: shared().join("image.lock"),
        cache: shared().join("cache"),
        out,
        keys,
    })
}

impl Built {
    /// A file of the release.
    pub fn file(&self, name: &str) -> PathBuf {
        self.out.join(name)
    }

    /// The signed UKI.
    pub fn uki(&self) -> Vec<u8> {
        std::fs::read(self.file(&self.release.uki.artifact.file)).unwrap()
    }

    /// The owner's keys.
    pub fn key_folder(&self) -> KeyFolder {
        KeyFolder::open(&self.keys).unwrap()
    }
}
