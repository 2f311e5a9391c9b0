//! `ashlar build`

use super::{print, print_json};
use crate::build::{self, Options};
use crate::error::BuildError;
use crate::packages::{LockPolicy, Source};
use crate::progress;
use crate::recipe::human;
use crate::timings::Timings;
use ashlar_debian::Network;
use ashlar_image::release::Release;
use clap::Args;
use serde::Serialize;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Debug, Args)]
pub(super) struct Build {
    /// The recipe
    recipe: PathBuf,
    /// Folder of keys, as `ashlar keys new` makes it
    #[arg(long, value_name = "DIR")]
    keys: PathBuf,
    /// Folder of the release; an older release there is replaced
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    /// Lock file [default: beside the recipe, ending in .lock]
    #[arg(long, value_name = "FILE")]
    lock: Option<PathBuf>,
    /// Fail unless the lock file fits the recipe
    #[arg(long, conflicts_with = "refresh")]
    locked: bool,
    /// Choose the newest packages and write the lock file anew
    #[arg(long)]
    refresh: bool,
    /// Do not use the network: everything must be in the cache
    #[arg(long)]
    offline: bool,
    /// Folder for downloaded and unpacked packages [default: ashlar in the user's cache folder]
    #[arg(long, value_name = "DIR", env = "ASHLAR_CACHE")]
    cache: Option<PathBuf>,
    /// Debian mirror [default: the recipe's, or that of this machine's apt]
    #[arg(long, value_name = "URL")]
    mirror: Option<String>,
    /// Keyring that verifies the suite; may be given more than once [default: Debian's archive keyring]
    #[arg(long, value_name = "FILE")]
    keyring: Vec<PathBuf>,
    /// The static init program [default: ashlar-init beside this program]
    #[arg(long, value_name = "FILE")]
    init: Option<PathBuf>,
    /// Show where the time went
    #[arg(long)]
    timings: bool,
    /// Print the release and the timings as JSON
    #[arg(long)]
    json: bool,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Report<'a> {
    output: &'a PathBuf,
    lock_written: &'a Option<PathBuf>,
    notes: &'a [String],
    timings: &'a Timings,
    release: &'a Release,
}

/// Where programs of a user keep what can be had again (XDG Base Directory Specification).
fn default_cache() -> PathBuf {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute("XDG_CACHE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".cache")))
        .unwrap_or_else(std::env::temp_dir)
        .join("ashlar")
}

impl Build {
    pub(super) fn run(self) -> Result<ExitCode, BuildError> {
        let options = Options {
            recipe: self.recipe,
            lock: self.lock,
            lock_policy: match (self.locked, self.refresh) {
                (true, _) => LockPolicy::Locked,
                (_, true) => LockPolicy::Refresh,
                _ => LockPolicy::Follow,
            },
            keys: self.keys,
            output: self.output,
            source: Source {
                cache: self.cache.unwrap_or_else(default_cache),
                mirror: self.mirror,
                keyrings: self.keyring,
                network: if self.offline { Network::Offline } else { Network::Online },
            },
            init: self.init,
        };
        let progress = progress::for_stderr();
        let built = build::build(&options, progress.as_ref())?;
        if self.json {
            let report = Report {
                output: &options.output,
                lock_written: &built.lock_written,
                notes: &built.notes,
                timings: &built.timings,
                release: &built.release,
            };
            print_json(&report)?;
            return Ok(ExitCode::SUCCESS);
        }
        for note in &built.notes {
            eprintln!("note: {note}");
        }
        if let Some(path) = &built.lock_written {
            eprintln!("note: wrote `{}`; keep it in version control", path.display());
        }
        if self.timings {
            print(&built.timings.table());
        }
        let slot = &built.release.slot;
        print(&format!(
            "built {} {} in `{}`: root {}, verity {}, esp {}\nroot hash {}\nnext: ashlar qemu {}\n",
            built.release.image_id,
            built.release.image_version,
            options.output.display(),
            human(slot.root.size),
            human(slot.verity.size),
            human(slot.esp.size),
            built.release.root_hash,
            options.output.display(),
        ));
        Ok(ExitCode::SUCCESS)
    }
}
