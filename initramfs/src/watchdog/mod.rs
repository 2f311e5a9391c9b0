//! The watchdog: a device that starts the machine again when PID 1 does not feed it (Linux,
//! `Documentation/watchdog/watchdog-api.rst` and `Documentation/ABI/testing/sysfs-class-watchdog`).

pub mod feeding;

use crate::{console, sys};
use feeding::{Action, Feeding};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

/// Where the kernel shows watchdogs.
const CLASS: &str = "/sys/class/watchdog";
/// The identity of the kernel's own, which lives only as long as the kernel's timers.
const SOFTWARE: &str = "Software Watchdog";

/// `WDIOC_KEEPALIVE`, `_IOR('W', 5, int)`.
const KEEPALIVE: u32 = 0x8004_5705;
/// `WDIOC_SETTIMEOUT`, `_IOWR('W', 6, int)`, in seconds.
const SET_TIMEOUT: u32 = 0xc004_5706;
/// `WDIOC_GETTIMEOUT`, `_IOR('W', 7, int)`.
const GET_TIMEOUT: u32 = 0x8004_5707;
/// `WDIOC_SETPRETIMEOUT`, `_IOWR('W', 8, int)`: seconds before the end.
const SET_PRETIMEOUT: u32 = 0xc004_5708;
/// `WDIOC_SETOPTIONS`, `_IOR('W', 4, int)`.
const SET_OPTIONS: u32 = 0x8004_5704;
/// `WDIOS_DISABLECARD`.
const DISABLE: i32 = 1;

/// `WDIOF_CARDRESET`: it started the machine the last time.
const CARD_RESET: u32 = 0x20;
/// `WDIOF_ALARMONLY`: it only tells somebody.
const ALARM_ONLY: u32 = 0x400;

/// What sysfs says about a watchdog.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its device is `/dev/watchdogN`.
    pub number: u32,
    /// What the driver calls it.
    pub identity: String,
    /// `WDIOF_*` of what it can do; zero where the kernel does not tell.
    pub options: u32,
    /// `WDIOF_*` of how the machine was started.
    pub boot_status: u32,
    /// Whether it can never be stopped.
    pub no_way_out: bool,
    /// What may be done before it fires, by name: `noop`, `panic`.
    pub governors: String,
}

impl Found {
    fn is_software(&self) -> bool {
        self.identity == SOFTWARE
    }
}

/// The one to feed: hardware before the kernel's own, which a dead kernel does not run; then the first.
pub fn choose(found: &[Found]) -> Option<&Found> {
    found
        .iter()
        .filter(|watchdog| watchdog.options & ALARM_ONLY == 0)
        .min_by_key(|watchdog| (watchdog.is_software(), watchdog.number))
}

/// A number as sysfs writes it: decimal, or hexadecimal with `0x`.
fn number(text: &str) -> Option<u32> {
    let text = text.trim();
    text.strip_prefix("0x").map_or_else(|| text.parse().ok(), |digits| u32::from_str_radix(digits, 16).ok())
}

/// The watchdogs below `class`, in no order.
fn find(class: &Path) -> Vec<Found> {
    fs::read_dir(class)
        .into_iter()
        .flatten()
        .flatten()
        .take(64)
        .filter_map(|entry| {
            let number_of = entry.file_name().to_str()?.strip_prefix("watchdog")?.parse().ok()?;
            let read = |file: &str| fs::read_to_string(entry.path().join(file)).unwrap_or_default();
            Some(Found {
                number: number_of,
                identity: read("identity").trim().chars().take(64).collect(),
                options: number(&read("options")).unwrap_or(0),
                boot_status: number(&read("bootstatus")).unwrap_or(0),
                no_way_out: read("nowayout").trim() == "1",
                governors: read("pretimeout_available_governors"),
            })
        })
        .collect()
}

/// A watchdog that runs.
#[derive(Debug)]
pub struct Watchdog {
    file: File,
    found: Found,
    feeding: Feeding,
    panics_first: bool,
}

impl Watchdog {
    /// Starts the machine's best watchdog, with `timeout` or the nearest that it can do. None where there is none.
    pub fn open(timeout: Duration, now: Duration) -> io::Result<Option<Self>> {
        let all = find(Path::new(CLASS));
        let Some(found) = choose(&all) else { return Ok(None) };
        // Opening starts it; from here on it must be fed.
        let file = OpenOptions::new().write(true).open(format!("/dev/watchdog{}", found.number))?;
        let timeout = set_timeout(&file, timeout)?;
        let panics_first = set_pretimeout(&file, found, timeout);
        sys::ioctl_int(&file, KEEPALIVE, 0)?;
        Ok(Some(Self { file, found: found.clone(), feeding: Feeding::new(timeout, now), panics_first }))
    }

    /// Feeds it if it is time and the machine is `healthy`. While it is not, nothing is done and the time runs out.
    pub fn feed(&mut self, now: Duration, healthy: bool) {
        match self.feeding.step(now, healthy) {
            Action::Nothing => {}
            Action::Feed => {
                if let Err(error) = sys::ioctl_int(&self.file, KEEPALIVE, 0) {
                    console::warning(format_args!("cannot feed the watchdog: {error}"));
                }
            }
            Action::Hold { left } => console::error(format_args!(
                "the watchdog is not fed because PID 1 is not healthy; it starts the machine again in {} seconds",
                left.as_secs()
            )),
        }
    }

    /// When it must be fed next.
    pub const fn deadline(&self) -> Duration {
        self.feeding.deadline()
    }

