//! Why a source cannot be used.

use ashlar_cache::CacheError;
use std::path::{Path, PathBuf};

/// Why a file tree cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file on the build host cannot be used.
    #[error("cannot {what} `{}`: {source}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The cache cannot be used.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// A file of a directory was changed while the build was using it.
    #[error("`{}` was changed during the build; build again when nobody writes to it", .0.display())]
    Changed(PathBuf),
    /// A directory has something that cannot be taken.
    #[error("`{}` {why}", path.display())]
    Entry {
        /// The entry.
        path: PathBuf,
        /// Why it cannot be taken, and what to do.
        why: String,
    },
    /// A pattern cannot be understood.
    #[error("the pattern `{pattern}` cannot be used: {why}")]
    Pattern {
        /// As given.
        pattern: String,
        /// What is wrong.
        why: String,
    },
    /// An archive or layer has something that cannot be taken.
    #[error("{name}: {why}")]
    Archive {
        /// The archive or layer.
        name: String,
        /// What is wrong.
        why: String,
    },
    /// What was read is not what was expected.
    #[error("{name} has SHA-256 {got} and not {expected} as expected: it is damaged or was replaced")]
    Digest {
        /// The archive or blob.
        name: String,
        /// The digest that was expected.
        expected: String,
        /// The digest that it has.
        got: String,
    },
    /// What was read is larger than it may be.
    #[error("{name} is larger than {limit} bytes{}", if *ours { ", which is the limit that was set" } else { " as declared" })]
    TooLarge {
        /// The archive, blob or document.
        name: String,
        /// The limit in bytes.
        limit: u64,
        /// The limit is ours; otherwise the size that a descriptor declares.
        ours: bool,
    },
    /// A document of an OCI image is not as the specification wants it.
    #[error("{name} cannot be used: {why}")]
    Document {
        /// The document.
        name: String,
        /// What is wrong.
        why: String,
    },
    /// No image for the wanted platform, or under the wanted name.
    #[error("{name} has no image for {wanted}; it has {found}")]
    NoImage {
        /// The layout or reference.
        name: String,
        /// What was looked for.
        wanted: String,
        /// What is there.
        found: String,
    },
    /// Several images could be meant.
    #[error("{name} has several images ({found}); name one of them, by its name or digest")]
    Ambiguous {
        /// The layout.
        name: String,
        /// What is there.
        found: String,
    },
    /// The image is not the one that is pinned.
    #[error("{name} has the image sha256:{got}, and sha256:{pinned} is pinned")]
    Pinned {
        /// The layout.
        name: String,
        /// The digest of the recipe.
        pinned: String,
        /// The digest that was found.
        got: String,
    },
    /// A text is no reference of an image.
    #[error(
        "`{text}` is no reference of an image: {why}; write it as `registry.example/name:tag` or `registry.example/name@sha256:…`"
    )]
    Reference {
        /// As given.
        text: String,
        /// What is wrong.
        why: &'static str,
    },
    /// The registry does not answer, or not with what was asked for.
    #[error("the registry {registry} does not give `{what}`: {why}")]
    Registry {
        /// Its host.
        registry: String,
        /// What was asked for.
        what: String,
        /// What happened.
        why: String,
    },
    /// The registry wants to know who asks, or does not let them in.
    #[error("the registry {registry} refuses `{what}`: {why}")]
    Refused {
        /// Its host.
        registry: String,
        /// What was asked for.
        what: String,
        /// What happened, and what to do.
        why: String,
    },
    /// Without the network, and not in the cache.
    #[error("`{0}` is not in the cache; build once without `--offline`")]
    Offline(String),
    /// A file with credentials or CA certificates cannot be used. Its contents are never part of the message.
    #[error("`{}` cannot be used: {why}", path.display())]
    Settings {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
}

impl Error {
    /// An input or output error at `path`.
    pub(crate) fn io(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Io { what, path: path.to_owned(), source }
    }
}
