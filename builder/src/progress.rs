//! Showing how far a long task is: a bar on a terminal, plain lines elsewhere.

use crate::recipe::human;
use ashlar_debian::Progress;
use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::sync::{Mutex, PoisonError};

/// The way that fits standard error.
pub fn for_stderr() -> Box<dyn Progress> {
    if std::io::stderr().is_terminal() { Box::new(Bar::default()) } else { Box::new(Lines) }
}

/// A bar that vanishes when its task is done.
#[derive(Default)]
struct Bar(Mutex<Option<ProgressBar>>);

impl Bar {
    fn with(&self, change: impl FnOnce(&mut Option<ProgressBar>)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Progress for Bar {
    fn begin(&self, what: &str, total_bytes: u64) {
        let template = "{msg} [{bar:30}] {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left";
        let style = ProgressStyle::with_template(template)
            .unwrap_or_else(|_| ProgressStyle::default_bar())
            .progress_chars("=> ");
        let bar = ProgressBar::new(total_bytes).with_style(style).with_message(what.to_owned());
        self.with(|slot| *slot = Some(bar));
    }

    fn advance(&self, bytes: u64) {
        self.with(|slot| {
            if let Some(bar) = slot {
                bar.inc(bytes);
            }
        });
    }

    fn end(&self) {
        self.with(|slot| {
            if let Some(bar) = slot.take() {
                bar.finish_and_clear();
            }
        });
    }

    fn note(&self, text: &str) {
        self.with(|slot| match slot {
            Some(bar) => bar.suspend(|| eprintln!("note: {text}")),
            None => eprintln!("note: {text}"),
        });
    }
}

/// One line when a task begins.
struct Lines;

impl Progress for Lines {
    fn begin(&self, what: &str, total_bytes: u64) {
        if total_bytes == 0 {
            eprintln!("{what}");
        } else {
            eprintln!("{what}: {}", human(total_bytes));
        }
    }

    fn advance(&self, _: u64) {}

    fn end(&self) {}

    fn note(&self, text: &str) {
        eprintln!("note: {text}");
    }
}
