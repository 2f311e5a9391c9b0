//! `ashlar build`

use super::{keys, print, print_json};
use crate::build::{self, Built, Options, OutputKind};
use crate::error::BuildError;
use crate::packages::{LockPolicy, Source};
use crate::progress;
use crate::recipe::human;
use crate::timings;
use ashlar_debian::Network;
use ashlar_image::release::Release;
use clap::Args;
use serde::Serialize;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// What to build and from what; the same for every command that builds.
#[derive(Debug, Args)]
pub(super) struct From {
    /// The recipe
    recipe: PathBuf,
    #[command(flatten)]
    settings: Settings,
}

/// The same where the recipe is not the first argument.
#[derive(Debug, Args)]
pub(super) struct FromFlag {
    /// The recipe
    #[arg(long, value_name = "FILE")]
    recipe: PathBuf,
    #[command(flatten)]
    settings: Settings,
}

impl From {
    pub(super) fn options(self) -> Options {
        self.settings.options(self.recipe)
    }
}

impl FromFlag {
    pub(super) fn options(self) -> Options {
        self.settings.options(self.recipe)
    }
}

#[derive(Debug, Args)]
pub(super) struct Settings {
    /// Profile of the recipe; may be given more than once
    #[arg(long, value_name = "NAME")]
    profile: Vec<String>,
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
    /// CA certificates (PEM) that registries of containers are trusted by, beside the system's
    #[arg(long, value_name = "FILE")]
    registry_ca: Option<PathBuf>,
    /// The static init program [default: ashlar-init beside this program]
    #[arg(long, value_name = "FILE")]
    init: Option<PathBuf>,
    /// How many stages run at once, each on as many processors [default: the number of processors]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    jobs: Option<u16>,
}

impl Settings {
    pub(super) fn options(self, recipe: PathBuf) -> Options {
        let jobs = self.jobs.map(usize::from);
        if let Some(jobs) = jobs {
            // It fails only where the pool was made before, and nothing has used it yet.
            let _ = rayon::ThreadPoolBuilder::new().num_threads(jobs).build_global();
        }
        Options {
            recipe,
            profiles: self.profile,
            lock: self.lock,
            lock_policy: match (self.locked, self.refresh) {
                (true, _) => LockPolicy::Locked,
                (_, true) => LockPolicy::Refresh,
                _ => LockPolicy::Follow,
            },
            source: Source {
                cache: self.cache.unwrap_or_else(default_cache),
                mirror: self.mirror,
                keyrings: self.keyring,
                registry_ca: self.registry_ca,
                network: if self.offline { Network::Offline } else { Network::Online },
            },
            init: self.init,
            outputs: outputs(&[]),
            jobs: jobs.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from)),
        }
    }
}

#[derive(Debug, Args)]
pub(super) struct Build {
    #[command(flatten)]
    from: From,
    #[command(flatten)]
    keys: keys::Where,
    /// Folder of the release; an older release there is replaced
    #[arg(short, long, value_name = "DIR")]
    output_directory: PathBuf,
    /// Form of the release; may be given more than once, or as a list [default: raw]
    #[arg(long, value_name = "KIND", value_enum, value_delimiter = ',')]
    output: Vec<OutputKind>,
    /// Do not sign: write what is to be signed, for `ashlar sign` and `ashlar attach`
    #[arg(long)]
    unsigned: bool,
    /// Show where the time went
    #[arg(long)]
    timings: bool,
    /// Write where the time went as a trace for Perfetto
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// Print the release and the timings as JSON
    #[arg(long)]
    json: bool,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Report<'a> {
    output: &'a Path,
    lock_written: &'a Option<PathBuf>,
    notes: &'a [String],
    timings: &'a timings::Report,
    release: &'a Option<Release>,
    lint: Option<&'a serde_json::Value>,
}

/// Where programs of a user keep what can be had again (XDG Base Directory Specification).
pub(super) fn default_cache() -> PathBuf {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute("XDG_CACHE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".cache")))
        .unwrap_or_else(std::env::temp_dir)
        .join("ashlar")
}

/// The forms that are asked for: a raw disk where nothing is said.
pub(super) fn outputs(asked: &[OutputKind]) -> BTreeSet<OutputKind> {
    if asked.is_empty() { BTreeSet::from([OutputKind::Raw]) } else { asked.iter().copied().collect() }
}

/// Says what was built.
pub(super) fn show(built: &Built, output: &Path) {
    for note in &built.notes {
        eprintln!("note: {note}");
    }
    if let Some(lint) = &built.lint
        && (lint.warnings > 0 || lint.notes > 0)
    {
        eprint!("{}", lint.text);
    }
    if let Some(path) = &built.lock_written {
        eprintln!("note: wrote `{}`; keep it in version control", path.display());
    }
    let (built_output, output) = (output, output.display());
    let Some(release) = &built.release else {
        print(&format!(
            "built in `{output}` without signatures\nnext: take `{output}` to where the keys are, run ashlar sign \
             {output} --keys KEYS, bring `signatures.json` back and run ashlar attach {output} -o out\n"
        ));
        return;
    };
    let slot = &release.slot;
    // Without its disk there is nothing to start.
    let raw = built_output.join(&release.disk.file).exists();
    let next = if raw { format!("next: ashlar qemu {output}\n") } else { String::new() };
    print(&format!(
        "built {} {} in `{output}`: root {}, verity {}, esp {}\nroot hash {}\n{next}",
        release.image_id,
        release.image_version,
        human(slot.root.size),
        human(slot.verity.size),
        human(slot.esp.size),
        release.root_hash,
    ));
}

impl Build {
    pub(super) fn run(self) -> Result<ExitCode, BuildError> {
        let mut options = self.from.options();
        options.outputs = outputs(&self.output);
        let progress = progress::for_stderr();
        let keys = self.keys.open()?;
        let output = &self.output_directory;
        let built = if self.unsigned {
            build::build_unsigned(&options, &keys, output, progress.as_ref())?
        } else {
            build::build(&options, &keys, output, progress.as_ref())?
        };
        if let Some(path) = &self.trace {
            let trace = serde_json::to_vec(&built.timings.trace())?;
            std::fs::write(path, trace).map_err(|e| BuildError::io("write the trace", path, e))?;
        }
        if self.json {
            print_json(&Report {
                output,
                lock_written: &built.lock_written,
                notes: &built.notes,
                timings: &built.timings,
                release: &built.release,
                lint: built.lint.as_ref().map(|lint| &lint.report),
            })?;
            return Ok(ExitCode::SUCCESS);
        }
        if self.timings {
            print(&built.timings.table());
        }
        show(&built, output);
        Ok(ExitCode::SUCCESS)
    }
}
