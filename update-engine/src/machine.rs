//! What comes next. Pure: state and time go in, a decision comes out.

use crate::saved::{Failures, Place, PlacePhase, Saved, Staged};
use crate::windows;
use ashlar_image::control::TrialFailure;
use ashlar_image::machine::{Update, UpdatePolicy};
use ashlar_image::update::Barred;

/// A release whose staging has failed so often is not tried again by itself.
pub const MAX_ATTEMPTS: u32 = 12;
/// The restart is put off so often for a session that is active, and then comes all the same.
pub const MAX_POSTPONEMENTS: u32 = 10;
/// For how long each time, in seconds.
pub const POSTPONEMENT: i64 = 60;
/// The first pause after a failed attempt, in seconds; the following ones are 2, 4, 8 and 16 times as long.
pub const FIRST_PAUSE: i64 = 60;

/// What a boot turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Boot {
    /// Nothing was tried.
    Plain,
    /// The staged release runs and must be judged.
    Trial(Staged),
    /// The staged release runs and is what starts from now on: it was committed before the power went.
    Committed(Staged),
    /// The staged release was tried and does not run.
    Failed(Staged, Barred),
}

/// What PID 1 says of the boot that runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start<'a> {
    /// The slot's letter.
    pub slot: char,
    /// Whether this boot is a trial.
    pub trial: bool,
    /// What the trial before has left.
    pub failure: Option<&'a TrialFailure>,
    /// How the boot before ended, for people.
    pub last_boot: Option<&'a str>,
    /// Which release that was: the last one that came to the state volume.
    pub last_release: Option<&'a str>,
    /// Whether the firmware still has its order to start the other slot.
    pub next_is_set: bool,
    /// Seconds since 1970.
    pub now: i64,
}

/// What has become of the staged release at the start of the machine.
pub fn boot(saved: &Saved, start: &Start<'_>) -> Boot {
    let Some(staged) = &saved.staged else { return Boot::Plain };
    if staged.slot == start.slot {
        return if start.trial { Boot::Trial(staged.clone()) } else { Boot::Committed(staged.clone()) };
    }
    if !staged.armed || start.next_is_set {
        // It waits for its time, or the firmware has not come to it.
        return Boot::Plain;
    }
    // What PID 1 says of the boot before is about the trial only if that came as far as the state volume.
    let last = start.last_boot.filter(|_| start.last_release.is_none_or(|release| release == staged.version));
    let (check, reason) = match (start.failure, last) {
        (Some(failure), _) => (failure.check.clone(), failure.reason.clone()),
        (None, Some(last)) if last.starts_with("panic") => ("kernel".into(), last.to_owned()),
        (None, Some(last)) if last.starts_with("hang") => ("watchdog".into(), last.to_owned()),
        (None, Some(last)) if !last.starts_with("in order") => ("machine".into(), last.to_owned()),
        // The last boot that came to the state volume was the one before the trial.
        _ => (
            "start".into(),
            "it ended before it could open the state volume: firmware, kernel or initrd (refused, panic, hang or power cut)".into(),
        ),
    };
    let barred = Barred { version: staged.version.clone(), check, reason, time: start.now };
    Boot::Failed(staged.clone(), barred)
}

/// What a boot makes of the place of the reboot lock that was held or wanted before it.
pub fn place_after_boot(place: &Place, boot: &Boot) -> PlacePhase {
    match (boot, &place.phase) {
        // It keeps it until something is good, so that a bad release stops after as many machines as may be down.
        (Boot::Failed(_, barred), _) => {
            PlacePhase::Failed { reason: format!("{}: {}", barred.check, barred.reason) }
        }
        (Boot::Trial(_), phase)
        | (Boot::Plain, phase @ (PlacePhase::Failed { .. } | PlacePhase::Leaving { .. })) => phase.clone(),
        (Boot::Committed(_), _) => PlacePhase::Leaving { good: true },
        // The restart was one without an update, or it did not come to it.
        (Boot::Plain, PlacePhase::Wanted | PlacePhase::Held) => PlacePhase::Leaving { good: false },
    }
}

