//! SPDX 2.3 in JSON (SPDX Specification 2.3; field names as in its JSON schema).
#![allow(clippy::struct_field_names)] // they are the format's

use crate::bill::{Bill, Component, Graph, Kind};
use crate::ids::{Unique, document, idstring};
use crate::license::Extracted;
use crate::time::rfc3339;
use crate::{DebianPackage, SbomError};
use serde::Serialize;
use std::collections::BTreeMap;

/// Where nothing is claimed (section 7.13 and others).
const NOASSERTION: &str = "NOASSERTION";

// The order of fields is that of the types, whatever serde_json's features are: maps are not used.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    spdx_version: &'static str,
    data_license: &'static str,
    #[serde(rename = "SPDXID")]
    spdxid: &'static str,
    name: String,
    document_namespace: String,
    creation_info: CreationInfo,
    packages: Vec<Package>,
    has_extracted_licensing_infos: Vec<ExtractedLicensing>,
    relationships: Vec<Relationship>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CreationInfo {
    created: String,
    creators: Vec<String>,
    license_list_version: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Package {
    #[serde(rename = "SPDXID")]
    spdxid: String,
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    version_info: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    package_file_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    primary_package_purpose: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    supplier: Option<String>,
    download_location: String,
    files_analyzed: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    checksums: Vec<Checksum>,
    #[serde(skip_serializing_if = "Option::is_none")]
    homepage: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source_info: Option<String>,
    license_concluded: &'static str,
    license_declared: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    license_comments: Option<String>,
    copyright_text: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    summary: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    comment: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    external_refs: Vec<ExternalRef>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Checksum {
    algorithm: &'static str,
    checksum_value: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ExternalRef {
    reference_category: &'static str,
    reference_type: &'static str,
    reference_locator: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ExtractedLicensing {
    license_id: String,
    name: String,
    extracted_text: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Relationship {
    spdx_element_id: String,
    relationship_type: &'static str,
    related_spdx_element: String,
}

/// `Organization: NAME (ADDRESS)` or `Person: …` (section 7.5). Debian does not say which of them a maintainer is;
/// teams write from lists.
fn supplier(package: &DebianPackage) -> Option<String> {
    let (name, address) = package.contact()?;
    let team =
        ["Team", "Maintainers", "Group", "Developers", "Project"].iter().any(|word| name.contains(word))
            || address.is_some_and(|a| a.contains("@lists.") || a.ends_with("@tracker.debian.org"));
    let kind = if team { "Organization" } else { "Person" };
    Some(match address {
        Some(address) => format!("{kind}: {name} ({address})"),
        None => format!("{kind}: {name}"),
    })
}

/// `busybox-static_1.37.0-6+b9_amd64.deb`: the name that archives give the file, without the epoch.
fn file_name(package: &DebianPackage) -> String {
    let version = package.version.split_once(':').map_or(package.version.as_str(), |(_, rest)| rest);
    format!("{}_{version}_{}.deb", package.name, package.architecture)
}

fn package(component: &Component<'_>, id: &str, builder: &str) -> Package {
    let deb = component.package;
    let purpose = match component.kind {
        Kind::Image | Kind::Kernel => Some("OPERATING_SYSTEM"),
        Kind::File => Some("FILE"),
        Kind::Init => Some("APPLICATION"),
        Kind::Container | Kind::Oci => Some("CONTAINER"),
        Kind::Source => Some("SOURCE"),
        Kind::Debian => None,
    };
    let facts: Vec<String> = component.facts.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let comments = deb.filter(|p| !p.declared.mentions.is_empty()).map(|p| {
        let mentions: Vec<&str> = p.declared.mentions.iter().map(String::as_str).collect();
        format!("The copyright file is free text and refers to {}.", mentions.join(", "))
    });
    let mut checksums = Vec::new();
    // An image has no one file; the digest of its manifest is that of the `pkg:oci` URL.
    if let Some(digest) = component.sha256.filter(|_| component.kind != Kind::Oci) {
        checksums.push(Checksum { algorithm: "SHA256", checksum_value: digest.to_string() });
    }
    let locator = component.purl.iter().map(|purl| ExternalRef {
        reference_category: "PACKAGE-MANAGER",
        reference_type: "purl",
        reference_locator: purl.clone(),
    });
    Package {
        spdxid: id.to_owned(),
        name: component.name.clone(),
        version_info: component.version.clone(),
        package_file_name: deb.map(file_name),
        primary_package_purpose: purpose,
        supplier: deb.and_then(supplier),
        download_location: deb.and_then(|p| p.download.clone()).unwrap_or_else(|| NOASSERTION.into()),
        files_analyzed: false,
        checksums,
        homepage: deb.and_then(|p| p.homepage.clone()),
        source_info: match component.kind {
            Kind::Debian => {
                deb.map(|p| format!("built from the source package {} {}", p.source, p.source_version))
            }
            Kind::Image => Some(format!("built by ashlar {builder}")),
            _ => None,
        },
        // Nobody has looked at the files themselves.
        license_concluded: NOASSERTION,
        license_declared: deb
            .and_then(|p| p.declared.expression.clone())
            .unwrap_or_else(|| NOASSERTION.into()),
        license_comments: comments,
        copyright_text: NOASSERTION,
        summary: deb.and_then(|p| p.summary.clone()),
        comment: (!facts.is_empty()).then(|| facts.join("\n")),
        external_refs: locator.collect(),
    }
}

/// The SPDX identifier of a component.
fn element_id(component: &Component<'_>, unique: &mut Unique) -> String {
    let word = match component.kind {
        Kind::Image => "Image",
        Kind::File => "File",
        Kind::Kernel => "Kernel",
        Kind::Init => "Init",
        Kind::Debian => "Deb",
        Kind::Container | Kind::Oci => "Container",
        Kind::Source => "Source",
    };
    let mut wanted = format!("SPDXRef-{word}-{}", component.name);
    if let (Some(version), Some(package)) = (&component.version, component.package) {
        wanted = format!("{wanted}-{version}-{}", package.architecture);
    }
    unique.name(&idstring(&wanted))
}

/// The document, as JSON with a line feed at its end.
///
/// # Errors
/// [`SbomError::Purl`] for a package whose name cannot be in a package URL.
pub fn write(bill: &Bill<'_>) -> Result<Vec<u8>, SbomError> {
    let graph = Graph::of(bill)?;
    let mut unique = Unique::default();
    let ids: Vec<String> =
        graph.components.iter().map(|component| element_id(component, &mut unique)).collect();
    let mut relationships = Vec::new();
    let id = |at: usize| ids.get(at).cloned().unwrap_or_default();
    let mut relate = |from: String, kind: &'static str, to: String| {
        relationships.push(Relationship {
            spdx_element_id: from,
            relationship_type: kind,
            related_spdx_element: to,
        });
    };
    relate("SPDXRef-DOCUMENT".into(), "DESCRIBES", id(0));
    graph.contains.iter().for_each(|(from, to)| relate(id(*from), "CONTAINS", id(*to)));
    graph.depends.iter().for_each(|(from, to)| relate(id(*from), "DEPENDS_ON", id(*to)));

    let mut extracted: BTreeMap<&str, &Extracted> = BTreeMap::new();
    for package in &bill.packages {
        extracted.extend(package.declared.extracted.iter().map(|(id, text)| (id.as_str(), text)));
    }
    let release = bill.release;
    let name = format!("{}-{}", release.image_id, release.image_version);
    let list_version: Vec<&str> = spdx::license_version().split('.').take(2).collect();
    let document = Document {
        spdx_version: "SPDX-2.3",
        data_license: "CC0-1.0",
        spdxid: "SPDXRef-DOCUMENT",
        // The place that the specification keeps for documents without a site of their own (section 6.5).
        document_namespace: format!(
            "https://spdx.org/spdxdocs/{}-{}",
            idstring(&name),
            document("spdx", &bill.release_digest)
        ),
        name,
        creation_info: CreationInfo {
            created: rfc3339(release.build_time),
            creators: vec![format!("Tool: ashlar-{}", bill.builder_version)],
            license_list_version: list_version.join("."),
        },
        packages: graph
            .components
            .iter()
            .zip(&ids)
            .map(|(component, id)| package(component, id, &bill.builder_version))
            .collect(),
        has_extracted_licensing_infos: extracted
            .into_iter()
            .map(|(id, text)| ExtractedLicensing {
                license_id: id.to_owned(),
                name: text.name.clone(),
                extracted_text: text.text.clone(),
            })
            .collect(),
        relationships,
    };
    let mut bytes = serde_json::to_vec_pretty(&document)?;
    bytes.push(b'\n');
    Ok(bytes)
}
