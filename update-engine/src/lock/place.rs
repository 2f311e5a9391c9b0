//! Places of the two kinds of lock: ours in etcd, and those of a FleetLock server.

use super::{Identity, View};
use ashlar_image::machine::{Certificate, Lock as Settings};
use ashlar_image::update::LockHolder;
use ashlar_lock::attempt::gone;
use ashlar_lock::fleetlock::{DEADLINE, FleetLock, FleetLockError, app_specific_id};
use ashlar_lock::{Etcd, EtcdOptions, Granted, HolderId, Lock, LockError, Refusal, Request, Turn};
use std::fmt::Debug;
use std::path::Path;
use std::time::Duration;

/// How long after a refusal a FleetLock server is asked again: its protocol has nothing that tells.
const FLEETLOCK_PAUSE: Duration = Duration::from_secs(30);

/// A lock with places. All errors are texts for people and mean that the server does not answer as it should.
pub trait Backend: Debug + Send {
    /// Tries to have a place, and waits for one for about `slice` if none is free. None: it is there; else why it is not, and how
    /// long to rest before the next step.
    fn step(&mut self, request: &Request, slice: Duration) -> Result<Option<(String, Duration)>, String>;

    /// Whether the place with this token is held; also says that the machine is there.
    fn holds(&mut self, token: &str) -> Result<bool, String>;

    /// Gives the place back; one that is not held is given back already.
    fn leave(&mut self, token: &str, good: bool) -> Result<(), String>;

    /// Tells that the release has failed that the place was for: whether the place is still held.
    fn fail(&mut self, token: &str, reason: &str) -> Result<bool, String>;

    /// Waits for a place no more.
    fn leave_queue(&mut self) -> Result<(), String>;

    /// Who is down, where the server tells.
    fn view(&mut self) -> Result<Option<View>, String>;
}

/// Opens the lock of a machine configuration. Nothing is asked yet.
///
/// # Errors
/// A text for people.
pub fn open(settings: &Settings, machine_id: &str, folder: &Path) -> Result<Box<dyn Backend>, String> {
    let pem = |certificates: &[Certificate]| certificates.iter().map(ToString::to_string).collect::<String>();
    if let Some(url) = &settings.fleetlock {
        let id = app_specific_id(machine_id).ok_or("the machine has no machine ID")?;
        let id: HolderId = id.parse().map_err(|error| format!("{error}"))?;
        let roots: Vec<Vec<u8>> =
            settings.trust_roots.iter().map(|root| root.to_string().into_bytes()).collect();
        let server = FleetLock::new(url.as_str(), &settings.group, &id, &roots, DEADLINE)
            .map_err(|error| error.to_string())?;
        return Ok(Box::new(FleetPlace { server }));
    }
    let id: HolderId = machine_id.parse().map_err(|error| format!("the machine ID: {error}"))?;
    let identity = Identity::of(folder, machine_id)?;
    let certificate =
        if settings.certificate.is_empty() { identity.certificate } else { pem(&settings.certificate) };
    let options = EtcdOptions {
        endpoints: settings.etcd.iter().map(|url| url.as_str().to_owned()).collect(),
        ca: Some(pem(&settings.trust_roots)),
        identity: Some((certificate, identity.key)),
        user: None,
    };
    let group = settings.group.parse().map_err(|error| format!("{error}"))?;
    Ok(Box::new(EtcdPlace {
        lock: Lock::new(Etcd::new(options)?, group),
        id,
        turn: Turn::default(),
        queued: true,
    }))
}

/// A place in etcd.
#[derive(Debug)]
struct EtcdPlace {
    lock: Lock<Etcd>,
    id: HolderId,
    turn: Turn,
    /// Whether it may stand in the queue; a machine that was cut off may from before.
    queued: bool,
}

