//! The lock file: which packages a recipe came to, each by version and hash.
//!
//! It lies beside the recipe (`image.toml`, `image.lock`) and belongs into version control. A build that finds
//! a lock file which fits its recipe takes exactly those packages and does not ask the mirror's index.

use crate::error::BuildError;
use crate::recipe::{Recipe, Timestamp};
use ashlar_debian::{Index, Locked};
use ashlar_image::digest::Digest;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Version of the format.
const FORMAT: u32 = 2;

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
    /// Date of the newest index, seconds since 1970; the image's build time where the recipe gives none.
    pub index_date: i64,
    /// SHA-256 of the recipe's priorities and pins, if it has any.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub preferences: String,
    /// The suites that the packages were chosen from.
    #[serde(rename = "index")]
    pub indexes: Vec<LockedIndex>,
    /// Images of registries.
    #[serde(default, rename = "image", skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<LockedImage>,
    /// The parts of the image.
    #[serde(rename = "part")]
    pub parts: Vec<Part>,
}

/// What lies where a lock file should be.
#[derive(Debug, PartialEq, Eq)]
pub enum Stored {
    /// Nothing.
    None,
    /// A lock file of an older format, which this program writes anew where it may.
    Outdated(u32),
    /// A lock file.
    Lock(Box<Lock>),
}

/// What every format begins with.
#[derive(Deserialize)]
struct Head {
    format: u32,
}

/// A suite at one time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct LockedIndex {
    /// The suite.
    pub suite: String,
    /// Its components.
    pub components: Vec<String>,
    /// The snapshot that was asked for, as `20261101T000000Z`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<String>,
    /// Date of its index, seconds since 1970.
    pub date: i64,
    /// SHA-256 of the signed index (`InRelease`).
    pub sha256: String,
}

/// An image of a registry that a container is made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct LockedImage {
    /// The container.
    pub container: String,
    /// As the recipe names it.
    pub named: String,
    /// What that came to.
    pub image: ashlar_sources::Locked,
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

/// What of the recipe decides between candidates, as a hash; empty where it says nothing.
fn preferences(recipe: &Recipe) -> Result<String, BuildError> {
    let debian = &recipe.debian;
    let priorities: Vec<Option<i32>> = debian.sources.iter().map(|source| source.priority).collect();
    if debian.pins.is_empty() && debian.local.is_empty() && priorities.iter().all(Option::is_none) {
        return Ok(String::new());
    }
    let text = serde_json::to_string(&(&debian.pins, &debian.local, priorities))?;
    Ok(Digest::of(text).to_string())
}

/// Where the lock file of a recipe lies: beside it, ending in `.lock`.
pub fn beside(recipe: &Path) -> PathBuf {
    recipe.with_extension("lock")
}

