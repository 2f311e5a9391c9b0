//! What the machine says of itself: one status for the control API, the console and the report.

use super::machine::Machine;
use crate::console;
use crate::report;
use crate::{efi, state};
use ashlar_image::control::{Measurements, Status};
use ashlar_image::report::Report;
use rustix::time::ClockId;
use std::time::Duration;

impl Machine {
    /// Everything that is not as it should be, one line each.
    pub(super) fn problems(&self, now: Duration) -> Vec<String> {
        let mut problems = self.care.differences();
        problems.extend(self.supervisor.problems(now));
        problems.extend(self.journal.problems());
        problems.extend(self.network.problems());
        problems.extend(self.time.problem());
        if let Some(refused) = self.configuration.refused() {
            problems.push(format!("a machine configuration was refused: {refused}"));
        }
        if self.boot.state.how == state::How::RecoveryKey {
            problems.push("the state volume was opened with the recovery key".into());
        }
        problems
    }

    /// The machine's state.
    pub(super) fn status(&self, now: Duration) -> Status {
        let problems = self.problems(now);
        Status {
            machine_id: Some(self.boot.state.machine_id.clone()),
            hostname: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            image_id: self.manifest.image_id.clone(),
            image_version: self.manifest.image_version.clone(),
            security_version: self.manifest.security_version,
            rollback_floor: state::floor(&self.boot.state),
            slot: self.boot.root_partition.clone(),
            root_hash: self.boot.root_hash,
            kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
            secure_boot: efi::secure_boot(),
            state: self.boot.state.how.title().into(),
            good: self.progress.ready && problems.is_empty(),
            ready: self.progress.ready,
            problems,
            last_boot: self.care.last_boot().map(str::to_owned),
            last_boot_release: self.care.last_release().map(str::to_owned),
            addresses: self.network.addresses(),
            time_server: self.time.synchronized().map(str::to_owned),
            trial: self.trial.state(now, || self.waits_for(now)),
            trial_failure: self.trial.before().cloned(),
            watchdog: self.care.watchdog(),
            uptime_seconds: now.as_secs_f64(),
            time: rustix::time::clock_gettime(ClockId::Realtime).tv_sec,
            configuration_serial: self.configuration.serial(),
            services: self.supervisor.states(now),
        }
    }

    /// What was measured, with the PCRs as they are now.
    pub(super) fn measurements(&mut self) -> Result<Measurements, crate::error::Error> {
        Ok(Measurements {
            pcrs: self.measurer.pcrs()?,
            firmware_log: report::firmware_log(),
            init_log: self.measurer.log().to_vec(),
        })
    }

    /// Tells that the machine is ready: on the consoles, and to whoever reads the report's port.
    pub(super) fn tell_ready(&mut self, now: Duration) -> Result<(), crate::error::Error> {
        let Measurements { pcrs, firmware_log, init_log } = self.measurements()?;
        let status = self.status(now);
        let report = Report {
            image_id: status.image_id.clone(),
            image_version: status.image_version.clone(),
            root_hash: status.root_hash,
            root_partition: status.slot.clone(),
            kernel: status.kernel.clone(),
            secure_boot: status.secure_boot,
            lockdown: report::lockdown(),
            pcrs,
            firmware_log,
            init_log,
            services: status.services.clone(),
            addresses: status.addresses.clone(),
            uptime_seconds: status.uptime_seconds,
            status: Some(Box::new(status)),
        };
        console::info(format_args!("ready after {:.1} s", report.uptime_seconds));
        if let Some(status) = &report.status {
            self.care.show(status, now);
        }
        report::send(&report);
        Ok(())
    }
}
