//! Programs that we did not write, as judges.

use crate::programs::Run;
use crate::skip;
use std::path::PathBuf;
use std::process::Command;

/// Where a program is, in `PATH` or in the folders for administrators that a user's `PATH` may lack.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(program))
        .find(|path| path.is_file())
}

/// Whether a program is there.
pub fn has(program: &str) -> bool {
    find(program).is_some()
}

/// A command for a judge; none, with the reason said, when it is not installed.
pub fn judge(program: &str, package: &str) -> Option<Command> {
    let found = find(program);
    if found.is_none() {
        skip(&format!("{program} is needed (package {package})"));
    }
    found.map(Command::new)
}

/// Runs a judge and gives what it said, unless it is not installed; fails when it refuses.
pub fn accepts(program: &str, package: &str, arguments: &[&std::ffi::OsStr]) -> Option<Run> {
    let mut command = judge(program, package)?;
    Some(Run::of(command.args(arguments)).ok())
}
