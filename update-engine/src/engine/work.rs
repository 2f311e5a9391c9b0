//! Looking at the channel, staging, restarting, going back.

use super::{Engine, random};
use crate::channel::{self, Opened};
use crate::error::UpdateError;
use crate::hardware::Hardware;
use crate::machine;
use crate::saved::{Failures, Staged};
use crate::staging::{self, Attempts, Needs, Settings};
use ashlar_blocks::{Hashing, Leaves, verity};
use ashlar_channel::{Decision, Offer, Options};
use ashlar_image::cmdline::VerityRoot;
use ashlar_image::control::{Request, Status};
use ashlar_image::machine::UpdatePolicy;
use ashlar_image::release::Release;
use ashlar_image::update::{Barred, Choice, UpdatePhase, UpdatePlan};
use ashlar_measured_boot::uki::Uki;
use ashlar_slots::check::{Sealing, starts};
use ashlar_slots::swap::{Judges, SlotDisks};
use ashlar_slots::{Enabled, entries};
use ashlar_tuf::{Clock, Role};
use std::path::Path;
use std::sync::atomic::Ordering;

/// How long the restart can be put off at most, in seconds.
const MAX_POSTPONE: u64 = 7 * 24 * 3600;
const BLOCK: u64 = 4096;

/// Seconds since 1970 for people.
pub(super) fn time(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).map_or_else(|_| seconds.to_string(), |time| time.to_string())
}

/// Without the zeros that fill a section up.
fn text(section: &[u8]) -> String {
    String::from_utf8_lossy(section).trim_end_matches('\0').to_owned()
}

impl Engine {
    fn open(&mut self) -> Result<Opened, UpdateError> {
        let source = channel::server(&self.config)?;
        self.open_source(source)
    }

    fn open_source(&mut self, source: Box<dyn ashlar_fetch::Source>) -> Result<Opened, UpdateError> {
        let channel = self.config.channel.clone().ok_or(UpdateError::NoChannel)?;
        let clock = Clock { now: self.now(), built: self.built };
        let opened = channel::open(source, &channel, &self.folder.join("trust"), clock)?;
        if let Some(trusted) = opened.client.trusted() {
            let mut expires = vec![(Role::Root, trusted.root().expires)];
            expires.extend(trusted.timestamp().map(|timestamp| (Role::Timestamp, timestamp.expires)));
            expires.extend(trusted.snapshot().map(|snapshot| (Role::Snapshot, snapshot.expires)));
            expires.extend(trusted.targets(&Role::Targets).map(|targets| (Role::Targets, targets.expires)));
            self.shared.count(|counters| {
                counters.expires =
                    expires.into_iter().map(|(role, time)| (role.name().to_owned(), time)).collect();
            });
        }
        Ok(opened)
    }

    /// Looks at the channel and remembers what it offers.
    pub(super) fn check(&mut self, options: &Options) -> Result<(Opened, Option<Offer>), UpdateError> {
        self.shared.change(|seen| seen.phase = UpdatePhase::Checking);
        let opened = self.open()?;
        self.look(opened, options)
    }

    fn look(&mut self, opened: Opened, options: &Options) -> Result<(Opened, Option<Offer>), UpdateError> {
        let now = self.now();
        let status = self.pid1.status()?;
        let (decision, whys) = opened.decide(&self.machine(&status), options, now);
        for why in whys {
            self.shared.decide(format!("release {}: {}", why.version, why.reason), now);
        }
        let (result, offer) = match decision {
            Decision::UpToDate => ("no update: nothing is newer".to_owned(), None),
            Decision::Update { offer, back: false } => {
                (format!("release {} is there", offer.version), Some(offer))
            }
            Decision::Update { offer, back: true } => {
                (format!("back to release {}", offer.version), Some(offer))
            }
            Decision::NotYet { version, opens_at: Some(at) } => {
                (format!("not for this machine yet: release {version} opens for it at {}", time(at)), None)
            }
            Decision::NotYet { version, opens_at: None } => (
                format!("not for this machine: the rollout of release {version} does not reach it yet"),
                None,
            ),
            Decision::Held(held) => (format!("nothing for this machine: {}", held.text()), None),
        };
        self.shared.decide(result.clone(), now);
        self.shared.count(|counters| counters.checks += 1);
        self.saved.collector.clone_from(&opened.document.collector);
        self.saved.last_check = Some(now);
        self.saved.last_result = Some(result);
        self.shared.change(|seen| {
            seen.phase = if offer.is_some() { UpdatePhase::Available } else { UpdatePhase::Idle };
            seen.target = offer.as_ref().map(|offer| offer.version.clone());
            seen.last_error = None;
        });
        self.save()?;
        Ok((opened, offer))
    }