/// What to do now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Nothing before this time, seconds since 1970; what for.
    Wait(i64, String),
    /// Look at the channel, and do what the policy says with what is there.
    Check,
    /// Restart into the staged release.
    Restart,
    /// Restart, for this reason.
    Reboot(String),
    /// Put the restart off, because somebody is at work on the machine.
    PutOff,
}

/// What a machine without a trial does next.
pub fn next(saved: &Saved, update: &Update, has_channel: bool, session: bool, jitter: i64, now: i64) -> Next {
    if let Some(reason) = &saved.reboot {
        return Next::Reboot(reason.clone());
    }
    if let Some(staged) = &saved.staged {
        let paused = saved.failures.version == staged.version && saved.failures.not_before > now;
        if paused && (staged.now || update.policy == UpdatePolicy::Automatic) {
            let what = format!("the restart into release {} is tried again", staged.version);
            return Next::Wait(saved.failures.not_before, what);
        }
        if staged.now {
            return Next::Restart;
        }
        if staged.armed && !staged.back && update.policy != UpdatePolicy::Automatic {
            return Next::Wait(
                i64::MAX,
                format!("release {} starts with the next restart of the machine", staged.version),
            );
        }
        if update.policy == UpdatePolicy::Automatic && !staged.back {
            if now < saved.postponed_until {
                return Next::Wait(
                    saved.postponed_until,
                    format!("the restart into release {} is put off", staged.version),
                );
            }
            let opens = windows::next_open(&update.windows, now);
            return match opens {
                Some(opens) if opens <= now && session && saved.postponements < MAX_POSTPONEMENTS => {
                    Next::PutOff
                }
                Some(opens) if opens <= now => Next::Restart,
                Some(opens) => Next::Wait(
                    opens.saturating_add(jitter),
                    format!("the window opens in which the machine restarts into release {}", staged.version),
                ),
                None => Next::Wait(i64::MAX, "there is no window in the next week".into()),
            };
        }
        return Next::Wait(
            i64::MAX,
            format!("somebody starts release {} (ashlarctl update apply)", staged.version),
        );
    }
    if !has_channel {
        return Next::Wait(i64::MAX, "the machine configuration names no channel".into());
    }
    if update.policy == UpdatePolicy::Off {
        return Next::Wait(i64::MAX, "held by policy: `update.policy` is off".into());
    }
    let interval = i64::try_from(update.check_interval.0).unwrap_or(i64::MAX);
    let due = saved.last_check.map_or(0, |last| last.saturating_add(interval).saturating_add(jitter));
    // A clock that was set back must not stop the looking.
    let due = if saved.last_check.is_some_and(|last| last > now) { now } else { due };
    let due = if saved.failures.count > 0 { saved.failures.not_before } else { due };
    if now >= due { Next::Check } else { Next::Wait(due, "the channel is looked at".into()) }
}

/// Notes that an attempt has come to nothing. `random` lengthens the pause by up to a half.
pub fn fail(failures: &Failures, version: &str, random: u32, now: i64) -> Failures {
    let count = if failures.version == version { failures.count.saturating_add(1) } else { 1 };
    let pause = FIRST_PAUSE.saturating_mul(1 << count.saturating_sub(1).min(4));
    let more = pause.saturating_mul(i64::from(random >> 16)) / (1 << 17);
    Failures {
        version: version.to_owned(),
        count,
        not_before: now.saturating_add(pause).saturating_add(more),
    }
}

/// Whether a release was tried too often.
pub fn is_given_up(failures: &Failures, version: &str) -> bool {
    failures.version == version && failures.count >= MAX_ATTEMPTS
}

#[cfg(test)]
mod tests {
    use super::*;
    use ashlar_image::machine::{Seconds, TimeOfDay, TimeZone, Window};
    use proptest::prelude::*;

    fn staged(armed: bool) -> Staged {
        Staged { version: "1.1".into(), slot: 'b', armed, back: false, time: 0, now: false }
    }

