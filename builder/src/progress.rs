//! Showing how far a long task is: bars on a terminal, plain lines elsewhere.

use crate::recipe::human;
use ashlar_debian::Progress;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::sync::{Mutex, PoisonError};

/// Gives each task that runs beside others a progress of its own.
pub trait Progresses: Sync {
    /// The progress of one task.
    fn part(&self) -> Box<dyn Progress>;
}

/// The way that fits standard error.
pub fn for_stderr() -> Box<dyn Progresses> {
    if std::io::stderr().is_terminal() { Box::new(Bars(MultiProgress::new())) } else { Box::new(Plain) }
}

/// Bars, one below the other.
struct Bars(MultiProgress);

impl Progresses for Bars {
    fn part(&self) -> Box<dyn Progress> {
        Box::new(Bar { all: self.0.clone(), own: Mutex::new(None) })
    }
}

/// A bar that vanishes when its task is done.
struct Bar {
    all: MultiProgress,
    own: Mutex<Option<ProgressBar>>,
}

impl Bar {
    fn with(&self, change: impl FnOnce(&mut Option<ProgressBar>)) {
        change(&mut self.own.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Progress for Bar {
    fn begin(&self, what: &str, total_bytes: u64) {
        let template = "{msg} [{bar:30}] {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left";
        let style = ProgressStyle::with_template(template)
            .unwrap_or_else(|_| ProgressStyle::default_bar())
            .progress_chars("=> ");
        let bar = ProgressBar::new(total_bytes).with_style(style).with_message(what.to_owned());
        let bar = self.all.add(bar);
        self.with(|own| *own = Some(bar));
    }

    fn advance(&self, bytes: u64) {
        self.with(|own| {
            if let Some(bar) = own {
                bar.inc(bytes);
            }
        });
    }

    fn end(&self) {
        self.with(|own| {
            if let Some(bar) = own.take() {
                bar.finish_and_clear();
            }
        });
    }

    fn note(&self, text: &str) {
        self.all.suspend(|| eprintln!("note: {text}"));
    }
}

/// Plain lines.
struct Plain;

impl Progresses for Plain {
    fn part(&self) -> Box<dyn Progress> {
        Box::new(Lines)
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