impl Backend for EtcdPlace {
    fn step(&mut self, request: &Request, slice: Duration) -> Result<Option<(String, Duration)>, String> {
        self.queued = true;
        match self.lock.step(request, &mut self.turn, slice) {
            Ok(_) => {
                (self.turn, self.queued) = (Turn::default(), false);
                Ok(None)
            }
            Err(LockError::Refused(Refusal::Full)) => {
                Ok(Some(("all places are taken".into(), Duration::ZERO)))
            }
            Err(error) if error.is_waiting() => Ok(Some((error.to_string(), Duration::ZERO))),
            // A release that is stopped goes on when an operator says so.
            Err(LockError::Refused(refusal)) => Ok(Some((refusal.to_string(), Duration::from_secs(20)))),
            Err(error) => Err(error.to_string()),
        }
    }

    fn holds(&mut self, token: &str) -> Result<bool, String> {
        let granted = Granted { token: token.to_owned(), revision: 0 };
        self.lock.holds(&self.id, &granted).map_err(|error| error.to_string())
    }

    fn leave(&mut self, token: &str, good: bool) -> Result<(), String> {
        match self.lock.unlock(&self.id, Some(token), good, "") {
            // Freed by somebody, or taken anew under another token, which is another wish of this machine.
            Ok(_) | Err(LockError::Refused(Refusal::NotHeld | Refusal::Another)) => self.leave_queue(),
            Err(error) => Err(error.to_string()),
        }
    }

    fn fail(&mut self, token: &str, reason: &str) -> Result<bool, String> {
        match self.lock.fail(&self.id, token, reason) {
            Ok(_) => Ok(true),
            Err(LockError::Refused(_)) => Ok(false),
            Err(error) => Err(error.to_string()),
        }
    }

    fn leave_queue(&mut self) -> Result<(), String> {
        if self.queued {
            self.lock.leave(&self.id).map_err(|error| error.to_string())?;
            (self.turn, self.queued) = (Turn::default(), false);
        }
        Ok(())
    }

    fn view(&mut self) -> Result<Option<View>, String> {
        let seen = self.lock.read().map_err(|error| error.to_string())?;
        let away: Vec<&str> = gone(&seen).map(|holder| holder.id.as_str()).collect();
        let semaphore = &seen.semaphore;
        let holders = semaphore.holders.iter().map(|holder| LockHolder {
            id: holder.id.clone(),
            since: holder.since,
            reason: holder.reason.clone(),
            failure: holder.failure.clone(),
            gone: away.contains(&holder.id.as_str()),
        });
        let stopped = semaphore.results.iter().filter_map(|outcomes| {
            let reason = outcomes.stopped.as_ref()?;
            Some(format!("release {}: {reason}", outcomes.release))
        });
        Ok(Some(View {
            available: semaphore.available(),
            max: semaphore.max,
            holders: holders.collect(),
            stopped: stopped.collect(),
        }))
    }
}

/// A place at a FleetLock server, which knows of no tokens: the machine has one or none.
#[derive(Debug)]
struct FleetPlace {
    server: FleetLock,
}

impl Backend for FleetPlace {
    fn step(&mut self, _: &Request, _: Duration) -> Result<Option<(String, Duration)>, String> {
        match self.server.pre_reboot() {
            Ok(()) => Ok(None),
            // It answers, as the protocol says: there is no place now.
            Err(error @ FleetLockError::Server { .. }) => Ok(Some((error.to_string(), FLEETLOCK_PAUSE))),
            Err(error) => Err(error.to_string()),
        }
    }

    fn holds(&mut self, _: &str) -> Result<bool, String> {
        // Asking again is the only way to know, and is allowed.
        match self.server.pre_reboot() {
            Ok(()) => Ok(true),
            Err(FleetLockError::Server { code: 423, .. }) => Ok(false),
            Err(error) => Err(error.to_string()),
        }
    }

    fn leave(&mut self, _: &str, _: bool) -> Result<(), String> {
        self.server.steady_state().map_err(|error| error.to_string())
    }

    fn fail(&mut self, _: &str, _: &str) -> Result<bool, String> {
        // Its place is kept by not being given back; the protocol knows no reasons.
        Ok(true)
    }

    fn leave_queue(&mut self) -> Result<(), String> {
        Ok(())
    }

    fn view(&mut self) -> Result<Option<View>, String> {
        Ok(None)
    }
}
