//! `release.json`, value by value.

use super::Difference;
use crate::folder::ReleaseFolder;
use crate::json::differences;
use crate::stream::first_byte;

/// Values that are computed from the artefacts.
const COMPUTED: [&str; 5] = ["/slot", "/uki", "/root_hash", "/pcrs", "/disk/size"];

pub(super) fn compare(a: &ReleaseFolder, b: &ReleaseFolder, artifacts_differ: bool) -> Vec<Difference> {
    const FILE: &str = "release.json";
    let Some(first) = first_byte(a.json(), b.json()) else { return Vec::new() };
    let value =
        |folder: &ReleaseFolder| serde_json::from_slice(folder.json()).unwrap_or(serde_json::Value::Null);
    let changes = differences(&value(a), &value(b));
    if changes.is_empty() {
        let text = format!("has the same values, written in another way (byte {first})");
        return vec![Difference::new(FILE, "", text).at(first as u64).byte(first as u64)];
    }
    changes
        .into_iter()
        .map(|change| {
            let follows =
                artifacts_differ && COMPUTED.iter().any(|prefix| change.pointer.starts_with(prefix));
            let value = |value: Option<String>| value.unwrap_or_else(|| "nothing".into());
            let text = format!("{} is {} and {}", change.pointer, value(change.before), value(change.after));
            Difference::new(FILE, change.pointer, text).following(follows)
        })
        .collect()
}
