//! What starts the root: command line, sections, keys, predicted PCRs.

use crate::folder::{ReleaseFolder, read_whole};
use ashlar_image::cmdline::{ROOT_HASH, VERITY};
use ashlar_image::digest::Digest;
use ashlar_image::measure::{Event, Prediction, Variant};
use ashlar_measured_boot::efi::parse_signature_lists;
use ashlar_measured_boot::uki::Uki;
use serde::Serialize;
use std::collections::BTreeSet;

/// Words of the command line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CmdlineChange {
    /// Words that are gone, in order.
    pub removed: Vec<String>,
    /// Words that are new, in order.
    pub added: Vec<String>,
    /// Whether the words in both have another order.
    pub reordered: bool,
}

/// A section of the UKI with other content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SectionChange {
    /// Name with its dot.
    pub name: String,
    /// Length in memory in bytes before; none when it is new.
    pub before: Option<u64>,
    /// Length after; none when it is gone.
    pub after: Option<u64>,
}

/// A key, certificate or policy that changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KeyChange {
    /// `db`, `KEK`, `PK`, `PCR key`, `PCR policy`.
    pub what: String,
    /// SHA-256 of each certificate, or of the key, before.
    pub before: Vec<Digest>,
    /// After.
    pub after: Vec<Digest>,
}

/// A predicted PCR that comes to another value, and the measurements that make it so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PcrChange {
    /// Number.
    pub pcr: u32,
    /// The cases that have these causes: `first boot option`, `after ready`.
    pub variants: Vec<String>,
    /// What is measured otherwise, in the order of the measurements.
    pub causes: Vec<EventChange>,
}

/// A measurement that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EventChange {
    /// What is measured: `content of .cmdline`.
    pub event: String,
    /// Its digest before; none when it was not measured.
    pub before: Option<Digest>,
    /// Its digest after; none when it is no longer measured.
    pub after: Option<Digest>,
}

/// Whether a word of the command line tells which root is meant.
pub(crate) fn names_root(word: &str) -> bool {
    [ROOT_HASH, VERITY].iter().any(|key| word.strip_prefix(key).is_some_and(|rest| rest.starts_with('=')))
}

/// Occurrences of each word that have no partner in the other line.
pub(crate) fn cmdline(a: &str, b: &str) -> CmdlineChange {
    let words = |line: &str| -> Vec<String> { line.split_ascii_whitespace().map(str::to_owned).collect() };
    let (a, b) = (words(a), words(b));
    let only = |of: &[String], not: &[String]| {
        let mut left = not.to_vec();
        let mut only = Vec::new();
        for word in of {
            match left.iter().position(|other| other == word) {
                Some(at) => drop(left.remove(at)),
                None => only.push(word.clone()),
            }
        }
        only
    };
    let (removed, added) = (only(&a, &b), only(&b, &a));
    let reordered = only(&a, &removed).iter().ne(only(&b, &added).iter());
    CmdlineChange { removed, added, reordered }
}

pub(super) fn sections(a: &Uki<'_>, b: &Uki<'_>) -> Vec<SectionChange> {
    let names: BTreeSet<&str> = a.sections().chain(b.sections()).map(|(name, _)| name).collect();
    names
        .into_iter()
        .filter(|name| a.section(name) != b.section(name))
        .map(|name| SectionChange {
            name: name.to_owned(),
            before: a.section(name).map(|content| content.len() as u64),
            after: b.section(name).map(|content| content.len() as u64),
        })
        .collect()
}

/// Hashes of the certificates in a variable that the owner enrols. A folder without it has none.
fn certificates(folder: &ReleaseFolder, variable: &str) -> Vec<Digest> {
    const MAX: u64 = 1 << 20;
    let path = folder.path().join(format!("secure-boot/{variable}.esl"));
    let Ok(bytes) = read_whole(&path, MAX) else { return Vec::new() };
    match parse_signature_lists(&bytes) {
        Ok(lists) => lists
            .iter()
            .flat_map(|list| list.signatures.iter().map(|signature| Digest::of(&signature.data)))
            .collect(),
        // What is no list is told apart by its bytes.
        Err(_) => vec![Digest::of(&bytes)],
    }
}

