//! From names to a closed set of packages.
//!
//! Every dependency of a chosen package is fulfilled by a chosen one, and no two chosen packages exclude each
//! other. Dependencies that leave no choice are followed first, so that a choice falls on what is needed anyway.
//! Then the alternatives are tried in the order in which the maintainer wrote them, real packages before those that
//! provide the name, higher versions before lower ones, and taken back when they lead nowhere. The result
//! depends on the index and the question only.

use crate::index::{Candidate, Index, Record};
use crate::locked::Locked;
use crate::relation::{Alternative, Clause};
use crate::{Error, compare_versions};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;

/// How many packages may be tried before it is given up: ten times what a large image takes.
const MAX_STEPS: usize = 20_000;
/// How many near names an error lists.
const NEAREST: usize = 5;

/// A chosen package and why it was chosen: by whom, none when it was asked for.
#[derive(Clone)]
struct Chosen {
    candidate: Rc<Candidate>,
    by: Option<String>,
}

/// A dependency to be fulfilled, and who has it (none for what was asked for).
#[derive(Clone)]
struct Demand {
    clause: Rc<Clause>,
    by: Option<String>,
    /// Only the package of this very name will do: it was asked for and exists, so another one that provides the
    /// name is not meant.
    real: bool,
}

impl Demand {
    /// Whether a package fulfils one alternative of this demand.
    fn accepts(&self, candidate: &Candidate, alternative: &Alternative) -> bool {
        matches(candidate, alternative) && (!self.real || candidate.name == alternative.name)
    }
}

#[derive(Clone, Default)]
struct State {
    /// By name: an image has one version of a package.
    chosen: BTreeMap<String, Chosen>,
    /// Not looked at yet.
    fresh: VecDeque<Demand>,
    /// Put off, because there is a choice.
    open: VecDeque<Demand>,
}

impl State {
    /// `a -> b -> c`: who led to the package with this name.
    fn chain(&self, name: &str) -> String {
        let mut names = vec![name];
        let mut at = name;
        while let Some(Chosen { by: Some(by), .. }) = self.chosen.get(at) {
            names.push(by);
            at = by;
        }
        names.reverse();
        names.join(" -> ")
    }

    /// A chosen package with its version, where it comes from, and what led to it.
    fn describe(&self, index: &Index, candidate: &Candidate, by: Option<&str>) -> String {
        let mut name = format!("{} {}", candidate.name, candidate.version);
        if index.has_several_sources() {
            name = format!("{name} from {}", index.place(candidate.record));
        }
        match by {
            Some(by) => format!("{name} (needed by {})", self.chain(by)),
            None => format!("{name} (asked for)"),
        }
    }
}

/// Packages that fulfil a demand, best first.
type Candidates = Vec<Rc<Candidate>>;

/// A choice that can be taken back: how things were, and what has not been tried.
struct Choice {
    state: State,
    by: Option<String>,
    left: std::vec::IntoIter<Rc<Candidate>>,
}

struct Resolver<'a> {
    index: &'a Index,
    excluded: BTreeSet<&'a str>,
    read: BTreeMap<(String, String), Rc<Candidate>>,
    steps: usize,
}

impl Index {
    /// The packages that `wanted` needs: themselves and whatever `Pre-Depends` and `Depends` name, sorted by
    /// name. `Recommends` are not followed and essential packages are not added: an image has no package manager.
    /// A name in `excluded` counts as there and is never chosen.
    ///
    /// # Errors
    /// Names the package that is not there, the dependency that cannot be fulfilled with the chain that led to it,
    /// or the two packages that exclude each other.
    pub fn resolve(&self, wanted: &[String], excluded: &[String]) -> Result<Vec<Locked>, Error> {
        let excluded: BTreeSet<&str> = excluded.iter().map(String::as_str).collect();
        let mut resolver = Resolver { index: self, excluded, read: BTreeMap::new(), steps: 0 };
        let mut state = State::default();
        for name in wanted {
            let demand = resolver.wanted(name)?;
            state.fresh.push_back(demand);
        }
        let state = resolver.solve(state)?;
        state.chosen.values().map(|chosen| self.locked(&chosen.candidate)).collect()
    }
}

