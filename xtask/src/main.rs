//! `cargo xtask`: all set-up, tests and demonstrations of the project, on a fresh Debian machine.
#![forbid(unsafe_code)]

mod run;
mod setup;
mod test;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Set-up and tests of Ashlar")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Install the Debian packages that building and testing need
    Setup,
    /// Run everything: formatting, lints, tests of all crates
    Test,
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Setup => setup::setup(),
        Command::Test => setup::setup().and_then(|()| test::test()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("xtask: {message}");
            ExitCode::FAILURE
        }
    }
}
