//! Names of groups and holders, and the keys that are made of them.

use std::fmt::{self, Write as _};
use std::str::FromStr;

/// Below this key lies everything of the lock.
pub const PREFIX: &str = "ashlar/reboot-lock/v1/groups/";
/// The group of who names none.
pub const DEFAULT_GROUP: &str = "default";
/// Longest name in bytes.
const MAX_NAME: usize = 128;

/// A name that cannot be one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no {1}: 1 to {MAX_NAME} printable characters without spaces are wanted")]
pub struct NameError(String, &'static str);

fn check(text: &str, what: &'static str) -> Result<String, NameError> {
    let good =
        (1..=MAX_NAME).contains(&text.len()) && text.chars().all(|c| !c.is_control() && !c.is_whitespace());
    if good { Ok(text.to_owned()) } else { Err(NameError(text.escape_debug().take(200).collect(), what)) }
}

/// A group of machines with one semaphore.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Group(String);

impl Group {
    /// As a segment of a key, escaped like a value in a URL's query (locksmith does the same: `prod/database` becomes
    /// `prod%2Fdatabase`): letters, digits, `-`, `_`, `.` and `~` stand for themselves.
    #[must_use]
    pub fn escaped(&self) -> String {
        let mut text = String::new();
        for byte in self.0.bytes() {
            if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
                text.push(char::from(byte));
            } else {
                // Writing to a text does not fail.
                let _ = write!(text, "%{byte:02X}");
            }
        }
        text
    }

    /// Key of something of the group.
    #[must_use]
    pub fn key(&self, what: &str) -> String {
        format!("{PREFIX}{}/{what}", self.escaped())
    }
}

impl Default for Group {
    fn default() -> Self {
        Self(DEFAULT_GROUP.into())
    }
}

impl FromStr for Group {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        check(text, "name of a group").map(Self)
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Who holds or waits: the machine ID (machine-id(5)) of a machine, or what an operator or a FleetLock client says.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HolderId(String);

impl HolderId {
    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Of this machine, from `/etc/machine-id`.
    ///
    /// # Errors
    /// A text for people, when there is none.
    pub fn of_machine() -> Result<Self, String> {
        let text = std::fs::read_to_string("/etc/machine-id")
            .map_err(|error| format!("`/etc/machine-id` cannot be read: {error}; name the machine ID"))?;
        text.trim().parse().map_err(|error: NameError| format!("`/etc/machine-id`: {error}"))
    }
}

impl FromStr for HolderId {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        // It is a segment of a key: a `/` in it would be another segment.
        if text.contains('/') {
            return Err(NameError(text.escape_debug().take(200).collect(), "machine ID"));
        }
        check(text, "machine ID").map(Self)
    }
}

impl fmt::Display for HolderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_escaped() {
        for (name, escaped) in [
            ("default", "default"),
            ("prod/database", "prod%2Fdatabase"),
            ("a b".replace(' ', "+").as_str(), "a%2Bb"),
            ("käse", "k%C3%A4se"),
            ("..", ".."),
            ("100%", "100%25"),
        ] {
            assert_eq!(name.parse::<Group>().unwrap().escaped(), escaped);
        }
        assert_eq!(
            "prod/db".parse::<Group>().unwrap().key("semaphore"),
            format!("{PREFIX}prod%2Fdb/semaphore")
        );
    }

    #[test]
    fn names_are_bounded() {
        for bad in ["", "a b", "a\nb", "\u{7f}", &"x".repeat(MAX_NAME + 1)] {
            assert!(bad.parse::<Group>().is_err() && bad.parse::<HolderId>().is_err(), "{bad:?}");
        }
        assert!("a/b".parse::<HolderId>().unwrap_err().to_string().contains("`a/b` is no machine ID"));
        assert_eq!("1c09ca98649c4c7abc779cd04c96812e".parse::<HolderId>().unwrap().as_str().len(), 32);
    }
}
