//! What a release is made of, as its bills of materials and its provenance tell it.

use super::Build;
use crate::error::BuildError;
use crate::recipe::{Recipe, Source};
use crate::store::{Key, Store};
use ashlar_debian::Package;
use ashlar_image::digest::Digest;
use ashlar_image::release::Release;
use ashlar_sbom::provenance::{self, Provenance};
use ashlar_sbom::{Bill, Container, DebianPackage, Declared, Origin, OtherSource, SourceKind};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Files of a release with its bill of materials in SPDX and in CycloneDX, and its provenance.
pub const SPDX_FILE: &str = "sbom.spdx.json";
/// See [`SPDX_FILE`].
pub const CYCLONEDX_FILE: &str = "sbom.cdx.json";
/// See [`SPDX_FILE`].
pub const PROVENANCE_FILE: &str = "provenance.json";

/// What a release is made of.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Materials {
    /// The suites that packages were chosen from, and SHA-256 of each one's signed index.
    pub indexes: BTreeMap<String, Digest>,
    /// The packages with their licences.
    pub packages: Vec<DebianPackage>,
    /// The containers.
    pub containers: Vec<Container>,
    /// What came from elsewhere.
    pub sources: Vec<OtherSource>,
    /// SHA-256 of all texts of the recipe.
    pub recipe: Digest,
    /// The profiles that were chosen.
    pub profiles: Vec<String>,
}

const KEPT: &str = "packages.json";

/// Reads the licences of all packages, and keeps them.
pub(super) fn packages(
    build: &Build<'_>,
    fetched: &[(&str, &[Package])],
    key: &Key,
) -> Result<Vec<DebianPackage>, BuildError> {
    let mut found = Vec::new();
    for (part, packages) in fetched {
        // Their own tree: what the recipe removes from the image still has its licence.
        let mut tree = crate::compose::skeleton(0)?;
        super::unpack(&mut tree, packages)?;
        let names: BTreeSet<&str> = packages.iter().map(|package| package.locked.name.as_str()).collect();
        for package in *packages {
            let locked = &package.locked;
            let declared = match ashlar_sbom::copyright::read(&tree, &locked.name)? {
                Some(text) => ashlar_sbom::copyright::parse(&text),
                None => Declared::default(),
            };
            let sha256 = super::package_digest(locked)?;
            let mut entry = DebianPackage::from_control(part, package.control(), sha256, declared)?;
            entry.depends_on.retain(|name| names.contains(name.as_str()));
            found.push(entry);
        }
    }
    let mut draft = build.store.draft()?;
    draft.write(KEPT, &serde_json::to_vec(&found)?)?;
    build.store.keep(draft, key)?;
    Ok(found)
}

/// The kept licences; none when they are not there or damaged.
pub(super) fn restore(store: &Store<'_>, key: &Key) -> Result<Option<Vec<DebianPackage>>, BuildError> {
    let Some(item) = store.load(key)? else { return Ok(None) };
    let Some(bytes) = store.read(&item, KEPT)? else { return Ok(None) };
    Ok(Some(serde_json::from_slice(&bytes)?))
}

/// The digest of all texts that a recipe was read from.
pub(super) fn recipe_digest(recipe: &Recipe) -> Digest {
    let mut texts = Vec::new();
    for (_, text) in recipe.texts.files() {
        texts.extend(Digest::of(text).0);
    }
    Digest::of(texts)
}

/// Containers and other sources of the recipe.
pub(super) fn origins(build: &Build<'_>) -> (Vec<Container>, Vec<OtherSource>) {
    let recipe = build.recipe;
    let mut containers = Vec::new();
    let mut sources = Vec::new();
    let mut add = |part: &str, list: &[Source], digests: &[Digest]| {
        for (source, digest) in list.iter().zip(digests) {
            let (kind, path) = match (&source.directory, &source.tar) {
                (Some(path), _) => (SourceKind::Directory, path),
                (None, Some(path)) => (SourceKind::Tar, path),
                (None, None) => continue,
            };
            let name = path.as_text();
            sources.push(OtherSource { part: part.to_owned(), name, kind, digest: *digest });
        }
    };
    add("root", &recipe.sources, &build.trees.root_digests());
    for container in &recipe.containers {
        let part = format!("container {}", container.name);
        add(&part, &container.sources, &build.trees.container_digests(&container.name));
        let origin = match build.trees.image(&container.name) {
            Some(image) => Origin::Oci { reference: container.oci.clone(), digest: image.digest },
            None => Origin::Packages,
        };
        containers.push(Container { name: container.name.clone(), origin });
    }
    (containers, sources)
}

/// Both bills and the provenance of a release, as files by name.
pub(super) fn documents(
    materials: &Materials,
    release: &Release,
    release_json: &[u8],
) -> Result<Vec<(&'static str, Vec<u8>)>, BuildError> {
    let release_digest = Digest::of(release_json);
    let builder_version = env!("CARGO_PKG_VERSION").to_owned();
    let bill = Bill {
        release,
        release_digest,
        distribution: materials.indexes.keys().next().cloned(),
        builder_version: builder_version.clone(),
        packages: materials.packages.clone(),
        containers: materials.containers.clone(),
        sources: materials.sources.clone(),
    };
    let mut all = provenance::materials(&bill)?;
    all.extend(materials.indexes.iter().map(|(suite, sha256)| provenance::index(suite, *sha256)));
    let statement = Provenance {
        subjects: provenance::subjects(release, release_digest),
        recipe: provenance::Material {
            name: "recipe".into(),
            uri: format!("urn:ashlar:recipe:{}", release.image_id),
            sha256: materials.recipe,
        },
        profile: (!materials.profiles.is_empty()).then(|| materials.profiles.join(",")),
        options: BTreeMap::new(),
        materials: all,
        builder_id: "urn:ashlar:builder".into(),
        builder_version,
        invocation: None,
    };
    Ok(vec![
        (SPDX_FILE, ashlar_sbom::spdx_json::write(&bill)?),
        (CYCLONEDX_FILE, ashlar_sbom::cyclonedx::write(&bill)?),
        (PROVENANCE_FILE, provenance::statement(&statement)?),
    ])
}
