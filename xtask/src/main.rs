//! `cargo xtask`: all set-up, tests, measurements and demonstrations of the project, on a fresh Debian machine.
#![forbid(unsafe_code)]

mod bench;
mod build;
mod conformance;
mod debian;
mod demo;
mod fuzz;
mod guest;
mod judges;
mod programs;
mod run;
mod setup;
mod test;
mod torture;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Set-up, tests, measurements and demonstration of Ashlar")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Install what building and testing need: Debian packages, and Python packages into the target folder
    Setup,
    /// Build the programs into the target folder's `ashlar/`: `ashlar` and the static `ashlar-init`
    Build,
    /// Build the example image with development keys, boot it and show what it measured
    Demo,
    /// Run everything: formatting, lints, tests of all crates, booted machines
    Test,
    /// Measure, each figure beside a peer's in the same run
    #[command(subcommand)]
    Bench(bench::Bench),
    /// Cut the power of a machine again and again, then look whether it and what it wrote is whole (as root)
    Torture(torture::Torture),
    /// Build the client that the public TUF conformance suite drives, and run the suite where a checkout of it is given
    Conformance(conformance::Conformance),
    /// Run a fuzz target, or all in turn
    Fuzz(fuzz::Fuzz),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Setup => setup::packages().and_then(|()| judges::judges()),
        Command::Build => setup::packages().and_then(|()| build::build().map(drop)),
        Command::Demo => setup::packages().and_then(|()| demo::demo()),
        Command::Test => setup::packages().and_then(|()| test::test()),
        Command::Bench(bench) => setup::packages().and_then(|()| bench.run()),
        Command::Torture(torture) => setup::packages().and_then(|()| torture.run()),
        Command::Conformance(conformance) => conformance.run(),
        Command::Fuzz(fuzz) => fuzz.run(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("xtask: {message}");
            ExitCode::FAILURE
        }
    }
}
