//! What PID 1 does when it is asked.

use super::builtin;
use super::machine::Machine;
use crate::configuration::Offered;
use crate::console;
use crate::etc;
use crate::shutdown::Request as End;
use crate::{state, trial};
use ashlar_image::control::{Answer, Applied, Refusal, RefusalKind, Reply, Request};
use ashlar_image::state::CONFIGURATION_PCR;
use std::time::Duration;

fn failed(error: impl std::fmt::Display, advice: &str) -> Refusal {
    Refusal { kind: RefusalKind::Failed, message: error.to_string(), advice: advice.into() }
}

/// Why a boot is not committed; none if it is good. `goes_back` tells whether the firmware would start the other release
/// the next time: one that was committed then could not be left, and the other one not open the state volume.
fn not_good(waits_for: &[String], problems: &[String], goes_back: bool) -> Option<Refusal> {
    let (message, advice) = if !waits_for.is_empty() {
        (format!("the machine is not ready: it waits for {}", waits_for.join(", ")), "ask again when it is")
    } else if !problems.is_empty() {
        (problems.join("\n"), "the boot is good only when the machine has no problem")
    } else if goes_back {
        (
            "the firmware would start the other release the next time".to_owned(),
            "put this release's entry first in `BootOrder`, then ask again",
        )
    } else {
        return None;
    };
    Some(Refusal { kind: RefusalKind::Conflict, message, advice: advice.into() })
}

impl Machine {
    /// The answer to a request; what it asks for is done or begun.
    pub(super) fn answer(&mut self, request: Request, now: Duration) -> Answer {
        match self.fulfil(request, now) {
            Ok(reply) => Answer::Ok(reply),
            Err(refusal) => Answer::Error(refusal),
        }
    }

    fn fulfil(&mut self, request: Request, now: Duration) -> Result<Reply, Refusal> {
        match request {
            Request::Status => Ok(Reply::Status(Box::new(self.status(now)))),
            Request::Services => Ok(Reply::Services(self.supervisor.states(now))),
            Request::Service { name, action } => {
                self.supervisor.control(&name, action, now)?;
                Ok(Reply::Done)
            }
            Request::Configuration => Ok(Reply::Configuration(self.configuration.state())),
            Request::Configure { envelope, dry_run } => {
                let offered = self.configuration.offer(&envelope)?;
                let misfits = self.supervisor.misfits(Some(offered.config()));
                if !misfits.is_empty() {
                    return Err(Refusal {
                        kind: RefusalKind::Invalid,
                        message: misfits.join("\n"),
                        advice: "correct it and sign it again; the one in force stays".into(),
                    });
                }
                if dry_run {
                    return Ok(Reply::Applied(self.configuration.changes(&offered)));
                }
                self.configure(offered, now).map(Reply::Applied)
            }
            Request::Measurements => self
                .measurements()
                .map(Reply::Measurements)
                .map_err(|error| failed(error, "look at the TPM in the firmware's set-up")),
            Request::Reboot => {
                self.end_soon(End::Reboot, now);
                Ok(Reply::Done)
            }
            Request::PowerOff => {
                self.end_soon(End::PowerOff, now);
                Ok(Reply::Done)
            }
            Request::Commit => {
                let problems = self.problems(now);
                let goes_back = self.trial.is_trial() && trial::now_is_trial();
                if let Some(refusal) = not_good(&self.waits_for(now), &problems, goes_back) {
                    return Err(refusal);
                }
                self.commit().map_err(|error| failed(error, "look at the TPM in the firmware's set-up"))?;
                self.trial.succeed();
                Ok(Reply::Done)
            }
            Request::GiveUp(failure) => {
                if !self.trial.is_trial() {
                    let message = "this boot is no trial of a release".into();
                    return Err(Refusal {
                        kind: RefusalKind::Conflict,
                        message,
                        advice: "nothing is to be done".into(),
                    });
                }
                self.give_up(&failure.check, &failure.reason, now);
                Ok(Reply::Done)
            }
            Request::Reseal { recovery_key } => {
                let version = self.manifest.security_version;
                state::reseal(&mut self.boot.state, version, &recovery_key, self.measurer.tpm())?;
                console::info("the state volume's key was sealed anew");
                Ok(Reply::Done)
            }
        }
    }

    /// Applies a configuration as a whole: network first, because it is what the kernel may refuse; then it is kept
    /// and measured, and the rest follows it.
    fn configure(&mut self, offered: Offered, now: Duration) -> Result<Applied, Refusal> {
        let applied = self.configuration.changes(&offered);
        self.network.apply(Some(offered.config()), now).map_err(|error| Refusal {
            kind: RefusalKind::Invalid,
            message: format!("network: {error}"),
            advice: "the configuration before stays in force; correct the named setting".into(),
        })?;
        let digest = offered.digest();
        if let Err(error) = self.configuration.accept(offered) {
            // The kernel has taken these settings before.
            let _ = self.network.apply(self.configuration.config(), now);
            return Err(failed(error, "look at the state volume's disk"));
        }
        self.measurer
            .extend(CONFIGURATION_PCR, "machine configuration", digest)
            .map_err(|error| failed(error, "restart the machine"))?;
        self.follow_configuration(now);
        console::info(format_args!("machine configuration {} is in force", applied.serial));
        Ok(applied)
    }

    /// Makes everything but the network follow the configuration in force.
    pub(super) fn follow_configuration(&mut self, now: Duration) {
        let config = self.configuration.config();
        if let Err(error) = self.etc.update(&self.manifest, config, Some(&self.boot.state.machine_id)) {
            console::error(error);
        }
        super::name_machine(etc::host_name(&self.manifest, config));
        self.supervisor.apply(config, now);
        match builtin::control(config) {
            Ok(service) => self.supervisor.change_service(builtin::CONTROL, service, now),
            Err(error) => console::error(error),
        }
        self.progress.forget_network();
        self.follow_network(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_good_boot_is_committed() {
        let list = |items: &[&str]| items.iter().map(|item| (*item).to_owned()).collect::<Vec<String>>();
        assert_eq!(not_good(&[], &[], false), None);
        for (waits, problems, goes_back, message) in [
            (list(&["web", "addresses"]), list(&[]), false, "not ready: it waits for web, addresses"),
            (list(&[]), list(&["a", "b"]), false, "a\nb"),
            (list(&[]), list(&[]), true, "would start the other release"),
        ] {
            let refusal = not_good(&waits, &problems, goes_back).unwrap();
            assert_eq!(refusal.kind, RefusalKind::Conflict);
            assert!(refusal.message.contains(message), "{refusal:?}");
        }
    }
}
