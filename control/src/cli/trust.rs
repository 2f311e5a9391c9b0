//! `ashlarctl trust`

use super::node::{self, Node};
use super::{DONE, Outcome, output};
use crate::client::{Target, known, shown_fingerprint};
use crate::error::ControlError;
use clap::Args;
use std::io::{IsTerminal, Write};
use std::path::Path;

#[derive(Debug, Args)]
pub(super) struct Trust {
    /// HOST or HOST:PORT
    host: Target,
}

impl Trust {
    pub(super) fn run(self, node: &Node) -> Outcome {
        let name = self.host.to_string();
        let path = node::known_nodes();
        let trusted = known::fingerprint(&path, &name)?;
        let shown = node::runtime()?.block_on(shown_fingerprint(&self.host))?;
        if let Some(expected) = node.fingerprint {
            if expected != shown {
                return Err(ControlError::ChangedNode { node: name, trusted: expected, found: shown });
            }
        } else if trusted == Some(shown) {
            output::print(&format!("{name} is trusted already, with {shown}"));
            return DONE;
        } else {
            eprintln!("{name} shows a certificate with the fingerprint\n\n{}\n", shown.grouped());
            if let Some(trusted) = trusted {
                eprintln!("until now another one was trusted:\n\n{}\n", trusted.grouped());
            }
            if !std::io::stdin().is_terminal() {
                return Err(ControlError::Usage(format!(
                    "nobody is here to compare it; if you know it: ashlarctl trust {name} --fingerprint {shown}"
                )));
            }
            eprint!("Is it the one on the machine's console? [yes/no] ");
            let _ = std::io::stderr().flush();
            let mut answer = String::new();
            let fail = ControlError::io("read", Path::new("standard input"));
            std::io::stdin().read_line(&mut answer).map_err(fail)?;
            if !answer.trim().eq_ignore_ascii_case("yes") {
                return Err(ControlError::UnknownNode { node: name, found: shown });
            }
        }
        known::trust(&path, &name, shown)?;
        output::print(&format!("{name} is trusted; stored in {}", path.display()));
        DONE
    }
}
