//! The programs of the project, as a user has them: all in one folder.

use crate::run::{cargo, cargo_with, target};
use std::path::{Path, PathBuf};

/// The target that the programs of the machine are built for. Naming it keeps the flags for static linking away from build scripts.
const INIT_TARGET: &str = "x86_64-unknown-linux-gnu";

/// The programs of the machine: package and program.
const MACHINE: [(&str, &str); 3] =
    [("ashlar-init", "ashlar-init"), ("ashlar-control", "ashlarctl"), ("ashlar-update", "ashlar-update")];

/// What builds the programs of the owner's and the operator's computer: `ashlar` and `lockctl`.
const DESK: &[&str] = &["--package", "ashlar-builder", "--package", "ashlar-lockctl"];

/// Name of the variable with a folder of programs that were built already.
pub const PROGRAMS: &str = "ASHLAR_PROGRAMS";

/// The folder that `ASHLAR_PROGRAMS` names; without it, builds.
pub fn programs() -> Result<PathBuf, String> {
    std::env::var_os(PROGRAMS).map_or_else(build, |folder| Ok(crate::run::workspace().join(folder)))
}

/// Builds and gives the folder with the programs.
pub fn build() -> Result<PathBuf, String> {
    cargo(&[&["build", "--release"], DESK].concat())?;
    of_machine_and(&target().join("release"))
}

/// As [`build`], but with the `ashlar` and `lockctl` that compiling the tests has made: the programs of the machine are the ones that
/// users have, and to make a second builder would take longer than to test it.
pub fn for_tests() -> Result<PathBuf, String> {
    of_machine_and(&target().join("debug"))
}

/// Builds the programs of the machine and gives a folder with them and those in `desk`.
fn of_machine_and(desk: &Path) -> Result<PathBuf, String> {
    // Static, so that the program does not depend on the libraries of the machine that built it. `--remap-path-prefix`
    // keeps the folder of the build out of it.
    let home = std::env::var("CARGO_HOME")
        .or_else(|_| std::env::var("HOME").map(|home| format!("{home}/.cargo")))
        .unwrap_or_default();
    let flags = format!(
        "-C target-feature=+crt-static --remap-path-prefix={}=/ashlar --remap-path-prefix={home}=/cargo",
        crate::run::workspace().display()
    );
    // One after the other: built together, each would have the features of crates that the other asks for.
    for (package, _) in MACHINE {
        cargo_with(
            &["build", "--release", "--package", package, "--target", INIT_TARGET],
            &[("RUSTFLAGS", &flags)],
        )?;
    }
    let folder = target().join("ashlar");
    std::fs::create_dir_all(&folder).map_err(|e| format!("cannot create `{}`: {e}", folder.display()))?;
    let of_machine = MACHINE.map(|(_, program)| target().join(INIT_TARGET).join("release").join(program));
    for from in of_machine.into_iter().chain(["ashlar", "lockctl"].map(|program| desk.join(program))) {
        let name = from.file_name().unwrap_or_default();
        // By renaming: a running program cannot be written to.
        let (new, to) = (folder.join(".new"), folder.join(name));
        std::fs::copy(&from, &new)
            .and_then(|_| std::fs::rename(&new, &to))
            .map_err(|e| format!("cannot copy `{}` to `{}`: {e}", from.display(), to.display()))?;
    }
    Ok(folder)
}
