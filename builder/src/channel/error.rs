//! Why a channel cannot be made or changed.

use crate::error::exit;
use miette::Diagnostic;
use std::path::PathBuf;

/// Why a channel cannot be made or changed. What was there before is still there, and whole.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum ChannelError {
    /// The folder holds something else.
    #[error("`{}` holds no channels: {why}", path.display())]
    #[diagnostic(help("make channels with `ashlar channel new`"))]
    NotARepository {
        /// The folder.
        path: PathBuf,
        /// What is missing or wrong.
        why: String,
    },
    /// Another command works on it.
    #[error("another command is changing `{}`", .0.display())]
    #[diagnostic(help("wait until it has ended"))]
    Busy(PathBuf),
    /// The repository refuses.
    #[error(transparent)]
    Tuf(#[from] ashlar_tuf::TufError),
    /// A document is wrong, or would be after the change.
    #[error(transparent)]
    #[diagnostic(help("correct the option that sets this key"))]
    Document(#[from] ashlar_channel::DocumentError),
    /// There is no such channel.
    #[error("there is no channel `{name}`; there are: {there}")]
    #[diagnostic(help("make it with `ashlar channel new --channel NAME`"))]
    NoChannel {
        /// The name that was given.
        name: String,
        /// Those that exist.
        there: String,
    },
    /// The channel does not offer that release.
    #[error("the channel `{channel}` has no release {version}; it has: {there}")]
    NoRelease {
        /// Its name.
        channel: String,
        /// The version that was given.
        version: String,
        /// Those that it has.
        there: String,
    },
    /// A release is there already.
    #[error("the channel `{channel}` has a release {version} already")]
    #[diagnostic(help("a release never changes: build it with a new version"))]
    Twice {
        /// The channel.
        channel: String,
        /// The version.
        version: String,
    },
    /// The same version with other bytes was published before.
    #[error("release {0} was published before, with another release.json")]
    #[diagnostic(help("a release never changes: build it with a new version"))]
    Other(String),
    /// The release does not belong into the channel.
    #[error("the release's `{key}` is `{found}`, and the channel `{channel}` is for `{wanted}`")]
    Foreign {
        /// Key of `release.json`.
        key: &'static str,
        /// Its value.
        found: String,
        /// The channel.
        channel: String,
        /// What the channel is for.
        wanted: String,
    },
    /// The release's folder is not what its `release.json` says.
    #[error("`{}`: `{key}`: {why}", path.display())]
    #[diagnostic(help("nothing was published; build the release again, or copy it again"))]
    BadRelease {
        /// The file that is wrong.
        path: PathBuf,
        /// The key of `release.json`.
        key: &'static str,
        /// What is wrong.
        why: String,
    },
    /// A partition image cannot be published.
    #[error(transparent)]
    Blocks(#[from] ashlar_blocks::BlocksError),
    /// A key that signs is missing.
    #[error("to sign, {0} is needed")]
    #[diagnostic(help("give `--keys DIR` and, where it lies elsewhere, `--online-key FILE`"))]
    NoKey(&'static str),
    /// The online key cannot be used.
    #[error("the online key `{}` {why}", path.display())]
    BadOnlineKey {
        /// Its file.
        path: PathBuf,
        /// What is wrong.
        why: &'static str,
    },
    /// A key that the repository does not know.
    #[error("{what} is none of the repository's: its root names others")]
    #[diagnostic(help(
        "give the keys that the channel was made with, or that `rotate-key` has put in their place"
    ))]
    ForeignKey {
        /// Which key.
        what: String,
    },
    /// Nothing was asked for.
    #[error("nothing to change: {0}")]
    Nothing(&'static str),
    /// A rollout that cannot be stopped.
    #[error("the rollout of {version} in `{channel}` {why}")]
    Rollout {
        /// The version.
        version: String,
        /// The channel.
        channel: String,
        /// What is wrong.
        why: &'static str,
    },
    /// An offline bundle cannot be read.
    #[error("`{}` is no offline bundle: {why}", path.display())]
    BadBundle {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
}

impl ChannelError {
    /// The exit code of the `ashlar` program.
    pub(crate) const fn exit_code(&self) -> u8 {
        match self {
            Self::NoKey(_) | Self::BadOnlineKey { .. } | Self::ForeignKey { .. } => exit::KEYS,
            Self::Busy(_) => exit::OUTPUT,
            _ => exit::INPUT,
        }
    }
}
