//! The engine's side of the reboot lock: a place before a restart, kept while a release is judged, given back when it is good.

use super::{Engine, lock};
use crate::error::UpdateError;
use crate::lock::{Duty, Identity, Locker, open};
use crate::saved::{Place, PlacePhase};
use ashlar_image::control::Request;
use ashlar_image::update::{LockPhase, UpdatePhase, UpdateReply};
use ashlar_lock::client::token;

/// How much longer than the trial a machine may be down, in seconds: for stopping, firmware and start.
const DOWN: u64 = 600;
/// Longest reason for a restart, in characters.
const MAX_REASON: usize = 200;

impl Engine {
    /// Starts the lock's thread for the configuration in force, or ends it.
    fn follow_configuration(&mut self) -> Result<(), UpdateError> {
        let wanted = self.config.lock.clone();
        if self.locker.as_ref().map(|(settings, _)| settings) == wanted.as_ref() {
            return Ok(());
        }
        // A place in another group is given back there first. One that is only wanted is perhaps wanted in vain.
        let kept = self.saved.place.as_ref().is_some_and(|place| place.phase != PlacePhase::Wanted);
        if let (true, Some((old, _)), Some(new)) = (kept, &self.locker, &wanted)
            && (old.group != new.group || old.fleetlock.is_some() != new.fleetlock.is_some())
        {
            return Ok(());
        }
        self.locker = None;
        if let Some(settings) = wanted {
            let backend = open(&settings, &self.seed, &self.folder).map_err(UpdateError::Lock)?;
            let locker = Locker::start(backend, &settings.group, self.clock);
            self.locker = Some((settings, locker));
        }
        Ok(())
    }

    /// Does what is due for the place: keeps it, gives it back, tells of a failure. A machine whose lock cannot be opened has
    /// none and does not restart by itself.
    pub(super) fn tend_place(&mut self) {
        if let Err(error) = self.follow_configuration() {
            let now = self.now();
            self.shared.decide(error.to_string(), now);
            self.shared.change(|seen| seen.last_error = Some(error.to_string()));
        }
        let Some((_, locker)) = &self.locker else {
            if self.config.lock.is_none() && self.saved.place.take().is_some() {
                eprintln!(
                    "the machine configuration names no reboot lock any more: its place is not given back"
                );
                let _ = self.save();
            }
            *lock(&self.shared.lock) = None;
            return;
        };
        let locker = locker.clone();
        let state = locker.state();
        let (mut phase, mut detail) = (LockPhase::None, None);
        if let Some(place) = self.saved.place.clone() {
            let over = state.over.as_ref() == Some(&place.token);
            match &place.phase {
                PlacePhase::Wanted => {
                    phase = LockPhase::Waiting;
                    locker.set(Duty::Want(self.request(&place)));
                    if state.held.as_ref() == Some(&place.token) {
                        phase = LockPhase::Held;
                        self.set_phase(PlacePhase::Held);
                        let now = self.now();
                        self.shared.decide("the machine has a place of the reboot lock".into(), now);
                    }
                }
                PlacePhase::Held => {
                    phase = LockPhase::Held;
                    locker.set(Duty::Keep(place.token.clone()));
                    if over {
                        self.lose_place("its place of the reboot lock was freed by somebody");
                    }
                }
                PlacePhase::Leaving { good } => {
                    phase = LockPhase::Leaving;
                    detail = self.not_well();
                    if detail.is_none() {
                        locker.set(Duty::Leave { token: place.token.clone(), good: *good });
                    } else {
                        locker.set(Duty::Keep(place.token.clone()));
                    }
                    if over {
                        self.lose_place("the machine has given its place of the reboot lock back");
                        phase = LockPhase::None;
                    }
                }
                PlacePhase::Failed { reason } => {
                    phase = LockPhase::Failed;
                    detail = Some(reason.clone());
                    locker.set(Duty::Fail { token: place.token.clone(), reason: reason.clone() });
                    if over {
                        self.lose_place("its place of the reboot lock was freed by somebody");
                        phase = LockPhase::None;
                    }
                }
            }
        } else {
            locker.set(Duty::Look);
        }
        *lock(&self.shared.lock) = Some((locker, phase, detail));
    }

    /// What keeps the machine from saying that it is back.
    fn not_well(&self) -> Option<String> {
        if self.trial.is_some() {
            return Some("the release is judged".into());
        }
        match self.pid1.status() {
            Ok(status) if status.ready => None,
            Ok(_) => Some("not all services are ready yet".into()),
            Err(error) => Some(error.to_string()),
        }
    }

    fn request(&self, place: &Place) -> ashlar_lock::Request {
        let down = self.config.update.trial_deadline.0.saturating_add(DOWN);
        ashlar_lock::Request {
            // Opening the lock has checked it.
            id: self.seed.parse().unwrap_or_else(|_| unreachable!("the machine ID was checked")),
            token: place.token.clone(),
            reason: place.reason.clone(),
            from: Some(self.shared.status_alone().running),
            to: place.to.clone(),
            seconds: i64::try_from(down).ok(),
        }
    }

