//! `ashlar channel`

use super::{keys, print, print_json};
use crate::channel::text::{self, Moment, Plan};
use crate::channel::{self, Channels, ONLINE_KEY, Settings, Signers, State, Trust};
use crate::error::{BuildError, exit};
use crate::progress;
use crate::recipe::human;
use ashlar_channel::{Offer, WHOLE, Wave};
use ashlar_keys::KeyFolder;
use clap::{Args, Subcommand};
use serde::Serialize;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[derive(Debug, Subcommand)]
pub(super) enum Channel {
    /// Make a folder of channels, or further channels in one
    New(New),
    /// Verify a release, publish its blocks and offer it in a channel
    AddRelease(AddRelease),
    /// Offer a release of one channel in another too
    Promote(Promote),
    /// Let no machine take a release any more, with the reason
    Withdraw(Withdraw),
    /// Set who gets a release when, or stop a rollout where it is
    Rollout(Rollout),
    /// Change settings of a channel (recall, security version, collector) or of a release in it (floor, barrier, dead end, notes)
    Set(Set),
    /// Take a release out of a channel; where no other channel has it, its files are deleted
    Remove(Remove),
    /// Sign the timestamp anew, so that machines know that nothing is newer: for cron, once a day
    Refresh(Refresh),
    /// Put a new channel key or a new online key in the place of the old one; machines follow by themselves
    RotateKey(RotateKey),
    /// Verify all as a machine would, and tell what expires and which machines would be stuck
    Check(Check),
    /// Tell what is in the channels
    Show(Show),
    /// Write releases of a channel to a file that `ashlarctl update apply` takes, for machines without a network
    Bundle(Bundle),
}

