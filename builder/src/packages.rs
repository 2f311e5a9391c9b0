//! From a recipe to packages that are verified and unpacked in the cache: resolve or take from the lock file,
//! then fetch.

use crate::error::BuildError;
use crate::lock::{self, Lock};
use crate::recipe::Recipe;
use ashlar_debian::{Cache, DEFAULT_KEYRINGS, Index, Network, Package, Progress, Suite};
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
    fn mirror(&self, recipe: &Recipe) -> Result<String, BuildError> {
        match self.mirror.as_ref().or(recipe.debian.mirror.as_ref()) {
            Some(mirror) => Ok(mirror.clone()),
            None => Ok(ashlar_debian::host_mirror()?),
        }
    }

    fn keyrings(&self) -> Vec<PathBuf> {
        if !self.keyrings.is_empty() {
            return self.keyrings.clone();
        }
        // Debian 12 and 13 give the file different endings; whichever is there.
        let found: Vec<PathBuf> =
            DEFAULT_KEYRINGS.iter().map(PathBuf::from).filter(|path| path.exists()).take(1).collect();
        if found.is_empty() { DEFAULT_KEYRINGS.iter().take(1).map(PathBuf::from).collect() } else { found }
    }

    /// Chooses packages anew from the suite's index.
    fn resolve(&self, recipe: &Recipe, cache: &Cache, progress: &dyn Progress) -> Result<Lock, BuildError> {
        let suite = Suite {
            mirror: self.mirror(recipe)?,
            suite: recipe.debian.suite.clone(),
            components: recipe.debian.components.clone(),
            architecture: ARCHITECTURE.into(),
            keyring: self.keyrings(),
        };
        let index = Index::load(&suite, cache, self.network, progress)?;
        let mut parts = lock::requests(recipe);
        for part in &mut parts {
            part.packages = index.resolve(&part.requested, &part.excluded)?;
        }
        Ok(Lock::new(recipe, index.date, index.in_release_sha256, parts))
    }

    /// The lock for `recipe`, and whether it differs from the file at `path` and is to be written there.
    pub fn lock(
        &self,
        recipe: &Recipe,
        path: &Path,
        policy: LockPolicy,
        cache: &Cache,
        progress: &dyn Progress,
    ) -> Result<(Lock, bool), BuildError> {
        let old = match policy {
            LockPolicy::Refresh => None,
            _ => Lock::load(path)?,
        };
        let why = match old {
            Some(lock) => match lock.misfit(recipe) {
                None => return Ok((lock, false)),
                Some(why) => why,
            },
            None => "there is no such file".into(),
        };
        if policy == LockPolicy::Locked {
            return Err(BuildError::Locked { path: path.to_owned(), why });
        }
        Ok((self.resolve(recipe, cache, progress)?, true))
    }

    /// Fetches all packages of `lock`, each once, and gives them part by part.
    pub fn fetch(
        &self,
        recipe: &Recipe,
        lock: &Lock,
        cache: &Cache,
        progress: &dyn Progress,
    ) -> Result<BTreeMap<String, Vec<Package>>, BuildError> {
        let mut wanted: Vec<_> = lock.parts.iter().flat_map(|part| &part.packages).cloned().collect();
        wanted.sort();
        wanted.dedup();
        // Without a mirror a full cache is enough; the fetch itself says what is missing.
        let mirror = self.mirror(recipe).ok();
        let packages = ashlar_debian::fetch(&wanted, mirror.as_deref(), cache, self.network, progress)?;
        let by_hash: BTreeMap<&str, &Package> =
            packages.iter().map(|package| (package.locked.sha256.as_str(), package)).collect();
        let of_part = |part: &lock::Part| -> Vec<Package> {
            let hashes = part.packages.iter().map(|locked| locked.sha256.as_str());
            hashes.filter_map(|hash| by_hash.get(hash).map(|package| (*package).clone())).collect()
        };
        Ok(lock.parts.iter().map(|part| (part.name.clone(), of_part(part))).collect())
    }
}
