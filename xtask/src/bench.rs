//! `cargo xtask bench`: figures beside a peer's in the same run, so that they hold on any machine.

mod build;
mod measure;

use clap::Subcommand;

/// What to measure.
#[derive(Subcommand)]
pub enum Bench {
    /// A whole build from a warm cache, and its erofs and verity stages beside mkfs.erofs and veritysetup
    Build(build::Build),
}

impl Bench {
    /// Measures.
    pub fn run(self) -> Result<(), String> {
        match self {
            Self::Build(build) => build.run(),
        }
    }
}
