//! `ashlar machine`: what the owner tells single machines.

use super::{keys, print, print_json};
use crate::error::BuildError;
use crate::machine_config::{self as files, Loaded, MachineConfigError};
use ashlar_image::digest::Digest;
use ashlar_image::machine::{Changes, PublicKey, diff};
use clap::{Args, Subcommand};
use serde::Serialize;
use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Debug, Subcommand)]
pub(super) enum Machine {
    /// Check a machine configuration and tell all that is wrong with it
    Check(Check),
    /// Sign a machine configuration with the owner's configuration key
    Sign(Sign),
    /// Show a signed machine configuration, and whether its signature is the owner's
    Show(Show),
    /// Put a signed machine configuration on a disk that no machine has started from yet
    Seed(Seed),
}

/// With what a signature is verified.
#[derive(Debug, Args)]
#[group(multiple = false)]
pub(super) struct Key {
    /// Verify with the configuration key of this folder of keys
    #[arg(long, value_name = "DIR")]
    keys: Option<PathBuf>,
    /// Verify with this public key: `configuration.pub` of the owner's folder of keys
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
}

impl Key {
    fn open(&self) -> Result<Option<PublicKey>, BuildError> {
        match (&self.keys, &self.key) {
            (Some(folder), _) => Ok(Some(files::owners_key(&keys::open(folder)?))),
            (None, Some(file)) => files::read_key(file).map(Some),
            (None, None) => Ok(None),
        }
    }
}

#[derive(Debug, Args)]
pub(super) struct Check {
    /// The configuration: `machine.toml`
    file: PathBuf,
    /// Also tell what changes from this one, signed or not, and whether the serial is above its
    #[arg(long, value_name = "FILE")]
    against: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct Sign {
    /// The configuration: `machine.toml`
    file: PathBuf,
    #[command(flatten)]
    keys: keys::Where,
    /// The signed configuration; an older one there is replaced [default: the file with the ending `.dsse`]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct Show {
    /// The signed configuration
    file: PathBuf,
    #[command(flatten)]
    key: Key,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct Seed {
    /// Raw disk image of a release, or the disk of a machine that has never started from it
    disk: PathBuf,
    /// The signed configuration
    file: PathBuf,
    #[command(flatten)]
    key: Key,
}

/// What `--json` prints of a configuration.
#[derive(Serialize)]
struct Report<'a> {
    good: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    serial: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sha256: Option<Digest>,
    #[serde(skip_serializing_if = "Option::is_none")]
    verified: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    changes: Option<ChangesReport<'a>>,
    errors: Vec<ErrorReport<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct ChangesReport<'a> {
    at_once: &'a [String],
    needs_reboot: &'a [String],
}

#[derive(Serialize)]
struct ErrorReport<'a> {
    key: &'a str,
    line: usize,
    column: usize,
    message: &'a str,
    help: Option<&'a str>,
}

impl<'a> Report<'a> {
    fn good(loaded: &Loaded) -> Self {
        Self {
            good: true,
            serial: Some(loaded.config.serial),
            sha256: Some(loaded.digest()),
            verified: None,
            changes: None,
            errors: Vec::new(),
            text: None,
        }
    }

    /// Of an error in the text; others are not part of a report.
    fn wrong(error: &'a BuildError) -> Option<Self> {
        let BuildError::MachineConfig(MachineConfigError::Wrong { problems, .. }) = error else {
            return None;
        };
        let errors = problems.iter().map(|problem| ErrorReport {
            key: &problem.key,
            line: problem.line,
            column: problem.column,
            message: &problem.what,
            help: problem.help.as_deref(),
        });
        let errors = errors.collect();
        Some(Self {
            good: false,
            serial: None,
            sha256: None,
            verified: None,
            changes: None,
            errors,
            text: None,
        })
    }
}