    /// For people: `iTCO_wdt, 60 seconds`.
    pub fn describe(&self) -> String {
        let panics = if self.panics_first { ", leaves a record first" } else { "" };
        format!("{}, {} seconds{panics}", self.found.identity, self.feeding.timeout().as_secs())
    }

    /// Whether it was the watchdog that started the machine, as far as the device can tell.
    pub const fn has_reset(&self) -> bool {
        self.found.boot_status & CARD_RESET != 0
    }

    /// Gives the end of the machine `timeout`: it is fed once more, and a restart that hangs ends when that is over.
    pub fn lengthen(&mut self, timeout: Duration, now: Duration) {
        let fed = set_timeout(&self.file, timeout.max(self.feeding.timeout())).and_then(|timeout| {
            sys::ioctl_int(&self.file, KEEPALIVE, 0)?;
            Ok(timeout)
        });
        match fed {
            Ok(timeout) => self.feeding = Feeding::new(timeout, now),
            Err(error) => console::warning(format_args!("cannot lengthen the watchdog's time: {error}")),
        }
    }

    /// Stops it, for a machine that is switched off in order: one that only looks switched off must not start again.
    /// One that cannot be stopped goes on with its time.
    pub fn disarm(mut self) {
        if self.found.no_way_out {
            console::warning("the watchdog cannot be stopped (nowayout)");
            return;
        }
        // Some drivers know the one way, some the other.
        let stopped = sys::ioctl_int(&self.file, SET_OPTIONS, DISABLE).is_ok();
        // The character that makes closing the device an intention.
        let closed = self.file.write_all(b"V").is_ok();
        if !stopped && !closed {
            console::warning("the watchdog cannot be stopped");
        }
    }
}

/// Starts the machine's best watchdog for `timeout` and leaves it: unless somebody opens it again before, it fires. Gives
/// what it is, for people; none where there is none.
pub fn arm(timeout: Duration) -> io::Result<Option<String>> {
    // Closing the device does not stop it without the character that makes it an intention (`WDIOF_MAGICCLOSE`, which
    // the drivers of all usual ones have).
    Ok(Watchdog::open(timeout, Duration::ZERO)?.map(|watchdog| watchdog.describe()))
}

/// Sets the time in whole seconds; a device that cannot do it keeps its own. Gives what is in force.
fn set_timeout(file: &File, timeout: Duration) -> io::Result<Duration> {
    let seconds = i32::try_from(timeout.as_secs().max(1)).unwrap_or(i32::MAX);
    let set = sys::ioctl_int(file, SET_TIMEOUT, seconds);
    let seconds = set.or_else(|_| sys::ioctl_int(file, GET_TIMEOUT, 0))?;
    Ok(Duration::from_secs(u64::try_from(seconds).unwrap_or(0).max(1)))
}

/// Makes the kernel panic a little before the device fires, where it can (module `pretimeout_panic`): a panic leaves a
/// record in pstore, a reset leaves nothing. Tells whether it will.
fn set_pretimeout(file: &File, found: &Found, timeout: Duration) -> bool {
    if !found.governors.split_whitespace().any(|name| name == "panic") {
        return false;
    }
    let seconds = i32::try_from(timeout.as_secs() / 4).unwrap_or(i32::MAX).clamp(1, 10);
    let governor = format!("{CLASS}/watchdog{}/pretimeout_governor", found.number);
    fs::write(governor, "panic\n").is_ok() && sys::ioctl_int(file, SET_PRETIMEOUT, seconds).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(number: u32, identity: &str, options: u32) -> Found {
        Found {
            number,
            identity: identity.into(),
            options,
            boot_status: 0,
            no_way_out: false,
            governors: String::new(),
        }
    }

    #[test]
    fn hardware_is_preferred_and_what_only_rings_is_none() {
        let software = found(0, SOFTWARE, 0x8180);
        let alarm = found(1, "mei", 0x8580);
        let tco = found(3, "iTCO_wdt", 0);
        let other = found(2, "hpwdt", 0x8180);
        let number = |all: &[&Found]| {
            let all: Vec<Found> = all.iter().map(|&found| found.clone()).collect();
            choose(&all).map(|found| found.number)
        };
        assert_eq!(number(&[&software, &alarm, &tco]), Some(3));
        assert_eq!(number(&[&tco, &other]), Some(2));
        assert_eq!(number(&[&software, &alarm]), Some(0));
        assert_eq!(number(&[&alarm]), None);
        assert_eq!(number(&[]), None);
    }

    #[test]
    fn sysfs_tells_of_them() {
        let class = tempfile::tempdir().unwrap();
        for (folder, files) in [
            ("watchdog0", vec![("identity", "iTCO_wdt\n"), ("options", "0x8180\n"), ("bootstatus", "32\n")]),
            ("watchdog1", vec![("identity", "Software Watchdog\n"), ("nowayout", "1\n")]),
            ("other", vec![]),
            ("watchdogx", vec![]),
        ] {
            let path = class.path().join(folder);
            fs::create_dir(&path).unwrap();
            for (file, text) in files {
                fs::write(path.join(file), text).unwrap();
            }
        }
        let mut all = find(class.path());
        all.sort_by_key(|found| found.number);
        assert_eq!(
            all,
            [
                Found { boot_status: CARD_RESET, ..found(0, "iTCO_wdt", 0x8180) },
                Found { no_way_out: true, ..found(1, SOFTWARE, 0) },
            ]
        );
        assert!(find(&class.path().join("none")).is_empty());
        assert_eq!(number("0x"), None);
    }
}
