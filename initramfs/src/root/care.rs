//! What looks after the machine itself: hardening read back, the watchdog, the page on the console, how the boot before
//! ended.

use super::now;
use crate::boots;
use crate::configuration::FOLDER;
use crate::console;
use crate::entropy;
use crate::hardening::Hardening;
use crate::journal::Journal;
use crate::measure::Measurer;
use crate::page::Page;
use crate::pstore;
use crate::watchdog::Watchdog;
use ashlar_image::control::Status;
use ashlar_image::hardening::{Difference, Expectation};
use ashlar_image::machine::Seconds;
use ashlar_image::manifest::Manifest;
use ashlar_tpm::Transport;
use rustix::time::ClockId;
use std::fs;
use std::path::Path;
use std::time::Duration;

/// Bytes of the TPM's random numbers that the kernel gets.
const TPM_BYTES: usize = 32;
/// A machine that is not ready after so long hangs: the watchdog starts it again.
const START_LIMIT: Duration = Duration::from_secs(600);
/// How long the end of the machine may take before the watchdog ends it.
const END_LIMIT: Duration = Duration::from_secs(120);
/// How often the page looks whether something has changed.
const PAGE_INTERVAL: Duration = Duration::from_secs(15);
/// Priority of a crash's lines in the log: critical.
const CRASH: u8 = 2;
/// Where the control service writes its certificate's fingerprint.
const FINGERPRINT: &str = "/run/ashlar/api-fingerprint";

/// The state of all that.
#[derive(Debug)]
pub struct Care {
    hardening: Hardening,
    watchdog: Option<Watchdog>,
    page: Page,
    page_at: Duration,
    last_boot: Option<String>,
    last_release: Option<String>,
    started: Duration,
}

impl Care {
    /// Begins: the watchdog runs from here on.
    pub fn new<T: Transport>(
        manifest: &Manifest,
        expectations: Vec<Expectation>,
        timeout: Seconds,
        measurer: &mut Measurer<T>,
        journal: &mut Journal,
    ) -> Self {
        let started = now();
        let watchdog = Watchdog::open(Duration::from_secs(timeout.0), started).unwrap_or_else(|error| {
            console::warning(format_args!("cannot start the watchdog: {error}"));
            None
        });
        match &watchdog {
            Some(watchdog) => console::info(format_args!("watchdog: {}", watchdog.describe())),
            None => console::warning("there is no watchdog: a machine that hangs stays so"),
        }
        let seeded = measurer.tpm().random(TPM_BYTES).unwrap_or_default();
        if let Err(error) = entropy::seed(Path::new(FOLDER), &seeded) {
            console::warning(format_args!("cannot seed the random numbers: {error}"));
        }
        let reset = watchdog.as_ref().is_some_and(Watchdog::has_reset);
        let (last_boot, last_release) = last_boot(manifest, reset, journal);
        if let Some(last) = &last_boot {
            let other = last_release.as_deref().filter(|release| *release != manifest.image_version);
            let of = other.map(|release| format!(" of release {release}")).unwrap_or_default();
            console::info(format_args!("the boot before{of}: {last}"));
        }
        Self {
            hardening: Hardening::new(expectations),
            watchdog,
            page: Page::open(),
            page_at: Duration::MAX,
            last_boot,
            last_release,
            started,
        }
    }

    /// Does what is due. `ready` tells whether the machine has started.
    pub fn tick(&mut self, ready: bool, now: Duration) {
        self.hardening.tick(now);
        let healthy = ready || now.saturating_sub(self.started) < START_LIMIT;
        if let Some(watchdog) = &mut self.watchdog {
            watchdog.feed(now, healthy);
        }
        self.page.tick(now);
    }

    /// When [`Self::tick`] or the page has something to do.
    pub fn deadline(&self) -> Duration {
        let watchdog = self.watchdog.as_ref().map_or(Duration::MAX, Watchdog::deadline);
        self.hardening.deadline().min(watchdog).min(self.page.deadline()).min(self.page_at)
    }

    /// Whether the page wants a new status.
    pub fn wants_status(&self, now: Duration) -> bool {
        now >= self.page_at
    }

    /// Shows a status, and asks for the next one after a while.
    pub fn show(&mut self, status: &Status, now: Duration) {
        let fingerprint = fs::read_to_string(FINGERPRINT).ok();
        self.page.show(status, fingerprint.as_deref().map(str::trim), now);
        self.page_at = now.saturating_add(PAGE_INTERVAL);
    }

    /// Begins to read the hardening back. True when that is done.
    pub fn is_read_back(&mut self, now: Duration) -> bool {
        self.hardening.begin(now);
        self.hardening.differences().is_some()
    }

    /// What is not hardened as the release says, one line each.
    pub fn differences(&self) -> Vec<String> {
        let found = self.hardening.differences().unwrap_or_default();
        found.iter().map(|difference: &Difference| format!("not hardened: {difference}")).collect()
    }

    /// How the boot before ended.
    pub fn last_boot(&self) -> Option<&str> {
        self.last_boot.as_deref()
    }

    /// The release of the boot before, as far as it came to note it.
    pub fn last_release(&self) -> Option<&str> {
        self.last_release.as_deref()
    }

    /// The watchdog, for people.
    pub fn watchdog(&self) -> Option<String> {
        self.watchdog.as_ref().map(Watchdog::describe)
    }

    /// The machine begins to end: the watchdog gives it time.
    pub fn end(&mut self, now: Duration) {
        if let Some(watchdog) = &mut self.watchdog {
            watchdog.lengthen(END_LIMIT, now);
        }
    }

    /// The machine ends now, in order. One that is switched off must not be started by its watchdog; one that starts
    /// again is watched to the last.
    pub fn close(&mut self, reason: &str, powers_off: bool) {
        if let Err(error) = boots::end(Path::new(FOLDER), reason) {
            console::warning(format_args!("cannot note that the machine ends in order: {error}"));
        }
        if let Err(error) = entropy::save(Path::new(FOLDER)) {
            console::warning(format_args!("cannot keep a seed of random numbers: {error}"));
        }
        if powers_off && let Some(watchdog) = self.watchdog.take() {
            watchdog.disarm();
        }
    }
}

/// How the boot before ended and which release it was, from what it left on the state volume and in the firmware's memory.
fn last_boot(manifest: &Manifest, reset: bool, journal: &mut Journal) -> (Option<String>, Option<String>) {
    let crash = pstore::collect(Path::new(pstore::FOLDER));
    for record in &crash.records {
        journal.line("kernel", CRASH, &format!("record of a crash ({}):", record.kind), now());
        for line in record.text.lines() {
            journal.line("kernel", CRASH, line, now());
        }
    }
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let clock = rustix::time::clock_gettime(ClockId::Realtime).tv_sec;
    let (before, noted) = boots::begin(Path::new(FOLDER), boot.trim(), &manifest.image_version, clock);
    if let Err(error) = noted {
        console::warning(format_args!("cannot note that the machine runs: {error}"));
    }
    let ending = boots::ending(&before, &crash.records, reset);
    crash.remove();
    (ending, boots::release(&before).map(str::to_owned))
}
