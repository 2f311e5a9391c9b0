//! Which release a machine gets.

use crate::document::{Document, Offer};
use crate::rollout::{opens_at, position};
use crate::version::compare;
use serde::{Deserialize, Serialize};
use std::cmp::Ordering;

/// A machine as the channel sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// `IMAGE_ID` of what runs.
    pub image_id: String,
    /// Its architecture.
    pub architecture: String,
    /// `IMAGE_VERSION` of what runs.
    pub version: String,
    /// The lowest security version that opens its state volume.
    pub floor: u64,
    /// Versions that have failed on it.
    pub barred: Vec<String>,
    /// Its seed: [`crate::seed`].
    pub seed: [u8; 32],
}

/// What somebody asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// Do not wait for the machine's turn.
    pub ignore_rollout: bool,
    /// This version and no other, also an older one.
    pub version: Option<String>,
    /// Also one that has failed here.
    pub ignore_barred: bool,
}

/// Why there is nothing, though there might be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "held", content = "detail")]
pub enum Held {
    /// The channel is of another image.
    OtherImage(String),
    /// The channel is of another architecture.
    OtherArchitecture(String),
    /// What runs is a dead end; what the operator must do.
    DeadEnd(String),
    /// The version that was asked for is not in the channel.
    NoSuchVersion(String),
    /// It failed on this machine.
    Barred(String),
    /// It was withdrawn; why.
    Withdrawn(String),
    /// It is below this machine's rollback floor.
    BelowFloor(String),
    /// It is below what the channel allows.
    TooOld(String),
    /// The release that must be passed through cannot be had.
    Blocked(String),
}

impl Held {
    /// For people.
    pub fn text(&self) -> String {
        match self {
            Self::OtherImage(name) => format!("the channel is for the image `{name}`"),
            Self::OtherArchitecture(name) => format!("the channel is for {name}"),
            Self::DeadEnd(text) => format!("the release that runs is a dead end: {text}"),
            Self::NoSuchVersion(version) => format!("the channel has no release {version}"),
            Self::Barred(version) => format!("{version} has failed on this machine and is barred"),
            Self::Withdrawn(text) => format!("it was withdrawn: {text}"),
            Self::BelowFloor(version) => format!("{version} is below this machine's rollback floor"),
            Self::TooOld(version) => {
                format!("{version} has a security version that the channel no longer allows")
            }
            Self::Blocked(text) => text.clone(),
        }
    }
}

/// What was thought of one release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Why {
    /// Its version.
    pub version: String,
    /// For people.
    pub reason: String,
}

/// What a machine gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Nothing is newer.
    UpToDate,
    /// This one.
    Update {
        /// The release.
        offer: Offer,
        /// Whether it goes back, because the channel recalls what runs or somebody asked for it.
        back: bool,
    },
    /// It is not this machine's turn yet.
    NotYet {
        /// Which release.
        version: String,
        /// When it will be, seconds since 1970; none if the rollout does not reach this machine.
        opens_at: Option<i64>,
    },
    /// There is nothing to be had.
    Held(Held),
}

/// Decides, and tells what it thought of each release that it looked at.
pub fn select(document: &Document, machine: &Machine, options: &Options, now: i64) -> (Decision, Vec<Why>) {
    let mut whys = Vec::new();
    let decision = decide(document, machine, options, now, &mut whys);
    (decision, whys)
}

/// Why a release cannot be had by this machine, whatever the time.
fn refusal(document: &Document, machine: &Machine, options: &Options, offer: &Offer) -> Option<Held> {
    if let Some(text) = &offer.withdrawn {
        return Some(Held::Withdrawn(text.clone()));
    }
    if !options.ignore_barred
        && machine.barred.iter().any(|barred| compare(barred, &offer.version) == Ordering::Equal)
    {
        return Some(Held::Barred(offer.version.clone()));
    }
    if offer.security_version < machine.floor {
        return Some(Held::BelowFloor(offer.version.clone()));
    }
    (offer.security_version < document.minimum_security_version).then(|| Held::TooOld(offer.version.clone()))
}