pub(super) fn keys(a: &ReleaseFolder, b: &ReleaseFolder, uki_a: &Uki<'_>, uki_b: &Uki<'_>) -> Vec<KeyChange> {
    let section = |uki: &Uki<'_>, name: &str| -> Vec<Digest> {
        uki.section(name).map(Digest::of).into_iter().collect()
    };
    let mut changes = Vec::new();
    let mut add = |what: &str, before: Vec<Digest>, after: Vec<Digest>| {
        if before != after {
            changes.push(KeyChange { what: what.to_owned(), before, after });
        }
    };
    for variable in ["PK", "KEK", "db"] {
        add(variable, certificates(a, variable), certificates(b, variable));
    }
    add("PCR key", section(uki_a, ".pcrpkey"), section(uki_b, ".pcrpkey"));
    add("PCR policy", section(uki_a, ".pcrsig"), section(uki_b, ".pcrsig"));
    changes
}

/// What makes two lists of events come to other values. Behind a place where another thing is measured nothing is
/// compared: the lists are no longer side by side.
fn causes(a: &[Event], b: &[Event]) -> Vec<EventChange> {
    let mut causes = Vec::new();
    for at in 0..a.len().max(b.len()) {
        let (old, new) = (a.get(at), b.get(at));
        if old == new {
            continue;
        }
        let what = |event: Option<&Event>| event.map(|event| event.what.clone());
        causes.push(EventChange {
            event: what(old).or(what(new)).unwrap_or_default(),
            before: old.map(|event| event.digest),
            after: new.map(|event| event.digest),
        });
        if what(old) != what(new) {
            break;
        }
    }
    causes
}

pub(super) fn pcrs(a: &Prediction, b: &Prediction) -> Vec<PcrChange> {
    let numbers: BTreeSet<u32> = a.keys().chain(b.keys()).copied().collect();
    let mut changes: Vec<PcrChange> = Vec::new();
    for pcr in numbers {
        let of = |prediction: &Prediction| prediction.get(&pcr).cloned().unwrap_or_default();
        let (of_a, of_b) = (of(a), of(b));
        let mut seen = BTreeSet::new();
        for name in of_a.iter().chain(&of_b).map(|variant| &variant.name).filter(|name| seen.insert(*name)) {
            let find = |list: &[Variant]| list.iter().find(|variant| variant.name == *name).cloned();
            let (before, after) = (find(&of_a), find(&of_b));
            if before.as_ref().map(|v| v.value) == after.as_ref().map(|v| v.value) {
                continue;
            }
            let events = |variant: Option<Variant>| variant.map(|v| v.events).unwrap_or_default();
            let causes = causes(&events(before), &events(after));
            match changes.iter_mut().find(|change| change.pcr == pcr && change.causes == causes) {
                Some(change) => change.variants.push(name.clone()),
                None => changes.push(PcrChange { pcr, variants: vec![name.clone()], causes }),
            }
        }
    }
    changes
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn words() {
        let change = cmdline("quiet a=1 a=1 x", "a=1 x quiet b");
        assert_eq!(
            (change.removed, change.added, change.reordered),
            (vec!["a=1".into()], vec!["b".into()], true)
        );
        assert_eq!(cmdline("a b", "a  b").removed, Vec::<String>::new());
    }

    #[test]
    fn the_differing_event_is_the_cause() {
        let prediction = |cmdline: &str| {
            let events = vec![
                Event::of(".linux contents", b"k"),
                Event::of(".cmdline contents", cmdline),
                Event::of("x", b"x"),
            ];
            Prediction::from([(11, vec![Variant::new("after ready", events)]), (7, vec![])])
        };
        let changes = pcrs(&prediction("a"), &prediction("b"));
        assert_eq!(changes.len(), 1);
        assert_eq!((changes[0].pcr, changes[0].causes.len()), (11, 1));
        assert_eq!(changes[0].causes[0].event, ".cmdline contents");
        assert_eq!(changes[0].causes[0].after, Some(Digest::of(b"b")));
        assert_eq!(pcrs(&prediction("a"), &BTreeMap::new()).len(), 1);
    }
}
