//! `ashlarctl config`

use super::node::Node;
use super::{DONE, Outcome, output};
use crate::api::MAX_CONFIGURATION;
use crate::error::ControlError;
use crate::files;
use crate::text::short;
use ashlar_image::control::{Applied, ConfigurationState};
use clap::Subcommand;
use hyper::Method;
use std::fmt::Write as _;
use std::io::Read;
use std::path::{Path, PathBuf};

#[derive(Debug, Subcommand)]
pub(super) enum Config {
    /// Show the configuration in force
    Show,
    /// Give the machine a signed configuration
    Apply {
        /// What `ashlar machine sign` has written; `-` for standard input
        file: PathBuf,
        /// Only tell what would change
        #[arg(long)]
        dry_run: bool,
    },
}

impl Config {
    pub(super) fn run(self, node: &Node) -> Outcome {
        match self {
            Self::Show => show(node),
            Self::Apply { file, dry_run } => apply(node, &file, dry_run),
        }
    }
}

fn show(node: &Node) -> Outcome {
    let state: ConfigurationState = node.get("/v1/configuration")?;
    if node.json {
        return DONE;
    }
    // Beside the text, which may go into a file.
    match (&state.serial, &state.source) {
        (Some(serial), source) => {
            let source =
                source.as_deref().map_or(String::new(), |source| format!(", from {}", short(source, 80)));
            let digest = state.digest.map_or(String::new(), |digest| format!(", sha256 {digest}"));
            eprintln!("serial {serial}{source}{digest}");
        }
        _ => eprintln!("the machine has no configuration"),
    }
    if let Some(refused) = &state.refused {
        eprintln!(
            "the last one that was offered was refused:\n  {}",
            crate::text::printable(refused).replace('\n', "\n  ")
        );
    }
    if let Some(text) = &state.text {
        output::print(text);
    }
    DONE
}

fn apply(node: &Node, file: &Path, dry_run: bool) -> Outcome {
    let envelope = if file == Path::new("-") {
        let mut bytes = Vec::new();
        let mut input = std::io::stdin().lock().take(MAX_CONFIGURATION as u64 + 1);
        input.read_to_end(&mut bytes).map_err(ControlError::io("read", Path::new("standard input")))?;
        bytes
    } else {
        files::read(file, MAX_CONFIGURATION)?
    };
    let path = if dry_run { "/v1/configuration?dry-run=true" } else { "/v1/configuration" };
    let bytes = node.connect()?.call(Method::PUT, path, envelope)?;
    let applied: Applied = node.understand(&bytes)?;
    if node.json {
        return DONE;
    }
    let (head, changed) =
        if dry_run { ("would be accepted", "would change at once") } else { ("is in force", "changed") };
    let mut text = format!("serial {} {head}\n", applied.serial);
    for (title, lines) in [(changed, &applied.changed), ("waits for a restart", &applied.needs_reboot)] {
        for line in lines {
            let _ = writeln!(text, "  {title}: {}", short(line, usize::MAX));
        }
    }
    if applied.changed.is_empty() && applied.needs_reboot.is_empty() {
        text.push_str("  nothing else changes\n");
    }
    output::print(&text);
    DONE
}