    fn saved(staged: Option<Staged>) -> Saved {
        Saved { staged, ..Saved::default() }
    }

    fn start<'a>(
        slot: char,
        trial: bool,
        failure: Option<&'a TrialFailure>,
        last: Option<&'a str>,
    ) -> Start<'a> {
        Start { slot, trial, failure, last_boot: last, last_release: None, next_is_set: false, now: 5 }
    }

    fn failed(boot: Boot) -> (String, String) {
        match boot {
            Boot::Failed(_, barred) => (barred.check, barred.reason),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_a_boot_was() {
        let waiting = saved(Some(staged(true)));
        assert_eq!(boot(&saved(None), &start('a', false, None, None)), Boot::Plain);
        assert_eq!(boot(&waiting, &start('b', true, None, None)), Boot::Trial(staged(true)));
        assert_eq!(boot(&waiting, &start('b', false, None, None)), Boot::Committed(staged(true)));
        assert_eq!(
            boot(&saved(Some(staged(false))), &start('a', false, None, None)),
            Boot::Plain,
            "it was not tried"
        );
        let not_yet = Start { next_is_set: true, ..start('a', false, None, None) };
        assert_eq!(boot(&waiting, &not_yet), Boot::Plain);
        let left =
            TrialFailure { version: "1.1".into(), check: "network".into(), reason: "no address".into() };
        assert_eq!(
            failed(boot(&waiting, &start('a', false, Some(&left), Some("in order: x")))),
            ("network".into(), "no address".into())
        );
        for (last, check) in [
            (Some("panic: BUG"), "kernel"),
            (Some("hang: the watchdog started the machine again"), "watchdog"),
            (Some("power cut or hang"), "machine"),
            (Some("in order: restarting"), "start"),
            (None, "start"),
        ] {
            assert_eq!(failed(boot(&waiting, &start('a', false, None, last))).0, check);
        }
    }

    #[test]
    fn the_end_of_another_boot_is_not_the_trials() {
        let waiting = saved(Some(staged(true)));
        let other = Start { last_release: Some("1.0"), ..start('a', false, None, Some("panic: BUG")) };
        assert_eq!(failed(boot(&waiting, &other)).0, "start");
        let same = Start { last_release: Some("1.1"), ..other };
        assert_eq!(failed(boot(&waiting, &same)).0, "kernel");
    }

    fn automatic() -> Update {
        let window = Window {
            days: Vec::new(),
            from: TimeOfDay(120),
            duration: Seconds(3600),
            time_zone: TimeZone::default(),
        };
        Update { policy: UpdatePolicy::Automatic, windows: vec![window], ..Update::default() }
    }

    #[test]
    fn when_what_is_done() {
        let off = Update::default();
        assert!(
            matches!(next(&saved(None), &off, true, false, 0, 9), Next::Wait(_, why) if why.contains("policy"))
        );
        let stage = Update { policy: UpdatePolicy::Stage, ..off };
        assert_eq!(next(&saved(None), &stage, true, false, 0, 9), Next::Check);
        assert!(
            matches!(next(&saved(None), &stage, false, false, 0, 9), Next::Wait(_, why) if why.contains("no channel"))
        );
        let looked = Saved { last_check: Some(1000), ..Saved::default() };
        assert_eq!(
            next(&looked, &stage, true, false, 7, 1001),
            Next::Wait(1000 + 3600 + 7, "the channel is looked at".into())
        );
        assert_eq!(next(&looked, &stage, true, false, 7, 4607), Next::Check);
        assert_eq!(next(&looked, &stage, true, false, 0, 10), Next::Check, "a clock that was set back");
        assert!(matches!(next(&saved(Some(staged(true))), &stage, true, false, 0, 9), Next::Wait(..)));
        // 02:00 to 03:00.
        let ready = saved(Some(staged(false)));
        assert!(matches!(next(&ready, &automatic(), true, false, 5, 9), Next::Wait(7205, _)));
        assert_eq!(next(&ready, &automatic(), true, false, 0, 7200), Next::Restart);
        assert_eq!(next(&ready, &automatic(), true, true, 0, 7200), Next::PutOff);
        let patient = Saved { postponements: MAX_POSTPONEMENTS, ..ready.clone() };
        assert_eq!(next(&patient, &automatic(), true, true, 0, 7200), Next::Restart, "not for ever");
        let later = Saved { postponed_until: 7300, ..ready };
        assert!(matches!(next(&later, &automatic(), true, false, 0, 7200), Next::Wait(7300, _)));
    }

    #[test]
    fn who_asks_for_a_restart_does_not_wait_for_windows() {
        let mut asked = saved(Some(Staged { now: true, ..staged(true) }));
        assert_eq!(next(&asked, &Update::default(), false, true, 0, 9), Next::Restart);
        // One that does not come about is not tried each second.
        asked.failures = fail(&asked.failures, "1.1", 0, 9);
        assert!(matches!(next(&asked, &automatic(), true, false, 0, 10), Next::Wait(69, _)));
        assert_eq!(next(&asked, &automatic(), true, false, 0, 69), Next::Restart);
        let reboot = Saved { reboot: Some("disk".into()), ..Saved::default() };
        assert_eq!(next(&reboot, &Update::default(), true, true, 0, 9), Next::Reboot("disk".into()));
    }

    #[test]
    fn a_place_is_kept_until_something_is_good() {
        let place = |phase| Place { token: "t".into(), to: Some("1.1".into()), reason: String::new(), phase };
        let barred =
            Barred { version: "1.1".into(), check: "network".into(), reason: "none".into(), time: 0 };
        let failed = || PlacePhase::Failed { reason: "network: none".into() };
        let held = place(PlacePhase::Held);
        assert_eq!(place_after_boot(&held, &Boot::Failed(staged(true), barred)), failed());
        assert_eq!(place_after_boot(&held, &Boot::Trial(staged(true))), PlacePhase::Held);
        assert_eq!(
            place_after_boot(&held, &Boot::Committed(staged(true))),
            PlacePhase::Leaving { good: true }
        );
        for phase in [PlacePhase::Held, PlacePhase::Wanted] {
            assert_eq!(place_after_boot(&place(phase), &Boot::Plain), PlacePhase::Leaving { good: false });
        }
        assert_eq!(
            place_after_boot(&place(failed()), &Boot::Plain),
            failed(),
            "a restart by hand frees nothing"
        );
        let leaving = PlacePhase::Leaving { good: true };
        assert_eq!(place_after_boot(&place(leaving.clone()), &Boot::Plain), leaving);
    }

    #[test]
    fn attempts_become_rarer_and_end() {
        let mut failures = Failures::default();
        let mut pauses = Vec::new();
        for _ in 0..MAX_ATTEMPTS {
            assert!(!is_given_up(&failures, "1.1"));
            failures = fail(&failures, "1.1", 0, 0);
            pauses.push(failures.not_before / FIRST_PAUSE);
        }
        assert_eq!(pauses[..6], [1, 2, 4, 8, 16, 16]);
        assert!(is_given_up(&failures, "1.1") && !is_given_up(&failures, "1.2"));
        assert_eq!(fail(&failures, "1.2", 0, 0).count, 1, "another release begins anew");
        assert!(fail(&failures, "1.1", u32::MAX, 0).not_before <= 16 * FIRST_PAUSE * 3 / 2);
    }

    proptest! {
        #[test]
        fn no_restart_outside_of_a_window(now in 0i64..200_000, session: bool, armed: bool, until in 0i64..200_000) {
            let saved = Saved { postponed_until: until, ..saved(Some(staged(armed))) };
            let next = next(&saved, &automatic(), true, session, 0, now);
            if next == Next::Restart {
                prop_assert!((7200..=10_800).contains(&(now % 86_400)) && now >= until && !session);
            }
            if let Next::Wait(at, _) = next {
                prop_assert!(at > now);
            }
        }
    }
}
