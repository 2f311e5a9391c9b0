//! What can go wrong while a tree is configured.

use ashlar_tree::TreeError;

/// Why a tree could not be configured.
#[derive(Debug, thiserror::Error)]
pub enum ConfigureError {
    /// A file of the tree cannot be read from the host.
    #[error("cannot read `{path}` of the tree: {source}")]
    Read {
        /// Path in the tree.
        path: String,
        /// Why not.
        source: std::io::Error,
    },
    /// A file of the tree is larger than any of its kind.
    #[error(
        "`{path}` has {len} bytes, more than the {limit} that are read of such a file; take it out of the tree"
    )]
    TooLarge {
        /// Path in the tree.
        path: String,
        /// Its length in bytes.
        len: u64,
        /// Greatest length in bytes.
        limit: u64,
    },
    /// A file of the tree does not follow its format.
    #[error("`{path}`{}: {why}", .line.map_or(String::new(), |line| format!(", line {line}")))]
    Format {
        /// Path in the tree.
        path: String,
        /// Line, counted from 1, where the format has lines.
        line: Option<usize>,
        /// What is wrong.
        why: String,
    },
    /// Two sources want different ids for one name.
    #[error(
        "{kind} `{name}` is to have the id {first} by {first_from} and {second} by {second_from}; set one with `[[{kind}]]` in the recipe"
    )]
    IdsDiffer {
        /// `user` or `group`.
        kind: &'static str,
        /// The name.
        name: String,
        /// One id.
        first: u32,
        /// Who says so.
        first_from: String,
        /// The other id.
        second: u32,
        /// Who says so.
        second_from: String,
    },
    /// Two names want one id.
    #[error(
        "{kind}s `{first}` and `{second}` are both to have the id {id}; give one of them another in the recipe"
    )]
    IdTaken {
        /// `user` or `group`.
        kind: &'static str,
        /// The id.
        id: u32,
        /// Who has it.
        first: String,
        /// Who wants it too.
        second: String,
    },
    /// A user or a group is said to be a member of something that nobody defines.
    #[error(
        "{wanted_by} names the {kind} `{name}`, which nothing defines; add it with `[[{kind}]]` in the recipe"
    )]
    NoSuchAccount {
        /// `user` or `group`.
        kind: &'static str,
        /// The name.
        name: String,
        /// Who names it.
        wanted_by: String,
    },
    /// A name or another field cannot stand in the account files.
    #[error("{from}: `{value}` cannot be {what} in the account files")]
    BadAccountField {
        /// What the field is (`a user's name`).
        what: &'static str,
        /// Its value.
        value: String,
        /// Who gives it.
        from: String,
    },
    /// No number between 101 and 999 is left.
    #[error("no free system id for `{0}`: all from 101 to 999 are taken; give ids in the recipe")]
    NoFreeId(String),
    /// The time zone that was asked for is not in the tree.
    #[error(
        "the time zone `{0}` is not in the tree: no file `/usr/share/zoneinfo/{0}`; add the package tzdata or name another zone"
    )]
    NoSuchTimeZone(String),
    /// The tree has no modules of that kernel.
    #[error("the tree has no directory `/usr/lib/modules/{0}`")]
    NoSuchKernel(String),
    /// Modules need each other's symbols in a circle.
    #[error("the kernel modules need each other in a circle at `{0}`; no kernel build makes such modules")]
    ModuleCircle(String),
    /// The tree cannot hold the result.
    #[error(transparent)]
    Tree(#[from] TreeError),
}
