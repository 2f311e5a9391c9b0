//! Judging the first boot of a release, and the hooks around it.

use super::Engine;
use crate::channel;
use crate::error::UpdateError;
use crate::health::{self, Check};
use crate::saved::{PlacePhase, Staged};
use ashlar_fetch::{Http, HttpOptions};
use ashlar_image::control::{Request, ServiceAction, TrialFailure};
use ashlar_image::machine::Hook;
use ashlar_slots::entries;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How often the channel is tried while it is not reached.
const CHANNEL_PAUSE: Duration = Duration::from_secs(3);
/// How often PID 1 is asked to commit before the engine leaves it to the next boot.
const COMMITS: u32 = 5;

/// A release that is judged.
#[derive(Debug)]
pub(super) struct Trial {
    staged: Staged,
    begun: Instant,
    containers: BTreeMap<String, u32>,
    channel: Option<Instant>,
    reached: bool,
    channel_problem: String,
}

/// A container that runs once.
#[derive(Debug)]
pub(super) struct Running {
    container: String,
    before: u32,
    until: Instant,
}

impl Trial {
    pub(super) fn begin(staged: Staged) -> Self {
        Self {
            staged,
            begun: Instant::now(),
            containers: BTreeMap::new(),
            channel: None,
            reached: false,
            channel_problem: "it was not tried yet".into(),
        }
    }
}

/// What a trial comes to at this moment: none as long as it is open. `passed` are seconds since its begin.
fn verdict(checks: &[Check], passed: u64, deadline: u64) -> Option<Result<(), (String, String)>> {
    let failing = || checks.iter().filter_map(|check| Some((check, check.problem.as_ref()?)));
    let Some((first, problem)) = failing().next() else { return Some(Ok(())) };
    if passed >= deadline {
        return Some(Err((first.name.clone(), problem.clone())));
    }
    let late = failing().find(|(check, _)| check.deadline.is_some_and(|own| passed >= own));
    // The owner's checks have time of their own only once the machine itself is well.
    let well = failing().all(|(check, _)| check.deadline.is_some());
    late.filter(|_| well).map(|(check, problem)| Err((check.name.clone(), problem.clone())))
}

impl Engine {
    /// Looks at all checks, and ends the trial when they have passed or their time is over.
    pub(super) fn judge_trial(&mut self) -> Result<(), UpdateError> {
        let status = self.pid1.status()?;
        let has_channel = self.config.channel.is_some();
        let mut checks = health::built_in(&status, has_channel);
        let network_is_well = checks.iter().all(|check| check.problem.is_none());
        if has_channel {
            checks.push(Check {
                name: "channel".into(),
                problem: self.channel_problem(network_is_well),
                deadline: None,
            });
        }
        if status.ready {
            self.start_probes(&status.services);
        }
        let Some(trial) = &self.trial else { return Ok(()) };
        checks.extend(health::owners(&self.config, &status.services, &trial.containers));
        let passed = trial.begun.elapsed().as_secs();
        let deadline = self.config.update.trial_deadline.0;
        let open: Vec<&str> =
            checks.iter().filter(|check| check.problem.is_some()).map(|check| check.name.as_str()).collect();
        self.shared.change(|seen| {
            seen.next = format!("{} s are left for: {}", deadline.saturating_sub(passed), open.join(", "));
        });
        match verdict(&checks, passed, deadline) {
            None => Ok(()),
            Some(Ok(())) => self.commit(),
            Some(Err((check, reason))) => self.give_up(&check, &reason),
        }
    }

    /// Whether the channel is reached and trusted; once is enough.
    fn channel_problem(&mut self, try_it: bool) -> Option<String> {
        let due = match &self.trial {
            Some(trial) if trial.reached => return None,
            Some(trial) => trial.channel.is_none_or(|at| at.elapsed() >= CHANNEL_PAUSE),
            None => false,
        };
        let result = (due && try_it).then(|| {
            channel::server(&self.config).and_then(|source| {
                // Its freshness is not judged: an owner's lapse must not throw a good release back.
                let request =
                    ashlar_fetch::Request { path: "timestamp.json".into(), range: None, max: 1 << 20 };
                source.open(&request).map(|_| ()).map_err(UpdateError::from)
            })
        });
        let trial = self.trial.as_mut()?;
        if let Some(result) = result {
            trial.channel = Some(Instant::now());
            match result {
                Ok(()) => trial.reached = true,
                Err(error) => trial.channel_problem = error.to_string(),
            }
        }
        (!trial.reached).then(|| trial.channel_problem.clone())
    }

    /// Starts the containers of the owner's checks, each once.
    fn start_probes(&mut self, states: &[ashlar_image::report::ServiceState]) {
        let Some(trial) = &mut self.trial else { return };
        for name in self.config.update.health.iter().filter_map(|health| health.container.as_ref()) {
            if trial.containers.contains_key(name) {
                continue;
            }
            let before = states.iter().find(|state| state.name == *name).map_or(0, |state| state.starts);
            let request = Request::Service { name: name.clone(), action: ServiceAction::Start };
            match self.pid1.ask(&request) {
                Ok(_) => {
                    trial.containers.insert(name.clone(), before);
                }
                Err(error) => eprintln!("the check's container `{name}` cannot be started: {error}"),
            }
        }
    }

    fn commit(&mut self) -> Result<(), UpdateError> {
        let slot = self.hardware.slot(self.hardware.running())?;
        entries::commit(&mut *self.hardware.variables(), slot.slot, &slot.place)?;
        let mut result = self.tell(&Request::Commit);
        for _ in 1..COMMITS {
            if result.is_ok() {
                break;
            }
            std::thread::sleep(Duration::from_secs(1));
            result = self.tell(&Request::Commit);
        }
        if let Err(error) = result {
            // The slot is what starts from now on; the floor is raised at its next good boot.
            eprintln!("the rollback floor was not raised: {error}");
        }
        let version = self.trial.take().map(|trial| trial.staged.version).unwrap_or_default();
        self.committed(&version)
    }

