//! `cargo xtask test`: what `.ci/run` calls.

use crate::run::cargo;

/// Formatting, lints, then the tests of every crate.
pub fn test() -> Result<(), String> {
    cargo(&["fmt", "--all", "--check"])?;
    cargo(&["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"])?;
    cargo(&["test", "--workspace"])
}
