//! Why an image could not be linted.

use std::path::PathBuf;

/// Why an image could not be linted at all. What is wrong with the image itself is a finding, not an error.
#[derive(Debug, thiserror::Error)]
pub enum LintError {
    /// An allowance names a rule that does not exist.
    #[error("there is no rule `{name}`{}; `ashlar lint --rules` lists them", did_you_mean(.nearest.as_deref()))]
    UnknownRule {
        /// The name that was given.
        name: String,
        /// The rule with the most similar name.
        nearest: Option<String>,
    },
    /// An allowance does not say why.
    #[error(
        "lint.allow: `{rule}` needs a reason of at least two words, for whoever reads the recipe next year; it is `{reason}`"
    )]
    Reason {
        /// The rule.
        rule: String,
        /// What stands there.
        reason: String,
    },
    /// The path of an allowance can match nothing.
    #[error(
        "lint.allow: the path `{path}` of `{rule}` must begin with `/` or `**` and may hold `*`, `**` and `?`"
    )]
    Path {
        /// The rule.
        rule: String,
        /// The path.
        path: String,
    },
    /// The rule has no allowance, or the part of an allowance is none of the image's.
    #[error(
        "lint.allow: `{rule}`: there is no part `{part}`; write `root`, `kernel`, `image` or `container NAME`"
    )]
    UnknownPart {
        /// The rule.
        rule: String,
        /// The part that was given.
        part: String,
    },
    /// The tree has no directory at the root of a container.
    #[error("container `{name}`: there is no directory `{prefix}` in the tree")]
    NoContainer {
        /// The container.
        name: String,
        /// Where its root should be.
        prefix: String,
    },
    /// The facts of the build host are too many to search for.
    #[error("cannot search for so many facts of the build host: {0}; name fewer folders")]
    Needles(String),
    /// The content of a file of the image could not be read on the build host.
    #[error("cannot read `{}` for the image's file `{file}`; was the cache changed during the build?", path.display())]
    Read {
        /// The file of the image.
        file: String,
        /// The file on the host that holds its bytes.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl LintError {
    /// There is no rule of this name.
    pub fn unknown_rule(name: &str) -> Self {
        let nearest = crate::rules::nearest(name).map(str::to_owned);
        Self::UnknownRule { name: name.to_owned(), nearest }
    }
}

fn did_you_mean(nearest: Option<&str>) -> String {
    nearest.map_or_else(String::new, |name| format!(" (did you mean `{name}`?)"))
}
