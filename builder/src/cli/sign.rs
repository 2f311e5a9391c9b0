//! `ashlar sign` and `ashlar attach`: signing where the keys are, not where the build is.

use super::{build, keys, print};
use crate::build::{self as pipeline, OutputKind};
use crate::error::BuildError;
use crate::inspect::read_whole;
use ashlar_keys::offline::{SignatureSet, TEXT_LIMIT};
use ashlar_keys::{KeyError, Role};
use clap::Args;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Name of the signatures in the folder of an unsigned release.
const SIGNATURES: &str = "signatures.json";

#[derive(Debug, Args)]
pub(super) struct Sign {
    /// Folder that `ashlar build --unsigned` has written; `unsigned.json` and `uki/` are enough
    unsigned: PathBuf,
    #[command(flatten)]
    keys: keys::Where,
    /// Sign with this key only (`db` or `pcr`), when the keys are on two machines: first `pcr`, then `db`
    #[arg(long, value_name = "ROLE")]
    role: Vec<Role>,
    /// File of signatures; what is there is kept and added to [default: signatures.json in the folder]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Only show what would be signed
    #[arg(long)]
    show: bool,
}

#[derive(Debug, Args)]
pub(super) struct Attach {
    /// Folder that `ashlar build --unsigned` has written
    unsigned: PathBuf,
    /// Files of signatures [default: signatures.json in the folder]
    signatures: Vec<PathBuf>,
    /// Form of the release; may be given more than once, or as a list [default: raw]
    #[arg(long, value_name = "KIND", value_enum, value_delimiter = ',')]
    output: Vec<OutputKind>,
    /// Folder of the release; an older release there is replaced
    #[arg(short, long, value_name = "DIR")]
    output_directory: PathBuf,
}

/// Reads a file of signatures.
fn read(path: &Path) -> Result<SignatureSet, BuildError> {
    let bytes = read_whole(path, TEXT_LIMIT as u64, "a file of signatures")?;
    Ok(SignatureSet::parse(&String::from_utf8_lossy(&bytes))?)
}

impl Sign {
    pub(super) fn run(self) -> Result<ExitCode, BuildError> {
        let keys = self.keys.open()?;
        let path = self.output.unwrap_or_else(|| self.unsigned.join(SIGNATURES));
        let before = if path.exists() { read(&path)? } else { SignatureSet::default() };
        let roles = match (self.show, self.role.is_empty()) {
            (true, _) => Vec::new(),
            (false, true) => Role::BUILD.to_vec(),
            (false, false) => self.role,
        };
        let signed = pipeline::sign(&self.unsigned, &keys, &roles, before)?;
        print(&signed.request.to_string());
        if let Some(summary) = signed.summary {
            print(&format!(
                "db            EFI program with Authenticode SHA-256 {}\npcr           policy for PCR 11 = {}\n",
                summary.authenticode, summary.pcr11
            ));
        }
        if self.show {
            return Ok(ExitCode::SUCCESS);
        }
        // Whole or not at all: what was signed before must not be lost.
        let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let fail = |e| BuildError::io("write the signatures", &path, e);
        let mut file = tempfile::NamedTempFile::new_in(folder).map_err(fail)?;
        file.write_all(signed.answers.to_json()?.as_bytes()).map_err(fail)?;
        file.as_file().sync_all().map_err(fail)?;
        file.persist(&path).map_err(|error| fail(error.error))?;
        let path = path.display();
        if signed.summary.is_some() {
            print(&format!("signed; next: ashlar attach {} {path} -o out\n", self.unsigned.display()));
        } else {
            print(&format!("signed in part in `{path}`; next: ashlar sign where the other key is\n"));
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Attach {
    pub(super) fn run(self) -> Result<ExitCode, BuildError> {
        let mut answers = SignatureSet::default();
        if self.signatures.is_empty() {
            let path = self.unsigned.join(SIGNATURES);
            if !path.exists() {
                return Err(BuildError::Unsigned("db".into()));
            }
            answers.merge(read(&path)?)?;
        }
        for path in &self.signatures {
            answers.merge(read(path)?)?;
        }
        let jobs = std::thread::available_parallelism().map_or(1, usize::from);
        let built = pipeline::attach(
            &self.unsigned,
            answers,
            &self.output_directory,
            &build::outputs(&self.output),
            jobs,
        );
        let built = built.map_err(|error| match error {
            BuildError::Keys(KeyError::Unanswered(role)) => BuildError::Unsigned(role.to_string()),
            other => other,
        })?;
        build::show(&built, &self.output_directory);
        Ok(ExitCode::SUCCESS)
    }
}