impl Lock {
    /// Reads a lock file.
    pub fn load(path: &Path) -> Result<Stored, BuildError> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Stored::None),
            Err(error) => return Err(BuildError::input("read the lock file", path, error)),
        };
        let bad = |why| BuildError::BadLock { path: path.to_owned(), why };
        // The format first: what an older program wrote is no mistake of the user's.
        let head: Head = toml::from_str(&text).map_err(|error| bad(error.message().to_owned()))?;
        match head.format {
            FORMAT => {}
            older if older < FORMAT => return Ok(Stored::Outdated(older)),
            newer => return Err(bad(format!("its format is {newer}; this program reads {FORMAT}"))),
        }
        let lock = toml::from_str(&text).map_err(|error| bad(error.message().to_owned()))?;
        Ok(Stored::Lock(Box::new(lock)))
    }

    /// A lock of `parts`, whose packages were chosen from `index`.
    pub fn new(
        recipe: &Recipe,
        index: &Index,
        images: Vec<LockedImage>,
        parts: Vec<Part>,
    ) -> Result<Self, BuildError> {
        let suites = recipe.debian.suites();
        let locked = suites.into_iter().zip(&index.sources).map(|(suite, source)| LockedIndex {
            suite: suite.suite,
            components: suite.components.unwrap_or_default(),
            snapshot: recipe.debian.snapshot.map(Timestamp::basic),
            date: source.date,
            sha256: source.in_release_sha256.clone(),
        });
        Ok(Self {
            format: FORMAT,
            index_date: index.date,
            preferences: preferences(recipe)?,
            indexes: locked.collect(),
            images,
            parts,
        })
    }

    /// Why this lock is not one of `recipe`; none when it fits.
    pub fn misfit(&self, recipe: &Recipe) -> Result<Option<String>, BuildError> {
        let snapshot = recipe.debian.snapshot.map(Timestamp::basic);
        let suites: Vec<(String, Vec<String>)> = recipe
            .debian
            .suites()
            .into_iter()
            .map(|suite| (suite.suite, suite.components.unwrap_or_default()))
            .collect();
        let mut locked = self.indexes.iter().map(|index| (&index.suite, &index.components));
        if !suites.iter().map(|(suite, components)| (suite, components)).eq(&mut locked) {
            return Ok(Some("it was made for other suites or components".into()));
        }
        if self.indexes.iter().any(|index| index.snapshot != snapshot) {
            return Ok(Some("it was made for another snapshot".into()));
        }
        if self.preferences != preferences(recipe)? {
            return Ok(Some("it was made with other priorities or pins".into()));
        }
        let images: Vec<(&str, &str)> = recipe
            .containers
            .iter()
            .filter_map(|container| Some((container.name.as_str(), container.oci.as_deref()?)))
            .collect();
        let known = self.images.iter().map(|image| (image.container.as_str(), image.named.as_str()));
        if !images.into_iter().eq(known) {
            return Ok(Some("it was made for other images of registries".into()));
        }
        Ok(self.parts_misfit(recipe))
    }

    fn parts_misfit(&self, recipe: &Recipe) -> Option<String> {
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

    /// The packages of a part; none when there is no such part.
    pub fn part(&self, name: &str) -> &[Locked] {
        let found = self.parts.iter().find(|part| part.name == name);
        found.map_or(&[], |part| part.packages.as_slice())
    }

    /// SHA-256 of each suite's signed index.
    pub fn indexes(&self) -> Result<BTreeMap<String, Digest>, BuildError> {
        let one = |index: &LockedIndex| {
            let sha256 = index.sha256.parse().map_err(|_| BuildError::BadLock {
                path: PathBuf::from("image.lock"),
                why: format!("the hash of the index of `{}` is no SHA-256", index.suite),
            })?;
            Ok((index.suite.clone(), sha256))
        };
        self.indexes.iter().map(one).collect()
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
        assert_eq!(Lock::load(&path).unwrap(), Stored::None);
        let one = recipe("\"crun\"");
        let mut parts = requests(&one);
        parts[1].packages.push(Locked {
            name: "crun".into(),
            version: "1.21-1".into(),
            architecture: "amd64".into(),
            sha256: "00".repeat(32),
            size: 7,
            path: "pool/main/c/crun/crun_1.21-1_amd64.deb".into(),
            origin: ashlar_debian::Origin::First,
        });
        let lock = Lock {
            format: FORMAT,
            index_date: 1_700_000_000,
            preferences: String::new(),
            indexes: vec![LockedIndex {
                suite: "trixie".into(),
                components: vec!["main".into()],
                snapshot: None,
                date: 1_700_000_000,
                sha256: "11".repeat(32),
            }],
            images: Vec::new(),
            parts,
        };
        lock.save(&path).unwrap();
        let Stored::Lock(read) = Lock::load(&path).unwrap() else { panic!("it was just written") };
        assert_eq!(*read, lock);
        assert_eq!(read.misfit(&one).unwrap(), None);
        let misfit = |recipe: &Recipe| read.misfit(recipe).unwrap().unwrap();
        assert!(misfit(&recipe("\"crun\", \"tzdata\"")).contains("`root`"));
        let with = |debian: &str| {
            let text = format!(
                "[image]\nid = \"a\"\nversion = \"1\"\n[root]\npackages = [\"crun\"]\n[kernel]\ninitramfs-modules = []\n{debian}"
            );
            Recipe::parse("image.toml", &text).unwrap()
        };
        assert!(misfit(&with("[[debian.source]]\nsuite = \"trixie-security\"\n")).contains("other suites"));
        assert!(
            misfit(&with("[[debian.pin]]\npackages = [\"crun\"]\npriority = 1\nversion = \"1*\"\n"))
                .contains("pins")
        );
        let snapshot = "[debian]\nsnapshot = 2026-11-01T00:00:00Z\nsnapshot-mirror = \"x/{timestamp}\"\n";
        assert!(misfit(&with(snapshot)).contains("another snapshot"));
    }

    #[test]
    fn a_foreign_or_newer_file_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("image.lock");
        std::fs::write(&path, "hello").unwrap();
        assert!(matches!(Lock::load(&path), Err(BuildError::BadLock { .. })));
        std::fs::write(&path, "format = 99\n").unwrap();
        assert!(Lock::load(&path).unwrap_err().to_string().contains("its format is 99"));
        std::fs::write(&path, "format = 1\nsuite = \"trixie\"\n").unwrap();
        assert_eq!(Lock::load(&path).unwrap(), Stored::Outdated(1));
    }
}
