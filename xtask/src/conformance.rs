//! `cargo xtask conformance`: our TUF client under the public suite.

use crate::run::{cargo, run_with, target};
use clap::Args;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub struct Conformance {
    /// A checkout of theupdateframework/tuf-conformance; without it the client is only built
    suite: Option<PathBuf>,
    /// Python with the suite's requirements
    #[arg(long, default_value = "python3")]
    python: String,
}

impl Conformance {
    /// Builds, tells where the program is, and runs the suite.
    pub fn run(self) -> Result<(), String> {
        cargo(&[
            "build",
            "--package",
            "ashlar-tuf",
            "--features",
            "conformance",
            "--bin",
            "ashlar-tuf-conformance",
        ])?;
        let program = target().join("debug/ashlar-tuf-conformance").display().to_string();
        println!("{program}");
        let Some(suite) = self.suite else { return Ok(()) };
        let tests = suite.join("tuf_conformance").display().to_string();
        run_with(&self.python, &["-m", "pytest", &tests, "--entrypoint", &program, "-q"], &[])
    }
}
