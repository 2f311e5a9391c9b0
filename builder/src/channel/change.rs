//! Changes of channels: what is in them, who gets it when.

use super::release::Verified;
use super::{ChannelError, Channels, Signers, list};
use crate::error::BuildError;
use crate::output::RELEASE_FILE;
use crate::progress::Progresses;
use ashlar_channel::{Document, Offer, Wave, compare, release_target};
use ashlar_image::release::ARCHITECTURE;
use std::cmp::Ordering;

/// What is set of a release in a channel; what is none stays as it is. An empty text takes a text away.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// Whether older machines must pass through it.
    pub floor: Option<bool>,
    /// The same, with the reason.
    pub barrier: Option<String>,
    /// Machines that run it get nothing more; what the operator must do.
    pub dead_end: Option<String>,
    /// What is new.
    pub notes: Option<String>,
    /// Who gets it when; an empty list is everybody at once.
    pub rollout: Option<Vec<Wave>>,
}

impl Settings {
    fn apply(&self, offer: &mut Offer) {
        let text = |value: &Option<String>, field: &mut Option<String>| {
            if let Some(text) = value {
                *field = Some(text.clone()).filter(|text| !text.is_empty());
            }
        };
        offer.floor = self.floor.unwrap_or(offer.floor);
        text(&self.barrier, &mut offer.barrier);
        text(&self.dead_end, &mut offer.dead_end);
        text(&self.notes, &mut offer.notes);
        if let Some(waves) = &self.rollout {
            offer.rollout.clone_from(waves);
        }
    }
}

/// Makes channels that are not there yet; gives their names.
pub fn create_channels(
    channels: &mut Channels,
    names: &[String],
    image_id: &str,
    architecture: &str,
    signers: &Signers<'_>,
    now: i64,
) -> Result<Vec<String>, BuildError> {
    let there = channels.names();
    let new: Vec<String> = names.iter().filter(|name| !there.contains(name)).cloned().collect();
    if new.is_empty() {
        return Err(ChannelError::Nothing("these channels are there already").into());
    }
    channels.require(signers, true)?;
    for name in &new {
        channels.put(&Document::new(name, image_id, architecture))?;
    }
    channels.publish(signers, now)?;
    Ok(new)
}

/// Whether a release may be in a channel.
fn belongs(document: &Document, release: &ashlar_image::release::Release) -> Result<(), ChannelError> {
    let architecture = release.architecture.as_deref().unwrap_or(ARCHITECTURE);
    for (key, found, wanted) in [
        ("image_id", release.image_id.as_str(), document.image_id.as_str()),
        ("architecture", architecture, document.architecture.as_str()),
    ] {
        if found != wanted {
            let (found, wanted, channel) = (found.to_owned(), wanted.to_owned(), document.name.clone());
            return Err(ChannelError::Foreign { key, found, channel, wanted });
        }
    }
    Ok(())
}

fn add(document: &mut Document, offer: Offer) -> Result<(), ChannelError> {
    if document.offer(&offer.version).is_some() {
        return Err(ChannelError::Twice { channel: document.name.clone(), version: offer.version });
    }
    document.releases.push(offer);
    document.releases.sort_by(|one, other| compare(&one.version, &other.version));
    document.check()?;
    Ok(())
}

/// Verifies a release's folder, publishes its blocks and offers it in a channel.
///
/// # Errors
/// Anything about the release or the keys is wrong; then nothing has changed.
pub fn add_release(
    channels: &mut Channels,
    folder: &std::path::Path,
    channel: &str,
    settings: &Settings,
    signers: &Signers<'_>,
    now: i64,
    progress: &dyn Progresses,
) -> Result<Offer, BuildError> {
    channels.require(signers, true)?;
    let mut document = channels.document(channel)?;
    let verified = Verified::open(folder, progress)?;
    let release = &verified.release;
    belongs(&document, release)?;
    if release.image_version.contains('^') {
        // It becomes part of a path, is encoded in addresses, and would lie under another name than servers look for.
        let reason = format!("`{}`: a published version has no `^`", release.image_version);
        let error = ashlar_channel::DocumentError { key: "version".into(), reason };
        return Err(ChannelError::Document(error).into());
    }
    let mut offer = Offer {
        version: release.image_version.clone(),
        release: verified.digest(),
        security_version: release.security_version,
        rollout: Vec::new(),
        floor: false,
        barrier: None,
        dead_end: None,
        withdrawn: None,
        notes: None,
    };
    settings.apply(&mut offer);
    add(&mut document, offer.clone())?;
    let target = release_target(&release.image_id, &release.image_version);
    let name = format!("{target}/{RELEASE_FILE}");
    let published = channels.repository.targets().targets.get(&name);
    // The same bytes in another channel, and nothing more is to be published.
    let same = match published {
        None => false,
        Some(file) if file.hashes.get("sha256").is_some_and(|hash| hash[..] == offer.release.0) => true,
        Some(_) => return Err(ChannelError::Other(offer.version).into()),
    };
    let staging = channels.staging()?;
    if !same {
        for (file, path) in verified.publish(staging.path(), progress)? {
            let put = channels.repository.put_file(&format!("{target}/{file}"), &path, None);
            put.map_err(ChannelError::Tuf)?;
        }
        for (file, bytes) in verified.beside()? {
            let put = channels.repository.put_bytes(&format!("{target}/{file}"), bytes, None);
            put.map_err(ChannelError::Tuf)?;
        }
        channels.repository.put_bytes(&name, verified.json, None).map_err(ChannelError::Tuf)?;
    }
    channels.put(&document)?;
    channels.publish(signers, now)?;
    Ok(offer)
}

