//! From a recipe to packages that are verified and unpacked in the cache: resolve or take from the lock file,
//! then fetch.

use crate::error::BuildError;
use crate::lock::{self, Lock, LockedImage, Stored};
use crate::recipe::Recipe;
use ashlar_cache::Cache;
use ashlar_debian::{
    DEFAULT_KEYRINGS, Index, Network, Package, Pin, PinTo, Places, Progress, Snapshot, Suite, SuiteSource,
    Suites,
};
use ashlar_sources::{Platform, Reference, Registry, RegistryOptions};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The architecture that images are built for.
pub const ARCHITECTURE: &str = "amd64";

/// Where packages come from.
#[derive(Debug, Clone)]
pub struct Source {
    /// The cache's folder.
    pub cache: PathBuf,
    /// The mirror; the recipe's or the build host's otherwise.
    pub mirror: Option<String>,
    /// Keyrings that verify the suite; Debian's archive keyring otherwise.
    pub keyrings: Vec<PathBuf>,
    /// Whether the mirror may be asked at all.
    pub network: Network,
    /// CA certificates that registries are trusted by beside the system's.
    pub registry_ca: Option<PathBuf>,
}

/// How the lock file is treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LockPolicy {
    /// Used where it fits the recipe, written anew where not.
    #[default]
    Follow,
    /// Must be there and fit.
    Locked,
    /// Written anew from the mirror's index.
    Refresh,
}

impl Source {
    /// The mirror of a suite.
    fn mirror(&self, of_recipe: Option<&String>) -> Result<String, BuildError> {
        match self.mirror.as_ref().or(of_recipe) {
            Some(mirror) => Ok(mirror.clone()),
            None => Ok(ashlar_debian::host_mirror()?),
        }
    }

    fn keyrings(&self, recipe: &Recipe, suite: &crate::recipe::Suite) -> Vec<PathBuf> {
        if !self.keyrings.is_empty() {
            return self.keyrings.clone();
        }
        if !suite.keyring.is_empty() {
            return suite.keyring.iter().map(|path| recipe.host_path(path)).collect();
        }
        // Debian 12 and 13 give the file different endings; whichever is there.
        let found: Vec<PathBuf> =
            DEFAULT_KEYRINGS.iter().map(PathBuf::from).filter(|path| path.exists()).take(1).collect();
        if found.is_empty() { DEFAULT_KEYRINGS.iter().take(1).map(PathBuf::from).collect() } else { found }
    }

    /// The suites of a recipe.
    fn suites(&self, recipe: &Recipe) -> Result<Vec<SuiteSource>, BuildError> {
        let debian = &recipe.debian;
        let snapshot = match debian.snapshot {
            Some(time) => Some(Snapshot::parse(&time.basic(), debian.snapshot_mirror.as_deref())?),
            None => None,
        };
        let one = |suite: crate::recipe::Suite| {
            let mirror = self.mirror(suite.mirror.as_ref().or(debian.mirror.as_ref()))?;
            let keyring = self.keyrings(recipe, &suite);
            Ok(SuiteSource {
                name: suite.suite.clone(),
                priority: suite.priority,
                snapshot: snapshot.clone(),
                allow_expired: debian.allow_expired,
                suite: Suite {
                    mirror,
                    suite: suite.suite,
                    components: suite.components.unwrap_or_default(),
                    architecture: ARCHITECTURE.into(),
                    keyring,
                },
            })
        };
        debian.suites().into_iter().map(one).collect()
    }

    /// The folder that local package files are named from.
    fn local_folder(recipe_path: &Path) -> PathBuf {
        let folder = recipe_path.parent().filter(|folder| !folder.as_os_str().is_empty());
        folder.unwrap_or(Path::new(".")).to_owned()
    }

