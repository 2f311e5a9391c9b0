//! What is wrong with a machine configuration, and where.

use super::MAX_TEXT;
use crate::digest::Digest;
use crate::dsse::DsseError;
use std::fmt;
use std::ops::Range;

/// Most errors that are told of one file.
pub const MAX_ERRORS: usize = 100;
/// Longest piece of a file that is shown in an error, in characters.
const MAX_SHOWN: usize = 60;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A place in the text.
    #[error("{0}")]
    Text(TextError),
    /// The text is too long.
    #[error("the machine configuration has {0} bytes; it may have {MAX_TEXT}")]
    TooLarge(usize),
    /// The text is not UTF-8.
    #[error("the machine configuration is no text: byte {0} is not UTF-8")]
    NotText(usize),
    /// The envelope cannot be read.
    #[error("it is no signed machine configuration: {0}; make one with `ashlar machine sign`")]
    Envelope(DsseError),
    /// The signature is not the owner's.
    #[error(
        "signature: none is by the owner's configuration key (SHA-256 {key}); sign with `ashlar machine sign` \
         and the keys that the image was built with"
    )]
    Signature {
        /// SHA-256 of the key's `SubjectPublicKeyInfo`.
        key: Digest,
    },
}

impl ConfigError {
    /// The key that it is about: a path such as `network.interface[0].mtu`; empty for none.
    pub fn key(&self) -> &str {
        match self {
            Self::Text(error) => &error.key,
            Self::Signature { .. } => "signature",
            Self::Envelope(_) | Self::TooLarge(_) | Self::NotText(_) => "",
        }
    }
}

/// An error at a place in the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextError {
    /// The key: a path such as `network.interface[0].mtu`, items counted from 0; empty where the text is not TOML.
    pub key: String,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// The bytes of the text.
    pub span: Range<usize>,
    /// What is wrong, and what is allowed.
    pub message: String,
    /// What was perhaps meant.
    pub help: Option<String>,
}

impl fmt::Display for TextError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}: ", self.line, self.column)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)?;
        match &self.help {
            Some(help) => write!(f, "; {help}"),
            None => Ok(()),
        }
    }
}

/// Line and column, from 1, of a byte.
pub(super) fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
    (line, column)
}

/// A piece of the file between backquotes: cut where it is long, without control characters, which a console would obey.
pub(super) fn quoted(text: &str) -> String {
    let mut shown: String = text.chars().take(MAX_SHOWN).flat_map(char::escape_debug).collect();
    if text.chars().nth(MAX_SHOWN).is_some() {
        shown.push('…');
    }
    format!("`{shown}`")
}

/// The candidate that is most like `name`, if any is like it at all.
pub fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    // Nobody means a known word by one that is much longer, and the comparison takes time by the square of the length.
    if name.len() > MAX_SHOWN {
        return None;
    }
    candidates
        .map(|candidate| (strsim::jaro_winkler(name, candidate), candidate))
        .filter(|(likeness, _)| *likeness > 0.7)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}
