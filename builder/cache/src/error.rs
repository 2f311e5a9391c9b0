//! Why the cache cannot be used.

use std::path::{Path, PathBuf};

/// Why an item cannot be kept in the cache or read from it.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// A file or folder of the cache cannot be used.
    #[error("cannot {what} `{}`: {source}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// An item was changed since it was written; it was removed.
    #[error(
        "`{}` in the cache was damaged and has been removed: it should have SHA-256 {expected} and has {got}; build again \
         with the network to have it fetched or made anew", path.display()
    )]
    Damaged {
        /// The damaged file.
        path: PathBuf,
        /// SHA-256 as it should be.
        expected: String,
        /// SHA-256 as it is.
        got: String,
    },
    /// What was to be kept is not what was expected; nothing was kept.
    #[error("the bytes have SHA-256 {got} and not {expected} as expected; nothing was kept")]
    Hash {
        /// SHA-256 as it should be.
        expected: String,
        /// SHA-256 as it is.
        got: String,
    },
    /// A name of a blob that is no SHA-256.
    #[error("`{0}` is not a SHA-256 in lower-case hexadecimal")]
    NotAHash(String),
    /// The source of a blob failed.
    #[error("cannot read what is to be kept as {sha256}: {source}")]
    Source {
        /// The expected SHA-256.
        sha256: String,
        /// Why not.
        source: std::io::Error,
    },
}

impl CacheError {
    /// An input or output error at `path`.
    pub(crate) fn io(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Io { what, path: path.to_owned(), source }
    }
}
