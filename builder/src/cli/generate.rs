//! `ashlar completions` and `ashlar man`

use super::Arguments;
use crate::error::BuildError;
use clap::{Args, CommandFactory};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[derive(Debug, Args)]
pub(super) struct Completions {
    /// The shell
    shell: clap_complete::Shell,
}

impl Completions {
    pub(super) fn run(self) {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Arguments::command(), "ashlar", &mut script);
        super::print(&String::from_utf8_lossy(&script));
    }
}

#[derive(Debug, Args)]
pub(super) struct Man {
    /// Folder for the pages; made if it is not there
    directory: PathBuf,
}

fn write_pages(command: &clap::Command, name: &str, folder: &Path) -> std::io::Result<()> {
    let renamed = command.clone().name(name.to_owned());
    let mut page = Vec::new();
    clap_mangen::Man::new(renamed).render(&mut page)?;
    std::fs::write(folder.join(format!("{name}.1")), page)?;
    for part in command.get_subcommands().filter(|part| !part.is_hide_set()) {
        write_pages(part, &format!("{name}-{}", part.get_name()), folder)?;
    }
    Ok(())
}

impl Man {
    pub(super) fn run(self) -> Result<ExitCode, BuildError> {
        let fail = |e| BuildError::io("write manual pages to", &self.directory, e);
        std::fs::create_dir_all(&self.directory).map_err(fail)?;
        write_pages(&Arguments::command(), "ashlar", &self.directory).map_err(fail)?;
        Ok(ExitCode::SUCCESS)
    }
}