    /// What the policy says, when it is time to look.
    pub(super) fn automatic(&mut self) {
        let result = self.check(&Options::default()).and_then(|(opened, offer)| {
            let Some(offer) = offer else { return Ok(()) };
            let now = self.now();
            if machine::is_given_up(&self.saved.failures, &offer.version) {
                let text = format!(
                    "release {} was tried {} times and is given up",
                    offer.version, self.saved.failures.count
                );
                self.shared.decide(text, now);
                return Ok(());
            }
            if self.config.update.policy == UpdatePolicy::Download
                && self.saved.downloaded.as_ref() == Some(&offer.version)
            {
                self.shared.decide(format!("release {} is downloaded; held by policy", offer.version), now);
                return Ok(());
            }
            let arm = self.config.update.policy == UpdatePolicy::Stage;
            let enable = self.config.update.policy != UpdatePolicy::Download;
            self.shared.busy.store(true, Ordering::Relaxed);
            let result = self.stage_offer(opened, &offer, enable, arm);
            self.shared.cancel.store(false, Ordering::Relaxed);
            self.shared.busy.store(false, Ordering::Relaxed);
            result
        });
        match result {
            Ok(()) => {
                if self.saved.failures.count > 0 && self.saved.staged.is_some() {
                    self.saved.failures = Failures::default();
                    let _ = self.save();
                } else if self.saved.failures.count > 0 {
                    // The look has gone well: the next one comes at its usual time.
                    self.saved.failures.not_before =
                        self.now() + i64::try_from(self.config.update.check_interval.0).unwrap_or(3600);
                    let _ = self.save();
                }
                self.show();
            }
            Err(error) => self.failed("stage", &error),
        }
    }

    fn options(choice: &Choice) -> Options {
        Options { ignore_rollout: choice.now, version: choice.version.clone(), ignore_barred: choice.force }
    }

    /// Looks for what is chosen.
    pub(super) fn wanted(&mut self, choice: &Choice) -> Result<(Opened, Offer), UpdateError> {
        self.refuse_in_trial()?;
        let (opened, offer) = self.check(&Self::options(choice))?;
        let result = self.saved.last_result.clone().unwrap_or_default();
        offer.map(|offer| (opened, offer)).ok_or(UpdateError::Refused(result))
    }

    fn refuse_in_trial(&self) -> Result<(), UpdateError> {
        if self.trial.is_some() {
            return Err(UpdateError::Refused("this boot is a trial: its checks are not over".into()));
        }
        Ok(())
    }

    /// Stages from an offline bundle.
    pub(super) fn stage_bundle(&mut self, path: &Path, arm: bool) -> Result<(), UpdateError> {
        self.refuse_in_trial()?;
        let (source, files) = channel::bundle(path)?;
        let opened = self.open_source(source)?;
        let options = Options { ignore_rollout: true, ..Options::default() };
        let (mut opened, mut offer) = self.look(opened, &options)?;
        // A bundle holds some releases of its channel.
        if let Some(wanted) = &offer {
            let running = self.pid1.status()?.image_version;
            let inside = channel::newest_inside(&opened.document, &files, &wanted.version).filter(|inside| {
                *inside == wanted.version || ashlar_channel::compare(inside, &running).is_gt()
            });
            let inside = inside.ok_or_else(|| {
                let text =
                    format!("the bundle holds neither release {} nor another newer one", wanted.version);
                UpdateError::Refused(text)
            })?;
            if inside != wanted.version {
                let options = Options { version: Some(inside), ..options };
                (opened, offer) = self.look(opened, &options)?;
            }
        }
        let result = self.saved.last_result.clone().unwrap_or_default();
        let offer = offer.ok_or(UpdateError::Refused(result))?;
        self.stage_offer(opened, &offer, true, arm)
    }