fn decide(
    document: &Document,
    machine: &Machine,
    options: &Options,
    now: i64,
    whys: &mut Vec<Why>,
) -> Decision {
    if document.image_id != machine.image_id {
        return Decision::Held(Held::OtherImage(document.image_id.clone()));
    }
    if document.architecture != machine.architecture {
        return Decision::Held(Held::OtherArchitecture(document.architecture.clone()));
    }
    if let Some(version) = &options.version {
        return match document.offer(version) {
            None => Decision::Held(Held::NoSuchVersion(version.clone())),
            Some(offer) => match refusal(document, machine, options, offer) {
                Some(held) => Decision::Held(held),
                None if compare(&offer.version, &machine.version) == Ordering::Equal => Decision::UpToDate,
                None => update(offer, machine),
            },
        };
    }
    if let Some(text) = document.offer(&machine.version).and_then(|offer| offer.dead_end.clone()) {
        return Decision::Held(Held::DeadEnd(text));
    }
    let newer = |version: &str| compare(version, &machine.version) == Ordering::Greater;
    let allowed = |version: &str| {
        document.max_version.as_ref().is_none_or(|max| compare(version, max) != Ordering::Greater)
    };
    let recalled = !allowed(&machine.version);
    let mut offers: Vec<&Offer> = document.releases.iter().collect();
    offers.sort_by(|one, other| compare(&other.version, &one.version));
    // The lowest release that must be passed through; a recall goes back and passes nothing.
    let stop =
        offers.iter().rev().find(|offer| !recalled && newer(&offer.version) && offer.is_floor()).copied();
    if let Some(stop) = stop
        && let Some(held) = refusal(document, machine, options, stop)
    {
        let reason = stop.barrier.as_deref().unwrap_or("older machines must pass through it");
        let text = format!("{} must be passed through ({reason}), but {}", stop.version, held.text());
        return Decision::Held(Held::Blocked(text));
    }
    let mut turn: Option<(&Offer, Option<i64>)> = None;
    let mut held = None;
    for offer in offers {
        let mut because = |reason: String| whys.push(Why { version: offer.version.clone(), reason });
        if !allowed(&offer.version) {
            because("it is above the channel's max_version".into());
            continue;
        }
        if !recalled && !newer(&offer.version) {
            continue;
        }
        if let Some(stop) = stop
            && compare(&offer.version, &stop.version) == Ordering::Greater
        {
            because(format!("{} must be passed through first", stop.version));
            continue;
        }
        if let Some(reason) = refusal(document, machine, options, offer) {
            because(reason.text());
            held.get_or_insert(reason);
            continue;
        }
        let opens = opens_at(&offer.rollout, position(&machine.seed, &offer.version));
        if options.ignore_rollout || recalled || opens.is_some_and(|time| time <= now) {
            because("it is the one".into());
            return update(offer, machine);
        }
        because("it is not this machine's turn".into());
        turn.get_or_insert((offer, opens));
    }
    match (turn, held) {
        (Some((offer, opens_at)), _) => Decision::NotYet { version: offer.version.clone(), opens_at },
        (None, Some(held)) => Decision::Held(held),
        (None, None) if recalled => Decision::Held(Held::Blocked(
            "the release that runs is recalled, and there is none to go back to".into(),
        )),
        (None, None) => Decision::UpToDate,
    }
}

