//! Why packages cannot be had.

use std::path::{Path, PathBuf};

/// Why a suite cannot be read, packages cannot be resolved, fetched or composed.
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
    Cache(ashlar_cache::CacheError),
    /// The build host has no usable apt source.
    #[error("no Debian archive is enabled in the apt sources under `{}`; name one with `--mirror URL`", .0.display())]
    NoMirror(PathBuf),
    /// A URL cannot be used as a mirror.
    #[error("`{url}` cannot be used as a mirror: {why}")]
    BadMirror {
        /// As it was given.
        url: String,
        /// What is wrong.
        why: String,
    },
    /// The suite, a component or the architecture has characters that no path of an archive has.
    #[error("`{0}` cannot be the name of a suite, component or architecture")]
    BadName(String),
    /// A source cannot be used as it is given.
    #[error("the source `{name}` cannot be used: {why}")]
    BadSource {
        /// The source.
        name: String,
        /// What is wrong.
        why: String,
    },
    /// A pin cannot be used as it is given.
    #[error("the pin of `{packages}` cannot be used: {why}")]
    BadPin {
        /// Its packages.
        packages: String,
        /// What is wrong.
        why: String,
    },
    /// A snapshot's date cannot be read.
    #[error("`{0}` is not the date of a snapshot; write it as `2026-11-01T00:00:00Z`")]
    BadSnapshot(String),
    /// The lock file names a source that is not there.
    #[error(
        "package {package} is locked to the source `{source_name}`, which the recipe does not have; write the lock file \
         anew (`--refresh`)"
    )]
    UnknownSource {
        /// Name and version.
        package: String,
        /// The source.
        source_name: String,
    },
    /// A local package file cannot be used.
    #[error("the local package file `{}` cannot be used: {why}", path.display())]
    LocalFile {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// Two local package files hold the same package.
    #[error("`{first}` and `{second}` are both package {package}; remove one of them")]
    LocalTwice {
        /// Name and version.
        package: String,
        /// One file.
        first: String,
        /// The other one.
        second: String,
    },
    /// A local package file is not the one that was locked.
    #[error(
        "the local package file `{}` is not the one that the lock file names: expected {expected}, got {got}; if it was \
         changed on purpose, write the lock file anew (`--refresh`)", path.display()
    )]
    LocalChanged {
        /// The file.
        path: PathBuf,
        /// Size and SHA-256 as locked.
        expected: String,
        /// Size and SHA-256 as they are.
        got: String,
    },
    /// The mirror does not answer, or not with what was asked for.
    #[error("the mirror {mirror} does not give `{path}`: {why}{}", hint(cached.as_deref()))]
    Mirror {
        /// The mirror.
        mirror: String,
        /// Path below the mirror.
        path: String,
        /// What happened.
        why: String,
        /// Date of the verified index that the cache holds, if one is there and it is the index that failed.
        cached: Option<String>,
    },
    /// `--offline`, and the cache has no index for this suite.
    #[error("the cache has no index of suite {suite} from {mirror}; build once without `--offline`")]
    NoCachedIndex {
        /// The mirror.
        mirror: String,
        /// The suite.
        suite: String,
    },
    /// No keyring is there.
    #[error(
        "no archive keyring: none of {0} can be read; install `debian-archive-keyring` or name a keyring"
    )]
    NoKeyring(String),
    /// A keyring holds no OpenPGP certificate.
    #[error("`{}` holds no OpenPGP certificate", .0.display())]
    BadKeyring(PathBuf),
    /// The signature of the index does not verify.
    #[error(
        "the index of suite {suite} from {mirror} is not signed by a key in the archive keyring: {why}; if the archive \
         has new keys, update `debian-archive-keyring`, otherwise do not trust this mirror"
    )]
    Signature {
        /// The suite.
        suite: String,
        /// The mirror.
        mirror: String,
        /// One reason for each signature.
        why: String,
    },
    /// The signed index is not as it should be.
    #[error("the index of suite {suite} from {mirror} cannot be used: {why}")]
    Release {
        /// The suite.
        suite: String,
        /// The mirror.
        mirror: String,
        /// What is wrong.
        why: String,
    },
    /// A file of the archive is not the one that the signed index or the lock file names.
    #[error(
        "`{path}` from {mirror} is not what was signed: expected {expected}, got {got}; the mirror may be in the middle \
         of an update: try again, or use another mirror"
    )]
    Hash {
        /// What is wrong: a path below the mirror.
        path: String,
        /// The mirror.
        mirror: String,
        /// Size or SHA-256 as signed.
        expected: String,
        /// Size or SHA-256 as received.
        got: String,
    },
    /// A package is not what the lock file names.
    #[error(
        "package {package} from {mirror} is not what the lock file names: expected {expected}, got {got}; nothing of it \
         was kept; use another mirror"
    )]
    PackageHash {
        /// Name and version.
        package: String,
        /// The mirror.
        mirror: String,
        /// Size or SHA-256 as locked.
        expected: String,
        /// Size or SHA-256 as received.
        got: String,
    },
    /// An entry of a package list cannot be used.
    #[error("the entry of package {package} in the package list cannot be used: {why}")]
    BadEntry {
        /// The package.
        package: String,
        /// What is wrong.
        why: String,
    },
    /// No package of this name is in the suite.
    #[error("there is no package `{name}` in the suite{}", nearest_names(nearest))]
    Unknown {
        /// What was asked for.
        name: String,
        /// Names that are near to it, best first.
        nearest: Vec<String>,
    },
    /// A name that several packages provide was asked for.
    #[error("`{name}` is no package but provided by several; name one of them: {}", providers.join(", "))]
    Virtual {
        /// What was asked for.
        name: String,
        /// Who provides it.
        providers: Vec<String>,
    },
    /// The same name is asked for and excluded.
    #[error("package `{0}` is asked for and excluded at the same time")]
    WantedAndExcluded(String),
    /// A dependency cannot be fulfilled.
    #[error("{chain} needs {clause}, but {why}")]
    Unsatisfiable {
        /// The packages that led there, `a -> b`.
        chain: String,
        /// The dependency.
        clause: String,
        /// Why not.
        why: String,
    },
    /// Two packages that are both needed exclude each other.
    #[error("{first} and {second} cannot be together in an image: {relation}")]
    Conflict {
        /// One, with the packages that led to it.
        first: String,
        /// The other, with the packages that led to it.
        second: String,
        /// The relation that says so.
        relation: String,
    },
    /// A package is needed that is not in the cache, and nothing may be fetched.
    #[error("package {package} is not in the cache and {why}")]
    NotCached {
        /// Name and version.
        package: String,
        /// Why it is not fetched, and what to do.
        why: &'static str,
    },
    /// A file in the cache was changed and cannot be repaired without the network.
    #[error(
        "`{}` in the cache is damaged ({what}) and {why}", path.display()
    )]
    Damaged {
        /// The damaged file.
        path: PathBuf,
        /// What it holds: name and version of a package, or a suite.
        what: String,
        /// Why it is not repaired, and what to do.
        why: &'static str,
    },
    /// A package file that is well hashed and cannot be unpacked.
    #[error("package {package} cannot be unpacked: {why}")]
    Unpack {
        /// Name and version.
        package: String,
        /// What is wrong.
        why: String,
    },
    /// A file of a package cannot be placed.
    #[error("a file of package {package} cannot be placed: {source}")]
    Tree {
        /// Name and version.
        package: String,
        /// Why not.
        source: ashlar_tree::TreeError,
    },
    /// A hard link whose target the package does not bring.
    #[error("package {package}: `{path}` is a hard link to `{target}`, which is not there")]
    DanglingHardLink {
        /// Name and version.
        package: String,
        /// The link.
        path: String,
        /// What it should be another name of.
        target: String,
    },
    /// Two packages bring the same path with different content and neither replaces the other.
    #[error("packages {first} and {second} both bring `{path}`; exclude one of them")]
    TwoOwners {
        /// One, name and version.
        first: String,
        /// The other, name and version.
        second: String,
        /// The contested path.
        path: String,
    },
}

impl From<ashlar_cache::CacheError> for Error {
    fn from(error: ashlar_cache::CacheError) -> Self {
        match error {
            ashlar_cache::CacheError::Io { what, path, source } => Self::Io { what, path, source },
            other => Self::Cache(other),
        }
    }
}

impl Error {
    /// An input or output error at `path`.
    pub(crate) fn io(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Io { what, path: path.to_owned(), source }
    }
}

fn hint(cached: Option<&str>) -> String {
    cached.map(|date| format!("; `--offline` would use the cached index of {date}")).unwrap_or_default()
}

fn nearest_names(names: &[String]) -> String {
    if names.is_empty() { String::new() } else { format!("; near to it: {}", names.join(", ")) }
}
