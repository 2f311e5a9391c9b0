//! The JSON schema of a recipe, for editors.

use super::Recipe;
use serde_json::{Value, json};

/// The schema (JSON Schema, draft 2020-12).
pub fn schema() -> Value {
    let mut schema = serde_json::to_value(schemars::schema_for!(Recipe)).unwrap_or_default();
    if let Some(root) = schema.as_object_mut() {
        root.insert("title".into(), json!("Ashlar recipe"));
        // A recipe that extends another need not have every table itself.
        root.remove("required");
        if let Some(tables) = root.get_mut("$defs").and_then(Value::as_object_mut) {
            for name in ["Image", "Kernel"] {
                if let Some(table) = tables.get_mut(name).and_then(Value::as_object_mut) {
                    table.remove("required");
                }
            }
        }
        let profile = root.get("properties").cloned().unwrap_or_default();
        if let Some(properties) = root.get_mut("properties").and_then(Value::as_object_mut) {
            properties.insert(
                "extends".into(),
                json!({
                    "description": "Recipes that this one is laid over, relative to it.",
                    "anyOf": [{ "type": "string" }, { "type": "array", "items": { "type": "string" } }]
                }),
            );
            properties.insert(
                "profile".into(),
                json!({
                    "description": "Changes that are made when `--profile NAME` chooses them.",
                    "type": "object",
                    "additionalProperties": { "type": "object", "properties": profile, "additionalProperties": false }
                }),
            );
        }
    }
    schema
}
