//! What people and machine configurations change while the machine runs.

use super::Supervisor;
use super::command::{Kind, Overrides};
use crate::console;
use ashlar_image::control::{Refusal, RefusalKind, ServiceAction};
use ashlar_image::machine::{Debug, MachineConfig, nearest};
use ashlar_image::manifest::Service;
use rustix::time::ClockId;
use std::time::Duration;

/// The clock is looked at so often while something is debugged: it may be set meanwhile.
const LOOK_INTERVAL: Duration = Duration::from_secs(10);

/// The time for which a container for debugging may run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Debugging {
    index: usize,
    end: End,
    look_at: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// By the clock, seconds since 1970.
    Clock(i64),
    /// Since the kernel's start.
    Uptime(Duration),
}

impl End {
    fn new(debug: &Debug, now: Duration) -> Self {
        match (debug.until, debug.duration) {
            (Some(until), _) => Self::Clock(until.0),
            (None, duration) => {
                let seconds = duration.map_or(0, |duration| duration.0);
                Self::Uptime(now.saturating_add(Duration::from_secs(seconds)))
            }
        }
    }

    fn is_over(self, now: Duration, clock: i64) -> bool {
        match self {
            Self::Clock(until) => clock >= until,
            Self::Uptime(until) => now >= until,
        }
    }
}

impl Debugging {
    /// When the end must be looked for.
    pub fn deadline(&self) -> Duration {
        match self.end {
            End::Uptime(until) => until.min(self.look_at),
            End::Clock(_) => self.look_at,
        }
    }
}

fn clock() -> i64 {
    rustix::time::clock_gettime(ClockId::Realtime).tv_sec
}

fn refusal(kind: RefusalKind, message: String, advice: &str) -> Refusal {
    Refusal { kind, message, advice: advice.into() }
}

impl Supervisor {
    /// Starts, stops or restarts a unit because somebody asks for it.
    pub fn control(&mut self, name: &str, action: ServiceAction, now: Duration) -> Result<(), Refusal> {
        let found = self.plan.find(name).and_then(|index| Some((index, self.processes.get(index)?)));
        let Some((index, process)) = found else {
            let names: Vec<&str> = self.processes.iter().map(|process| process.name.as_str()).collect();
            let message = format!("there is no service or container `{name}`");
            let advice = format!("name one of these: {}", names.join(", "));
            return Err(refusal(RefusalKind::NotFound, message, &advice));
        };
        if self.ending {
            let message = "the machine is being stopped".to_owned();
            return Err(refusal(RefusalKind::Conflict, message, "wait until it is up again"));
        }
        if !process.allowed && action != ServiceAction::Stop {
            let (message, advice) = if process.kind.is_for_debugging() {
                (
                    format!("`{name}` is for debugging"),
                    "enable it for a time in the signed machine configuration",
                )
            } else {
                (
                    format!("the machine configuration switches `{name}` off"),
                    "enable it in the machine configuration",
                )
            };
            return Err(refusal(RefusalKind::Conflict, message, advice));
        }
        let title = process.title();
        match action {
            ServiceAction::Start => self.plan.start(index, now),
            ServiceAction::Stop => self.plan.stop(index),
            ServiceAction::Restart => self.plan.restart(index, now),
        }
        let what = match action {
            ServiceAction::Start => "start",
            ServiceAction::Stop => "stop",
            ServiceAction::Restart => "restart",
        };
        console::info(format_args!("{title}: somebody asks for a {what}"));
        Ok(())
    }

