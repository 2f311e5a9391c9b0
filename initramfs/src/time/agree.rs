//! Which offset the servers agree on: the intersection algorithm of Marzullo in the form that NTP uses (RFC 5905,
//! section 11.2.1), with a fixed majority.

use crate::time::packet::{Nanos, Sample};

/// What a majority agrees on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agreement {
    /// How far the clock is to be moved, in nanoseconds.
    pub offset: Nanos,
    /// The server that is the most exact of those that agree, by its number.
    pub best: usize,
    /// All that agree, by number.
    pub agreeing: Vec<usize>,
}

/// How many of `servers` must agree.
pub const fn majority(servers: usize) -> usize {
    servers / 2 + 1
}

/// The offset that at least `needed` samples allow: each sample allows what lies between its offset less and plus its
/// error. Samples come with the numbers of their servers.
pub fn agree(samples: &[(usize, Sample)], needed: usize) -> Option<Agreement> {
    // Where intervals begin (-1, so that those come first) and end.
    let mut edges: Vec<(Nanos, i8)> = samples
        .iter()
        .flat_map(|(_, sample)| [(sample.offset - sample.error, -1), (sample.offset + sample.error, 1)])
        .collect();
    edges.sort_unstable();
    let (mut depth, mut best) = (0usize, (0usize, 0, 0));
    for (index, (at, edge)) in edges.iter().enumerate() {
        if *edge < 0 {
            depth += 1;
            if depth > best.0 {
                let end = edges.get(index + 1).map_or(*at, |(end, _)| *end);
                best = (depth, *at, end);
            }
        } else {
            depth = depth.saturating_sub(1);
        }
    }
    let (depth, from, to) = best;
    if depth < needed.max(1) {
        return None;
    }
    let allows = |sample: &Sample| sample.offset - sample.error <= from && sample.offset + sample.error >= to;
    let agreeing = samples.iter().filter(|(_, sample)| allows(sample));
    let (best, exact) = agreeing.clone().min_by_key(|(_, sample)| sample.error)?;
    let agreeing = agreeing.map(|(server, _)| *server).collect();
    Some(Agreement { offset: exact.offset.clamp(from, to), best: *best, agreeing })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample(server: usize, offset: Nanos, error: Nanos) -> (usize, Sample) {
        (server, Sample { offset, error, delay: 0 })
    }

    #[test]
    fn a_liar_among_three_changes_nothing() {
        let samples = [sample(0, 100, 30), sample(1, 3_600_000, 1), sample(2, 110, 10)];
        let agreement = agree(&samples, majority(3)).unwrap();
        assert_eq!(agreement, Agreement { offset: 110, best: 2, agreeing: vec![0, 2] });
    }

    #[test]
    fn no_majority_is_no_time() {
        assert_eq!(agree(&[sample(0, 0, 1), sample(1, 100, 1)], majority(2)), None);
        assert_eq!(agree(&[sample(0, 0, 1)], majority(2)), None, "one of two");
        assert_eq!(agree(&[sample(0, 5, 1)], majority(1)).unwrap().offset, 5);
        assert_eq!(agree(&[], 0), None);
        let split = [sample(0, 0, 1), sample(1, 0, 1), sample(2, 100, 1), sample(3, 100, 1)];
        assert_eq!(agree(&split, majority(4)), None, "two against two");
    }

    proptest! {
        /// However the minority lies: the offset lies within what some honest server allows, as far as the honest ones
        /// are a majority and the truth (0) is within what each of them allows.
        #[test]
        fn a_minority_cannot_move_the_clock(
            honest in proptest::collection::vec((-1000i128..1000, 0i128..500), 3..6),
            liars in proptest::collection::vec((-100_000i128..100_000, 0i128..50_000), 0..3),
        ) {
            let liars = &liars[..liars.len().min(honest.len() - 1)];
            let mut samples = Vec::new();
            for (offset, slack) in &honest {
                samples.push(sample(samples.len(), *offset, offset.abs() + slack));
            }
            for (offset, error) in liars {
                samples.push(sample(samples.len(), *offset, *error));
            }
            let agreement = agree(&samples, majority(samples.len())).unwrap();
            let widest = honest.iter().map(|(offset, slack)| offset.abs() * 2 + slack).max().unwrap();
            prop_assert!(agreement.offset.abs() <= widest, "{agreement:?}");
            prop_assert!(agreement.agreeing.len() >= majority(samples.len()));
        }
    }
}
