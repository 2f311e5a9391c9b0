//! `ashlarctl identity`

use super::{DONE, Outcome, output};
use crate::client::known;
use crate::error::ControlError;
use crate::files;
use crate::identity::{CA_KEY, new_ca, new_client};
use crate::role::Role;
use clap::Subcommand;
use std::path::PathBuf;

#[derive(Debug, Subcommand)]
pub(super) enum Identity {
    /// Make a client CA: who it certifies may speak to the machines that have it among their trust roots
    NewCa {
        /// Its name
        #[arg(long, default_value = "Ashlar clients")]
        name: String,
        /// Its folder [default: client-ca in ~/.config/ashlar]
        #[arg(long, value_name = "FOLDER")]
        ca: Option<PathBuf>,
    },
    /// Make a client certificate and its key
    New {
        /// Who it is for; the machine's log has the name
        name: String,
        /// What it lets one do
        #[arg(long)]
        role: Role,
        /// Folder of the client CA [default: client-ca in ~/.config/ashlar]
        #[arg(long, value_name = "FOLDER")]
        ca: Option<PathBuf>,
        /// For how long it is in force
        #[arg(long, default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=36_500))]
        days: u32,
        /// File to write [default: NAME.pem]
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
}

fn folder(ca: Option<PathBuf>) -> PathBuf {
    ca.unwrap_or_else(|| known::folder().join("client-ca"))
}

impl Identity {
    pub(super) fn run(self) -> Outcome {
        match self {
            Self::NewCa { name, ca } => {
                let folder = folder(ca);
                let path = new_ca(&folder, &name)?;
                output::print(&format!(
                    "{}\n  put this certificate among the trust roots of the machines' configuration\n\
                     {}\n  keep this key where nobody else comes",
                    path.display(),
                    folder.join(CA_KEY).display()
                ));
            }
            Self::New { name, role, ca, days, output } => {
                let path = match output {
                    Some(path) => path,
                    None if name.starts_with('.') || name.contains('/') => {
                        return Err(ControlError::Usage(
                            "this name is no file name; add --output FILE".into(),
                        ));
                    }
                    None => PathBuf::from(format!("{name}.pem")),
                };
                let pem = new_client(&folder(ca), &name, role, days)?;
                files::write(&path, 0o600, pem.as_bytes(), false)?;
                output::print(&format!(
                    "{}: {role}, for {days} days\n  use it with --identity, or put it to {}",
                    path.display(),
                    known::folder().join("identity.pem").display()
                ));
            }
        }
        DONE
    }
}
