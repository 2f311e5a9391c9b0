//! CycloneDX 1.6 in JSON (ECMA-424, first edition).

use crate::SbomError;
use crate::bill::{Bill, Component, Graph, Kind};
use crate::ids::document;
use crate::time::rfc3339;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

// The order of fields is that of the types, whatever serde_json's features are: maps are not used.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    #[serde(rename = "$schema")]
    schema: &'static str,
    bom_format: &'static str,
    spec_version: &'static str,
    serial_number: String,
    version: u32,
    metadata: Metadata,
    components: Vec<Part>,
    dependencies: Vec<Dependency>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    compositions: Vec<Composition>,
}

#[derive(Serialize)]
struct Metadata {
    timestamp: String,
    lifecycles: Vec<Lifecycle>,
    tools: Tools,
    component: Part,
}

#[derive(Serialize)]
struct Lifecycle {
    phase: &'static str,
}

#[derive(Serialize)]
struct Tools {
    components: Vec<Tool>,
}

#[derive(Serialize)]
struct Tool {
    r#type: &'static str,
    name: &'static str,
    version: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Part {
    r#type: &'static str,
    #[serde(rename = "bom-ref")]
    bom_ref: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    supplier: Option<Supplier>,
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    hashes: Vec<Hash>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    licenses: Vec<License>,
    #[serde(skip_serializing_if = "Option::is_none")]
    purl: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    external_references: Vec<Reference>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    properties: Vec<Property>,
}

#[derive(Serialize)]
struct Supplier {
    name: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    contact: Vec<Contact>,
}

#[derive(Serialize)]
struct Contact {
    email: String,
}

#[derive(Serialize)]
struct Hash {
    alg: &'static str,
    content: String,
}

#[derive(Serialize)]
struct License {
    expression: String,
    acknowledgement: &'static str,
}

#[derive(Serialize)]
struct Reference {
    r#type: &'static str,
    url: String,
}

#[derive(Serialize)]
struct Property {
    name: String,
    value: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Dependency {
    r#ref: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    depends_on: Vec<String>,
}

#[derive(Serialize)]
struct Composition {
    aggregate: &'static str,
    assemblies: Vec<String>,
}

fn part(component: &Component<'_>, parts: &BTreeSet<&str>) -> Part {
    let deb = component.package;
    let kind = match component.kind {
        Kind::Image | Kind::Kernel => "operating-system",
        Kind::File | Kind::Source => "file",
        Kind::Init => "application",
        Kind::Container | Kind::Oci => "container",
        Kind::Debian => "library",
    };
    let property = |name: &str, value: &str| Property { name: name.to_owned(), value: value.to_owned() };
    let mut properties: Vec<Property> =
        component.facts.iter().map(|(name, value)| property(name, value)).collect();
    properties.extend(parts.iter().map(|part| property("ashlar:part", part)));
    if let Some(package) = deb {
        properties.push(property("ashlar:source-package", &package.source));
        properties.push(property("ashlar:source-version", &package.source_version));
        let mentions = &package.declared.mentions;
        properties.extend(mentions.iter().map(|name| property("ashlar:common-license", name)));
        // The format has no place for the text of a `LicenseRef-`; the SPDX document has it.
        let texts = &package.declared.extracted;
        properties.extend(
            texts.iter().map(|(id, text)| property(&format!("ashlar:license-name:{id}"), &text.name)),
        );
    }
    Part {
        r#type: kind,
        bom_ref: component.key.clone(),
        supplier: deb.and_then(|p| p.contact()).map(|(name, address)| Supplier {
            name: name.to_owned(),
            contact: address.map(|email| Contact { email: email.to_owned() }).into_iter().collect(),
        }),
        name: component.name.clone(),
        version: component.version.clone(),
        description: deb.and_then(|p| p.summary.clone()),
        hashes: component
            .sha256
            .map(|digest| Hash { alg: "SHA-256", content: digest.to_string() })
            .into_iter()
            .collect(),
        licenses: deb
            .and_then(|p| p.declared.expression.clone())
            .map(|expression| License { expression, acknowledgement: "declared" })
            .into_iter()
            .collect(),
        purl: component.purl.clone(),
        external_references: deb
            .into_iter()
            .flat_map(|p| [("website", &p.homepage), ("distribution", &p.download)])
            .filter_map(|(kind, url)| Some(Reference { r#type: kind, url: url.clone()? }))
            .collect(),
        properties,
    }
}

/// The document, as JSON with a line feed at its end. What contains something depends on it, as the format's graph
/// knows one kind of edge.
///
/// # Errors
/// [`SbomError::Purl`] for a package whose name cannot be in a package URL.
pub fn write(bill: &Bill<'_>) -> Result<Vec<u8>, SbomError> {
    let graph = Graph::of(bill)?;
    let key = |at: usize| graph.components.get(at).map(|component| component.key.clone());
    let mut in_parts: BTreeMap<(&str, &str), BTreeSet<&str>> = BTreeMap::new();
    for package in &bill.packages {
        in_parts.entry((&package.name, &package.version)).or_default().insert(&package.part);
    }
    let none = BTreeSet::new();
    let mut parts = graph.components.iter().map(|component| {
        let of_package = component.package.and_then(|p| in_parts.get(&(p.name.as_str(), p.version.as_str())));
        part(component, of_package.unwrap_or(&none))
    });
    let Some(image) = parts.next() else {
        // The graph begins with the image.
        return Ok(Vec::new());
    };
    let components: Vec<Part> = parts.collect();
    let mut edges: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
    for (from, to) in graph.contains.iter().chain(&graph.depends) {
        edges.entry(*from).or_default().insert(*to);
    }
    let dependencies = (0..graph.components.len())
        .filter_map(|at| {
            let to = edges.get(&at).into_iter().flatten();
            Some(Dependency { r#ref: key(at)?, depends_on: to.filter_map(|to| key(*to)).collect() })
        })
        .collect();
    let opaque: Vec<String> = graph
        .components
        .iter()
        .filter(|component| matches!(component.kind, Kind::Oci | Kind::Source))
        .map(|component| component.key.clone())
        .collect();
    let document = Document {
        schema: "http://cyclonedx.org/schema/bom-1.6.schema.json",
        bom_format: "CycloneDX",
        spec_version: "1.6",
        serial_number: document("cyclonedx", &bill.release_digest).urn().to_string(),
        version: 1,
        metadata: Metadata {
            timestamp: rfc3339(bill.release.build_time),
            lifecycles: vec![Lifecycle { phase: "build" }],
            tools: Tools {
                components: vec![Tool {
                    r#type: "application",
                    name: "ashlar",
                    version: bill.builder_version.clone(),
                }],
            },
            component: image,
        },
        components,
        dependencies,
        compositions: if opaque.is_empty() {
            Vec::new()
        } else {
            // What is inside was not looked at.
            vec![Composition { aggregate: "unknown", assemblies: opaque }]
        },
    };
    let mut bytes = serde_json::to_vec_pretty(&document)?;
    bytes.push(b'\n');
    Ok(bytes)
}
