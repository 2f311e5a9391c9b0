//! Looking at channels as machines do, and at what would trap one.

use super::release::MAX_RELEASE;
use super::{ChannelError, Expiry, text};
use crate::error::BuildError;
use crate::output::RELEASE_FILE;
use ashlar_blocks::{Index, Leaves, verity};
use ashlar_channel::{
    Decision, Document, MAX_DOCUMENT, Machine, Offer, Options, compare, document_target, release_target,
    select,
};
use ashlar_debian::Progress;
use ashlar_fetch::{Bundle, Folder, Http, HttpOptions, Request, Source};
use ashlar_image::digest::Digest;
use ashlar_image::release::{ARCHITECTURE, Release};
use ashlar_tuf::{Bootstrap, Client, Clock, Limits, MemoryStore, Role, TufError};
use serde::Serialize;
use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::io::{self, Read};
use std::path::Path;

/// Largest index and leaves that are read, in bytes.
const MAX_PART: u64 = 1 << 30;
const DAY: i64 = 24 * 3600;
/// A role that expires sooner than this is warned of, in seconds.
const MARGINS: [(Role, i64); 4] = [
    (Role::Root, 60 * DAY),
    (Role::Targets, 30 * DAY),
    (Role::Snapshot, 5 * DAY),
    (Role::Timestamp, 2 * DAY),
];

/// What trust begins with.
#[derive(Debug, Clone)]
pub enum Trust {
    /// The key that machines have.
    Key([u8; 32]),
    /// Version 1 of the root, as it lies there: it shows whether all fits together, not whose it is.
    Found,
}

/// Where channels are.
#[derive(Debug)]
pub struct Place {
    source: Box<dyn Source>,
    /// The files, where only a part of the repository is there.
    files: Option<BTreeSet<String>>,
}

/// Opens a folder, an offline bundle, or an address.
pub fn open_source(place: &str) -> Result<Place, BuildError> {
    if place.starts_with("http://") || place.starts_with("https://") {
        let source =
            Http::new(place, HttpOptions::default()).map_err(TufError::from).map_err(ChannelError::Tuf)?;
        return Ok(Place { source: Box::new(source), files: None });
    }
    let path = Path::new(place);
    let metadata = std::fs::metadata(path).map_err(|e| BuildError::input("open", path, e))?;
    if metadata.is_dir() {
        let source = Folder::open(path).map_err(TufError::from).map_err(ChannelError::Tuf)?;
        return Ok(Place { source: Box::new(source), files: None });
    }
    let bundle = Bundle::open(path)
        .map_err(|error| ChannelError::BadBundle { path: path.to_owned(), why: error.to_string() })?;
    let files = bundle.files().map(|(name, _)| name.to_owned()).collect();
    Ok(Place { source: Box::new(bundle), files: Some(files) })
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Machines refuse it.
    Error,
    /// Machines take it; somebody should look.
    Warning,
}

/// Something that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// Where: a role, a target, `CHANNEL VERSION`.
    pub place: String,
    /// What.
    pub text: String,
}

/// What was found.
#[derive(Debug, Clone, Serialize)]
pub struct CheckReport {
    /// The folder, bundle or address.
    pub source: String,
    /// Version of the root that was reached.
    pub root_version: u64,
    /// When each role expires.
    pub expires: Vec<Expiry>,
    /// Targets that were read whole.
    pub targets: usize,
    /// Their size in bytes.
    pub bytes: u64,
    /// Targets that are not in the bundle.
    pub left_out: usize,
    /// Names of the channels.
    pub channels: Vec<String>,
    /// Errors and warnings.
    pub findings: Vec<Finding>,
}

impl CheckReport {
    /// Whether machines take all of it.
    pub fn is_good(&self) -> bool {
        self.findings.iter().all(|finding| finding.severity != Severity::Error)
    }

    fn find(&mut self, severity: Severity, place: impl Into<String>, text: impl Into<String>) {
        self.findings.push(Finding { severity, place: place.into(), text: text.into() });
    }
}

struct Check<'a> {
    place: &'a Place,
    client: Client<MemoryStore>,
    report: CheckReport,
}

/// Goes a machine's way through the channels, then reads every target, then asks what each machine would get.
///
/// # Errors
/// Only where `trust` cannot be had; everything else is a finding.
pub fn check(
    place: &Place,
    trust: &Trust,
    now: i64,
    progress: &dyn Progress,
) -> Result<CheckReport, BuildError> {
    let bootstrap = match trust {
        Trust::Key(key) => Bootstrap::Key(*key),
        Trust::Found => Bootstrap::Root(first_root(place)?),
    };
    let report = CheckReport {
        source: place.source.name(),
        root_version: 0,
        expires: Vec::new(),
        targets: 0,
        bytes: 0,
        left_out: 0,
        channels: Vec::new(),
        findings: Vec::new(),
    };
    let client = Client::new(MemoryStore::default(), bootstrap, Limits::default());
    let mut check = Check { place, client, report };
    if let Err(error) = check.client.refresh(&*place.source, Clock { now, built: i64::MIN }) {
        check.report.find(Severity::Error, "metadata", error.to_string());
        return Ok(check.report);
    }
    check.expiries(now);
    let names = check.read_targets(progress);
    for name in names.iter().filter_map(|name| name.strip_prefix("channels/")?.strip_suffix(".json")) {
        check.channel(name);
    }
    Ok(check.report)
}