    /// Takes over what a machine configuration says of containers; none is a machine without one. What is changed is
    /// told, one line each; [`Supervisor::tick`] does it. What does not fit the image is in
    /// [`Supervisor::problems`].
    pub fn apply(&mut self, config: Option<&MachineConfig>, now: Duration) -> Vec<String> {
        let entries = config.map_or(&[][..], |config| &config.containers);
        let debug = config.and_then(|config| config.debug.as_ref());
        self.misfits = self.misfits(config);
        self.debugging = debug.and_then(|debug| {
            let index = self.plan.find(&debug.container)?;
            let end = End::new(debug, now);
            let fits = self.processes.get(index)?.kind.is_for_debugging() && !end.is_over(now, clock());
            fits.then_some(Debugging { index, end, look_at: now.saturating_add(LOOK_INTERVAL) })
        });
        let mut changes = Vec::new();
        for (index, process) in self.processes.iter_mut().enumerate() {
            let Kind::Container(_) = process.kind else { continue };
            let entry = entries.iter().find(|entry| entry.name == process.name);
            let enabled = entry.is_none_or(|entry| entry.enabled);
            let allowed = if process.kind.is_for_debugging() {
                enabled && self.debugging.as_ref().is_some_and(|debugging| debugging.index == index)
            } else {
                enabled
            };
            let overrides = entry.map_or_else(Overrides::default, |entry| Overrides {
                environment: entry.environment.clone(),
                memory_max: entry.memory.map(|bytes| bytes.0),
                cpu_milli: entry.cpus.map(|cpus| cpus.0),
                pids_max: entry.pids,
            });
            let changed = overrides != process.overrides;
            process.overrides = overrides;
            let title = process.title();
            match (process.allowed, allowed) {
                // It starts when somebody asks for it.
                (_, true) if process.kind.is_on_request() => {}
                (false, true) => {
                    self.plan.start(index, now);
                    changes.push(format!("{title} is started"));
                }
                (true, false) => {
                    self.plan.stop(index);
                    changes.push(format!("{title} is stopped"));
                }
                // One that somebody has stopped stays so.
                (true, true) if changed && self.plan.is_wanted(index) => {
                    self.plan.restart(index, now);
                    changes.push(format!("{title} is restarted with another environment or other limits"));
                }
                _ => {}
            }
            process.allowed = allowed;
        }
        for change in &changes {
            console::info(format_args!("machine configuration: {change}"));
        }
        changes
    }

    /// Has the service `name` run as `service` says from now on; it is started again if that changes anything.
    pub fn change_service(&mut self, name: &str, service: Service, now: Duration) {
        let Some(index) = self.plan.find(name) else { return };
        let Some(process) = self.processes.get_mut(index) else { return };
        if matches!(&process.kind, Kind::Service(old) if **old == service) {
            return;
        }
        process.kind = Kind::Service(Box::new(service));
        if self.plan.is_wanted(index) {
            self.plan.restart(index, now);
        }
    }

    /// What a machine configuration says of containers that the image does not have, or not for this; one line each.
    pub fn misfits(&self, config: Option<&MachineConfig>) -> Vec<String> {
        let Some(config) = config else { return Vec::new() };
        let find = |name: &str| {
            let process = self.processes.iter().find(|process| process.name == name)?;
            matches!(process.kind, Kind::Container(_)).then_some(process)
        };
        let unknown = |name: &str| {
            let containers =
                self.processes.iter().filter(|process| matches!(process.kind, Kind::Container(_)));
            let like = nearest(name, containers.map(|process| process.name.as_str()));
            let like = like.map(|like| format!("; did you mean `{like}`?")).unwrap_or_default();
            format!("the machine configuration names the container `{name}`, which is not in the image{like}")
        };
        let mut misfits: Vec<String> = config
            .containers
            .iter()
            .filter(|entry| find(&entry.name).is_none())
            .map(|entry| unknown(&entry.name))
            .collect();
        let hooks = [("pre-reboot", &config.update.pre_reboot), ("post-boot", &config.update.post_boot)];
        let hooks =
            hooks.into_iter().filter_map(|(key, hook)| Some((key.to_owned(), &hook.as_ref()?.container)));
        let checks = config.update.health.iter();
        let checks =
            checks.filter_map(|check| Some((format!("health {}", check.name), check.container.as_ref()?)));
        for (key, name) in hooks.chain(checks) {
            match find(name) {
                None => misfits.push(unknown(name)),
                Some(process) if !process.kind.is_on_request() => misfits.push(format!(
                    "the machine configuration names `{name}` for updates ({key}), which is not a container that is \
                     started on request"
                )),
                Some(_) => {}
            }
        }
        if let Some(debug) = &config.debug {
            match find(&debug.container) {
                None => misfits.push(unknown(&debug.container)),
                Some(process) if !process.kind.is_for_debugging() => misfits.push(format!(
                    "the machine configuration names `{}` for debugging, which is an ordinary container",
                    debug.container
                )),
                Some(_) => {}
            }
        }
        misfits
    }

    /// Stops what is debugged when its time is over.
    pub(super) fn end_debugging(&mut self, now: Duration) {
        let Some(debugging) = &mut self.debugging else { return };
        if !debugging.end.is_over(now, clock()) {
            if debugging.look_at <= now {
                debugging.look_at = now.saturating_add(LOOK_INTERVAL);
            }
            return;
        }
        let index = debugging.index;
        self.debugging = None;
        self.plan.stop(index);
        if let Some(process) = self.processes.get_mut(index) {
            process.allowed = false;
            console::warning(format_args!("{}: its time for debugging is over", process.title()));
        }
    }
}
