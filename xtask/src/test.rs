//! `cargo xtask test`: what `.ci/run` calls.

use crate::build;
use crate::run::{cargo, cargo_with};

/// Name of the variable by which tests find the programs that users have.
const PROGRAMS: &str = "ASHLAR_PROGRAMS";
/// Name of the variable by which a test that would skip fails.
const NO_SKIP: &str = "ASHLAR_TESTS_NO_SKIP";

/// Formatting, lints, then the tests of every crate, those of booted machines last.
pub fn test() -> Result<(), String> {
    cargo(&["fmt", "--all", "--check"])?;
    cargo(&["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"])?;
    cargo(&["test", "--workspace", "--exclude", "ashlar-tests"])?;
    let programs = build::build()?;
    let programs = programs.display().to_string();
    let mut environment = vec![(PROGRAMS, programs.as_str())];
    // On a machine that is set up for it, a test that cannot run has failed.
    if std::env::var_os("CI").is_some() {
        environment.push((NO_SKIP, "1"));
    }
    cargo_with(&["test", "--package", "ashlar-tests"], &environment)
}