fn update(offer: &Offer, machine: &Machine) -> Decision {
    Decision::Update {
        offer: offer.clone(),
        back: compare(&offer.version, &machine.version) == Ordering::Less,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rollout::{WHOLE, Wave, seed};
    use ashlar_image::digest::Digest;
    use proptest::prelude::*;

    fn offer(version: &str) -> Offer {
        Offer {
            version: version.into(),
            release: Digest::ZERO,
            security_version: 1,
            rollout: Vec::new(),
            floor: false,
            barrier: None,
            dead_end: None,
            withdrawn: None,
            notes: None,
        }
    }

    fn channel(offers: impl IntoIterator<Item = Offer>) -> Document {
        Document { releases: offers.into_iter().collect(), ..Document::new("stable", "host", "x86-64") }
    }

    fn machine(version: &str) -> Machine {
        Machine {
            image_id: "host".into(),
            architecture: "x86-64".into(),
            version: version.into(),
            floor: 0,
            barred: Vec::new(),
            seed: seed("a"),
        }
    }

    fn get(document: &Document, machine: &Machine) -> String {
        show(&select(document, machine, &Options::default(), 1000).0)
    }

    fn show(decision: &Decision) -> String {
        match decision {
            Decision::UpToDate => "up to date".into(),
            Decision::Update { offer, back: false } => offer.version.clone(),
            Decision::Update { offer, back: true } => format!("back to {}", offer.version),
            Decision::NotYet { version, opens_at } => format!("{version} at {opens_at:?}"),
            Decision::Held(held) => held.text(),
        }
    }

    #[test]
    fn floors_are_passed_one_after_the_other() {
        let floor = |version| Offer { floor: true, ..offer(version) };
        let document = channel([offer("3000"), floor("2000"), floor("2500"), offer("2200")]);
        for (from, to) in [
            ("1500", "2000"),
            ("2000", "2500"),
            ("2200", "2500"),
            ("2500", "3000"),
            ("2700", "3000"),
            ("3000", "up to date"),
        ] {
            assert_eq!(get(&document, &machine(from)), to, "from {from}");
        }
        let barrier =
            Offer { barrier: Some("new disk format".into()), withdrawn: Some("bad".into()), ..offer("2000") };
        let text = get(&channel([barrier, offer("3000")]), &machine("1500"));
        assert!(
            text.contains("2000 must be passed through (new disk format), but it was withdrawn: bad"),
            "{text}"
        );
    }

    #[test]
    fn the_highest_that_is_allowed() {
        let mut document = channel(["1.10.0", "1.13.0", "1.15.0", "1.18.0"].map(offer));
        document.max_version = Some("1.17".into());
        assert_eq!(get(&document, &machine("1.10.0")), "1.15.0");
        assert_eq!(get(&document, &machine("1.15.0")), "up to date");
        // A recall.
        assert_eq!(get(&document, &machine("1.18.0")), "back to 1.15.0");
        let (decision, _) = select(
            &document,
            &machine("1.10.0"),
            &Options { version: Some("1.13.0".into()), ..Options::default() },
            0,
        );
        assert_eq!(show(&decision), "1.13.0");
        let mut behind = machine("1.18.0");
        behind.floor = 2;
        assert!(get(&document, &behind).contains("rollback floor"));
        assert_eq!(
            get(&document, &Machine { image_id: "other".into(), ..machine("1") }),
            "the channel is for the image `host`"
        );
        assert_eq!(
            get(&document, &Machine { architecture: "aarch64".into(), ..machine("1") }),
            "the channel is for x86-64"
        );
    }

    #[test]
    fn what_is_not_taken() {
        let withdrawn = Offer { withdrawn: Some("loses data".into()), ..offer("2") };
        assert_eq!(get(&channel([withdrawn.clone(), offer("1.5")]), &machine("1")), "1.5");
        assert_eq!(get(&channel([withdrawn]), &machine("1")), "it was withdrawn: loses data");
        let mut failed = machine("1");
        failed.barred = vec!["2".into()];
        assert_eq!(get(&channel([offer("2")]), &failed), "2 has failed on this machine and is barred");
        let (decision, whys) = select(&channel([offer("2"), offer("1.1")]), &failed, &Options::default(), 0);
        assert_eq!(show(&decision), "1.1");
        assert_eq!(whys.len(), 2, "{whys:?}");
        let forced = Options { version: Some("2".into()), ignore_barred: true, ..Options::default() };
        assert_eq!(show(&select(&channel([offer("2")]), &failed, &forced, 0).0), "2");
        let end = Offer { dead_end: Some("install anew".into()), ..offer("1") };
        assert!(get(&channel([end, offer("2")]), &machine("1")).contains("install anew"));
        assert_eq!(get(&channel([offer("1")]), &machine("2")), "up to date", "never back by itself");
        let mut old = channel([offer("2")]);
        old.minimum_security_version = 3;
        assert!(get(&old, &machine("1")).contains("no longer allows"));
    }

    #[test]
    fn the_turn_of_a_machine() {
        let wave = |start| vec![Wave { start, duration: 0, share: WHOLE }];
        let document = channel([
            Offer { rollout: wave(2000), ..offer("2") },
            Offer { rollout: wave(500), ..offer("1.5") },
        ]);
        assert_eq!(get(&document, &machine("1")), "1.5", "an older one that is open");
        assert_eq!(get(&document, &machine("1.5")), "2 at Some(2000)");
        let at_once = Options { ignore_rollout: true, ..Options::default() };
        assert_eq!(show(&select(&document, &machine("1"), &at_once, 0).0), "2");
        let few = vec![Wave { start: 0, duration: 0, share: 1 }];
        assert_eq!(get(&channel([Offer { rollout: few, ..offer("2") }]), &machine("1")), "2 at None");
    }

    proptest! {
        #[test]
        fn never_withdrawn_barred_below_a_floor_or_back(
            offers in prop::collection::vec((1u32..20, any::<bool>(), any::<bool>(), 0u64..4), 0..12),
            from in 1u32..20, floor in 0u64..4, barred in prop::collection::vec(1u32..20, 0..4), max in prop::option::of(1u32..20),
        ) {
            let mut seen = std::collections::BTreeSet::new();
            let offers = offers.into_iter().filter(|(version, ..)| seen.insert(*version)).map(|(version, floor, withdrawn, security)| Offer {
                floor, withdrawn: withdrawn.then(|| "x".into()), security_version: security, ..offer(&version.to_string())
            });
            let mut document = channel(offers);
            document.max_version = max.map(|max| max.to_string());
            let machine = Machine { floor, barred: barred.iter().map(ToString::to_string).collect(), ..machine(&from.to_string()) };
            if let (Decision::Update { offer, back }, _) = select(&document, &machine, &Options::default(), 0) {
                let version: u32 = offer.version.parse().unwrap();
                prop_assert!(offer.withdrawn.is_none() && !barred.contains(&version) && offer.security_version >= floor);
                prop_assert!(max.is_none_or(|max| version <= max));
                prop_assert_eq!(back, version < from);
                prop_assert!(!back || max.is_some_and(|max| from > max), "back only by a recall");
                let passed = document.releases.iter().find(|other| {
                    let other_version: u32 = other.version.parse().unwrap();
                    other.floor && other_version > from && other_version < version
                });
                prop_assert!(passed.is_none(), "no floor is left out");
            }
        }
    }
}
