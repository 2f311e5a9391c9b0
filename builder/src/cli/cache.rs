//! `ashlar cache`

use super::{build::default_cache, print, print_json};
use crate::error::BuildError;
use crate::recipe::{ByteSize, human};
use ashlar_cache::{Policy, gc, usage};
use clap::{Args, Subcommand};
use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

#[derive(Debug, Subcommand)]
pub(super) enum Cache {
    /// Tell how much lies in the cache
    Show(Show),
    /// Remove what was not used for long, or what is too much
    Gc(Gc),
}

#[derive(Debug, Args)]
pub(super) struct Show {
    /// The cache's folder [default: ashlar in the user's cache folder]
    #[arg(long, value_name = "DIR", env = "ASHLAR_CACHE")]
    cache: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct Gc {
    /// The cache's folder [default: ashlar in the user's cache folder]
    #[arg(long, value_name = "DIR", env = "ASHLAR_CACHE")]
    cache: Option<PathBuf>,
    /// Remove what no build has used for this many days
    #[arg(long, value_name = "DAYS", default_value_t = 30)]
    days: u64,
    /// Then remove what was used longest ago until this much is left, such as 2GiB
    #[arg(long, value_name = "SIZE", value_parser = size)]
    max_size: Option<ByteSize>,
    /// Only tell what would be removed
    #[arg(long)]
    dry_run: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

fn size(text: &str) -> Result<ByteSize, String> {
    ByteSize::parse(text).ok_or_else(|| format!("`{text}` is not a size: write it as 512MiB or 4GiB"))
}

impl Cache {
    pub(super) fn run(self) -> Result<ExitCode, BuildError> {
        match self {
            Self::Show(show) => show.run(),
            Self::Gc(gc) => gc.run(),
        }
    }
}

impl Show {
    fn run(self) -> Result<ExitCode, BuildError> {
        let root = self.cache.unwrap_or_else(default_cache);
        let usage = usage(&root)?;
        if self.json {
            print_json(&usage)?;
            return Ok(ExitCode::SUCCESS);
        }
        let mut text = format!("{}\n", root.display());
        for (room, used) in &usage.rooms {
            let _ = writeln!(text, "{:<10} {:>6} items {:>12}", room.folder(), used.items, human(used.bytes));
        }
        print(&text);
        Ok(ExitCode::SUCCESS)
    }
}

impl Gc {
    fn run(self) -> Result<ExitCode, BuildError> {
        let root = self.cache.unwrap_or_else(default_cache);
        let policy = Policy {
            max_age: Some(Duration::from_secs(self.days.saturating_mul(86_400))),
            max_bytes: self.max_size.map(|size| size.0),
            now: SystemTime::now(),
            dry_run: self.dry_run,
        };
        let report = gc(&root, &policy, || eprintln!("waiting for builds that use the cache"))?;
        if self.json {
            print_json(&report)?;
            return Ok(ExitCode::SUCCESS);
        }
        let mut text = String::new();
        for (room, part) in &report.rooms {
            let word = if report.dry_run { "would go" } else { "removed" };
            let (gone, kept) = (&part.removed, &part.kept);
            let _ = writeln!(
                text,
                "{:<10} {word} {} ({}), kept {} ({})",
                room.folder(),
                gone.items,
                human(gone.bytes),
                kept.items,
                human(kept.bytes)
            );
        }
        print(&text);
        Ok(ExitCode::SUCCESS)
    }
}
