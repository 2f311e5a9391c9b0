//! `ashlar inspect`

use super::{print, print_json};
use crate::error::BuildError;
use clap::Args;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Debug, Args)]
pub(super) struct Inspect {
    /// A release's folder or any file of it
    file: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Inspect {
    pub(super) fn run(self) -> Result<ExitCode, BuildError> {
        let inspection = crate::inspect::inspect(&self.file)?;
        if self.json {
            print_json(&inspection)?;
        } else {
            print(&inspection.to_string());
        }
        Ok(ExitCode::SUCCESS)
    }
}
