//! The Python packages that judge bills of materials, provenance and channels in the tests, in a virtual environment of their own.

use crate::run::{run, target};
use std::path::Path;

/// What is installed; tests of `ashlar-sbom` and of `ashlar channel` ask for these.
const PINNED: &[&str] = &[
    "spdx-tools==0.8.5",
    "cyclonedx-python-lib[json-validation]==11.12.0",
    "in-toto-attestation==0.9.3",
    "securesystemslib[crypto]==1.6.0",
    "tuf==7.0.1",
];

/// Written last, with the list: an environment without it, or with another list, is made anew.
const MARKER: &str = "ashlar-judges";

/// Makes the environment, unless it is complete.
pub fn judges() -> Result<(), String> {
    let folder = target().join("sbom-judges");
    make(&folder).map_err(|error| {
        format!(
            "{error}\nthe judges of the bills of materials could not be installed into `{}`\nnext: see that \
             `python3 -m pip download {}` works on this machine (pip's own settings name its index, pip.conf(5)), then \
             run cargo xtask setup again",
            folder.display(),
            PINNED[0],
        )
    })
}

fn make(folder: &Path) -> Result<(), String> {
    let (marker, list) = (folder.join(MARKER), PINNED.join("\n"));
    if std::fs::read_to_string(&marker).is_ok_and(|found| found == list)
        && folder.join("bin/python3").exists()
    {
        return Ok(());
    }
    // `--clear` empties what an earlier attempt has left.
    run("python3", &["-m", "venv", "--clear", &folder.display().to_string()])?;
    let pip = folder.join("bin/pip").display().to_string();
    let quiet = ["install", "--quiet", "--disable-pip-version-check", "--no-input"];
    run(&pip, &[&quiet, PINNED].concat())?;
    std::fs::write(&marker, list).map_err(|e| format!("cannot write `{}`: {e}", marker.display()))
}