    /// How a release is judged on this machine.
    fn judges(&self, status: &Status) -> Result<Judges, UpdateError> {
        let databases = if status.secure_boot { Some(self.hardware.databases()?) } else { None };
        let sealing = match status.rollback_floor {
            None => None,
            Some(floor) => {
                let pcr7 = self.pid1.measurements()?.pcrs.get(&7).copied().unwrap_or_default();
                let uki = self.hardware.slot(self.hardware.running())?.uki()?;
                let parsed = Uki::parse(&uki).map_err(|error| UpdateError::Release(error.to_string()))?;
                let key = parsed.section(".pcrpkey").map(text).unwrap_or_default().into_bytes();
                Some(Sealing { pcr7, floor, key })
            }
        };
        Ok(Judges { databases, sealing })
    }

    pub(super) fn stage_offer(
        &mut self,
        mut opened: Opened,
        offer: &Offer,
        enable: bool,
        arm: bool,
    ) -> Result<(), UpdateError> {
        let status = self.pid1.status()?;
        let version = offer.version.clone();
        // Before anything is written: is it the one, and has it room?
        let (release, bytes) = opened.release(offer, status.rollback_floor.unwrap_or(0))?;
        let judges = self.judges(&status)?;
        self.forget_staged()?;
        self.shared.change(|seen| {
            seen.phase = UpdatePhase::Staging;
            seen.target = Some(version.clone());
            seen.last_error = None;
        });
        self.shared
            .decide(format!("release {version} is staged to slot {}", self.other().letter()), self.now());
        let attempts = Attempts::new(random());
        let shared = self.shared.clone();
        let settings = Settings {
            connections: usize::try_from(self.config.update.connections).unwrap_or(1),
            cancel: &shared.cancel,
            attempts: &attempts,
            enable,
        };
        let mut fetched = 0;
        let result =
            staging::stage(&mut opened, &release, &*self.hardware, &judges, &settings, &mut |progress| {
                fetched = progress.fetched;
                shared.change(|seen| seen.progress = Some(progress));
            });
        self.shared.count(|counters| counters.fetched += fetched);
        let enabled = result?;
        let Some(enabled) = enabled else {
            self.note(&version, "downloaded", &format!("{fetched} bytes fetched; it cannot start yet"));
            self.saved.downloaded = Some(version);
            return self.save();
        };
        self.files.set_release(&bytes)?;
        let staged = Staged {
            version: version.clone(),
            slot: self.other().letter(),
            armed: false,
            back: false,
            time: self.now(),
            now: false,
        };
        self.saved.staged = Some(staged);
        self.saved.postponements = 0;
        self.saved.downloaded = None;
        self.saved.failures = Failures::default();
        self.save()?;
        self.shared.count(|counters| counters.staged += 1);
        self.note(&version, "staged", &format!("{fetched} bytes fetched; read back and judged"));
        if arm { self.arm(&enabled) } else { Ok(()) }
    }

    /// Nothing is staged any more.
    fn forget_staged(&mut self) -> Result<(), UpdateError> {
        entries::cancel(&mut *self.hardware.variables())?;
        self.saved.staged = None;
        self.saved.downloaded = None;
        self.save()
    }

    /// The firmware starts the staged release next, once.
    fn arm(&mut self, enabled: &Enabled) -> Result<(), UpdateError> {
        enabled.try_next(&mut *self.hardware.variables())?;
        // After the variable: were the power to go between, the release has its try, and is at worst tried once more.
        if let Some(staged) = &mut self.saved.staged {
            staged.armed = true;
        }
        self.save()
    }

    /// Restarts into the staged release, after its slot was read and judged once more and the hook has ended well.
    pub(super) fn restart(&mut self) -> Result<(), UpdateError> {
        let staged = self.saved.staged.clone();
        let staged = staged.ok_or_else(|| UpdateError::Refused("no release is staged".into()))?;
        self.shared.change(|seen| seen.phase = UpdatePhase::Restarting);
        if staged.back {
            // Judged and ordered when somebody asked for it.
            self.run_pre_reboot()?;
            self.check_place()?;
        } else {
            let enabled = self.judge_again(&staged)?;
            self.run_pre_reboot()?;
            // Before the firmware is told: a machine without a place must not start it by chance.
            self.check_place()?;
            self.arm(&enabled)?;
        }
        self.shared.decide(format!("the machine restarts into release {}", staged.version), self.now());
        self.tell(&Request::Reboot)
    }

