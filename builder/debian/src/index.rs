//! The packages of suites and local files, by name: what is chosen from.

use crate::loader::{self, Loaded};
use crate::local::LocalDeb;
use crate::locked::Origin;
use crate::preferences::{self, Instance, LOCAL_PRIORITY, Pin, SourceNames};
use crate::progress::Progress;
use crate::relation::{Clause, Constraint, is_name, parse_relations};
use crate::stanza::{Stanza, stanzas};
use crate::suite::{Suite, SuiteSource, Suites};
use crate::transport::Network;
use crate::{Error, Locked};
use ashlar_cache::{Cache, sha256};
use std::collections::{BTreeMap, HashSet};
use std::time::SystemTime;

/// Where the stanza of a package lies in the package lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Record {
    list: usize,
    start: usize,
    end: usize,
}

/// A suite that an index was made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexSource {
    /// The source's name; empty for the only one of [`Index::load`].
    pub name: String,
    /// URL below which its package files lie.
    pub url: String,
    /// `Date` of the signed index, seconds since 1970.
    pub date: i64,
    /// SHA-256 of the `InRelease` file, in lower-case hexadecimal.
    pub in_release_sha256: String,
    /// `Codename` of the signed index, or its `Suite`.
    pub codename: String,
    /// Priority of its packages.
    pub priority: i32,
}

/// One list with the source that it comes from.
struct List {
    text: String,
    /// Which of `Index::names_of_sources`.
    source: usize,
}

/// The packages of some suites, verified down from the archives' signatures, and local ones.
pub struct Index {
    /// `Date` of the signed index, seconds since 1970; of several the latest.
    pub date: i64,
    /// SHA-256 of the `InRelease` file, in lower-case hexadecimal. Of several it is that of one line for each, in order:
    /// its name, a blank, its SHA-256.
    pub in_release_sha256: String,
    /// The suites, in order.
    pub sources: Vec<IndexSource>,
    pub(crate) architecture: String,
    lists: Vec<List>,
    /// What the lists come from; local files come first.
    origins: Vec<(Origin, SourceNames)>,
    /// Candidates by name, highest version first.
    by_name: BTreeMap<String, Vec<Record>>,
    /// Candidates by the names that they provide, in the order of the lists.
    providers: BTreeMap<String, Vec<Record>>,
    /// Versions that are no candidates by reason of their priority, which is the number.
    passed_over: BTreeMap<String, Vec<(Record, i32)>>,
}

impl Index {
    /// Reads the index of one suite: with the network looks for a newer one, without it takes the one in the cache.
    /// Either is verified against the keyrings each time.
    ///
    /// Should the mirror give an older index than the one in the cache, the newer one is used: an old index that
    /// is played back cannot bring old packages back.
    pub fn load(
        suite: &Suite,
        cache: &Cache,
        network: Network,
        progress: &dyn Progress,
    ) -> Result<Self, Error> {
        let source = SuiteSource::new(suite.clone());
        let mut loaded = loader::load(&source, cache, network, SystemTime::now(), progress)?;
        loaded.names.name = String::new();
        Ok(Self::new(vec![loaded], &[], &[], &suite.architecture))
    }

    /// Reads the indexes of several suites, each as [`Index::load`] does, and joins them with local package files. Of each
    /// package only the versions with the highest priority are candidates, as with apt; the highest version is taken unless
    /// a relation asks for a lower one.
    pub fn load_all(
        suites: &Suites,
        cache: &Cache,
        network: Network,
        progress: &dyn Progress,
    ) -> Result<Self, Error> {
        let architecture = suites.check()?;
        let now = SystemTime::now();
        let load = |source| loader::load(source, cache, network, now, progress);
        let loaded = suites.sources.iter().map(load).collect::<Result<Vec<_>, _>>()?;
        Ok(Self::new(loaded, &suites.local, &suites.pins, &architecture))
    }

    /// The index of these package lists, for `architecture`.
    #[cfg(test)]
    pub(crate) fn from_lists(lists: Vec<String>, architecture: &str) -> Self {
        Self::new(vec![Loaded::of_lists("", 500, lists)], &[], &[], architecture)
    }

