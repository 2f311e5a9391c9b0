//! What PID 1 does when it is asked.

use super::builtin;
use super::machine::Machine;
use crate::configuration::Offered;
use crate::console;
use crate::etc;
use crate::shutdown::Request as End;
use crate::state;
use ashlar_image::control::{Answer, Applied, Refusal, RefusalKind, Reply, Request};
use ashlar_image::state::CONFIGURATION_PCR;
use std::time::Duration;

fn failed(error: impl std::fmt::Display, advice: &str) -> Refusal {
    Refusal { kind: RefusalKind::Failed, message: error.to_string(), advice: advice.into() }
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
                if !self.progress.ready || !problems.is_empty() {
                    let message = if self.progress.ready {
                        problems.join("\n")
                    } else {
                        "the machine is not ready".into()
                    };
                    let advice = "the boot is good only when the machine is ready and has no problem".into();
                    return Err(Refusal { kind: RefusalKind::Conflict, message, advice });
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
