//! What the lock file says of a package.

use crate::relation::is_name;
use crate::release::sha256_field;
use serde::{Deserialize, Serialize};

/// Largest package file, in bytes. Debian's largest has 2 GB.
const MAX_DEB: u64 = 8 << 30;
/// How [`Origin::Local`] is written. No source may have this name.
pub(crate) const LOCAL: &str = "local";

/// Where a package comes from. In a lock file a string: nothing, the source's name, or `local`.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
#[serde(from = "String", into = "String")]
pub enum Origin {
    /// The first source, or the only one.
    #[default]
    First,
    /// The source with this name ([`crate::SuiteSource::name`]).
    Source(String),
    /// A local package file.
    Local,
}

impl Origin {
    /// For a lock file without it.
    pub fn is_first(&self) -> bool {
        *self == Self::First
    }
}

impl From<String> for Origin {
    fn from(text: String) -> Self {
        match text.as_str() {
            "" => Self::First,
            LOCAL => Self::Local,
            _ => Self::Source(text),
        }
    }
}

impl From<Origin> for String {
    fn from(origin: Origin) -> Self {
        match origin {
            Origin::First => Self::new(),
            Origin::Source(name) => name,
            Origin::Local => LOCAL.into(),
        }
    }
}

/// A package as the lock file pins it.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Locked {
    /// Name.
    pub name: String,
    /// Version (deb-version(7)).
    pub version: String,
    /// Debian's name of the architecture, or `all`.
    pub architecture: String,
    /// SHA-256 of the package file, in lower-case hexadecimal.
    pub sha256: String,
    /// Size of the package file, in bytes.
    pub size: u64,
    /// Where the package file lies: below the mirror, or, of a local one, as it was named (relative to the folder that
    /// local files are named from).
    pub path: String,
    /// Which of several sources it comes from. Lock files of one source have none.
    #[serde(default, skip_serializing_if = "Origin::is_first")]
    pub origin: Origin,
}

impl Locked {
    /// Whether the fields can be what they should be. They name files in the cache and on the mirror.
    pub(crate) fn check(&self) -> Result<(), String> {
        if !is_name(&self.name) {
            return Err(format!("`{}` is not the name of a package", self.name));
        }
        if sha256_field(&self.sha256).as_deref() != Some(self.sha256.as_str()) {
            return Err(format!("`{}` is not a SHA-256 in lower-case hexadecimal", self.sha256));
        }
        let bad_part = |part: &str| part.is_empty() || part == "." || part == ".." || part.contains('\0');
        if self.origin == Origin::Local {
            if self.path.is_empty() || self.path.contains(['\0', '\n']) {
                return Err(format!("`{}` is not the path of a file", self.path));
            }
        } else if self.path.split('/').any(bad_part) {
            return Err(format!("`{}` is not a path below a mirror", self.path));
        }
        if self.size > MAX_DEB {
            return Err(format!("its size is above {MAX_DEB} bytes"));
        }
        Ok(())
    }

    /// Name and version, for messages.
    pub(crate) fn label(&self) -> String {
        format!("{} {}", self.name, self.version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_of_one_source_says_nothing_of_it() {
        let locked = Locked { name: "a".into(), size: 7, ..Locked::default() };
        let text = toml::to_string(&locked).unwrap();
        assert!(!text.contains("origin"), "{text}");
        assert_eq!(toml::from_str::<Locked>(&text).unwrap(), locked);
        for (origin, wanted) in [(Origin::Local, "local"), (Origin::Source("x".into()), "x")] {
            let locked = Locked { origin, ..locked.clone() };
            let text = toml::to_string(&locked).unwrap();
            assert!(text.contains(&format!("origin = \"{wanted}\"")), "{text}");
            assert_eq!(toml::from_str::<Locked>(&text).unwrap(), locked);
        }
    }
}