    /// Stanzas without a usable name are passed over.
    pub(crate) fn new(loaded: Vec<Loaded>, local: &[LocalDeb], pins: &[Pin], architecture: &str) -> Self {
        let mut index = Self {
            date: loaded.iter().map(|source| source.date).max().unwrap_or_default(),
            in_release_sha256: identity(&loaded),
            sources: loaded.iter().map(Loaded::describe).collect(),
            architecture: architecture.to_owned(),
            lists: Vec::new(),
            origins: Vec::new(),
            by_name: BTreeMap::new(),
            providers: BTreeMap::new(),
            passed_over: BTreeMap::new(),
        };
        // First, so that of a version that a suite has too the local file is taken.
        if !local.is_empty() {
            let names =
                SourceNames { name: "local".into(), priority: LOCAL_PRIORITY, ..SourceNames::default() };
            index.origins.push((Origin::Local, names));
            index.lists.push(List { text: local.iter().map(|deb| deb.stanza.as_str()).collect(), source: 0 });
        }
        for source in loaded {
            let at = index.origins.len();
            index.lists.extend(source.lists.into_iter().map(|text| List { text, source: at }));
            let origin = Origin::from(source.names.name.clone());
            index.origins.push((origin, source.names));
        }
        index.read_lists();
        index.choose_candidates(pins);
        index
    }

    fn read_lists(&mut self) {
        for (list, List { text, .. }) in self.lists.iter().enumerate() {
            for stanza in stanzas(text) {
                let start = stanza.0.as_ptr() as usize - text.as_ptr() as usize;
                let record = Record { list, start, end: start + stanza.0.len() };
                let (mut name, mut provides, mut fits) = (None, None, false);
                for (field, value) in stanza.fields() {
                    match field {
                        "Package" => name = Some(value),
                        "Provides" => provides = Some(value),
                        "Architecture" => fits = value == self.architecture || value == "all",
                        _ => {}
                    }
                }
                let Some(name) = name.filter(|name| fits && is_name(name)) else { continue };
                self.by_name.entry(name.to_owned()).or_default().push(record);
                // Only the names are needed here; what is wrong in the field is said when the package is looked at.
                for provided in provides.unwrap_or("").split(',') {
                    let provided = provided.split([' ', '(', ':', '\n']).find(|word| !word.is_empty());
                    if let Some(provided) = provided.filter(|word| is_name(word)) {
                        let records = self.providers.entry(provided.to_owned()).or_default();
                        if records.last() != Some(&record) {
                            records.push(record);
                        }
                    }
                }
            }
        }
    }

    /// Takes away what priorities and pins leave out.
    fn choose_candidates(&mut self, pins: &[Pin]) {
        let plain = pins.is_empty() && self.origins.iter().all(|(_, names)| names.priority > 0);
        let (lists, origins) = (&self.lists, &self.origins);
        let mut gone = HashSet::new();
        for (name, records) in &mut self.by_name {
            // Nearly all packages have one version, and nothing to choose from.
            if plain && records.len() == 1 {
                continue;
            }
            let instance = |record: &Record| Instance {
                version: Stanza(&lists[record.list].text[record.start..record.end])
                    .field("Version")
                    .unwrap_or(""),
                source: &origins[lists[record.list].source].1,
                record: *record,
            };
            let chosen = preferences::choose(name, records.iter().map(instance).collect(), pins);
            *records = chosen.candidates;
            gone.extend(chosen.repeated);
            gone.extend(chosen.passed_over.iter().map(|(record, _)| *record));
            if !chosen.passed_over.is_empty() {
                self.passed_over.insert(name.clone(), chosen.passed_over);
            }
        }
        if !gone.is_empty() {
            for records in self.providers.values_mut() {
                records.retain(|record| !gone.contains(record));
            }
        }
        self.by_name.retain(|_, records| !records.is_empty());
    }