/// Who signs and how the result is told.
#[derive(Debug, Args)]
struct Common {
    /// Folder of keys with the key `channel`
    #[arg(long, value_name = "DIR")]
    keys: Option<PathBuf>,
    /// The online key, which signs timestamp and snapshot [default: online.key in the folder of keys]
    #[arg(long, value_name = "FILE")]
    online_key: Option<PathBuf>,
    /// For how long machines take it without a `refresh`: 12h, 7d, 4w [default: 7d]
    #[arg(long, value_name = "SPAN", value_parser = text::span)]
    valid: Option<u32>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Common {
    fn folder(&self) -> Result<Option<KeyFolder>, BuildError> {
        self.keys.as_deref().map(keys::open).transpose()
    }

    /// Where the online key is, if it is said or known.
    fn online_path(&self) -> Option<PathBuf> {
        self.online_key.clone().or_else(|| self.keys.as_ref().map(|keys| keys.join(ONLINE_KEY)))
    }

    fn signers<'a>(&self, folder: Option<&'a KeyFolder>) -> Result<Signers<'a>, BuildError> {
        let online = self.online_path().map(|path| channel::read_online(&path)).transpose()?;
        Ok(Signers { owner: folder, online })
    }

    fn open(&self, repository: &Path) -> Result<Channels, BuildError> {
        Channels::open(repository, channel::lifetimes(self.valid))
    }

    /// Says what was done.
    fn done<T: Serialize>(
        &self,
        channels: &Channels,
        result: &T,
        text: &str,
    ) -> Result<ExitCode, BuildError> {
        let state = channels.state();
        if self.json {
            print_json(&Done { result, repository: &state })?;
        } else {
            print(&format!(
                "{text}\nmachines take it until {}; then `ashlar channel refresh` is needed\n",
                until(&state)
            ));
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// What `--json` prints.
#[derive(Serialize)]
struct Done<'a, T> {
    result: &'a T,
    repository: &'a State,
}

fn until(state: &State) -> String {
    state
        .expires
        .iter()
        .min_by_key(|expiry| expiry.time)
        .map_or_else(String::new, |expiry| expiry.text.clone())
}

/// Settings of a release in a channel.
#[derive(Debug, Args)]
struct OfferSettings {
    /// Older machines must pass through it
    #[arg(long, conflicts_with = "no_floor")]
    floor: bool,
    /// Older machines need not pass through it
    #[arg(long)]
    no_floor: bool,
    /// Older machines must pass through it, for this reason; an empty text takes it away
    #[arg(long, value_name = "TEXT")]
    barrier: Option<String>,
    /// Machines that run it get nothing more; what their operator must do
    #[arg(long, value_name = "TEXT")]
    dead_end: Option<String>,
    /// What is new
    #[arg(long, value_name = "TEXT")]
    notes: Option<String>,
}

/// Who gets a release when.
#[derive(Debug, Args)]
struct Waves {
    /// When the first machine gets it: now, +12h, 2026-11-01T08:00:00Z [default: now]
    #[arg(long, value_name = "TIME", value_parser = text::moment)]
    rollout_start: Option<Moment>,
    /// How long it takes until the last machine gets it: 12h, 3d [default: all at once]
    #[arg(long, value_name = "SPAN", value_parser = text::span)]
    duration: Option<u32>,
    /// How many of the machines get it: 10%, 0.1 [default: all]
    #[arg(long, value_name = "SHARE", value_parser = text::share)]
    fraction: Option<u32>,
    /// A wave, START/DURATION/SHARE, such as +1d/12h/10%; may be given more than once, in order
    #[arg(long, value_name = "WAVE", value_parser = text::wave, conflicts_with_all = ["rollout_start", "duration", "fraction"])]
    wave: Vec<Plan>,
}

impl Waves {
    /// The waves; none if nothing was said.
    fn get(&self, now: i64) -> Option<Vec<Wave>> {
        if !self.wave.is_empty() {
            return Some(self.wave.iter().map(|plan| plan.wave(now)).collect());
        }
        if self.rollout_start.is_none() && self.duration.is_none() && self.fraction.is_none() {
            return None;
        }
        Some(vec![Wave {
            start: self.rollout_start.unwrap_or(Moment::In(0)).at(now),
            duration: self.duration.unwrap_or(0),
            share: self.fraction.unwrap_or(WHOLE),
        }])
    }
}

impl OfferSettings {
    fn get(self, rollout: Option<Vec<Wave>>) -> Settings {
        Settings {
            floor: (self.floor || self.no_floor).then_some(self.floor),
            barrier: self.barrier,
            dead_end: self.dead_end,
            notes: self.notes,
            rollout,
        }
    }
}

#[derive(Debug, Args)]
pub(super) struct New {
    /// The folder
    repository: PathBuf,
    /// `IMAGE_ID` of the releases, as in the recipe
    #[arg(long, value_name = "ID")]
    image_id: String,
    /// Their architecture
    #[arg(long, value_name = "NAME", default_value = ashlar_image::release::ARCHITECTURE)]
    architecture: String,
    /// A channel; may be given more than once, or as a list
    #[arg(long, value_name = "NAME", value_delimiter = ',', default_values = ["stable", "beta", "alpha"])]
    channel: Vec<String>,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
pub(super) struct AddRelease {
    /// The folder of channels
    repository: PathBuf,
    /// The release's folder, as `ashlar build` has written it
    release: PathBuf,
    /// The channel
    #[arg(long, value_name = "NAME")]
    channel: String,
    #[command(flatten)]
    settings: OfferSettings,
    #[command(flatten)]
    waves: Waves,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
pub(super) struct Promote {
    /// The folder of channels
    repository: PathBuf,
    /// The release
    version: String,
    /// The channel that has it
    #[arg(long, value_name = "NAME")]
    from: String,
    /// The channel that gets it
    #[arg(long, value_name = "NAME")]
    to: String,
    #[command(flatten)]
    settings: OfferSettings,
    #[command(flatten)]
    waves: Waves,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
pub(super) struct Withdraw {
    /// The folder of channels
    repository: PathBuf,
    /// The release
    version: String,
    /// The channel
    #[arg(long, value_name = "NAME")]
    channel: String,
    /// Why; machines show it
    #[arg(long, value_name = "TEXT", required_unless_present = "undo")]
    reason: Option<String>,
    /// Offer it again
    #[arg(long, conflicts_with = "reason")]
    undo: bool,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
pub(super) struct Rollout {
    /// The folder of channels
    repository: PathBuf,
    /// The release
    version: String,
    /// The channel
    #[arg(long, value_name = "NAME")]
    channel: String,
    /// No further machine gets it
    #[arg(long, conflicts_with_all = ["all", "wave", "rollout_start", "duration", "fraction"])]
    stop: bool,
    /// All machines get it at once
    #[arg(long, conflicts_with_all = ["wave", "rollout_start", "duration", "fraction"])]
    all: bool,
    #[command(flatten)]
    waves: Waves,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
pub(super) struct Set {
    /// The folder of channels
    repository: PathBuf,
    /// The release that floor, barrier, dead end and notes are of
    version: Option<String>,
    /// The channel
    #[arg(long, value_name = "NAME")]
    channel: String,
    /// A recall: machines with a later version go back to the best release that is not; an empty text takes it away
    #[arg(long, value_name = "VERSION")]
    max_version: Option<String>,
    /// Machines take no release of the channel with a lower security version
    #[arg(long, value_name = "NUMBER")]
    minimum_security_version: Option<u64>,
    /// Where machines tell how an update went; an empty text takes it away
    #[arg(long, value_name = "URL")]
    collector: Option<String>,
    #[command(flatten)]
    settings: OfferSettings,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
pub(super) struct Remove {
    /// The folder of channels
    repository: PathBuf,
    /// The release
    version: String,
    /// The channel
    #[arg(long, value_name = "NAME")]
    channel: String,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
pub(super) struct Refresh {
    /// The folder of channels
    repository: PathBuf,
    /// Sign root and targets anew too, with `--keys`
    #[arg(long, requires = "keys")]
    root: bool,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
pub(super) struct RotateKey {
    /// The folder of channels
    repository: PathBuf,
    /// Folder of keys with the next key `channel`
    #[arg(long, value_name = "DIR")]
    new_keys: Option<PathBuf>,
    /// The next online key; it is made if it is not there
    #[arg(long, value_name = "FILE", required_unless_present = "new_keys")]
    new_online_key: Option<PathBuf>,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
pub(super) struct Check {
    /// A folder of channels, an offline bundle, or an address (http, https)
    place: String,
    /// The key that machines have: `channel.pub` of when the channels were made; without it the first root is believed
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Fail also where there are only warnings
    #[arg(long)]
    deny_warnings: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct Show {
    /// The folder of channels
    repository: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct Bundle {
    /// The folder of channels
    repository: PathBuf,
    /// The releases; where machines must pass through one, name that too
    #[arg(required = true)]
    versions: Vec<String>,
    /// The channel
    #[arg(long, value_name = "NAME")]
    channel: String,
    /// The file; an older one is replaced
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// For how long machines take it, signed with the online key: 30d, 12w [default: as long as the channels without a refresh]
    #[arg(long, value_name = "SPAN", value_parser = text::span)]
    lifetime: Option<u32>,
    #[command(flatten)]
    common: Common,
}

impl Channel {
    pub(super) fn run(self) -> Result<ExitCode, BuildError> {
        match self {
            Self::New(new) => new.run(),
            Self::AddRelease(add) => add.run(),
            Self::Promote(promote) => promote.run(),
            Self::Withdraw(withdraw) => withdraw.run(),
            Self::Rollout(rollout) => rollout.run(),
            Self::Set(set) => set.run(),
            Self::Remove(remove) => remove.run(),
            Self::Refresh(refresh) => refresh.run(),
            Self::RotateKey(rotate) => rotate.run(),
            Self::Check(check) => check.run(),
            Self::Show(show) => show.run(),
            Self::Bundle(bundle) => bundle.run(),
        }
    }
}

impl New {
    fn run(self) -> Result<ExitCode, BuildError> {
        let folder = self.common.folder()?;
        let path = self.common.online_path();
        let (mut made, exists) = (None, self.repository.join("1.root.json").exists());
        let mut signers = Signers { owner: folder.as_ref(), online: None };
        if let Some(path) = &path {
            let new = !path.exists() && !exists;
            signers.online =
                Some(if new { channel::make_online(path)? } else { channel::read_online(path)? });
            made = new.then_some(path);
        }
        let now = text::now();
        let lifetimes = channel::lifetimes(self.common.valid);
        let mut channels = Channels::create(&self.repository, &signers, lifetimes, now)?;
        let names = channel::create_channels(
            &mut channels,
            &self.channel,
            &self.image_id,
            &self.architecture,
            &signers,
            now,
        )?;
        let mut text = String::new();
        if let Some(path) = made {
            let _ = writeln!(
                text,
                "made the online key `{}`; it signs that nothing is newer, and no releases",
                path.display()
            );
        }
        let repository = self.repository.display();
        let _ = write!(
            text,
            "made the channels {} of {} ({}) in `{repository}`\nnext: ashlar channel add-release {repository} RELEASE --channel {} --keys KEYS",
            names.join(", "),
            self.image_id,
            self.architecture,
            names.last().map_or("", String::as_str),
        );
        self.common.done(&channels, &names, &text)
    }
}

/// Opens what a command that signs works on, runs it, and says what was done.
macro_rules! with {
    ($self:ident, $channels:ident, $signers:ident, $now:ident, $work:expr) => {{
        let folder = $self.common.folder()?;
        let $signers = $self.common.signers(folder.as_ref())?;
        let mut $channels = $self.common.open(&$self.repository)?;
        let $now = text::now();
        let (result, text) = $work;
        $self.common.done(&$channels, &result, &text)
    }};
}

impl AddRelease {
    fn run(self) -> Result<ExitCode, BuildError> {
        let progress = progress::for_stderr();
        with!(self, channels, signers, now, {
            let settings = self.settings.get(self.waves.get(now));
            let offer = channel::add_release(
                &mut channels,
                &self.release,
                &self.channel,
                &settings,
                &signers,
                now,
                progress.as_ref(),
            )?;
            let text = format!("`{}` offers {}: {}", self.channel, offer.version, audience(&offer));
            (offer, text)
        })
    }
}

impl Promote {
    fn run(self) -> Result<ExitCode, BuildError> {
        with!(self, channels, signers, now, {
            let settings = self.settings.get(self.waves.get(now));
            let way = (self.from.as_str(), self.to.as_str());
            let offer = channel::promote(&mut channels, &self.version, way, &settings, &signers, now)?;
            let text = format!("`{}` offers {}: {}", self.to, offer.version, audience(&offer));
            (offer, text)
        })
    }
}

impl Withdraw {
    fn run(self) -> Result<ExitCode, BuildError> {
        with!(self, channels, signers, now, {
            let reason = self.reason.as_deref();
            let offer =
                channel::withdraw(&mut channels, &self.channel, &self.version, reason, &signers, now)?;
            let text = if reason.is_some() {
                format!(
                    "no machine takes {v} from `{c}` any more; those that run it stay on it, unless you recall it: ashlar \
                     channel set {r} --channel {c} --max-version VERSION",
                    v = offer.version,
                    c = self.channel,
                    r = self.repository.display(),
                )
            } else {
                format!("`{}` offers {} again: {}", self.channel, offer.version, audience(&offer))
            };
            (offer, text)
        })
    }
}

impl Rollout {
    fn run(self) -> Result<ExitCode, BuildError> {
        with!(self, channels, signers, now, {
            let offer = if self.stop {
                channel::stop_rollout(&mut channels, &self.channel, &self.version, &signers, now)?
            } else {
                let waves = if self.all { Some(Vec::new()) } else { self.waves.get(now) };
                let waves = waves.ok_or(channel::ChannelError::Nothing(
                    "give --wave, --duration, --fraction, --all or --stop",
                ))?;
                channel::rollout(&mut channels, &self.channel, &self.version, &waves, &signers, now)?
            };
            let text = format!("`{}` offers {}: {}", self.channel, offer.version, audience(&offer));
            (offer, text)
        })
    }
}

impl Set {
    fn run(self) -> Result<ExitCode, BuildError> {
        with!(self, channels, signers, now, {
            let wanted = channel::ChannelSettings {
                max_version: self.max_version,
                minimum_security_version: self.minimum_security_version,
                collector: self.collector,
            };
            let settings = self.settings.get(None);
            let version = self.version.as_deref();
            if version.is_none() && settings != Settings::default() {
                return Err(channel::ChannelError::Nothing(
                    "floor, barrier, dead end and notes are of a release: name it",
                )
                .into());
            }
            let document =
                channel::set(&mut channels, &self.channel, version, &wanted, &settings, &signers, now)?;
            let text = format!("changed `{}`", self.channel);
            (document, text)
        })
    }
}

impl Remove {
    fn run(self) -> Result<ExitCode, BuildError> {
        with!(self, channels, signers, now, {
            let removed = channel::remove(&mut channels, &self.channel, &self.version, &signers, now)?;
            let files = match removed {
                0 => "its files stay: another channel has it".to_owned(),
                number => format!("{number} files deleted"),
            };
            (removed, format!("took {} out of `{}`; {files}", self.version, self.channel))
        })
    }
}

impl Refresh {
    fn run(self) -> Result<ExitCode, BuildError> {
        with!(self, channels, signers, now, {
            let owner = self.common.keys.is_some();
            channels.require(&signers, owner)?;
            match (owner, self.root) {
                (true, true) => channels.renew_root(&signers, now)?,
                (true, false) => channels.publish(&signers, now)?,
                _ => channels.refresh(&signers, now)?,
            }
            let expiries = channels.expiries();
            let text: Vec<String> =
                expiries.iter().map(|expiry| format!("{:<10}until {}", expiry.role, expiry.text)).collect();
            let text = text.join("\n");
            (expiries, text)
        })
    }
}

impl RotateKey {
    fn run(self) -> Result<ExitCode, BuildError> {
        let new_folder = self.new_keys.as_deref().map(keys::open).transpose()?;
        let path = self.new_online_key.clone();
        let path = path.or_else(|| {
            self.new_keys.as_ref().map(|folder| folder.join(ONLINE_KEY)).filter(|path| path.exists())
        });
        with!(self, channels, signers, now, {
            channels.require(&signers, true)?;
            if let Some(folder) = &new_folder {
                folder.require(&[ashlar_keys::Role::Channel])?;
            }
            let online = match &path {
                Some(path) if path.exists() => Some(channel::read_online(path)?),
                Some(path) => Some(channel::make_online(path)?),
                None => None,
            };
            let new = Signers { owner: new_folder.as_ref(), online };
            channels.rotate(&signers, &new, now)?;
            let version = channels.repository().root().version;
            let text = format!(
                "root version {version} has the new keys; from now on sign with them. Machines that trust the first root, or its \
                 key, follow by themselves: leave their configuration as it is, and every root file in `{}`",
                self.repository.display()
            );
            (version, text)
        })
    }
}

impl Check {
    fn run(self) -> Result<ExitCode, BuildError> {
        let trust = match &self.key {
            Some(path) => Trust::Key(channel::read_public(path)?),
            None => Trust::Found,
        };
        let place = channel::open_source(&self.place)?;
        let progress = progress::for_stderr();
        let report = channel::check(&place, &trust, text::now(), progress.part().as_ref())?;
        let failed = !report.is_good() || (self.deny_warnings && !report.findings.is_empty());
        if self.json {
            print_json(&report)?;
        } else {
            let mut text = String::new();
            for finding in &report.findings {
                let severity = if finding.severity == channel::Severity::Error { "error" } else { "warning" };
                let _ = writeln!(text, "{severity}: {}: {}", finding.place, finding.text);
            }
            for expiry in &report.expires {
                let _ = writeln!(text, "{:<10}until {}", expiry.role, expiry.text);
            }
            if self.key.is_none() {
                text.push_str("note: the first root was believed as it lies there; `--key channel.pub` shows whether it is yours\n");
            }
            let left_out = match report.left_out {
                0 => String::new(),
                number => format!(", {number} are not in it"),
            };
            let _ = writeln!(
                text,
                "{}: root version {}, {} targets of {} read{left_out}, channels {}: {}",
                report.source,
                report.root_version,
                report.targets,
                human(report.bytes),
                report.channels.join(", "),
                if report.is_good() { "good" } else { "machines refuse it" },
            );
            print(&text);
        }
        Ok(if failed { ExitCode::from(exit::FINDING) } else { ExitCode::SUCCESS })
    }
}

impl Show {
    fn run(self) -> Result<ExitCode, BuildError> {
        let channels = Channels::open(&self.repository, channel::lifetimes(None))?;
        let state = channels.state();
        if self.json {
            print_json(&state)?;
            return Ok(ExitCode::SUCCESS);
        }
        let mut text = String::new();
        for (name, document) in &state.channels {
            let _ = writeln!(text, "{name}: {} ({})", document.image_id, document.architecture);
            for (what, value) in
                [("no version above", &document.max_version), ("reports to", &document.collector)]
            {
                if let Some(value) = value {
                    let _ = writeln!(text, "  {what} {value}");
                }
            }
            if document.minimum_security_version > 0 {
                let _ = writeln!(text, "  no security version below {}", document.minimum_security_version);
            }
            for offer in document.releases.iter().rev() {
                let _ = writeln!(text, "  {:<16}{}", offer.version, audience(offer));
                for (what, value) in
                    [("barrier", &offer.barrier), ("dead end", &offer.dead_end), ("notes", &offer.notes)]
                {
                    if let Some(value) = value {
                        let _ = writeln!(
                            text,
                            "  {:<16}{what}: {}",
                            "",
                            value.trim().replace('\n', "\n                  ")
                        );
                    }
                }
            }
        }
        for expiry in &state.expires {
            let _ = writeln!(text, "{:<10}until {}", expiry.role, expiry.text);
        }
        print(&text);
        Ok(ExitCode::SUCCESS)
    }
}

impl Bundle {
    fn run(self) -> Result<ExitCode, BuildError> {
        let folder = self.common.folder()?;
        let signers =
            if self.lifetime.is_some() { self.common.signers(folder.as_ref())? } else { Signers::default() };
        let mut channels = self.common.open(&self.repository)?;
        let report = channel::bundle(
            &mut channels,
            &self.channel,
            &self.versions,
            self.lifetime,
            &signers,
            &self.output,
            text::now(),
        )?;
        if self.common.json {
            print_json(&report)?;
        } else {
            print(&format!(
                "wrote {} of `{}` to `{o}`: {}\nmachines take it until {}\nnext: ashlarctl update apply {o}\n",
                report.versions.join(", "),
                self.channel,
                human(report.bytes),
                text::time(report.good_until),
                o = self.output.display(),
            ));
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Who gets a release, for people.
fn audience(offer: &Offer) -> String {
    if let Some(reason) = &offer.withdrawn {
        return format!("nobody, it was withdrawn: {reason}");
    }
    let floor = if offer.is_floor() { "; older machines pass through it" } else { "" };
    if offer.rollout.is_empty() {
        return format!("everybody at once{floor}");
    }
    let wave = |wave: &Wave| {
        let end = wave.start.saturating_add(i64::from(wave.duration));
        let when = text::time(wave.start);
        let until = if wave.duration == 0 { String::new() } else { format!(" to {}", text::time(end)) };
        format!("{} from {when}{until}", text::percent(wave.share))
    };
    format!("{}{floor}", offer.rollout.iter().map(wave).collect::<Vec<_>>().join(", then "))
}
