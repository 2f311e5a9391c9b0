//! The first boot of a release. The firmware starts the other slot once (`BootNext`); unless that boot is committed, the
//! next start is the old slot again. So a trial needs nothing but a restart to be undone, and this only sees to it that one
//! comes, and that the reason survives it.

use crate::boot::read_json;
use crate::{console, efi, mounts, switch, watchdog};
use ashlar_image::control::{MAX_TRIAL_VARIABLE, TRIAL_VARIABLE, Trial, TrialFailure};
use ashlar_image::machine::Seconds;
use ashlar_image::manifest::{MANIFEST_PATH, Manifest};
use rustix::fs::{IFlags, ioctl_setflags};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a trial may take where no configuration says so.
pub const LIMIT: Duration = Duration::from_secs(600);
/// What the engine gets beyond the configured deadline, to say itself what failed.
const GRACE: Duration = Duration::from_secs(60);
/// The first stage must be over after so long: it waits for a TPM, disks and partitions, 30 seconds each at most.
const FIRST_STAGE: Duration = Duration::from_secs(180);
/// What makes the kernel restart when it dies, whatever the command line says: after five seconds, and of an oops as well.
const PANICS: [(&str, &str); 2] =
    [("/proc/sys/kernel/panic", "5\n"), ("/proc/sys/kernel/panic_on_oops", "1\n")];
/// Names of our boot entries.
const ENTRIES: [&str; 2] = ["Ashlar A", "Ashlar B"];
/// Most entries of `BootOrder` that are looked at.
const MAX_ORDER: usize = 256;
/// Kept without power, and visible to the boot services and at run time (UEFI Specification, section 8.2).
const ATTRIBUTES: [u8; 4] = [7, 0, 0, 0];

/// How long PID 1 waits for the engine with this deadline.
pub fn limit(deadline: Seconds) -> Duration {
    Duration::from_secs(deadline.0).saturating_add(GRACE)
}

/// Numbers in a variable: `BootOrder`, `BootCurrent`.
fn numbers(variable: &[u8]) -> Vec<u16> {
    let value = variable.get(ATTRIBUTES.len()..).unwrap_or_default();
    value.as_chunks::<2>().0.iter().map(|pair| u16::from_le_bytes(*pair)).take(MAX_ORDER).collect()
}

/// The name of a boot entry (UEFI Specification, section 3.1.3).
fn description(variable: &[u8]) -> Option<String> {
    let text = variable.get(ATTRIBUTES.len() + 6..)?;
    let units = text.as_chunks::<2>().0.iter().map(|pair| u16::from_le_bytes(*pair));
    let units: Vec<u16> = units.take_while(|unit| *unit != 0).take(64).collect();
    String::from_utf16(&units).ok()
}

/// Whether the boot that runs was started by an entry of ours that is not the first of ours in the order. `read` gives the
/// content of a variable.
fn is_trial(read: impl Fn(&str) -> Option<Vec<u8>>) -> bool {
    let numbers_of = |name: &str| read(name).map(|variable| numbers(&variable)).unwrap_or_default();
    let ours = |number: u16| {
        let entry = read(&format!("Boot{number:04X}")).and_then(|variable| description(&variable));
        entry.is_some_and(|name| ENTRIES.contains(&name.as_str()))
    };
    let Some(current) = numbers_of("BootCurrent").first().copied() else { return false };
    let first = numbers_of("BootOrder").into_iter().find(|number| ours(*number));
    ours(current) && first.is_some_and(|first| first != current)
}

fn variable(name: &str) -> PathBuf {
    Path::new(efi::MOUNT).join(name)
}

/// Whether the firmware would start another release than the one that runs the next time, as its variables are now.
pub fn now_is_trial() -> bool {
    is_trial(|name| fs::read(variable(&format!("{name}-8be4df61-93ca-11d2-aa0d-00e098032b8c"))).ok())
}

/// The value of the variable: as much of the reason as fits.
fn encode(failure: &TrialFailure) -> Vec<u8> {
    let short =
        |text: &str, most: usize| -> String { text.chars().filter(|c| !c.is_control()).take(most).collect() };
    let mut most = 600;
    loop {
        let short = TrialFailure {
            version: short(&failure.version, 64),
            check: short(&failure.check, 64),
            reason: short(&failure.reason, most),
        };
        let mut bytes = ATTRIBUTES.to_vec();
        bytes.extend(serde_json::to_vec(&short).unwrap_or_default());
        if bytes.len() <= MAX_TRIAL_VARIABLE || most == 0 {
            return bytes;
        }
        most /= 2;
    }
}

