//! `cargo xtask bench`: figures beside a peer's in the same run, so that they hold on any machine.

mod boot;
mod build;
pub mod lab;
pub mod measure;
mod peers;
mod read;
mod stages;
mod table;
mod update;

use clap::{Args, Subcommand};

/// What to measure.
#[derive(Subcommand)]
pub enum Bench {
    /// From the kernel's start to a container that answers, beside a systemd image of the same packages (as root)
    Boot(Settings),
    /// Whole builds, and each stage beside the peer's tool for it
    Build(Settings),
    /// What reading an image costs, by compression: ours and mkfs.erofs's, mounted (as root)
    Read(Settings),
    /// How much an update would download, by compression and cluster size
    Update(Output),
}

/// How often, and how it is told.
#[derive(Args)]
pub struct Settings {
    /// Counted runs of each program; the medians are shown
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    runs: u32,
    #[command(flatten)]
    output: Output,
}

/// How it is told.
#[derive(Args)]
pub struct Output {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Bench {
    /// Measures.
    pub fn run(self) -> Result<(), String> {
        match self {
            Self::Boot(settings) => boot::run(&settings)?.print(settings.output.json),
            Self::Build(settings) => build::run(&settings)?.print(settings.output.json),
            Self::Read(settings) => read::run(&settings)?.print(settings.output.json),
            Self::Update(output) => update::run()?.print(output.json),
        }
        Ok(())
    }
}
