//! Provenance: an in-toto Statement v1 with SLSA Provenance v1 as its predicate (slsa.dev/spec/v1.0/provenance).
//!
//! It tells what was built from what, and nothing of when or where unless asked: the same build gives the same
//! statement on every machine.

use crate::SbomError;
use crate::bill::{Bill, Container, Origin};
use ashlar_image::digest::Digest;
use ashlar_image::release::Release;
use serde::Serialize;
use std::collections::BTreeMap;

/// `buildType`: what the parameters below mean. A later meaning gets another number.
pub const BUILD_TYPE: &str = "urn:ashlar:build:1";
/// `_type` of the statement.
pub const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";
/// Type of the predicate.
pub const PREDICATE_TYPE: &str = "https://slsa.dev/provenance/v1";

/// Something by its name and hash.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Material {
    /// Name for people: a file name, `suite trixie`.
    pub name: String,
    /// Where it is named: a package URL, say. Empty when there is none.
    pub uri: String,
    /// SHA-256.
    pub sha256: Digest,
}

/// What a run of the builder may say about itself. Such a statement differs with every run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invocation {
    /// The run's identifier: a job's address, say.
    pub id: String,
    /// When it began, seconds since 1970.
    pub started: Option<i64>,
    /// When it ended, seconds since 1970.
    pub finished: Option<i64>,
}

/// What was built, from what, by whom.
#[derive(Debug, Clone)]
pub struct Provenance {
    /// What the statement is about, see [`subjects`].
    pub subjects: Vec<Material>,
    /// The recipe: name and hash.
    pub recipe: Material,
    /// The recipe's profile.
    pub profile: Option<String>,
    /// Options that changed what was built.
    pub options: BTreeMap<String, String>,
    /// All that went in, see [`materials`].
    pub materials: Vec<Material>,
    /// URI of who ran the build and is trusted for it.
    pub builder_id: String,
    /// Version of the program.
    pub builder_version: String,
    /// About this run; none for a statement that is the same in every build.
    pub invocation: Option<Invocation>,
}

/// The release's files with their hashes. `disk.raw` is not among them: it is the three partitions behind a table, and
/// `release.json` has no hash of it.
pub fn subjects(release: &Release, release_json: Digest) -> Vec<Material> {
    let slot = &release.slot;
    let mut all: Vec<Material> = [&slot.esp, &slot.root, &slot.verity, &release.uki.artifact]
        .into_iter()
        .map(|file| Material { name: file.file.clone(), uri: String::new(), sha256: file.sha256 })
        .collect();
    all.push(Material { name: "release.json".into(), uri: String::new(), sha256: release_json });
    all.sort();
    all
}

/// The materials that a bill knows: package files, OCI images, other sources and the init program. The caller adds the
/// suites' indexes ([`index`]) and what else it has read.
///
/// # Errors
/// [`SbomError::Purl`] for a name that cannot be in a package URL.
pub fn materials(bill: &Bill<'_>) -> Result<Vec<Material>, SbomError> {
    let mut all = Vec::new();
    for package in &bill.packages {
        let uri = package.purl(bill.distribution.as_deref())?;
        all.push(Material { name: package.name.clone(), uri, sha256: package.sha256 });
    }
    for container in &bill.containers {
        if let (Container { name, origin: Origin::Oci { digest, .. } }, Some(uri)) =
            (container, container.purl()?)
        {
            all.push(Material { name: name.clone(), uri, sha256: *digest });
        }
    }
    for source in &bill.sources {
        all.push(Material { name: source.name.clone(), uri: String::new(), sha256: source.digest });
    }
    all.push(Material { name: "ashlar-init".into(), uri: String::new(), sha256: bill.release.init });
    // A package in two parts is one material.
    all.sort();
    all.dedup();
    Ok(all)
}

/// The signed index of a suite (`InRelease`).
pub fn index(suite: &str, sha256: Digest) -> Material {
    Material { name: format!("suite {suite}: InRelease"), uri: String::new(), sha256 }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Statement<'a> {
    #[serde(rename = "_type")]
    kind: &'static str,
    subject: Vec<Descriptor<'a>>,
    predicate_type: &'static str,
    predicate: Predicate<'a>,
}

/// in-toto's ResourceDescriptor.
#[derive(Serialize)]
struct Descriptor<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    uri: &'a str,
    digest: Sha256,
}

#[derive(Serialize)]
struct Sha256 {
    sha256: Digest,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Predicate<'a> {
    build_definition: BuildDefinition<'a>,
    run_details: RunDetails<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct BuildDefinition<'a> {
    build_type: &'static str,
    external_parameters: ExternalParameters<'a>,
    resolved_dependencies: Vec<Descriptor<'a>>,
}

#[derive(Serialize)]
struct ExternalParameters<'a> {
    recipe: Descriptor<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    profile: Option<&'a str>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    options: &'a BTreeMap<String, String>,
}

#[derive(Serialize)]
struct RunDetails<'a> {
    builder: Builder<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<RunMetadata<'a>>,
}

#[derive(Serialize)]
struct Builder<'a> {
    id: &'a str,
    version: Version<'a>,
}

#[derive(Serialize)]
struct Version<'a> {
    ashlar: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RunMetadata<'a> {
    invocation_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    started_on: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    finished_on: Option<String>,
}

fn descriptor(material: &Material) -> Descriptor<'_> {
    Descriptor { name: &material.name, uri: &material.uri, digest: Sha256 { sha256: material.sha256 } }
}

/// The statement as JSON: what [`crate::dsse::sign`] signs. Subjects and materials are sorted.
///
/// # Errors
/// [`SbomError::Json`] only if the writer fails.
pub fn statement(provenance: &Provenance) -> Result<Vec<u8>, SbomError> {
    let sorted = |list: &[Material]| {
        let mut list = list.to_vec();
        list.sort();
        list.dedup();
        list
    };
    let (subjects, materials) = (sorted(&provenance.subjects), sorted(&provenance.materials));
    let statement = Statement {
        kind: STATEMENT_TYPE,
        subject: subjects.iter().map(descriptor).collect(),
        predicate_type: PREDICATE_TYPE,
        predicate: Predicate {
            build_definition: BuildDefinition {
                build_type: BUILD_TYPE,
                external_parameters: ExternalParameters {
                    recipe: descriptor(&provenance.recipe),
                    profile: provenance.profile.as_deref(),
                    options: &provenance.options,
                },
                resolved_dependencies: materials.iter().map(descriptor).collect(),
            },
            run_details: RunDetails {
                builder: Builder {
                    id: &provenance.builder_id,
                    version: Version { ashlar: &provenance.builder_version },
                },
                metadata: provenance.invocation.as_ref().map(|run| RunMetadata {
                    invocation_id: &run.id,
                    started_on: run.started.map(crate::time::rfc3339),
                    finished_on: run.finished.map(crate::time::rfc3339),
                }),
            },
        },
    };
    let mut bytes = serde_json::to_vec_pretty(&statement)?;
    bytes.push(b'\n');
    Ok(bytes)
}
