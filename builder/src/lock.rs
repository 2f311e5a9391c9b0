//! The lock file: which packages a recipe came to, each by version and hash.
//!
//! It lies beside the recipe (`image.toml`, `image.lock`) and belongs into version control. A build that finds
//! a lock file which fits its recipe takes exactly those packages and does not ask the mirror's index.

use crate::error::BuildError;
use crate::recipe::Recipe;
use ashlar_debian::Locked;
use serde::{Deserialize, Serialize};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Version of the format.
const FORMAT: u32 = 1;

/// Dependencies of kernel packages that only their maintainer scripts use: the builder makes the initramfs and
/// lists the modules itself, and of the package with the stub one file is taken.
const KERNEL_EXCLUDED: [&str; 7] = [
    "dracut",
    "initramfs-tools",
    "kmod",
    "linux-base",
    "linux-initramfs-tool",
    "systemd",
    "systemd-boot-tools",
];

/// A lock file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Lock {
    /// Version of the format.
    pub format: u32,
    /// The suite that the packages were chosen from.
    pub suite: String,
    /// Its components.
    pub components: Vec<String>,
    /// Date of the suite's index, seconds since 1970; the image's build time where the recipe gives none.
    pub index_date: i64,
    /// SHA-256 of the signed index (`InRelease`).
    pub index_sha256: String,
    /// The parts of the image.
    #[serde(rename = "part")]
    pub parts: Vec<Part>,
}

/// The packages of one part of the image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Part {
    /// `kernel`, `root` or `container NAME`.
    pub name: String,
    /// What the recipe asks for.
    pub requested: Vec<String>,
    /// What the recipe leaves out.
    pub excluded: Vec<String>,
    /// What was chosen, sorted by name.
    #[serde(default, rename = "package")]
    pub packages: Vec<Locked>,
}

/// What a recipe asks for, part by part, with no package chosen yet.
pub fn requests(recipe: &Recipe) -> Vec<Part> {
    let part = |name: &str, requested: &[String], excluded: &[String]| Part {
        name: name.to_owned(),
        requested: requested.to_vec(),
        excluded: excluded.to_vec(),
        packages: Vec::new(),
    };
    let excluded = KERNEL_EXCLUDED.map(str::to_owned);
    let kernel = [recipe.kernel.package.clone(), recipe.kernel.stub_package.clone()];
    let mut parts = vec![
        part("kernel", &kernel, &excluded),
        part("root", &recipe.root.packages, &recipe.root.exclude_packages),
    ];
    for container in &recipe.containers {
        let name = format!("container {}", container.name);
        parts.push(part(&name, &container.packages, &container.exclude_packages));
    }
    parts
}

/// Where the lock file of a recipe lies: beside it, ending in `.lock`.
pub fn beside(recipe: &Path) -> PathBuf {
    recipe.with_extension("lock")
}

impl Lock {
    /// Reads a lock file; none when there is no such file.
    pub fn load(path: &Path) -> Result<Option<Self>, BuildError> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(BuildError::input("read the lock file", path, error)),
        };
        let bad = |why| BuildError::BadLock { path: path.to_owned(), why };
        let lock: Self = toml::from_str(&text).map_err(|error| bad(error.message().to_owned()))?;
        if lock.format != FORMAT {
            return Err(bad(format!("its format is {}; this program reads {FORMAT}", lock.format)));
        }
        Ok(Some(lock))
    }

    /// A lock of `parts`, whose packages were chosen from an index of this date and hash.
    pub fn new(recipe: &Recipe, index_date: i64, index_sha256: String, parts: Vec<Part>) -> Self {
        Self {
            format: FORMAT,
            suite: recipe.debian.suite.clone(),
            components: recipe.debian.components.clone(),
            index_date,
            index_sha256,
            parts,
        }
    }

    /// Why this lock is not one of `recipe`; none when it fits.
    pub fn misfit(&self, recipe: &Recipe) -> Option<String> {
        if self.suite != recipe.debian.suite || self.components != recipe.debian.components {
            return Some(format!("it was made for `{} {}`", self.suite, self.components.join(" ")));
        }
        let wanted = requests(recipe);
        for part in &wanted {
            match self.parts.iter().find(|locked| locked.name == part.name) {
                None => return Some(format!("it does not know the part `{}`", part.name)),
                Some(locked) if locked.requested != part.requested || locked.excluded != part.excluded => {
                    return Some(format!(
                        "the packages of the part `{}` were asked for otherwise",
                        part.name
                    ));
                }
                Some(_) => {}
            }
        }
        let gone = self.parts.iter().find(|locked| wanted.iter().all(|part| part.name != locked.name));
        gone.map(|part| format!("it has a part `{}` that the recipe has not", part.name))
    }

    /// Writes the file whole or not at all.
    pub fn save(&self, path: &Path) -> Result<(), BuildError> {
        let fail = |error| BuildError::io("write the lock file", path, error);
        let body = toml::to_string(self).map_err(|error| fail(std::io::Error::other(error)))?;
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut file = tempfile::Builder::new()
            .prefix(".ashlar-lock-")
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
            .tempfile_in(folder)
            .map_err(fail)?;
        write!(file, "# Written by `ashlar build`; keep it in version control.\n{body}").map_err(fail)?;
        file.persist(path).map_err(|error| fail(error.error))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recipe(root: &str) -> Recipe {
        let text = format!(
            "[image]\nid = \"a\"\nversion = \"1\"\n[root]\npackages = [{root}]\n[kernel]\ninitramfs-modules = []\n"
        );
        Recipe::parse("image.toml", &text).unwrap()
    }

    #[test]
    fn a_lock_survives_the_disk_and_fits_only_its_recipe() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("image.lock");
        assert_eq!(Lock::load(&path).unwrap(), None);
        let one = recipe("\"crun\"");
        let mut parts = requests(&one);
        parts[1].packages.push(Locked {
            name: "crun".into(),
            version: "1.21-1".into(),
            architecture: "amd64".into(),
            sha256: "00".repeat(32),
            size: 7,
            path: "pool/main/c/crun/crun_1.21-1_amd64.deb".into(),
        });
        let lock = Lock::new(&one, 1_700_000_000, "11".repeat(32), parts);
        lock.save(&path).unwrap();
        let read = Lock::load(&path).unwrap().unwrap();
        assert_eq!(read, lock);
        assert_eq!(read.misfit(&one), None);
        assert!(read.misfit(&recipe("\"crun\", \"tzdata\"")).unwrap().contains("`root`"));
    }

    #[test]
    fn a_foreign_or_newer_file_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("image.lock");
        std::fs::write(&path, "hello").unwrap();
        assert!(matches!(Lock::load(&path), Err(BuildError::BadLock { .. })));
    }
}
