//! The client under test of the public suite theupdateframework/tuf-conformance, by its command line: `init`, `refresh`,
//! `download`. Linked dynamically, so that a preloaded library may give it another clock.

use ashlar_fetch::{Http, HttpOptions};
use ashlar_tuf::{Bootstrap, Client, Clock, FolderStore, Limits, Store, TrustedSet, TufError};
use clap::{Parser, Subcommand};
use std::fmt::Write as _;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

#[derive(Debug, Parser)]
struct Arguments {
    /// Where trusted metadata is kept
    #[arg(long)]
    metadata_dir: PathBuf,
    /// Where metadata is fetched
    #[arg(long)]
    metadata_url: Option<String>,
    /// A target; may be given again
    #[arg(long)]
    target_name: Vec<String>,
    /// Where targets are fetched
    #[arg(long)]
    target_base_url: Option<String>,
    /// Where targets go
    #[arg(long)]
    target_dir: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Trust a root
    Init { root: PathBuf },
    /// Fetch what is new
    Refresh,
    /// The same, then the targets
    Download,
}

type Failure = Box<dyn std::error::Error>;

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

fn server(address: Option<&String>) -> Result<Http, Failure> {
    Ok(Http::new(address.ok_or("an address is missing")?, HttpOptions::default())?)
}

/// A name as one name of a file, whatever is in it.
fn file_name(target: &str) -> String {
    let mut name = String::new();
    for byte in target.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_".contains(&byte) || (byte == b'.' && !name.is_empty()) {
            name.push(char::from(byte));
        } else {
            let _ = write!(name, "%{byte:02X}");
        }
    }
    name
}

/// Whether the bytes at `path` are the target already.
fn is_there(
    path: &Path,
    client: &mut Client<FolderStore>,
    metadata: &Http,
    name: &str,
) -> Result<bool, TufError> {
    let Ok(bytes) = fs::read(path) else { return Ok(false) };
    client.matches(metadata, name, &bytes)
}

fn run(arguments: &Arguments) -> Result<(), Failure> {
    let mut store = FolderStore::open(&arguments.metadata_dir)?;
    if let Command::Init { root } = &arguments.command {
        let bytes = fs::read(root)?;
        TrustedSet::new(&bytes, now())?;
        store.write("root.json", &bytes)?;
        return Ok(());
    }
    let root = store.read("root.json")?.ok_or("no root is trusted: `init` comes first")?;
    let metadata = server(arguments.metadata_url.as_ref())?;
    let mut client =
        Client::new(store, Bootstrap::Root(root), Limits::default()).with_targets("").without_clock();
    client.refresh(&metadata, Clock { now: now(), built: i64::MIN })?;
    if let Command::Download = arguments.command {
        let targets = server(arguments.target_base_url.as_ref())?;
        let folder = arguments.target_dir.as_ref().ok_or("a folder for targets is missing")?;
        for name in &arguments.target_name {
            let path = folder.join(file_name(name));
            if is_there(&path, &mut client, &metadata, name)? {
                continue;
            }
            let mut content = Vec::new();
            let target = client.target(&metadata, name)?;
            let mut reader = client.open_known(&targets, name, &target)?;
            reader.read_to_end(&mut content)?;
            let new = path.with_extension("new");
            fs::write(&new, &content).and_then(|()| fs::rename(&new, &path)).map_err(io::Error::other)?;
        }
    }
    Ok(())
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
