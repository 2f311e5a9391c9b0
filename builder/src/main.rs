//! The `ashlar` program.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    ashlar_builder::cli::run()
}