fn decode(variable: &[u8]) -> Option<TrialFailure> {
    let value = variable.get(ATTRIBUTES.len()..).filter(|value| value.len() <= MAX_TRIAL_VARIABLE)?;
    serde_json::from_slice(value).ok()
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    remove(path)?;
    // One write is one call of the firmware.
    let written = File::create(path)?.write(bytes)?;
    if written == bytes.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

fn remove(path: &Path) -> io::Result<()> {
    match File::open(path) {
        Ok(file) => {
            // efivarfs protects variables that it does not know from being removed by mistake.
            let _ = ioctl_setflags(&file, IFlags::empty());
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    }
    fs::remove_file(path)
}

/// Sees to it in the first stage that this boot ends if it hangs or its kernel dies. Tells whether it is a trial.
pub fn guard() -> bool {
    if !now_is_trial() {
        return false;
    }
    console::info("this is the trial of a release: it ends if it hangs");
    for (path, value) in PANICS {
        if let Err(error) = fs::write(path, value) {
            console::warning(format_args!("a kernel that dies may not restart: {path}: {error}"));
        }
    }
    match watchdog::arm(FIRST_STAGE) {
        Ok(Some(watchdog)) => console::info(format_args!("watchdog until the root runs: {watchdog}")),
        Ok(None) => console::warning("there is no watchdog: a trial that hangs here stays so"),
        Err(error) => console::warning(format_args!("cannot start the watchdog: {error}")),
    }
    true
}

/// The release that runs, as far as it is known: in the first stage, once its root is mounted.
fn version() -> String {
    [MANIFEST_PATH.to_owned(), format!("{}{MANIFEST_PATH}", switch::SYSROOT)]
        .iter()
        .find_map(|path| read_json::<Manifest>(Path::new(path)).ok())
        .map(|manifest| manifest.image_version)
        .unwrap_or_default()
}

fn note(failure: &TrialFailure) {
    let bytes = encode(failure);
    if let Err(error) = mounts::with_variables(|| write(&variable(TRIAL_VARIABLE), &bytes)) {
        console::warning(format_args!("the reason cannot be left in an EFI variable: {error}"));
    }
}

/// Leaves the reason why init has failed, if this boot is a trial; tells whether it is one.
pub fn note_start_failure(reason: &str) -> bool {
    let folder = Path::new(efi::MOUNT);
    if folder.exists() && !mounts::is_mounted(folder) {
        // The first stage may fail before it comes to that.
        let [_, variables] = mounts::FIRMWARE;
        let _ = variables.mount();
    }
    let trial = now_is_trial();
    if trial {
        note(&TrialFailure { version: version(), check: "start".into(), reason: reason.to_owned() });
    }
    trial
}

/// This boot as a trial, and the one before.
#[derive(Debug)]
pub struct Trials {
    deadline: Option<Duration>,
    before: Option<TrialFailure>,
}

impl Trials {
    /// Looks whether this boot is a trial, which must be committed by `deadline`. Outside of a trial the reason that one
    /// before has left is taken out of the firmware's memory.
    pub fn begin(deadline: Duration) -> Self {
        if now_is_trial() {
            console::info("this is the trial of a release: it stays if it is found good");
            return Self { deadline: Some(deadline), before: None };
        }
        let path = variable(TRIAL_VARIABLE);
        let before = fs::read(&path).ok().and_then(|bytes| decode(&bytes));
        if let Some(before) = &before {
            console::warning(format_args!(
                "the trial of release {} has failed: {}: {}",
                before.version, before.check, before.reason
            ));
        }
        if path.exists()
            && let Err(error) = mounts::with_variables(|| remove(&path))
        {
            console::warning(format_args!("the EFI variable {TRIAL_VARIABLE} cannot be removed: {error}"));
        }
        Self { deadline: None, before }
    }

    /// Whether this boot is a trial that was not committed yet.
    pub fn is_trial(&self) -> bool {
        self.deadline.is_some()
    }

    /// Whether the time is over.
    pub fn is_over(&self, now: Duration) -> bool {
        self.deadline.is_some_and(|deadline| now >= deadline)
    }

    /// When it will be.
    pub fn deadline(&self) -> Duration {
        self.deadline.unwrap_or(Duration::MAX)
    }

    /// For the status; `waits_for` gives what PID 1 waits for.
    pub fn state(&self, now: Duration, waits_for: impl FnOnce() -> Vec<String>) -> Option<Trial> {
        self.deadline.map(|deadline| Trial {
            seconds_left: deadline.saturating_sub(now).as_secs(),
            waits_for: waits_for(),
        })
    }

    /// Why the trial before this boot has failed.
    pub fn before(&self) -> Option<&TrialFailure> {
        self.before.as_ref()
    }

    /// It was committed.
    pub fn succeed(&mut self) {
        self.deadline = None;
    }

    /// It has failed; the machine is about to restart.
    pub fn fail(&mut self, failure: &TrialFailure) {
        if self.deadline.take().is_some() {
            note(failure);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn entry(name: &str) -> Vec<u8> {
        let mut bytes = vec![7, 0, 0, 0, 1, 0, 0, 0, 0, 0];
        bytes.extend(name.encode_utf16().chain([0]).flat_map(u16::to_le_bytes));
        bytes.extend([4, 1, 42, 0]);
        bytes
    }

    fn order(numbers: &[u16]) -> Vec<u8> {
        ATTRIBUTES.iter().copied().chain(numbers.iter().flat_map(|n| n.to_le_bytes())).collect()
    }

    #[test]
    fn which_boot_is_a_trial() {
        let mut variables = BTreeMap::from([
            ("Boot0000".to_owned(), entry("UEFI Misc Device")),
            ("Boot0001".to_owned(), entry("Ashlar A")),
            ("Boot000A".to_owned(), entry("Ashlar B")),
            ("BootOrder".to_owned(), order(&[0, 1, 10])),
        ]);
        let mut with = |current: &[u16], others: &[u16]| {
            variables.insert("BootCurrent".into(), order(current));
            variables.insert("BootOrder".into(), order(others));
            is_trial(|name| variables.get(name).cloned())
        };
        assert!(with(&[10], &[0, 1, 10]));
        assert!(with(&[10], &[1]), "its entry is in no order");
        assert!(!with(&[1], &[0, 1, 10]));
        assert!(with(&[1], &[10, 1]));
        assert!(!with(&[0], &[1, 10]), "another entry: the fallback path");
        assert!(!with(&[10], &[0]), "there is nothing to go back to");
        assert!(!with(&[], &[1, 10]));
        assert!(!with(&[99], &[1]));
        assert!(!is_trial(|_| None));
        assert!(!is_trial(|_| Some(vec![1])));
    }

    #[test]
    fn a_reason_of_any_length_fits() {
        let failure = TrialFailure {
            version: "1.4".into(),
            check: "container web".into(),
            reason: "\u{1b}x".repeat(9000),
        };
        let bytes = encode(&failure);
        assert!(bytes.len() <= MAX_TRIAL_VARIABLE, "{}", bytes.len());
        let back = decode(&bytes).unwrap();
        assert_eq!((back.version.as_str(), back.check.as_str()), ("1.4", "container web"));
        assert!(back.reason.starts_with("xxx"));
        let wide = TrialFailure { reason: "\u{ffff}\u{10000}\"".repeat(900), ..failure };
        assert!(encode(&wide).len() <= MAX_TRIAL_VARIABLE);
        assert_eq!(decode(&[7, 0, 0, 0, b'{']), None);
        assert_eq!(decode(&[]), None);
        assert_eq!(decode(&vec![b' '; 5000]), None);
    }

    #[test]
    fn a_trial_ends_by_its_deadline_or_its_commit() {
        let at = Duration::from_secs;
        let mut trial = Trials { deadline: Some(at(300)), before: None };
        assert!(trial.is_trial() && !trial.is_over(at(299)) && trial.is_over(at(300)));
        assert_eq!(trial.deadline(), at(300));
        let state = trial.state(at(100), || vec!["web".into()]).unwrap();
        assert_eq!((state.seconds_left, state.waits_for), (200, vec!["web".to_owned()]));
        trial.succeed();
        assert!(!trial.is_trial() && !trial.is_over(at(9999)));
        assert_eq!((trial.deadline(), trial.state(at(0), Vec::new)), (Duration::MAX, None));
        assert_eq!(limit(Seconds(300)), at(360));
    }

    #[test]
    fn variables_are_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("variable");
        for value in [&[7u8, 0, 0, 0, 1][..], &[7, 0, 0, 0]] {
            write(&path, value).unwrap();
            assert_eq!(fs::read(&path).unwrap(), value);
        }
        remove(&path).unwrap();
        remove(&path).unwrap();
    }
}