    /// A release is what starts from now on.
    pub(super) fn committed(&mut self, version: &str) -> Result<(), UpdateError> {
        self.saved.staged = None;
        self.saved.failure = None;
        if let Some(place) = &mut self.saved.place {
            place.phase = PlacePhase::Leaving { good: true };
        }
        self.saved.post_boot_pending = true;
        self.saved.postponed_until = 0;
        self.save()?;
        self.note(version, "committed", "all checks have passed");
        self.shared.decide(format!("release {version} is good and stays"), self.now());
        self.report(version, "committed", "");
        self.show();
        Ok(())
    }

    fn give_up(&mut self, check: &str, reason: &str) -> Result<(), UpdateError> {
        let version = self.trial.take().map(|trial| trial.staged.version).unwrap_or_default();
        let failure = TrialFailure { version: version.clone(), check: check.into(), reason: reason.into() };
        self.shared.decide(
            format!("release {version} has failed ({check}: {reason}): back to the old one"),
            self.now(),
        );
        self.saved.failure = Some(failure.clone());
        self.save()?;
        self.tell(&Request::GiveUp(failure))
    }

    /// Runs the hook before a restart and waits for its end.
    pub(super) fn run_pre_reboot(&mut self) -> Result<(), UpdateError> {
        let Some(hook) = self.config.update.pre_reboot.clone() else { return Ok(()) };
        let fail =
            |why: String| UpdateError::Refused(format!("the pre-reboot hook `{}`: {why}", hook.container));
        let running = self.start_hook(&hook)?;
        loop {
            std::thread::sleep(Duration::from_millis(500));
            let states = self.pid1.status()?.services;
            match health::container(&running.container, &states, Some(running.before)) {
                Ok(()) => return Ok(()),
                Err(why) if why != "it has not ended yet" => return Err(fail(why)),
                Err(why) if Instant::now() >= running.until => return Err(fail(why)),
                Err(_) => {}
            }
        }
    }

    fn start_hook(&self, hook: &Hook) -> Result<Running, UpdateError> {
        let states = self.pid1.status()?.services;
        let before = states.iter().find(|state| state.name == hook.container).map_or(0, |state| state.starts);
        self.tell(&Request::Service { name: hook.container.clone(), action: ServiceAction::Start })?;
        Ok(Running {
            container: hook.container.clone(),
            before,
            until: Instant::now() + Duration::from_secs(hook.deadline.0),
        })
    }

    /// Runs the hook after a release was found good; how it ends is told and changes nothing.
    pub(super) fn tend_hook(&mut self) {
        if self.saved.post_boot_pending {
            self.saved.post_boot_pending = false;
            let _ = self.save();
            if let Some(hook) = self.config.update.post_boot.clone() {
                match self.start_hook(&hook) {
                    Ok(running) => self.hook = Some(running),
                    Err(error) => eprintln!("the post-boot hook cannot be started: {error}"),
                }
            }
        }
        let Some(running) = &self.hook else { return };
        let Ok(status) = self.pid1.status() else { return };
        let result = health::container(&running.container, &status.services, Some(running.before));
        let over = Instant::now() >= running.until;
        match result {
            Ok(()) => println!("the post-boot hook `{}` has ended well", running.container),
            Err(why) if why != "it has not ended yet" || over => {
                let text = format!("the post-boot hook `{}`: {why}", running.container);
                eprintln!("{text}");
                self.shared.change(|seen| seen.last_error = Some(text));
            }
            Err(_) => return,
        }
        self.hook = None;
    }

    /// Tells the channel's collector how it went, if it has one. Nothing waits for it, and nothing depends on it.
    pub(super) fn report(&self, version: &str, what: &str, detail: &str) {
        let Some(address) = self.saved.collector.clone() else { return };
        let status = self.pid1.status().ok();
        let body = serde_json::json!({
            "machine_id": status.as_ref().and_then(|status| status.machine_id.clone()),
            "image_id": status.as_ref().map(|status| status.image_id.clone()),
            "running": status.as_ref().map(|status| status.image_version.clone()),
            "version": version, "what": what, "detail": detail, "time": self.now(),
        });
        std::thread::spawn(move || {
            let sent = Http::new(&address, HttpOptions::default())
                .and_then(|server| server.post("", "application/json", body.to_string().as_bytes()));
            if let Err(error) = sent {
                eprintln!("the collector was not told: {error}");
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, problem: Option<&str>, deadline: Option<u64>) -> Check {
        Check { name: name.into(), problem: problem.map(str::to_owned), deadline }
    }

    #[test]
    fn verdicts() {
        let passes = [check("network", None, None), check("health web", None, Some(5))];
        assert_eq!(verdict(&passes, 0, 100), Some(Ok(())));
        let open = [check("network", Some("no address"), None), check("health web", Some("503"), Some(5))];
        assert_eq!(verdict(&open, 50, 100), None, "the machine itself is not well: the owner's checks wait");
        assert_eq!(verdict(&open, 100, 100), Some(Err(("network".into(), "no address".into()))));
        let owners = [check("network", None, None), check("health web", Some("503"), Some(5))];
        assert_eq!(verdict(&owners, 4, 100), None);
        assert_eq!(verdict(&owners, 5, 100), Some(Err(("health web".into(), "503".into()))));
    }
}