    /// The staged release once more, whole: a disk may fail while it lies there.
    fn judge_again(&mut self, staged: &Staged) -> Result<Enabled, UpdateError> {
        let bytes = self.files.release()?;
        let bytes = bytes.ok_or_else(|| UpdateError::State("`release.json` is missing".into()))?;
        let release: Release = serde_json::from_slice(&bytes)
            .map_err(|error| UpdateError::State(format!("`release.json` is damaged: {error}")))?;
        let judges = self.judges(&*self.pid1.status()?)?;
        let disks = self.hardware.slot(self.other())?;
        Enabled::again(disks, &release, &judges, &mut |_| {}).map_err(|error| {
            // It was good when it was staged.
            let reason = error.to_string();
            let barred = Barred {
                version: staged.version.clone(),
                check: "read-back".into(),
                reason: reason.clone(),
                time: self.now(),
            };
            self.saved.bar(barred);
            self.note(&staged.version, "failed", &reason);
            if let Err(error) = self.forget_staged() {
                eprintln!("{error}");
            }
            error.into()
        })
    }

    /// The restart that the policy asks for: only into what the channel still offers.
    pub(super) fn automatic_restart(&mut self) -> Result<(), UpdateError> {
        let staged = self.saved.staged.as_ref().map(|staged| staged.version.clone()).unwrap_or_default();
        if let Ok(opened) = self.open() {
            let withdrawn = opened.document.offer(&staged).is_none_or(|offer| offer.withdrawn.is_some());
            if withdrawn {
                self.shared.decide(
                    format!("release {staged} was withdrawn after it was staged: it is not started"),
                    self.now(),
                );
                self.note(&staged, "cancelled", "the channel has withdrawn it");
                return self.forget_staged();
            }
        }
        self.restart()
    }

    /// Takes a staged release back.
    pub(super) fn cancel(&mut self) -> Result<(), UpdateError> {
        if self.saved.reboot.take().is_some() {
            self.save()?;
        }
        let Some(staged) = self.saved.staged.clone() else { return Ok(()) };
        self.forget_staged()?;
        self.note(&staged.version, "cancelled", "somebody asked for it");
        Ok(())
    }

    /// Puts the restart off.
    pub(super) fn postpone(&mut self, seconds: u64) -> Result<(), UpdateError> {
        if seconds > MAX_POSTPONE {
            return Err(UpdateError::Refused(format!(
                "a restart is put off for {MAX_POSTPONE} seconds at most"
            )));
        }
        self.saved.postponed_until = self.now().saturating_add(i64::try_from(seconds).unwrap_or(0));
        self.shared
            .decide(format!("the restart is put off until {}", time(self.saved.postponed_until)), self.now());
        self.save()
    }

    /// Forgets that a release has failed.
    pub(super) fn unbar(&mut self, version: &str) -> Result<(), UpdateError> {
        let before = self.saved.barred.len();
        self.saved.barred.retain(|barred| barred.version != version);
        if self.saved.barred.len() == before {
            return Err(UpdateError::Refused(format!("release {version} is not barred")));
        }
        self.saved.failures = Failures::default();
        self.note(version, "unbarred", "somebody asked for it");
        self.save()
    }

    /// Restarts into the other slot, if what lies there is whole and signed.
    pub(super) fn roll_back(&mut self) -> Result<(), UpdateError> {
        self.refuse_in_trial()?;
        let running = self.hardware.slot(self.hardware.running())?;
        let disks = self.hardware.slot(self.other())?;
        let status = self.pid1.status()?;
        let version = whole(&disks, &*self.hardware, &status, &self.judges(&status)?)?;
        let mut variables = self.hardware.variables();
        entries::commit(&mut *variables, running.slot, &running.place)?;
        entries::try_next(&mut *variables, disks.slot, &disks.place)?;
        self.saved.staged = Some(Staged {
            version: version.clone(),
            slot: disks.slot.letter(),
            armed: true,
            back: true,
            time: self.now(),
            now: false,
        });
        self.save()?;
        let back = format!("back from {}", status.image_version);
        self.note(&version, "rolled-back", &back);
        // The policy must not bring it back at once.
        self.saved.bar(Barred {
            version: status.image_version.clone(),
            check: "rollback".into(),
            reason: "somebody went back from it".into(),
            time: self.now(),
        });
        self.save()?;
        self.restart_now()
    }

