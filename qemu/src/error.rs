//! Everything that can go wrong, with what to do next.

use std::fmt::Write as _;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Why a machine could not be started, or did not do what was waited for.
#[derive(Debug, thiserror::Error)]
pub enum QemuError {
    /// A program is not installed.
    #[error("`{program}` is not installed; install the package {package}")]
    Missing {
        /// Name of the program.
        program: &'static str,
        /// Debian package that has it.
        package: &'static str,
    },
    /// The firmware is not installed.
    #[error(
        "no {file} in {}; install the package ovmf, or name the folder with {}",
        paths(searched),
        crate::firmware::OVERRIDE
    )]
    NoFirmware {
        /// File that was looked for.
        file: &'static str,
        /// Folders that were looked in.
        searched: Vec<PathBuf>,
    },
    /// A file or folder cannot be used.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was tried: `read`, `write`, `make`.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A path that the programs' option syntax cannot carry.
    #[error("the path {path} cannot be used: {reason}; use another folder")]
    Path {
        /// Which.
        path: PathBuf,
        /// Why.
        reason: &'static str,
    },
    /// Another machine runs from the folder.
    #[error("a machine already runs in {0}; stop it, or use another folder")]
    InUse(PathBuf),
    /// The disk image is not the one that the kept machine was made from.
    #[error(
        "the machine in {folder} was made from another disk image than {image}; remove the folder to start anew"
    )]
    OtherImage {
        /// Folder of the kept machine.
        folder: PathBuf,
        /// The image that was given now.
        image: PathBuf,
    },
    /// There is no machine in the folder.
    #[error("there is no machine in {0}; start one with this folder first")]
    NoMachine(PathBuf),
    /// A machine has no such part.
    #[error("the machine in {folder} has no {part}")]
    NoPart {
        /// Folder of the machine.
        folder: PathBuf,
        /// What was asked for.
        part: String,
    },
    /// The TPM of a machine that is off refused a command or gave no answer.
    #[error("the TPM's {command} failed: {why}")]
    Tpm {
        /// Name of the command, as the TPM 2.0 Library calls it.
        command: &'static str,
        /// Why.
        why: String,
    },
    /// The guest's serial console takes no more input.
    #[error("the serial console does not take what is typed: {0}; does the guest read it?")]
    Typing(io::Error),
    /// KVM was asked for and does not work.
    #[error("KVM cannot run this machine: {0}; use the accelerator `auto` or `tcg`")]
    NoKvm(String),
    /// A program could not be started.
    #[error("cannot start {program}: {source}")]
    Spawn {
        /// Name of the program.
        program: &'static str,
        /// Why.
        source: io::Error,
    },
    /// A program ended with an error.
    #[error("{program} ended ({status}){}", tail("its last words", log))]
    Failed {
        /// Name of the program.
        program: &'static str,
        /// Exit status, for people.
        status: String,
        /// Last lines that it wrote.
        log: String,
    },
    /// The machine ended while something was waited for.
    #[error("the machine ended ({exit}) while waiting for {what}{}", tail("last console lines", console))]
    Ended {
        /// What was waited for.
        what: String,
        /// How the machine ended.
        exit: String,
        /// Last console lines.
        console: String,
    },
    /// Something did not come in time.
    #[error("no {what} within {} seconds{}", after.as_secs(), tail("last console lines", console))]
    Deadline {
        /// What was waited for.
        what: String,
        /// The time that it was given.
        after: Duration,
        /// Last console lines.
        console: String,
    },
    /// QEMU's control socket failed or refused a command.
    #[error("QEMU's control socket: {0}")]
    Control(String),
    /// The report cannot be read.
    #[error("the machine's report cannot be read: {0}; does the image carry another version of init?")]
    Report(String),
}

fn paths(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}

/// `text` as an indented block under a heading, or nothing.
fn tail(heading: &str, text: &str) -> String {
    let mut block = String::new();
    if !text.trim().is_empty() {
        let _ = write!(block, "; {heading}:");
        for line in text.lines() {
            let _ = write!(block, "\n    {line}");
        }
    }
    block
}

/// The last lines of a text that say something.
pub(crate) fn last_lines(text: &str) -> String {
    const LINES: usize = 15;
    let lines: Vec<&str> = text.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}

/// Shorthand for an [`QemuError::Io`].
pub(crate) fn io_error(
    action: &'static str,
    path: impl Into<PathBuf>,
) -> impl FnOnce(io::Error) -> QemuError {
    let path = path.into();
    move |source| QemuError::Io { action, path, source }
}