fn first_root(place: &Place) -> Result<Vec<u8>, BuildError> {
    let max = Limits::default().root;
    let request = Request { path: "1.root.json".into(), range: None, max };
    let body = place.source.open(&request).map_err(TufError::from).map_err(ChannelError::Tuf)?;
    let mut bytes = Vec::new();
    let read = body.reader.take(max).read_to_end(&mut bytes);
    read.map_err(|e| BuildError::input("read", Path::new("1.root.json"), e))?;
    Ok(bytes)
}

impl Check<'_> {
    fn expiries(&mut self, now: i64) {
        let Some(trusted) = self.client.trusted() else { return };
        self.report.root_version = trusted.root().version;
        let of = |role: &Role| match role {
            Role::Root => Some(trusted.root().expires),
            Role::Timestamp => trusted.timestamp().map(|timestamp| timestamp.expires),
            Role::Snapshot => trusted.snapshot().map(|snapshot| snapshot.expires),
            other => trusted.targets(other).map(|targets| targets.expires),
        };
        let times: Vec<(Role, i64, i64)> =
            MARGINS.iter().filter_map(|(role, margin)| Some((role.clone(), *margin, of(role)?))).collect();
        for (role, margin, time) in times {
            self.report.expires.push(Expiry::new(&role, time));
            let left = time.saturating_sub(now);
            if left < margin {
                let how = match role {
                    Role::Root => "`ashlar channel refresh --root --keys DIR` renews it",
                    Role::Targets => "`ashlar channel refresh --keys DIR` renews it",
                    _ => "`ashlar channel refresh --online-key FILE` renews it",
                };
                let text = format!("expires in {}, {}; {how}", text::rough(left), text::time(time));
                self.report.find(Severity::Warning, role.name(), text);
            }
        }
    }

    /// Reads all targets; gives the names of those that are what was signed.
    fn read_targets(&mut self, progress: &dyn Progress) -> BTreeSet<String> {
        let targets = self.client.trusted().and_then(|trusted| trusted.targets(&Role::Targets));
        let all: Vec<_> = targets
            .into_iter()
            .flat_map(|targets| &targets.targets)
            .map(|(name, target)| (name.clone(), target.clone()))
            .collect();
        let mut good = BTreeSet::new();
        progress.begin("reading targets", all.iter().map(|(_, target)| target.length).sum());
        for (name, target) in &all {
            if let Some(files) = &self.place.files {
                let path = self.client.target_path(name, target).unwrap_or_default();
                if !files.contains(&path) {
                    self.report.left_out += 1;
                    continue;
                }
            }
            match self.read_target(name) {
                Ok(bytes) => {
                    self.report.targets += 1;
                    self.report.bytes = self.report.bytes.saturating_add(bytes);
                    let _ = good.insert(name.clone());
                }
                Err(why) => self.report.find(Severity::Error, name, why),
            }
            progress.advance(target.length);
        }
        progress.end();
        good
    }

    fn read_target(&mut self, name: &str) -> Result<u64, String> {
        let mut target =
            self.client.open_target(&*self.place.source, name).map_err(|error| error.to_string())?;
        io::copy(&mut target, &mut io::sink()).map_err(|error| error.to_string())
    }

    fn read(&mut self, name: &str, max: u64) -> Result<Vec<u8>, String> {
        self.client.read_target(&*self.place.source, name, max).map_err(|error| error.to_string())
    }

    fn channel(&mut self, name: &str) {
        self.report.channels.push(name.to_owned());
        let document = self
            .read(&document_target(name), MAX_DOCUMENT)
            .and_then(|bytes| Document::parse(&bytes).map_err(|error| error.to_string()));
        let document = match document {
            Ok(document) => document,
            Err(why) => return self.report.find(Severity::Error, name, why),
        };
        if document.name != name {
            let text = format!("`name`: it says that it is `{}`", document.name);
            self.report.find(Severity::Error, name, text);
        }
        for offer in &document.releases {
            if let Err(why) = self.release(&document, offer) {
                self.report.find(Severity::Error, format!("{name} {}", offer.version), why);
            }
        }
        self.report.findings.extend(traps(&document));
    }

    /// Whether what a channel says of a release is what the release says, and what its blocks come to.
    fn release(&mut self, document: &Document, offer: &Offer) -> Result<(), String> {
        let folder = release_target(&document.image_id, &offer.version);
        let name = format!("{folder}/{RELEASE_FILE}");
        if self.absent(&name) {
            return Ok(());
        }
        let json = self.read(&name, MAX_RELEASE)?;
        if Digest::of(&json) != offer.release {
            return Err(format!("`release`: {name} has another SHA-256"));
        }
        let release: Release = serde_json::from_slice(&json).map_err(|error| format!("{name}: {error}"))?;
        let architecture = release.architecture.as_deref().unwrap_or(ARCHITECTURE).to_owned();
        for (key, said, is) in [
            ("image_id", &document.image_id, &release.image_id),
            ("architecture", &document.architecture, &architecture),
            ("version", &offer.version, &release.image_version),
            ("security_version", &offer.security_version.to_string(), &release.security_version.to_string()),
        ] {
            if said != is {
                return Err(format!("`{key}`: the channel says `{said}`, release.json says `{is}`"));
            }
        }
        for (part, size) in [("root", release.slot.root.size), ("esp", release.slot.esp.size)] {
            let index = self.read(&format!("{folder}/{part}.index"), MAX_PART)?;
            let index = Index::parse(&index).map_err(|error| format!("{part}.index: {error}"))?;
            let leaves = self.read(&format!("{folder}/{part}.leaves"), MAX_PART)?;
            let leaves = Leaves::from_bytes(&leaves).unwrap_or_default();
            if index.length() != size || leaves.digest() != index.leaves || leaves.len() != index.blocks {
                return Err(format!("{part}.index belongs to another image"));
            }
            let frames = format!("{folder}/{part}.frames");
            let length =
                self.client.target(&*self.place.source, &frames).map_err(|error| error.to_string())?.length;
            if length != index.frames_length() {
                return Err(format!(
                    "{part}.frames has {length} bytes, the index says {}",
                    index.frames_length()
                ));
            }
            if part == "root" {
                let made = verity::partition(index.hashing, index.uuid, &leaves, release.root_hash);
                let made = made.map_err(|error| format!("root.leaves: {error}"))?;
                if Digest::of(&made) != release.slot.verity.sha256 {
                    return Err("root.leaves: they make another verity tree than release.json has".into());
                }
            }
        }
        Ok(())
    }

    /// Whether a target is not in the bundle.
    fn absent(&mut self, name: &str) -> bool {
        let Some(files) = &self.place.files else { return false };
        let target = self.client.target(&*self.place.source, name);
        let path = target.and_then(|target| self.client.target_path(name, &target));
        path.is_ok_and(|path| !files.contains(&path))
    }
}