fn offer_of<'a>(document: &'a mut Document, version: &str) -> Result<&'a mut Offer, ChannelError> {
    let there: Vec<String> = document.releases.iter().map(|offer| offer.version.clone()).collect();
    let channel = document.name.clone();
    let mut offers = document.releases.iter_mut();
    offers
        .find(|offer| compare(&offer.version, version) == Ordering::Equal)
        .ok_or_else(|| ChannelError::NoRelease { channel, version: version.to_owned(), there: list(&there) })
}

/// Changes one offer.
fn change(
    channels: &mut Channels,
    channel: &str,
    version: &str,
    signers: &Signers<'_>,
    now: i64,
    edit: impl FnOnce(&mut Offer) -> Result<(), ChannelError>,
) -> Result<Offer, BuildError> {
    channels.require(signers, true)?;
    let mut document = channels.document(channel)?;
    let offer = offer_of(&mut document, version)?;
    let before = offer.clone();
    edit(offer)?;
    let offer = offer.clone();
    if offer == before {
        return Err(ChannelError::Nothing("it is so already").into());
    }
    channels.put(&document)?;
    channels.publish(signers, now)?;
    Ok(offer)
}

/// Offers a release of one channel in another too, with a rollout of its own.
pub fn promote(
    channels: &mut Channels,
    version: &str,
    (from, to): (&str, &str),
    settings: &Settings,
    signers: &Signers<'_>,
    now: i64,
) -> Result<Offer, BuildError> {
    channels.require(signers, true)?;
    let mut source = channels.document(from)?;
    let mut document = channels.document(to)?;
    let mut offer = offer_of(&mut source, version)?.clone();
    if let Some(reason) = &offer.withdrawn {
        let why = format!("it was withdrawn from `{from}` ({reason})");
        return Err(ChannelError::Document(ashlar_channel::DocumentError {
            key: "withdrawn".into(),
            reason: why,
        })
        .into());
    }
    for (key, found, wanted) in [
        ("image_id", &source.image_id, &document.image_id),
        ("architecture", &source.architecture, &document.architecture),
    ] {
        if found != wanted {
            let (found, wanted) = (found.clone(), wanted.clone());
            return Err(ChannelError::Foreign { key, found, channel: to.to_owned(), wanted }.into());
        }
    }
    offer.rollout.clear();
    settings.apply(&mut offer);
    add(&mut document, offer.clone())?;
    channels.put(&document)?;
    channels.publish(signers, now)?;
    Ok(offer)
}

/// No machine gets the release any more, for `reason`; without a reason it is offered again.
pub fn withdraw(
    channels: &mut Channels,
    channel: &str,
    version: &str,
    reason: Option<&str>,
    signers: &Signers<'_>,
    now: i64,
) -> Result<Offer, BuildError> {
    change(channels, channel, version, signers, now, |offer| {
        offer.withdrawn = reason.map(str::to_owned);
        Ok(())
    })
}

/// Sets who gets a release when.
pub fn rollout(
    channels: &mut Channels,
    channel: &str,
    version: &str,
    waves: &[Wave],
    signers: &Signers<'_>,
    now: i64,
) -> Result<Offer, BuildError> {
    change(channels, channel, version, signers, now, |offer| {
        offer.rollout = waves.to_vec();
        Ok(())
    })
}

/// Stops a rollout where it is: machines whose turn has come may still take the release, no other.
pub fn stop_rollout(
    channels: &mut Channels,
    channel: &str,
    version: &str,
    signers: &Signers<'_>,
    now: i64,
) -> Result<Offer, BuildError> {
    change(channels, channel, version, signers, now, |offer| {
        let waves = passed(&offer.rollout, now);
        if waves.is_empty() {
            let why = if offer.rollout.is_empty() {
                "is over: everybody may take it; `withdraw` ends that"
            } else {
                "has not begun: set a later start, or `withdraw` it"
            };
            return Err(ChannelError::Rollout {
                version: version.to_owned(),
                channel: channel.to_owned(),
                why,
            });
        }
        offer.rollout = waves;
        Ok(())
    })
}