    /// Names of all packages, in byte order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.by_name.keys().map(String::as_str)
    }

    /// The candidates with this name, highest version first.
    pub(crate) fn records(&self, name: &str) -> &[Record] {
        self.by_name.get(name).map_or(&[], Vec::as_slice)
    }

    /// The candidates that provide this name.
    pub(crate) fn providers(&self, name: &str) -> &[Record] {
        self.providers.get(name).map_or(&[], Vec::as_slice)
    }

    /// Versions of this package that are no candidates, with their priorities.
    pub(crate) fn passed_over(&self, name: &str) -> &[(Record, i32)] {
        self.passed_over.get(name).map_or(&[], Vec::as_slice)
    }

    pub(crate) fn stanza(&self, record: Record) -> Stanza<'_> {
        Stanza(&self.lists[record.list].text[record.start..record.end])
    }

    /// What a package comes from, for messages.
    pub(crate) fn place(&self, record: Record) -> String {
        match &self.origins[self.lists[record.list].source] {
            (Origin::Local, _) => format!("`{}`", self.stanza(record).field("Filename").unwrap_or("local")),
            (Origin::Source(name), _) => name.clone(),
            (Origin::First, _) => "the suite".into(),
        }
    }

    /// Whether messages have to say what a package comes from.
    pub(crate) fn has_several_sources(&self) -> bool {
        self.origins.len() > 1
    }

    /// Reads what resolving needs of a package.
    pub(crate) fn candidate(&self, record: Record) -> Result<Candidate, Error> {
        let stanza = self.stanza(record);
        let name = stanza.field("Package").unwrap_or("");
        let bad = |why: String| Error::BadEntry { package: name.to_owned(), why };
        let relations = |fields: &[&str]| -> Result<Vec<Clause>, Error> {
            let mut clauses = Vec::new();
            for field in fields {
                let value = stanza.field(field).unwrap_or("");
                let parsed = parse_relations(value, &self.architecture)
                    .map_err(|why| bad(format!("{why} (in `{field}`)")))?;
                clauses.extend(parsed);
            }
            Ok(clauses)
        };
        let provides = relations(&["Provides"])?
            .into_iter()
            .flatten()
            .map(|provided| {
                let version = provided.constraint.as_ref().and_then(Constraint::exactly).map(str::to_owned);
                (provided.name, version)
            })
            .collect();
        let version = stanza.field("Version").ok_or_else(|| bad("it has no `Version`".into()))?;
        Ok(Candidate {
            record,
            name: name.to_owned(),
            version: version.to_owned(),
            depends: relations(&["Pre-Depends", "Depends"])?,
            conflicts: relations(&["Conflicts", "Breaks"])?.into_iter().flatten().collect(),
            provides,
        })
    }

    /// What the lock file says of a package.
    pub(crate) fn locked(&self, candidate: &Candidate) -> Result<Locked, Error> {
        let stanza = self.stanza(candidate.record);
        let bad = |why: &str| Error::BadEntry { package: candidate.name.clone(), why: why.to_owned() };
        let field = |name| stanza.field(name).ok_or_else(|| bad(&format!("it has no `{name}`")));
        let origin = self.origins[self.lists[candidate.record.list].source].0.clone();
        let path = field("Filename")?;
        let locked = Locked {
            name: candidate.name.clone(),
            version: candidate.version.clone(),
            architecture: field("Architecture")?.to_owned(),
            sha256: field("SHA256")?.to_ascii_lowercase(),
            size: field("Size")?.parse().map_err(|_| bad("its `Size` is not a number"))?,
            path: if origin == Origin::Local { path } else { path.trim_start_matches("./") }.to_owned(),
            origin,
        };
        locked.check().map_err(|why| bad(&why))?;
        Ok(locked)
    }
}

/// See [`Index::in_release_sha256`].
fn identity(loaded: &[Loaded]) -> String {
    if let [only] = loaded {
        return only.in_release_sha256.clone();
    }
    let line = |source: &Loaded| format!("{} {}\n", source.names.name, source.in_release_sha256);
    sha256(loaded.iter().map(line).collect::<String>().as_bytes())
}

/// A package as the resolver sees it.
#[derive(Debug, Clone)]
pub(crate) struct Candidate {
    pub(crate) record: Record,
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) depends: Vec<Clause>,
    pub(crate) conflicts: Vec<crate::Alternative>,
    pub(crate) provides: Vec<(String, Option<String>)>,
}