    /// What staging would do.
    pub(super) fn plan(&mut self, choice: &Choice) -> Result<UpdatePlan, UpdateError> {
        let (mut opened, offer) = self.wanted(choice)?;
        let status = self.pid1.status()?;
        let (release, _) = opened.release(&offer, status.rollback_floor.unwrap_or(0))?;
        let needs = Needs::find(&mut opened, &release, &*self.hardware)?;
        let target = self.hardware.slot(self.other())?;
        let mut obstacles: Vec<String> =
            target.fits(&release).err().map(|error| error.to_string()).into_iter().collect();
        let state_volume = self.state_volume(&release, &status)?;
        obstacles.extend(state_volume.clone());
        let checks = ["network", "state", "containers", "machine", "channel"].map(str::to_owned).into_iter();
        let owners = self.config.update.health.iter().map(|health| format!("health {}", health.name));
        let now = self.now();
        let slot = self.other().letter();
        let restart = match crate::windows::next_open(&self.config.update.windows, now) {
            Some(at) if at <= now => "a window is open now".to_owned(),
            Some(at) => format!("the next window opens at {}", time(at)),
            None => "no window opens in the next week".to_owned(),
        };
        Ok(UpdatePlan {
            version: offer.version.clone(),
            slot: slot.to_string(),
            parts: needs.parts(),
            fetch_bytes: needs.fetch_bytes(),
            requests: needs.requests(),
            state_volume,
            obstacles,
            steps: vec![
                format!("slot {slot} loses its bootability"),
                format!("{} bytes are fetched, everything else is copied from slot {}", needs.fetch_bytes(), self.hardware.running().letter()),
                "the slot is flushed, read back and compared with the signed release".into(),
                "the UKI is judged as the firmware will (db, dbx), its policy as the TPM will (PCR 7, PCR 11)".into(),
                "the slot gets its first block and its boot entry, then one try (BootNext)".into(),
                format!("after the restart the checks have {} s", self.config.update.trial_deadline.0),
                "passed: it is what starts (BootOrder), then the rollback floor is raised; failed: the old slot starts again".into(),
            ],
            checks: checks.chain(owners).collect(),
            restart,
            notes: offer.notes.clone(),
        })
    }

    /// Why the state volume would stay closed, as far as the release's description tells.
    fn state_volume(&self, release: &Release, status: &Status) -> Result<Option<String>, UpdateError> {
        let Some(floor) = status.rollback_floor else { return Ok(None) };
        let Some(policy) = &release.state_policy else {
            return Ok(Some("the release signs no policy for the state volume".into()));
        };
        let pcr7 = self.pid1.measurements()?.pcrs.get(&7).copied().unwrap_or_default();
        if !policy.pcr7.contains(&pcr7) {
            return Ok(Some(format!("the release does not sign for this machine's PCR 7 ({pcr7})")));
        }
        Ok((!policy.generations.contains(&floor))
            .then(|| format!("the release signs for no machine of security version {floor}")))
    }
}

/// Whether a slot holds a whole release that this machine starts: its UKI is signed, and the root is the one that the UKI's
/// signed command line names. Gives the version.
fn whole(
    disks: &SlotDisks,
    hardware: &dyn Hardware,
    status: &Status,
    judges: &Judges,
) -> Result<String, UpdateError> {
    let refuse = |reason: String| UpdateError::Refused(format!("the other slot cannot be started: {reason}"));
    let bytes = disks.uki().map_err(|_| refuse("it holds no release".into()))?;
    if status.secure_boot {
        starts(&bytes, &hardware.databases()?)?;
    }
    if let Some(sealing) = &judges.sealing {
        ashlar_slots::check::opens(&bytes, sealing)?;
    }
    let uki = Uki::parse(&bytes).map_err(|error| refuse(error.to_string()))?;
    let section = |name: &str| uki.section(name).map(text).unwrap_or_default();
    let root = VerityRoot::parse(&section(".cmdline")).map_err(|error| refuse(error.to_string()))?;
    let hashing = Hashing::Verity { salt: root.salt };
    if root.data_blocks > disks.root.size() / BLOCK {
        return Err(refuse("its root is longer than the partition".into()));
    }
    let leaves =
        Leaves::of(hashing, root.data_blocks, |block, buffer| disks.root.read_back(block * BLOCK, buffer))?;
    verity::partition(hashing, [0; 16], &leaves, root.root_hash)?;
    let release = section(".osrel");
    let version = release.lines().find_map(|line| line.strip_prefix("IMAGE_VERSION="));
    Ok(version.unwrap_or("unknown").trim_matches('"').to_owned())
}
