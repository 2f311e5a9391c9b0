//! File trees that are no packages: folders, archives, OCI images. They are read before any stage, because their digests
//! are part of the root's key.

use crate::accounts::user_of;
use crate::compose::ImageDefaults;
use crate::error::BuildError;
use crate::lock::Lock;
use crate::packages::Source as Settings;
use crate::recipe::{Container, Recipe, Source};
use ashlar_cache::Cache;
use ashlar_image::digest::Digest;
use ashlar_sources::{Image, ImageOptions, Owner, TarOptions, Time};
use ashlar_tree::Tree;
use std::collections::BTreeMap;

/// A tree that is laid over another one.
#[derive(Debug)]
struct Overlay {
    into: String,
    source: ashlar_sources::Source,
}

/// All of a recipe.
#[derive(Debug, Default)]
pub struct Trees {
    root: Vec<Overlay>,
    containers: BTreeMap<String, Vec<Overlay>>,
    images: BTreeMap<String, Image>,
}

/// Reads the trees of one list.
fn overlays(recipe: &Recipe, list: &[Source], time: i64, cache: &Cache) -> Result<Vec<Overlay>, BuildError> {
    let mut all = Vec::new();
    for source in list {
        let read = match (&source.directory, &source.tar) {
            (Some(path), _) => {
                let options = ashlar_sources::Options {
                    owner: if source.keep_owner { Owner::Keep } else { Owner::Root },
                    exclude: source.exclude.clone(),
                    // When files were checked out is nothing that an image depends on.
                    time: Time::All(time),
                    ..ashlar_sources::Options::default()
                };
                ashlar_sources::directory(&recipe.host_path(path), &options)?
            }
            (None, Some(path)) => {
                let sha256 = match &source.sha256 {
                    Some(text) => Some(text.parse().map_err(|_| BuildError::BadDigest(text.clone()))?),
                    None => None,
                };
                let options = TarOptions { sha256, ..TarOptions::default() };
                ashlar_sources::tar(&recipe.host_path(path), &options, cache)?
            }
            // The recipe was checked: one of both is there.
            (None, None) => continue,
        };
        all.push(Overlay { into: source.into.clone(), source: read });
    }
    Ok(all)
}

impl Trees {
    /// Reads all that the recipe names.
    pub fn read(
        recipe: &Recipe,
        lock: &Lock,
        settings: &Settings,
        cache: &Cache,
    ) -> Result<Self, BuildError> {
        let time = recipe.image.build_time.map_or(lock.index_date, |time| time.0);
        let mut trees = Self { root: overlays(recipe, &recipe.sources, time, cache)?, ..Self::default() };
        for container in &recipe.containers {
            let name = &container.name;
            trees.containers.insert(name.clone(), overlays(recipe, &container.sources, time, cache)?);
            let image = if let Some(layout) = &container.oci_layout {
                ashlar_sources::layout(&recipe.host_path(layout), &ImageOptions::default(), cache)?
            } else if let Some(locked) = lock.images.iter().find(|image| image.container == *name) {
                settings.registry()?.fetch(&locked.image, &ImageOptions::default(), cache)?
            } else {
                continue;
            };
            trees.images.insert(name.clone(), image);
        }
        Ok(trees)
    }

    fn all(&self) -> impl Iterator<Item = &ashlar_sources::Source> {
        let overlays = self.root.iter().chain(self.containers.values().flatten());
        overlays.map(|overlay| &overlay.source).chain(self.images.values().map(|image| &image.source))
    }

    /// Sees that nothing was changed since it was read.
    pub fn unchanged(&self) -> Result<(), BuildError> {
        Ok(self.all().try_for_each(ashlar_sources::Source::check_unchanged)?)
    }

    /// What was left out or done otherwise.
    pub fn notes(&self) -> impl Iterator<Item = &String> {
        self.all().flat_map(|source| &source.notes)
    }

    /// The digests of the trees over the root.
    pub fn root_digests(&self) -> Vec<Digest> {
        self.root.iter().map(|overlay| overlay.source.digest).collect()
    }

    /// The digests of the trees over a container.
    pub fn container_digests(&self, name: &str) -> Vec<Digest> {
        self.containers.get(name).into_iter().flatten().map(|overlay| overlay.source.digest).collect()
    }

    /// A container's image.
    pub fn image(&self, name: &str) -> Option<&Image> {
        self.images.get(name)
    }

    /// The trees over the root, each with where it goes, in the recipe's order.
    pub fn over_root(&self) -> impl Iterator<Item = (&str, &Tree)> {
        self.root.iter().map(|overlay| (overlay.into.as_str(), &overlay.source.tree))
    }

    /// The trees over a container.
    pub fn over_container(&self, name: &str) -> impl Iterator<Item = (&str, &Tree)> {
        let list = self.containers.get(name).into_iter().flatten();
        list.map(|overlay| (overlay.into.as_str(), &overlay.source.tree))
    }

    /// All digests: part of the root's key.
    pub fn digests(&self) -> Vec<Digest> {
        self.all().map(|source| source.digest).collect()
    }
}

/// What an image's configuration says where the recipe is silent.
pub fn defaults(container: &Container, image: &Image) -> Result<ImageDefaults, BuildError> {
    let config = &image.config;
    let named = config.user.as_deref().filter(|user| !user.is_empty());
    let user = match named {
        // Whoever gives both needs nothing of the image.
        Some(user) if container.uid.is_none() || container.gid.is_none() => user_of(&image.source.tree, user)
            .ok_or_else(|| BuildError::UnknownUser {
                container: container.name.clone(),
                user: user.to_owned(),
            })?,
        _ => (0, 0),
    };
    Ok(ImageDefaults {
        command: config.entrypoint.iter().chain(&config.command).cloned().collect(),
        environment: config.environment.clone(),
        working_directory: config.working_directory.clone(),
        user,
    })
}