impl Resolver<'_> {
    fn wanted(&self, name: &str) -> Result<Demand, Error> {
        if self.excluded.contains(name) {
            return Err(Error::WantedAndExcluded(name.to_owned()));
        }
        let real = !self.index.records(name).is_empty();
        if !real {
            let provider = |record: &Record| self.index.stanza(*record).field("Package").map(str::to_owned);
            let providers: BTreeSet<String> =
                self.index.providers(name).iter().filter_map(provider).collect();
            match providers.len() {
                0 if self.index.passed_over(name).is_empty() => return Err(self.unknown(name)),
                0 => {
                    return Err(Error::Unsatisfiable {
                        chain: "the recipe".into(),
                        clause: name.to_owned(),
                        why: self.versions(name).join(", "),
                    });
                }
                1 => {}
                _ => {
                    return Err(Error::Virtual {
                        name: name.to_owned(),
                        providers: providers.into_iter().collect(),
                    });
                }
            }
        }
        let alternative = Alternative { name: name.to_owned(), qualifier: None, constraint: None };
        Ok(Demand { clause: Rc::new(vec![alternative]), by: None, real })
    }

    fn unknown(&self, name: &str) -> Error {
        let mut near: Vec<(f64, &str)> = self
            .index
            .names()
            .map(|other| (strsim::jaro_winkler(name, other), other))
            .filter(|(likeness, _)| *likeness > 0.8)
            .collect();
        near.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
        let nearest = near.into_iter().take(NEAREST).map(|(_, name)| name.to_owned()).collect();
        Error::Unknown { name: name.to_owned(), nearest }
    }

    /// Fulfils all demands of `state`. The first failure on the way is the one that is told: later ones come of second
    /// choices.
    fn solve(&mut self, mut state: State) -> Result<State, Error> {
        let mut choices: Vec<Choice> = Vec::new();
        let mut first_failure = None;
        loop {
            match self.follow(&mut state) {
                Ok(None) => return Ok(state),
                Ok(Some((demand, candidates))) => {
                    choices.push(Choice {
                        state: state.clone(),
                        by: demand.by,
                        left: candidates.into_iter(),
                    });
                }
                Err(error) => {
                    first_failure.get_or_insert(error);
                }
            }
            // The next candidate of the latest choice that has one left.
            loop {
                let Some(choice) = choices.last_mut() else { return Err(gave_up(first_failure)) };
                let Some(candidate) = choice.left.next() else {
                    choices.pop();
                    continue;
                };
                if self.steps > MAX_STEPS {
                    return Err(gave_up(first_failure));
                }
                state = choice.state.clone();
                let by = choice.by.clone();
                match self.choose(&mut state, candidate, by) {
                    Ok(()) => break,
                    Err(error) => first_failure.get_or_insert(error),
                };
            }
        }
    }

    /// Follows demands until one leaves a choice, which is returned with its candidates; none when all are fulfilled.
    fn follow(&mut self, state: &mut State) -> Result<Option<(Demand, Candidates)>, Error> {
        while let Some(demand) = state.fresh.pop_front() {
            if self.is_fulfilled(state, &demand) {
                continue;
            }
            let candidates = self.candidates(&demand)?;
            match &candidates[..] {
                [] => return Err(self.unsatisfiable(state, &demand)),
                [only] => {
                    let only = Rc::clone(only);
                    self.choose(state, only, demand.by)?;
                }
                _ => state.open.push_back(demand),
            }
        }
        while let Some(demand) = state.open.pop_front() {
            if !self.is_fulfilled(state, &demand) {
                let candidates = self.candidates(&demand)?;
                return Ok(Some((demand, candidates)));
            }
        }
        Ok(None)
    }

    fn is_fulfilled(&self, state: &State, demand: &Demand) -> bool {
        demand.clause.iter().any(|alternative| {
            self.excluded.contains(alternative.name.as_str())
                || state.chosen.values().any(|chosen| demand.accepts(&chosen.candidate, alternative))
        })
    }

    /// Packages that fulfil a demand, best first, none twice, none excluded.
    fn candidates(&mut self, demand: &Demand) -> Result<Candidates, Error> {
        let mut found = Candidates::new();
        for alternative in demand.clause.iter() {
            if !self.fits_architecture(alternative) {
                continue;
            }
            let mut candidates = Vec::new();
            for record in self.index.records(&alternative.name) {
                candidates.push(self.candidate(*record)?);
            }
            let mut providers = Vec::new();
            for record in self.index.providers(&alternative.name) {
                providers.push(self.candidate(*record)?);
            }
            providers
                .sort_by(|a, b| a.name.cmp(&b.name).then_with(|| compare_versions(&b.version, &a.version)));
            candidates.extend(providers);
            for candidate in candidates {
                let known = |other: &Rc<Candidate>| {
                    other.name == candidate.name && other.version == candidate.version
                };
                if demand.accepts(&candidate, alternative)
                    && !self.excluded.contains(candidate.name.as_str())
                    && !found.iter().any(known)
                {
                    found.push(candidate);
                }
            }
        }
        Ok(found)
    }

    /// Images have one architecture: `:any`, `:native` and its own name all mean it.
    fn fits_architecture(&self, alternative: &Alternative) -> bool {
        match alternative.qualifier.as_deref() {
            None | Some("any" | "native" | "all") => true,
            Some(other) => other == self.index.architecture,
        }
    }

    /// Each package is parsed once, however often it is met.
    fn candidate(&mut self, record: Record) -> Result<Rc<Candidate>, Error> {
        let stanza = self.index.stanza(record);
        let key = |name| stanza.field(name).unwrap_or("").to_owned();
        let key = (key("Package"), key("Version"));
        if let Some(candidate) = self.read.get(&key) {
            return Ok(Rc::clone(candidate));
        }
        let candidate = Rc::new(self.index.candidate(record)?);
        self.read.insert(key, Rc::clone(&candidate));
        Ok(candidate)
    }

    /// Adds a package and its dependencies, unless another chosen package excludes it.
    fn choose(
        &mut self,
        state: &mut State,
        candidate: Rc<Candidate>,
        by: Option<String>,
    ) -> Result<(), Error> {
        self.steps += 1;
        for other in state.chosen.values() {
            if let Some(relation) = exclusion(&candidate, &other.candidate) {
                return Err(Error::Conflict {
                    first: state.describe(self.index, &candidate, by.as_deref()),
                    second: state.describe(self.index, &other.candidate, other.by.as_deref()),
                    relation,
                });
            }
        }
        for clause in &candidate.depends {
            state.fresh.push_back(Demand {
                clause: Rc::new(clause.clone()),
                by: Some(candidate.name.clone()),
                real: false,
            });
        }
        state.chosen.insert(candidate.name.clone(), Chosen { candidate, by });
        Ok(())
    }

    /// Which versions of a package there are and where, for messages: the best candidate, and what is none.
    fn versions(&self, name: &str) -> Vec<String> {
        let version = |record: Record| self.index.stanza(record).field("Version").unwrap_or("");
        let best = self
            .index
            .records(name)
            .first()
            .map(|record| format!("{} has {name} {}", self.index.place(*record), version(*record)));
        let passed_over = self.index.passed_over(name).iter().map(|(record, priority)| {
            let why =
                if *priority < 0 { "which forbids it" } else { "which is too low; a pin can change that" };
            let place = self.index.place(*record);
            format!("{place} has {name} {} at priority {priority}, {why}", version(*record))
        });
        best.into_iter().chain(passed_over).collect()
    }

    fn unsatisfiable(&self, state: &State, demand: &Demand) -> Error {
        let has = |alternative: &Alternative| {
            let name = &alternative.name;
            let versions = self.versions(name);
            if !versions.is_empty() {
                versions.join(" and ")
            } else if !self.index.providers(name).is_empty() {
                format!("nothing that provides {name} fits or all of it is excluded")
            } else if self.index.has_several_sources() {
                format!("no source has {name}")
            } else {
                format!("the suite has no {name}")
            }
        };
        let clause: Vec<String> = demand.clause.iter().map(ToString::to_string).collect();
        let why: Vec<String> = demand.clause.iter().map(has).collect();
        Error::Unsatisfiable {
            chain: demand.by.as_deref().map_or_else(|| "the recipe".into(), |by| state.chain(by)),
            clause: clause.join(" | "),
            why: why.join(", "),
        }
    }
}

