//! The machine's log.

pub mod lines;

use crate::console;
use lines::LogFile;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

/// The output of services and containers.
#[derive(Debug, Default)]
pub struct Journal {
    logs: BTreeMap<String, LogFile>,
}

impl Journal {
    /// A line of a service or container.
    pub fn line(&mut self, unit: &str, text: &str, now: Duration) {
        let opened = match self.logs.remove(unit) {
            Some(log) => Ok(log),
            None => LogFile::open(Path::new(lines::FOLDER), unit, lines::MAX_SIZE),
        };
        match opened.and_then(|mut log| log.line(now, text).map(|()| log)) {
            Ok(log) => {
                self.logs.insert(unit.into(), log);
            }
            Err(error) => console::warning(format_args!("cannot write the log of {unit}: {error}")),
        }
    }
}
