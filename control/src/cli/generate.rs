//! `ashlarctl generate`: what packages of the program carry beside it.

use super::{Arguments, DONE, Outcome};
use crate::error::ControlError;
use clap::{CommandFactory, Subcommand};
use std::path::{Path, PathBuf};

#[derive(Debug, Subcommand)]
pub(super) enum Generate {
    /// Print shell completions
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write manual pages
    Man {
        /// Folder for the pages; made if it is not there
        directory: PathBuf,
    },
}

impl Generate {
    pub(super) fn run(self) -> Outcome {
        match self {
            Self::Completions { shell } => {
                let mut script = Vec::new();
                clap_complete::generate(shell, &mut Arguments::command(), "ashlarctl", &mut script);
                super::output::print_raw(&script);
            }
            Self::Man { directory } => {
                let fail = || ControlError::io("write manual pages to", &directory);
                std::fs::create_dir_all(&directory).map_err(fail())?;
                write_pages(&Arguments::command(), "ashlarctl", &directory).map_err(fail())?;
            }
        }
        DONE
    }
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
