//! What was predicted beside what was measured, and where they part.

use crate::eventlog::{EventLog, LogEvent};
use ashlar_image::digest::Digest;
use ashlar_image::measure::{Event, Prediction, Variant};
use std::collections::BTreeMap;
use std::fmt;

/// The comparison of one PCR.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Comparison {
    /// The PCR.
    pub pcr: u32,
    /// The variants that were predicted.
    pub predicted: Vec<Variant>,
    /// The value that was measured, where there is one.
    pub measured: Option<Digest>,
    /// What came of it.
    pub outcome: Outcome,
}

/// What came of a comparison.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The measured value is that of a variant.
    Same {
        /// Number of the variant in [`Comparison::predicted`].
        variant: usize,
    },
    /// The measured value is that of no variant.
    Different {
        /// Number of the variant with which the log agrees longest; 0 without a log, none without variants.
        nearest: Option<usize>,
        /// Where the log and that variant part.
        difference: Difference,
    },
    /// No value was measured.
    NoValue,
}

/// Where a log and a variant part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Difference {
    /// At an event.
    Event {
        /// Number of the event among those of the PCR, counted from 0.
        index: usize,
        /// What was predicted; none when the machine measured more.
        expected: Option<Event>,
        /// What the log has; none when it has no more and nothing more was to come from elsewhere.
        seen: Option<Event>,
    },
    /// Not in the log: it agrees with the variant as far as it goes, and the measured value is still
    /// another. Something that the firmware does not log was left out or added, as a phase word.
    AfterLog {
        /// Events of the PCR in the log.
        logged: usize,
    },
    /// There is no log with SHA-256 digests, so the event is not known.
    NoLog,
}

impl Comparison {
    /// Whether the PCR has a predicted value.
    pub const fn is_same(&self) -> bool {
        matches!(self.outcome, Outcome::Same { .. })
    }

    /// The variant that the machine is in.
    pub fn variant(&self) -> Option<&Variant> {
        match self.outcome {
            Outcome::Same { variant } => self.predicted.get(variant),
            _ => None,
        }
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PCR {}: ", self.pcr)?;
        match &self.outcome {
            Outcome::Same { .. } => write!(f, "as predicted ({})", self.variant().map_or("", |v| &v.name)),
            Outcome::NoValue => f.write_str("no value was measured"),
            Outcome::Different { difference, .. } => {
                write!(f, "not as predicted; {difference}")
            }
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = |event: &Event| format!("{} {}", event.digest, event.what);
        match self {
            Self::Event { index, expected, seen } => {
                write!(f, "event {index}: expected {}", expected.as_ref().map_or("no more".into(), of))?;
                write!(f, ", seen {}", seen.as_ref().map_or("no more".into(), of))
            }
            Self::AfterLog { logged } => write!(
                f,
                "the {logged} logged events are right, so what followed them (phase words, an extension by \
                 the system) is not"
            ),
            Self::NoLog => f.write_str("without an event log with SHA-256 digests the event is not known"),
        }
    }
}

/// Compares each predicted PCR with its measured value. `log` is only used to find the event that differs:
/// it is not needed to agree, and cannot make a PCR agree.
pub fn compare(
    prediction: &Prediction,
    measured: &BTreeMap<u32, Digest>,
    log: Option<&EventLog>,
) -> Vec<Comparison> {
    prediction
        .iter()
        .map(|(pcr, variants)| {
            let measured = measured.get(pcr).copied();
            let outcome = match measured {
                None => Outcome::NoValue,
                Some(value) => match variants.iter().position(|variant| variant.value == value) {
                    Some(variant) => Outcome::Same { variant },
                    None => different(*pcr, variants, log),
                },
            };
            Comparison { pcr: *pcr, predicted: variants.clone(), measured, outcome }
        })
        .collect()
}

fn different(pcr: u32, variants: &[Variant], log: Option<&EventLog>) -> Outcome {
    let first = (!variants.is_empty()).then_some(0);
    let Some(seen) = log.and_then(|log| log.events(pcr).map(seen).collect::<Option<Vec<_>>>()) else {
        return Outcome::Different { nearest: first, difference: Difference::NoLog };
    };
    let common = |variant: &Variant| {
        variant.events.iter().zip(&seen).take_while(|(a, b)| a.digest == b.digest).count()
    };
    // The first of those that share most: `max_by_key` would take the last.
    let nearest = variants.iter().enumerate().rev().max_by_key(|(_, variant)| common(variant));
    let Some((nearest, variant)) = nearest else {
        let difference = Difference::Event { index: 0, expected: None, seen: seen.first().cloned() };
        return Outcome::Different { nearest: None, difference };
    };
    let index = common(variant);
    let difference = match seen.get(index) {
        None => Difference::AfterLog { logged: index },
        Some(event) => Difference::Event {
            index,
            expected: variant.events.get(index).cloned(),
            seen: Some(event.clone()),
        },
    };
    Outcome::Different { nearest: Some(nearest), difference }
}

fn seen(event: &LogEvent) -> Option<Event> {
    Some(Event { what: event.explain().to_string(), digest: event.sha256()? })
}
