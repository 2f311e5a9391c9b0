//! What a new configuration changes.

use super::MachineConfig;
use super::error::quoted;
use crate::digest::Digest;
use serde_json::Value;
use std::collections::BTreeMap;

/// What of a new configuration waits for a restart: watchdog and log are set up once. All else is changed on the running
/// machine.
const NEEDS_REBOOT: [&str; 2] = ["watchdog", "log"];
/// Items of arrays that are known by one of their keys, not by their number.
const NAMES: [&str; 3] = ["name", "mac", "to"];

/// What changes, one line each, for people: `hostname: "a" -> "b"`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// At once.
    pub at_once: Vec<String>,
    /// With the next start of the machine.
    pub needs_reboot: Vec<String>,
}

/// What differs in `new` from `old`. A machine without a configuration has [`MachineConfig::empty`]. The serials are
/// not told of: they always differ.
pub fn diff(old: &MachineConfig, new: &MachineConfig) -> Changes {
    let (old, new) = (leaves(old), leaves(new));
    let mut changes = Changes::default();
    let keys: std::collections::BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    for key in keys {
        let line = match (old.get(key), new.get(key)) {
            (Some(before), Some(after)) if before != after => format!("{key}: {before} -> {after}"),
            (Some(before), None) => format!("{key}: {before} removed"),
            (None, Some(after)) => format!("{key}: {after} added"),
            _ => continue,
        };
        let waits = NEEDS_REBOOT.iter().any(|part| key.starts_with(part));
        if waits { &mut changes.needs_reboot } else { &mut changes.at_once }.push(line);
    }
    changes
}

/// Each key with its value as it is shown.
fn leaves(config: &MachineConfig) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    if let Ok(Value::Object(mut all)) = serde_json::to_value(config) {
        all.remove("serial");
        collect("", &Value::Object(all), &mut found);
    }
    found
}

fn collect(path: &str, value: &Value, found: &mut BTreeMap<String, String>) {
    match value {
        Value::Object(entries) => {
            for (key, value) in entries {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                collect(&path, value, found);
            }
            if entries.is_empty() && !path.is_empty() {
                found.insert(path.to_owned(), String::new());
            }
        }
        Value::Array(items) if items.iter().any(Value::is_object) => {
            for (number, item) in items.iter().enumerate() {
                let name = NAMES.iter().find_map(|key| item.get(key)?.as_str());
                let name = name.map_or_else(|| number.to_string(), str::to_owned);
                collect(&format!("{path}[{name}]"), item, found);
            }
        }
        other => {
            found.insert(path.to_owned(), shown(other));
        }
    }
}

/// A value for people: keys and certificates by their digests, URLs without passwords, long texts cut.
fn shown(value: &Value) -> String {
    match value {
        Value::String(text) if text.starts_with("-----BEGIN") => format!("SHA-256 {}", Digest::of(text)),
        Value::String(text) => match text.split_once("://").and_then(|(scheme, rest)| {
            let (_, host) = rest.split_once('@')?;
            Some(format!("{scheme}://…@{host}"))
        }) {
            Some(without) => quoted(&without),
            None => quoted(text),
        },
        Value::Array(items) => format!("[{}]", items.iter().map(shown).collect::<Vec<_>>().join(", ")),
        other => other.to_string(),
    }
}
