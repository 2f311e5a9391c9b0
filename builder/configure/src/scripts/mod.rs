//! Maintainer scripts as text: their commands are found and named, never run.

mod classify;
mod shell;
mod tokens;

pub(crate) use classify::classify;
pub use shell::{Command, When, commands};
pub use tokens::Word;

use crate::Scripts;
use crate::report::State;

/// A command of a package's script, and what became of it.
#[derive(Debug)]
pub(crate) struct Found<'a> {
    pub(crate) package: &'a str,
    pub(crate) script: &'static str,
    pub(crate) command: Command,
    /// Set by the step that takes care of it.
    pub(crate) outcome: Option<(State, String)>,
}

impl Found<'_> {
    pub(crate) fn settle(&mut self, state: State, why: impl Into<String>) {
        self.outcome = Some((state, why.into()));
    }

    /// Whether it runs when a package is first installed.
    pub(crate) fn at_installation(&self) -> bool {
        self.command.when == When::Installation && self.script != "config"
    }

    /// Where it stands, for messages.
    pub(crate) fn place(&self) -> String {
        format!("{} of {}, line {}", self.script, self.package, self.command.line)
    }
}

/// The commands of all packages' scripts, packages by name.
pub(crate) fn find<'a>(packages: &[Scripts<'a>]) -> Vec<Found<'a>> {
    let mut sorted: Vec<&Scripts<'a>> = packages.iter().collect();
    sorted.sort_by_key(|scripts| (scripts.package, scripts.version));
    let mut found = Vec::new();
    for scripts in sorted {
        for script in ["config", "preinst", "postinst"] {
            let Some(text) = scripts.files.get(script) else { continue };
            found.extend(commands(text).into_iter().map(|command| Found {
                package: scripts.package,
                script,
                command,
                outcome: None,
            }));
        }
    }
    found
}
