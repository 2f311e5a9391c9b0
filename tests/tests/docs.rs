//! docs/reference.md tells of every key of a recipe, and of no others.
#![allow(clippy::unwrap_used)] // a test fails by it

use ashlar_builder::recipe::schema;
use serde_json::Value;
use std::collections::BTreeSet;

/// Tables that only hold keys, and those whose keys are told of under another name: these keys have no rows.
const PLAIN: [&str; 7] = ["image", "debian", "root", "kernel", "partitions", "state", "lint"];
const ALIKE: [&str; 4] = ["container.source", "container.file", "lint.smallest-slot", "profile"];

fn keys(schema: &Value, node: &Value, prefix: &str, found: &mut BTreeSet<String>) {
    if !node.is_object() || ALIKE.contains(&prefix) {
        return;
    }
    if let Some(name) = node["$ref"].as_str().and_then(|name| name.rsplit('/').next()) {
        keys(schema, &schema["$defs"][name], prefix, found);
    }
    for other in node["anyOf"].as_array().into_iter().flatten().chain([&node["items"]]) {
        keys(schema, other, prefix, found);
    }
    if node["additionalProperties"]["$ref"].is_string() {
        keys(schema, &node["additionalProperties"], &format!("{prefix}.NAME"), found);
    }
    for (key, value) in node["properties"].as_object().into_iter().flatten() {
        let path = format!("{prefix}.{key}").trim_start_matches('.').to_owned();
        keys(schema, value, &path, found);
        found.insert(path);
    }
}

#[test]
fn the_reference_tells_of_every_key_of_a_recipe_and_of_no_others() {
    let (text, mut known) = (include_str!("../../docs/reference.md"), BTreeSet::new());
    let section = text.split("\n## ").find(|section| section.starts_with("The recipe")).unwrap();
    let row = |line: &str| Some(line.strip_prefix("| `")?.split_once('`')?.0.to_owned());
    keys(&schema(), &schema(), "", &mut known);
    known.retain(|key| !PLAIN.contains(&key.as_str()));
    assert_eq!(section.lines().filter_map(row).collect::<BTreeSet<_>>(), known);
}
