//! Hardening read back: the list of [`ashlar_image::hardening`] against the machine, after the start and again from
//! time to time. Nothing here changes the machine but [`protect`].

pub mod files;
pub mod mountinfo;
pub mod observe;
pub mod processes;

use crate::console;
use ashlar_image::hardening::{Difference, Expectation, PrivilegedFile, check};
use files::Walk;
use rustix::process::{Resource, Rlimit};
use std::path::PathBuf;
use std::time::Duration;

/// Files of the root that are looked at in one step: a few milliseconds.
const STEP: usize = 200;
/// When what was read about processes is read again before it counts.
const CONFIRM: Duration = Duration::from_secs(1);
/// When the machine is read back again.
const AGAIN: Duration = Duration::from_secs(600);

/// What PID 1 does for itself and what all children inherit: no core dumps.
pub fn protect() {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    if let Err(error) = rustix::process::setrlimit(Resource::Core, none) {
        console::warning(format_args!("cannot switch core dumps off: {error}"));
    }
}

/// Where the work is.
#[derive(Debug)]
enum Step {
    /// Nobody has asked yet.
    Idle,
    /// The root is walked over.
    Files(Walk),
    /// Next reading, with what the first one said about processes if this one is to confirm it.
    Reading { at: Duration, first: Option<Vec<Difference>> },
}

/// The reading and its result.
#[derive(Debug)]
pub struct Hardening {
    expectations: Vec<Expectation>,
    root: PathBuf,
    step: Step,
    files: Option<Vec<PrivilegedFile>>,
    differences: Option<Vec<Difference>>,
}

/// What of `second` was read before too, as far as it is about processes.
fn confirmed(first: &[Difference], second: Vec<Difference>) -> Vec<Difference> {
    second.into_iter().filter(|one| !one.of_process || first.contains(one)).collect()
}

/// The next step when the root cannot be walked over: the check says so.
fn without_files(error: &std::io::Error, now: Duration) -> Step {
    console::warning(format_args!("cannot look for files that give rights: {error}"));
    Step::Reading { at: now, first: None }
}

impl Hardening {
    /// A reading that has not begun.
    pub fn new(expectations: Vec<Expectation>) -> Self {
        Self::of(expectations, PathBuf::from("/"))
    }

    const fn of(expectations: Vec<Expectation>, root: PathBuf) -> Self {
        Self { expectations, root, step: Step::Idle, files: None, differences: None }
    }

    /// Begins, if it has not begun yet: when everything was started.
    pub fn begin(&mut self, now: Duration) {
        if !matches!(self.step, Step::Idle) {
            return;
        }
        // The root cannot change while the machine runs: once is enough.
        self.step = match Walk::new(&self.root) {
            Ok(walk) => Step::Files(walk),
            Err(error) => without_files(&error, now),
        };
    }

    /// Does what is due: a step of the walk, or a reading.
    pub fn tick(&mut self, now: Duration) {
        match std::mem::replace(&mut self.step, Step::Idle) {
            Step::Idle => {}
            Step::Files(mut walk) => {
                self.step = match walk.step(STEP) {
                    Ok(false) => Step::Files(walk),
                    Ok(true) => {
                        self.files = Some(walk.finish());
                        Step::Reading { at: now, first: None }
                    }
                    Err(error) => without_files(&error, now),
                };
            }
            Step::Reading { at, first } if at > now => self.step = Step::Reading { at, first },
            Step::Reading { first, .. } => {
                let observed = observe::read(&self.expectations, self.files.clone());
                self.take(check(&self.expectations, &observed), first, now);
            }
        }
    }

    /// Takes the result of a reading.
    fn take(&mut self, found: Vec<Difference>, first: Option<Vec<Difference>>, now: Duration) {
        let about_processes = found.iter().any(|one| one.of_process);
        match first {
            None if about_processes => {
                self.step = Step::Reading { at: now.saturating_add(CONFIRM), first: Some(found) };
            }
            first => {
                let found = confirmed(&first.unwrap_or_default(), found);
                let known = self.differences.as_deref().unwrap_or_default();
                for difference in found.iter().filter(|one| !known.contains(one)) {
                    console::warning(format_args!("not hardened: {difference}"));
                }
                if self.differences.is_none() && found.is_empty() {
                    console::info(format_args!("hardened: {} checks read back", self.expectations.len()));
                }
                self.differences = Some(found);
                self.step = Step::Reading { at: now.saturating_add(AGAIN), first: None };
            }
        }
    }

    /// When [`Self::tick`] has something to do.
    pub const fn deadline(&self) -> Duration {
        match &self.step {
            Step::Idle => Duration::MAX,
            Step::Files(_) => Duration::ZERO,
            Step::Reading { at, .. } => *at,
        }
    }

    /// What is not as it must be; none before the first reading is complete. The machine is good only when this is
    /// there and empty.
    pub fn differences(&self) -> Option<&[Difference]> {
        self.differences.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn difference(found: &str, of_process: bool) -> Difference {
        Difference { subject: "a".into(), expected: "b".into(), found: found.into(), of_process }
    }

    #[test]
    fn what_is_about_a_process_counts_when_it_was_read_twice() {
        let mut hardening = Hardening::new(Vec::new());
        let at = Duration::from_secs(7);
        hardening.take(
            vec![difference("young", true), difference("stays", true), difference("mount", false)],
            None,
            at,
        );
        assert_eq!(hardening.differences(), None);
        assert_eq!(hardening.deadline(), at + CONFIRM);
        let Step::Reading { first, .. } = std::mem::replace(&mut hardening.step, Step::Idle) else {
            unreachable!()
        };
        let second = vec![difference("stays", true), difference("new", true), difference("late", false)];
        hardening.take(second, first, at + CONFIRM);
        assert_eq!(hardening.differences().unwrap(), [difference("stays", true), difference("late", false)]);
        assert_eq!(hardening.deadline(), at + CONFIRM + AGAIN);
        hardening.take(Vec::new(), None, at);
        assert_eq!(hardening.differences(), Some(&[][..]));
    }

    #[test]
    fn the_machine_is_read_in_steps() {
        let folder = tempfile::tempdir().unwrap();
        for number in 0..=STEP {
            std::fs::write(folder.path().join(number.to_string()), "").unwrap();
        }
        let list = vec![Expectation::NoPrivilegedFiles { except: Vec::new() }];
        let mut hardening = Hardening::of(list, folder.path().to_owned());
        let now = Duration::from_secs(1);
        hardening.tick(now);
        assert_eq!((hardening.deadline(), hardening.differences()), (Duration::MAX, None));
        hardening.begin(now);
        let mut ticks = 0;
        while hardening.differences().is_none() {
            assert!(hardening.deadline() <= now && ticks < 9);
            hardening.tick(now);
            ticks += 1;
        }
        assert!(ticks >= 3, "two steps and the reading: {ticks}");
        assert_eq!(hardening.differences(), Some(&[][..]));
        hardening.begin(now);
        assert_eq!(hardening.deadline(), now + AGAIN, "begun once");
    }

    #[test]
    fn a_root_that_cannot_be_read_is_a_difference() {
        let list = vec![Expectation::NoPrivilegedFiles { except: Vec::new() }];
        let mut hardening = Hardening::of(list, PathBuf::from("/nonexistent"));
        hardening.begin(Duration::ZERO);
        hardening.tick(Duration::ZERO);
        assert_eq!(hardening.differences().unwrap().len(), 1);
    }
}