/// Machines that would be stuck: every version in the channel, and one that is older than all, is asked what it would get
/// when all rollouts are over.
pub fn traps(document: &Document) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut versions: Vec<&str> = document.releases.iter().map(|offer| offer.version.as_str()).collect();
    versions.sort_by(|one, other| compare(one, other));
    let newest = document.releases.iter().filter(|offer| offer.withdrawn.is_none());
    let newest = newest.max_by(|one, other| compare(&one.version, &other.version));
    for version in std::iter::once("~").chain(versions) {
        let own = document.offer(version);
        let machine = Machine {
            image_id: document.image_id.clone(),
            architecture: document.architecture.clone(),
            version: version.to_owned(),
            // A machine's floor is at most the security version of what it runs.
            floor: own.map_or(0, |offer| offer.security_version),
            barred: Vec::new(),
            seed: [0; 32],
        };
        let options = Options { ignore_rollout: true, ..Options::default() };
        let (decision, _) = select(document, &machine, &options, i64::MAX);
        let who =
            if version == "~" { "older machines".to_owned() } else { format!("machines that run {version}") };
        let text = match decision {
            Decision::Held(held) => format!("{who} get nothing: {}", held.text()),
            Decision::UpToDate if own.is_some_and(|offer| offer.withdrawn.is_some()) => {
                format!("{who} stay on it, although it was withdrawn; `set --max-version` recalls it")
            }
            Decision::Update { offer, back: false }
                if newest.is_some_and(|newest| {
                    !newest.is_floor() && compare(&newest.version, &offer.version) == Ordering::Less
                }) =>
            {
                format!("{who} get {}", offer.version)
            }
            _ => continue,
        };
        let place =
            if version == "~" { document.name.clone() } else { format!("{} {version}", document.name) };
        findings.push(Finding { severity: Severity::Warning, place, text });
    }
    for offer in &document.releases {
        if !offer.rollout.is_empty() {
            let share: u64 = offer.rollout.iter().map(|wave| u64::from(wave.share)).sum();
            let share = u32::try_from(share).unwrap_or(ashlar_channel::WHOLE);
            if share < ashlar_channel::WHOLE && offer.withdrawn.is_none() {
                findings.push(Finding {
                    severity: Severity::Warning,
                    place: format!("{} {}", document.name, offer.version),
                    text: format!("its rollout ends at {} of the machines", text::percent(share)),
                });
            }
        }
    }
    findings
}
