//! Differences of JSON values by their place (RFC 6901, JSON pointers).

use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeSet;

/// One value that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ValueChange {
    /// JSON pointer: `/uki/cmdline`.
    pub pointer: String,
    /// Before; none when it was not there. Long values are cut.
    pub before: Option<String>,
    /// After.
    pub after: Option<String>,
}

/// A value as one short line.
fn short(value: &Value) -> String {
    let text = match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    if text.chars().count() <= 120 {
        return crate::text::clean(&text);
    }
    crate::text::clean(&text.chars().take(120).chain(['…']).collect::<String>())
}

/// All values that differ, in the order of their pointers. Depth is bounded by serde_json's own limit of 128.
pub(crate) fn differences(a: &Value, b: &Value) -> Vec<ValueChange> {
    let mut found = Vec::new();
    compare(&mut String::new(), Some(a), Some(b), &mut found);
    found
}

fn compare(pointer: &mut String, a: Option<&Value>, b: Option<&Value>, found: &mut Vec<ValueChange>) {
    if a == b {
        return;
    }
    let mut inside = |key: &str, a: Option<&Value>, b: Option<&Value>| {
        let length = pointer.len();
        pointer.push('/');
        pointer.push_str(&key.replace('~', "~0").replace('/', "~1"));
        compare(pointer, a, b, found);
        pointer.truncate(length);
    };
    match (a, b) {
        (Some(Value::Object(of_a)), Some(Value::Object(of_b))) => {
            // Sorted, whatever order the maps have.
            let keys: BTreeSet<&String> = of_a.keys().chain(of_b.keys()).collect();
            for key in keys {
                inside(key, of_a.get(key), of_b.get(key));
            }
        }
        (Some(Value::Array(of_a)), Some(Value::Array(of_b))) => {
            for index in 0..of_a.len().max(of_b.len()) {
                inside(&index.to_string(), of_a.get(index), of_b.get(index));
            }
        }
        _ => found.push(ValueChange { pointer: pointer.clone(), before: a.map(short), after: b.map(short) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pointers() {
        let a: Value =
            serde_json::from_str(r#"{"a":{"x/y":1,"same":2},"list":[1,2,3],"gone":null}"#).unwrap();
        let b: Value = serde_json::from_str(r#"{"a":{"x/y":2,"same":2},"list":[1,3],"new":"text"}"#).unwrap();
        let found = differences(&a, &b);
        let pointers: Vec<&str> = found.iter().map(|change| change.pointer.as_str()).collect();
        assert_eq!(pointers, ["/a/x~1y", "/gone", "/list/1", "/list/2", "/new"]);
        assert_eq!((found[2].before.as_deref(), found[2].after.as_deref()), (Some("2"), Some("3")));
        assert_eq!((found[4].before.as_deref(), found[4].after.as_deref()), (None, Some("text")));
    }
}