impl Check {
    fn run(self) -> Result<ExitCode, BuildError> {
        let loaded = match files::read_text(&self.file) {
            Err(error) if self.json => {
                let Some(report) = Report::wrong(&error) else { return Err(error) };
                print_json(&report)?;
                return Ok(ExitCode::from(error.exit_code()));
            }
            other => other?,
        };
        let mut changes: Option<Changes> = None;
        if let Some(against) = &self.against {
            let old = files::read_either(against)?;
            let (new, before) = (loaded.config.serial, old.config.serial);
            if new < before || (new == before && loaded.text != old.text) {
                let (file, against) = (self.file.clone(), against.clone());
                return Err(MachineConfigError::Serial { file, against, new, old: before }.into());
            }
            changes = Some(diff(&old.config, &loaded.config));
        }
        if self.json {
            let mut report = Report::good(&loaded);
            report.changes = changes
                .as_ref()
                .map(|all| ChangesReport { at_once: &all.at_once, needs_reboot: &all.needs_reboot });
            print_json(&report)?;
            return Ok(ExitCode::SUCCESS);
        }
        let mut text = format!(
            "`{}` is a good machine configuration: serial {}, SHA-256 {}\n",
            self.file.display(),
            loaded.config.serial,
            loaded.digest()
        );
        if let Some(changes) = changes {
            for (title, lines) in
                [("changes at once", &changes.at_once), ("waits for a restart", &changes.needs_reboot)]
            {
                if !lines.is_empty() {
                    let _ = writeln!(text, "{title}:");
                }
                for line in lines {
                    let _ = writeln!(text, "  {line}");
                }
            }
            if changes == Changes::default() {
                text.push_str("nothing changes but the serial\n");
            }
        }
        print(&text);
        Ok(ExitCode::SUCCESS)
    }
}

impl Sign {
    fn run(self) -> Result<ExitCode, BuildError> {
        let loaded = files::read_text(&self.file)?;
        let output = self.output.unwrap_or_else(|| self.file.with_extension("dsse"));
        let envelope = files::sign(&loaded, &self.file, &self.keys.open()?)?;
        files::write(&output, &envelope)?;
        print(&format!(
            "signed `{}`: serial {}, SHA-256 {}, which PCR 12 will be extended with\n",
            output.display(),
            loaded.config.serial,
            loaded.digest()
        ));
        Ok(ExitCode::SUCCESS)
    }
}

impl Show {
    fn run(self) -> Result<ExitCode, BuildError> {
        let key = self.key.open()?;
        let loaded = files::read_signed(&self.file, key.as_ref())?;
        if self.json {
            let report =
                Report { verified: Some(loaded.verified), text: Some(&loaded.text), ..Report::good(&loaded) };
            print_json(&report)?;
            return Ok(ExitCode::SUCCESS);
        }
        let signature = match &key {
            Some(key) => format!("good, by the configuration key {}", key.fingerprint()),
            None => "not verified; give --keys or --key".to_owned(),
        };
        print(&format!(
            "serial     {}\nSHA-256    {}\nsignature  {signature}\n\n{}",
            loaded.config.serial,
            loaded.digest(),
            loaded.text
        ));
        Ok(ExitCode::SUCCESS)
    }
}

impl Seed {
    fn run(self) -> Result<ExitCode, BuildError> {
        let key = self.key.open()?;
        let loaded = files::read_signed(&self.file, key.as_ref())?;
        let offset = files::plant(&self.disk, &loaded.envelope)?;
        print(&format!(
            "`{}` has the configuration of serial {} at byte {offset}; its first start reads it\n",
            self.disk.display(),
            loaded.config.serial
        ));
        if key.is_none() {
            eprintln!("note: the signature was not verified; give --keys or --key");
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Machine {
    pub(super) fn run(self) -> Result<ExitCode, BuildError> {
        match self {
            Self::Check(check) => check.run(),
            Self::Sign(sign) => sign.run(),
            Self::Show(show) => show.run(),
            Self::Seed(seed) => seed.run(),
        }
    }
}
