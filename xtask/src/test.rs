//! `cargo xtask test`: what `.ci/run` calls.

use crate::build;
use crate::run::{cargo, cargo_with};

/// Name of the variable by which tests find the programs that users have.
const PROGRAMS: &str = "ASHLAR_PROGRAMS";

/// Formatting, lints, then the tests of every crate, those of booted machines last.
pub fn test() -> Result<(), String> {
    cargo(&["fmt", "--all", "--check"])?;
    cargo(&["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"])?;
    cargo(&["test", "--workspace", "--exclude", "ashlar-tests"])?;
    let programs = build::build()?;
    cargo_with(&["test", "--package", "ashlar-tests"], &[(PROGRAMS, &programs.display().to_string())])
}