/// The part of the waves that has passed. The machines in it keep their moments.
fn passed(waves: &[Wave], now: i64) -> Vec<Wave> {
    let mut out = Vec::new();
    for wave in waves {
        let elapsed = now.saturating_sub(wave.start);
        if elapsed <= 0 {
            break;
        }
        if elapsed >= i64::from(wave.duration) {
            out.push(*wave);
            continue;
        }
        let duration = u32::try_from(elapsed).unwrap_or(wave.duration);
        let share = u64::from(wave.share) * u64::from(duration) / u64::from(wave.duration.max(1));
        let share = u32::try_from(share).unwrap_or(wave.share);
        if share > 0 {
            out.push(Wave { duration, share, ..*wave });
        }
        break;
    }
    out
}

/// Settings of a channel and, where a version is given, of a release in it.
#[derive(Debug, Clone, Default)]
pub struct ChannelSettings {
    /// The recall; an empty text takes it away.
    pub max_version: Option<String>,
    /// The lowest security version.
    pub minimum_security_version: Option<u64>,
    /// Where machines report; an empty text takes it away.
    pub collector: Option<String>,
}

/// Changes settings of a channel, or of a release in it.
pub fn set(
    channels: &mut Channels,
    channel: &str,
    version: Option<&str>,
    wanted: &ChannelSettings,
    settings: &Settings,
    signers: &Signers<'_>,
    now: i64,
) -> Result<Document, BuildError> {
    channels.require(signers, true)?;
    let mut document = channels.document(channel)?;
    let before = document.clone();
    if let Some(max) = &wanted.max_version {
        document.max_version = Some(max.clone()).filter(|max| !max.is_empty());
    }
    if let Some(address) = &wanted.collector {
        document.collector = Some(address.clone()).filter(|address| !address.is_empty());
    }
    if let Some(minimum) = wanted.minimum_security_version {
        document.minimum_security_version = minimum;
    }
    if let Some(version) = version {
        settings.apply(offer_of(&mut document, version)?);
    }
    if document == before {
        return Err(ChannelError::Nothing("it is so already, or no option says what").into());
    }
    channels.put(&document)?;
    channels.publish(signers, now)?;
    Ok(document)
}

/// Takes a release out of a channel; where no other channel has it, its targets too. Gives the number of targets.
pub fn remove(
    channels: &mut Channels,
    channel: &str,
    version: &str,
    signers: &Signers<'_>,
    now: i64,
) -> Result<usize, BuildError> {
    channels.require(signers, true)?;
    let mut document = channels.document(channel)?;
    let version = offer_of(&mut document, version)?.version.clone();
    document.releases.retain(|offer| offer.version != version);
    let mut elsewhere = false;
    for name in channels.names().iter().filter(|name| *name != channel) {
        let other = channels.document(name)?;
        elsewhere |= other.image_id == document.image_id && other.offer(&version).is_some();
    }
    let mut removed = 0;
    if !elsewhere {
        let folder = format!("{}/", release_target(&document.image_id, &version));
        let names: Vec<String> = channels
            .repository
            .targets()
            .targets
            .keys()
            .filter(|name| name.starts_with(&folder))
            .cloned()
            .collect();
        removed = names.iter().filter(|name| channels.repository.remove(name)).count();
    }
    channels.put(&document)?;
    channels.publish(signers, now)?;
    channels.repository.sweep().map_err(ChannelError::Tuf)?;
    Ok(removed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ashlar_channel::opens_at;

    #[test]
    fn a_stopped_rollout_keeps_the_moments_of_those_who_had_their_turn() {
        let waves = [
            Wave { start: 1000, duration: 1000, share: 100_000 },
            Wave { start: 3000, duration: 2000, share: 500_000 },
            Wave { start: 9000, duration: 0, share: 400_000 },
        ];
        let stopped = passed(&waves, 4000);
        assert_eq!(stopped, [waves[0], Wave { start: 3000, duration: 1000, share: 250_000 }]);
        for n in 0..1000u64 {
            let position = n * (u64::MAX / 1000);
            let before = opens_at(&waves, position).unwrap();
            match opens_at(&stopped, position) {
                Some(after) => assert!(before.abs_diff(after) <= 1 && after <= 4000),
                None => assert!(before >= 4000, "{before}"),
            }
        }
        assert!(passed(&waves, 1000).is_empty());
        assert_eq!(passed(&waves, 99_999), waves);
    }
}
