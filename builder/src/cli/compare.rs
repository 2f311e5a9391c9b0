//! `ashlar verify-release` and `ashlar diff`

use super::{build, print, print_json};
use crate::build as pipeline;
use crate::error::{BuildError, exit};
use crate::progress;
use ashlar_compare::ReleaseFolder;
use clap::Args;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Debug, Args)]
pub(super) struct VerifyRelease {
    /// Folder of the release
    release: PathBuf,
    #[command(flatten)]
    from: build::FromFlag,
    /// List every place that differs
    #[arg(long)]
    all: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct Diff {
    /// Folder of the older release
    from: PathBuf,
    /// Folder of the newer release
    to: PathBuf,
    /// List every file
    #[arg(long)]
    all: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl VerifyRelease {
    pub(super) fn run(self) -> Result<ExitCode, BuildError> {
        let options = self.from.options();
        let progress = progress::for_stderr();
        let verdict = pipeline::verify(&options, &self.release, progress.as_ref())?;
        if self.json {
            print_json(&verdict)?;
        } else {
            print(&verdict.text(self.all));
        }
        Ok(if verdict.same { ExitCode::SUCCESS } else { ExitCode::from(exit::FINDING) })
    }
}

impl Diff {
    pub(super) fn run(self) -> Result<ExitCode, BuildError> {
        let diff = ashlar_compare::diff(&ReleaseFolder::open(&self.from)?, &ReleaseFolder::open(&self.to)?)?;
        if self.json {
            print_json(&diff)?;
        } else {
            print(&diff.text(self.all));
        }
        Ok(ExitCode::SUCCESS)
    }
}
