//! `cargo xtask fuzz`: the parsers of outside bytes under libFuzzer, by cargo-fuzz.

use crate::run::{cargo_with, workspace};
use clap::Args;

/// Which target and for how long.
#[derive(Args)]
pub struct Fuzz {
    /// The target; all in turn otherwise
    target: Option<String>,
    /// Seconds for each target
    #[arg(long, default_value_t = 60)]
    seconds: u32,
}

impl Fuzz {
    /// Runs the target or all of them; stops at the first finding.
    pub fn run(self) -> Result<(), String> {
        let folder = workspace().join("fuzz/fuzz_targets");
        let mut targets: Vec<String> = match self.target {
            Some(target) => vec![target],
            None => std::fs::read_dir(&folder)
                .map_err(|e| format!("cannot read `{}`: {e}", folder.display()))?
                .filter_map(|entry| entry.ok()?.path().file_stem()?.to_str().map(str::to_owned))
                .collect(),
        };
        targets.sort();
        let time = format!("-max_total_time={}", self.seconds);
        for target in &targets {
            // The coverage instrumentation needs no nightly toolchain; the sanitizers would.
            cargo_with(
                &["fuzz", "run", "--sanitizer", "none", target, "--", &time, "-rss_limit_mb=4096"],
                &[],
            )
            .map_err(|error| format!("{error}\nif cargo has no `fuzz`: cargo install cargo-fuzz --locked"))?;
        }
        Ok(())
    }
}