    fn set_phase(&mut self, phase: PlacePhase) {
        if let Some(place) = &mut self.saved.place {
            place.phase = phase;
        }
        if let Err(error) = self.save() {
            eprintln!("{error}");
        }
    }

    fn lose_place(&mut self, why: &str) {
        self.saved.place = None;
        if let Err(error) = self.save() {
            eprintln!("{error}");
        }
        let now = self.now();
        self.shared.decide(why.into(), now);
    }

    /// Whether the machine may restart now: it has a place for that, or there is no lock. Else it waits for one.
    pub(super) fn has_place(&mut self, to: Option<String>, reason: &str) -> bool {
        let Some(settings) = &self.config.lock else { return true };
        let group = settings.group.clone();
        match &self.saved.place {
            Some(place) if place.phase == PlacePhase::Held && place.to == to => return true,
            // Once that is done.
            Some(Place { phase: PlacePhase::Leaving { .. }, .. }) => {}
            Some(place) if place.phase == PlacePhase::Wanted && place.to == to => {}
            // None, or one for something else, which it keeps: noted first, so that it never holds one that it does not know of.
            _ => {
                let reason = reason.chars().take(MAX_REASON).collect();
                self.saved.place = Some(Place { token: token(), to, reason, phase: PlacePhase::Wanted });
                if let Err(error) = self.save() {
                    eprintln!("{error}");
                    self.saved.place = None;
                    return false;
                }
                self.tend_place();
            }
        }
        let state = self.locker.as_ref().map(|(_, locker)| locker.state()).unwrap_or_default();
        let why = match (state.problem, state.waits) {
            (Some((problem, _)), _) => format!(": {problem}"),
            (None, Some(waits)) => format!(": {waits}"),
            (None, None) => String::new(),
        };
        let text = format!("the machine waits for a place of the reboot lock of group {group}{why}");
        let now = self.now();
        self.shared.decide(text.clone(), now);
        self.shared.change(|seen| {
            seen.phase = UpdatePhase::Locking;
            seen.next = text;
        });
        false
    }

    /// Nothing is to be restarted now: neither waits for a place nor keeps one for it.
    pub(super) fn want_no_place(&mut self) {
        let wanted = self
            .saved
            .place
            .as_ref()
            .is_some_and(|place| matches!(place.phase, PlacePhase::Wanted | PlacePhase::Held));
        if wanted {
            self.set_phase(PlacePhase::Leaving { good: false });
        }
    }

    /// The fence: asks the lock's server once more, right before the restart.
    pub(super) fn check_place(&mut self) -> Result<(), UpdateError> {
        if !self.config_known {
            return Err(UpdateError::Lock(
                "the machine configuration, which names it, cannot be read".into(),
            ));
        }
        let (Some((_, locker)), Some(place)) = (&self.locker, &self.saved.place) else {
            return if self.config.lock.is_some() {
                Err(UpdateError::Lock("the machine has no place".into()))
            } else {
                Ok(())
            };
        };
        match locker.check(&place.token) {
            Ok(true) => Ok(()),
            Ok(false) => {
                self.lose_place("its place of the reboot lock was freed by somebody: it does not restart");
                Err(UpdateError::Lock("the place was freed meanwhile".into()))
            }
            Err(problem) => Err(UpdateError::Lock(problem)),
        }
    }

    /// Restarts into the staged release because somebody wants it: at once, or as soon as there is a place.
    pub(super) fn restart_now(&mut self) -> Result<(), UpdateError> {
        if self.config.lock.is_none() {
            return self.restart();
        }
        if let Some(staged) = &mut self.saved.staged {
            staged.now = true;
        }
        self.save()
    }

    /// Notes that somebody wants a restart without an update.
    pub(super) fn order_reboot(&mut self, reason: &str) -> Result<(), UpdateError> {
        if self.trial.is_some() {
            return Err(UpdateError::Refused("this boot is a trial: its checks are not over".into()));
        }
        self.saved.reboot = Some(reason.chars().take(MAX_REASON).collect());
        self.save()
    }

    /// Restarts without an update.
    pub(super) fn reboot(&mut self, reason: &str) -> Result<(), UpdateError> {
        self.shared.change(|seen| seen.phase = UpdatePhase::Restarting);
        self.run_pre_reboot()?;
        self.check_place()?;
        // Before the order: it must not be obeyed again after the start.
        self.saved.reboot = None;
        self.save()?;
        let now = self.now();
        self.shared.decide(format!("the machine restarts: {reason}"), now);
        self.tell(&Request::Reboot)
    }

    /// By what etcd knows the machine.
    pub(super) fn identity(&self) -> Result<UpdateReply, UpdateError> {
        let identity = Identity::of(&self.folder, &self.seed).map_err(UpdateError::State)?;
        Ok(UpdateReply::Identity(identity.shown()))
    }
}
