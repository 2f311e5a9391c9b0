//! The machines whose fingerprints are trusted: `nodes.toml` in the user's configuration folder.

use crate::error::ControlError;
use crate::files;
use crate::fingerprint::Fingerprint;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Longest file in bytes.
const MAX_FILE: usize = 4 << 20;

/// `$XDG_CONFIG_HOME/ashlar`, or `~/.config/ashlar` (XDG Base Directory Specification).
pub fn folder() -> PathBuf {
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let config = absolute("XDG_CONFIG_HOME").or_else(|| absolute("HOME").map(|home| home.join(".config")));
    // Without a home, as in a rescue shell, of root.
    config.unwrap_or_else(|| "/root/.config".into()).join("ashlar")
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    /// By `HOST:PORT`.
    #[serde(default)]
    nodes: BTreeMap<String, Node>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Node {
    fingerprint: String,
}

fn load(path: &Path) -> Result<File, ControlError> {
    if !path.try_exists().map_err(ControlError::io("look at", path))? {
        return Ok(File::default());
    }
    let text = String::from_utf8_lossy(&files::read(path, MAX_FILE)?).into_owned();
    toml::from_str(&text).map_err(|error: toml::de::Error| wrong(path, &error.to_string()))
}

fn wrong(path: &Path, problem: &str) -> ControlError {
    ControlError::File {
        path: path.to_owned(),
        problem: problem.trim_end().into(),
        advice: "mend the file, or remove it and trust the machines again with `ashlarctl trust HOST`".into(),
    }
}

/// The trusted fingerprint of a machine.
pub fn fingerprint(path: &Path, node: &str) -> Result<Option<Fingerprint>, ControlError> {
    let Some(node) = load(path)?.nodes.remove(node) else { return Ok(None) };
    node.fingerprint
        .parse()
        .map(Some)
        .map_err(|error| wrong(path, &format!("`{}`: {error}", node.fingerprint)))
}

/// Trusts a machine.
pub fn trust(path: &Path, node: &str, fingerprint: Fingerprint) -> Result<(), ControlError> {
    let mut file = load(path)?;
    file.nodes.insert(node.to_owned(), Node { fingerprint: fingerprint.to_string() });
    let text = toml::to_string(&file).map_err(|error| wrong(path, &error.to_string()))?;
    if let Some(folder) = path.parent() {
        files::private_folder(folder)?;
    }
    files::write(path, 0o600, text.as_bytes(), true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_trusted_is_found_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ashlar/nodes.toml");
        assert_eq!(fingerprint(&path, "a:7443").unwrap(), None);
        let (first, second) = (Fingerprint::of(b"1"), Fingerprint::of(b"2"));
        trust(&path, "a:7443", first).unwrap();
        trust(&path, "[::1]:7443", second).unwrap();
        assert_eq!(fingerprint(&path, "a:7443").unwrap(), Some(first));
        assert_eq!(fingerprint(&path, "[::1]:7443").unwrap(), Some(second));
        trust(&path, "a:7443", second).unwrap();
        assert_eq!(fingerprint(&path, "a:7443").unwrap(), Some(second));
        std::fs::write(&path, "[nodes.\"a:7443\"]\nfingerprint = \"sha256:no\"\n").unwrap();
        assert!(fingerprint(&path, "a:7443").unwrap_err().advice().contains("ashlarctl trust"));
        std::fs::write(&path, "nodes = 3").unwrap();
        assert!(trust(&path, "a:7443", first).is_err(), "a file that cannot be read is not overwritten");
    }
}
