//! The JSON schema of `machine.toml`, for editors.

use super::MachineConfig;
use serde_json::{Value, json};

/// The schema (JSON Schema, draft 2020-12).
pub fn schema() -> Value {
    let mut schema = serde_json::to_value(schemars::schema_for!(MachineConfig)).unwrap_or_default();
    if let Some(root) = schema.as_object_mut() {
        root.insert("title".into(), json!("Ashlar machine configuration"));
    }
    schema
}