    /// Chooses packages anew from the suites' indexes.
    fn resolve(
        &self,
        recipe: &Recipe,
        recipe_path: &Path,
        cache: &Cache,
        progress: &dyn Progress,
    ) -> Result<Lock, BuildError> {
        let folder = Self::local_folder(recipe_path);
        let named = |path: &crate::recipe::HostPath| {
            let path = recipe.host_path(path);
            path.strip_prefix(&folder).map(Path::to_owned).unwrap_or(path)
        };
        let local: Vec<PathBuf> = recipe.debian.local.iter().map(named).collect();
        let pin = |pin: &crate::recipe::Pin| Pin {
            packages: pin.packages.clone(),
            to: match (&pin.suite, &pin.version) {
                (Some(suite), _) => PinTo::Suite(suite.clone()),
                (None, version) => PinTo::Version(version.clone().unwrap_or_else(|| "*".into())),
            },
            priority: pin.priority,
        };
        let suites = Suites {
            sources: self.suites(recipe)?,
            pins: recipe.debian.pins.iter().map(pin).collect(),
            local: ashlar_debian::read_local_debs(&folder, &local, ARCHITECTURE)?,
        };
        let index = Index::load_all(&suites, cache, self.network, progress)?;
        let mut parts = lock::requests(recipe);
        for part in &mut parts {
            part.packages = index.resolve(&part.requested, &part.excluded)?;
        }
        Lock::new(recipe, &index, self.resolve_images(recipe, cache)?, parts)
    }

    /// Who asks registries.
    pub fn registry(&self) -> Result<Registry, BuildError> {
        Ok(Registry::new(RegistryOptions {
            ca_file: self.registry_ca.clone(),
            offline: self.network == Network::Offline,
            ..RegistryOptions::default()
        })?)
    }

    /// What the recipe's images of registries mean today.
    fn resolve_images(&self, recipe: &Recipe, cache: &Cache) -> Result<Vec<LockedImage>, BuildError> {
        let mut images = Vec::new();
        for container in &recipe.containers {
            let Some(named) = &container.oci else { continue };
            let reference: Reference = named.parse()?;
            let image = self.registry()?.resolve(&reference, &Platform::default(), cache)?;
            images.push(LockedImage { container: container.name.clone(), named: named.clone(), image });
        }
        Ok(images)
    }

    /// The lock for `recipe`, and whether it differs from the file at `path` and is to be written there.
    pub fn lock(
        &self,
        recipe: &Recipe,
        recipe_path: &Path,
        path: &Path,
        policy: LockPolicy,
        cache: &Cache,
        progress: &dyn Progress,
    ) -> Result<(Lock, bool), BuildError> {
        let stored = match policy {
            LockPolicy::Refresh => Stored::None,
            _ => Lock::load(path)?,
        };
        let why = match stored {
            Stored::Lock(lock) => match lock.misfit(recipe)? {
                None => return Ok((*lock, false)),
                Some(why) => why,
            },
            Stored::Outdated(format) => {
                format!("an older version of this program wrote it (format {format})")
            }
            Stored::None => "there is no such file".into(),
        };
        if policy == LockPolicy::Locked {
            return Err(BuildError::Locked { path: path.to_owned(), why });
        }
        Ok((self.resolve(recipe, recipe_path, cache, progress)?, true))
    }

    /// Fetches all packages of these parts of `lock`, each once, and gives them part by part.
    pub fn fetch(
        &self,
        recipe: &Recipe,
        recipe_path: &Path,
        lock: &Lock,
        parts: &[&str],
        cache: &Cache,
        progress: &dyn Progress,
    ) -> Result<BTreeMap<String, Vec<Package>>, BuildError> {
        let parts = || lock.parts.iter().filter(|part| parts.contains(&part.name.as_str()));
        let mut wanted: Vec<_> = parts().flat_map(|part| &part.packages).cloned().collect();
        wanted.sort();
        wanted.dedup();
        // Without a mirror a full cache is enough; the fetch itself says what is missing.
        let folder = Self::local_folder(recipe_path);
        let places = match self.suites(recipe) {
            Ok(suites) => Places::of(&suites, &folder)?,
            Err(_) => Places::of(&[], &folder)?,
        };
        let packages = ashlar_debian::fetch_from(&wanted, &places, cache, self.network, progress)?;
        let by_hash: BTreeMap<&str, &Package> =
            packages.iter().map(|package| (package.locked.sha256.as_str(), package)).collect();
        let of_part = |part: &lock::Part| -> Vec<Package> {
            let hashes = part.packages.iter().map(|locked| locked.sha256.as_str());
            hashes.filter_map(|hash| by_hash.get(hash).map(|package| (*package).clone())).collect()
        };
        Ok(parts().map(|part| (part.name.clone(), of_part(part))).collect())
    }
}