/// The error when all choices have been tried. There is none without a failure.
fn gave_up(first_failure: Option<Error>) -> Error {
    first_failure.unwrap_or_else(|| Error::Unsatisfiable {
        chain: "the recipe".into(),
        clause: "all of its packages".into(),
        why: "no set of packages fulfils this".into(),
    })
}

/// Whether a package fulfils a relation, by its own name or by one that it provides. A provided name without a
/// version fulfils no condition on the version (policy 7.5).
fn matches(candidate: &Candidate, alternative: &Alternative) -> bool {
    let accepts = |version: Option<&str>| match (&alternative.constraint, version) {
        (None, _) => true,
        (Some(constraint), Some(version)) => constraint.accepts(version),
        (Some(_), None) => false,
    };
    candidate.name == alternative.name && accepts(Some(&candidate.version))
        || candidate
            .provides
            .iter()
            .any(|(name, version)| *name == alternative.name && accepts(version.as_deref()))
}

/// Why two packages exclude each other, if they do.
fn exclusion(a: &Candidate, b: &Candidate) -> Option<String> {
    if a.name == b.name {
        return Some("only one version of a package can be in an image".into());
    }
    let one = |a: &Candidate, b: &Candidate| {
        let relation = a.conflicts.iter().find(|relation| matches(b, relation))?;
        Some(format!("{} conflicts with or breaks {relation}", a.name))
    };
    one(a, b).or_else(|| one(b, a))
}

#[cfg(test)]
mod tests;
