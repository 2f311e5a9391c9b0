//! The index of a suite: which packages there are.

use crate::openpgp;
use crate::progress::Progress;
use crate::relation::{Clause, Constraint, is_name, parse_relations};
use crate::release::{Release, show_date};
use crate::stanza::{Stanza, stanzas};
use crate::transport::{Client, Network, check_mirror};
use crate::version::compare_versions;
use crate::{Error, Locked};
use ashlar_cache::{Cache, Room, read_if_there, sha256};
use std::collections::BTreeMap;
use std::io::Read;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

/// The keyrings of Debian's archive as the package `debian-archive-keyring` installs them: first of Debian 13,
/// then of Debian 12. Those that are there are used.
pub const DEFAULT_KEYRINGS: &[&str] =
    &["/usr/share/keyrings/debian-archive-keyring.pgp", "/usr/share/keyrings/debian-archive-keyring.gpg"];

/// Largest package list, packed or not, in bytes. Debian's main has 57 MB.
const MAX_LIST: u64 = 1 << 30;
/// Largest keyring, in bytes.
const MAX_KEYRING: u64 = 16 << 20;

/// Which suite, and where it is.
#[derive(Debug, Clone)]
pub struct Suite {
    /// URL of the archive (`http`, `https` or `file`).
    pub mirror: String,
    /// Codename (`trixie`) or suite (`stable`).
    pub suite: String,
    /// Components (`main`).
    pub components: Vec<String>,
    /// Debian's name of the architecture (`amd64`).
    pub architecture: String,
    /// OpenPGP keyrings; see [`DEFAULT_KEYRINGS`]. One that is not there is passed over, but one must be.
    pub keyring: Vec<PathBuf>,
}

/// Where the stanza of a package lies in the package lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Record {
    list: usize,
    start: usize,
    end: usize,
}

/// The packages of a suite, verified down from the archive's signature.
pub struct Index {
    /// `Date` of the signed index, seconds since 1970.
    pub date: i64,
    /// SHA-256 of the `InRelease` file, in lower-case hexadecimal.
    pub in_release_sha256: String,
    pub(crate) architecture: String,
    lists: Vec<String>,
    /// Packages by name, highest version first.
    by_name: BTreeMap<String, Vec<Record>>,
    /// Packages by the names that they provide, in the order of the lists.
    providers: BTreeMap<String, Vec<Record>>,
}

impl Index {
    /// Reads the index of `suite`: with the network looks for a newer one, without it takes the one in the cache.
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
        let loader = Loader::new(suite, cache, network)?;
        let (in_release, release) = loader.release(SystemTime::now())?;
        let mut lists = Vec::new();
        for (name, files) in loader.lists(&release)? {
            lists.push(loader.list(&release, &name, &files, progress)?);
        }
        let mut index = Self::from_lists(lists, &suite.architecture);
        index.date = release.date;
        index.in_release_sha256 = sha256(&in_release);
        Ok(index)
    }

    /// The index of these package lists, for `architecture`. Stanzas without a usable name are passed over.
    pub(crate) fn from_lists(lists: Vec<String>, architecture: &str) -> Self {
        let mut by_name: BTreeMap<String, Vec<Record>> = BTreeMap::new();
        let mut providers: BTreeMap<String, Vec<Record>> = BTreeMap::new();
        for (list, text) in lists.iter().enumerate() {
            for stanza in stanzas(text) {
                let start = stanza.0.as_ptr() as usize - text.as_ptr() as usize;
                let record = Record { list, start, end: start + stanza.0.len() };
                let (mut name, mut provides, mut fits) = (None, None, false);
                for (field, value) in stanza.fields() {
                    match field {
                        "Package" => name = Some(value),
                        "Provides" => provides = Some(value),
                        "Architecture" => fits = value == architecture || value == "all",
                        _ => {}
                    }
                }
                let Some(name) = name.filter(|name| fits && is_name(name)) else { continue };
                by_name.entry(name.to_owned()).or_default().push(record);
                // Only the names are needed here; what is wrong in the field is said when the package is looked at.
                for provided in provides.unwrap_or("").split(',') {
                    let provided = provided.split([' ', '(', ':', '\n']).find(|word| !word.is_empty());
                    if let Some(provided) = provided.filter(|word| is_name(word)) {
                        let records = providers.entry(provided.to_owned()).or_default();
                        if records.last() != Some(&record) {
                            records.push(record);
                        }
                    }
                }
            }
        }
        let version = |record: &Record| {
            Stanza(&lists[record.list][record.start..record.end]).field("Version").unwrap_or("")
        };
        for records in by_name.values_mut().filter(|records| records.len() > 1) {
            records.sort_by(|a, b| compare_versions(version(b), version(a)));
        }
        Self {
            date: 0,
            in_release_sha256: String::new(),
            architecture: architecture.to_owned(),
            lists,
            by_name,
            providers,
        }
    }

    /// Names of all packages, in byte order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.by_name.keys().map(String::as_str)
    }

    /// The packages with this name, highest version first.
    pub(crate) fn records(&self, name: &str) -> &[Record] {
        self.by_name.get(name).map_or(&[], Vec::as_slice)
    }

    /// The packages that provide this name.
    pub(crate) fn providers(&self, name: &str) -> &[Record] {
        self.providers.get(name).map_or(&[], Vec::as_slice)
    }

    pub(crate) fn stanza(&self, record: Record) -> Stanza<'_> {
        Stanza(&self.lists[record.list][record.start..record.end])
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
        let locked = Locked {
            name: candidate.name.clone(),
            version: candidate.version.clone(),
            architecture: field("Architecture")?.to_owned(),
            sha256: field("SHA256")?.to_ascii_lowercase(),
            size: field("Size")?.parse().map_err(|_| bad("its `Size` is not a number"))?,
            path: field("Filename")?.trim_start_matches("./").to_owned(),
        };
        locked.check().map_err(|why| bad(&why))?;
        Ok(locked)
    }
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

/// A packed form of a package list in the order of preference, and its ending.
const PACKINGS: [(&str, Packing); 3] = [(".xz", Packing::Xz), (".gz", Packing::Gzip), ("", Packing::None)];

#[derive(Clone, Copy)]
enum Packing {
    Xz,
    Gzip,
    None,
}

/// SHA-256 and size by the ending of the file name.
type Forms = BTreeMap<&'static str, (String, u64)>;

struct Loader<'a> {
    suite: &'a Suite,
    mirror: &'a str,
    cache: &'a Cache,
    network: Network,
    client: Client,
}

impl<'a> Loader<'a> {
    fn new(suite: &'a Suite, cache: &'a Cache, network: Network) -> Result<Self, Error> {
        let mirror = check_mirror(&suite.mirror)?;
        let parts = [&suite.suite, &suite.architecture];
        for name in parts.into_iter().chain(&suite.components) {
            if !name.split('/').all(is_name) {
                return Err(Error::BadName(name.clone()));
            }
        }
        Ok(Self { suite, mirror, cache, network, client: Client::new() })
    }

    fn unusable(&self, why: String) -> Error {
        Error::Release { suite: self.suite.suite.clone(), mirror: self.mirror.to_owned(), why }
    }

    /// The newest verified index: its bytes and what it says.
    fn release(&self, now: SystemTime) -> Result<(Vec<u8>, Release), Error> {
        let keyring = self.keyring()?;
        let verify = |bytes: &[u8]| -> Result<Release, Error> {
            let text = openpgp::verify(bytes, &keyring, now).map_err(|why| Error::Signature {
                suite: self.suite.suite.clone(),
                mirror: self.mirror.to_owned(),
                why,
            })?;
            let release = Release::parse(&text).map_err(|why| self.unusable(why))?;
            self.check(&release, now)?;
            Ok(release)
        };
        // The mirror is part of the name: an index of another mirror may be newer, but its files may not be here.
        let key = sha256(format!("{}\n{}", self.mirror, self.suite.suite).as_bytes());
        let path = self.cache.path(Room::Indexes, &format!("{key}.InRelease"));
        let cached = read_if_there(&path, openpgp::MAX_MESSAGE)?;
        if self.network == Network::Offline {
            let bytes = cached.ok_or_else(|| Error::NoCachedIndex {
                mirror: self.mirror.to_owned(),
                suite: self.suite.suite.clone(),
            })?;
            let release = verify(&bytes)?;
            return Ok((bytes, release));
        }
        // A cached index that does not verify any more (expired, damaged) is as good as none.
        let cached = cached.and_then(|bytes| verify(&bytes).ok().map(|release| (bytes, release)));
        let url = format!("dists/{}/InRelease", self.suite.suite);
        match self.client.read(self.mirror, &url, openpgp::MAX_MESSAGE) {
            Ok(bytes) => {
                let release = verify(&bytes)?;
                match cached {
                    Some(cached) if cached.1.date > release.date => Ok(cached),
                    _ => {
                        self.cache.write(&path, &bytes)?;
                        Ok((bytes, release))
                    }
                }
            }
            Err(Error::Mirror { mirror, path, why, .. }) => {
                let cached = cached.map(|(_, release)| show_date(release.date));
                Err(Error::Mirror { mirror, path, why, cached })
            }
            Err(error) => Err(error),
        }
    }

    fn keyring(&self) -> Result<Vec<sequoia_openpgp::Cert>, Error> {
        let mut certificates = Vec::new();
        let mut any = false;
        for path in &self.suite.keyring {
            if let Some(bytes) = read_if_there(path, MAX_KEYRING)? {
                let found = openpgp::certificates(&bytes);
                if found.is_empty() {
                    return Err(Error::BadKeyring(path.clone()));
                }
                certificates.extend(found);
                any = true;
            }
        }
        let names =
            || self.suite.keyring.iter().map(|p| format!("`{}`", p.display())).collect::<Vec<_>>().join(", ");
        if any { Ok(certificates) } else { Err(Error::NoKeyring(names())) }
    }

    /// Whether a verified index is the one that was asked for and still valid.
    fn check(&self, release: &Release, now: SystemTime) -> Result<(), Error> {
        let asked = Some(self.suite.suite.as_str());
        if release.suite.as_deref() != asked && release.codename.as_deref() != asked {
            let name = |name: &Option<String>| name.clone().unwrap_or_else(|| "nothing".into());
            return Err(self.unusable(format!(
                "it is signed for suite {} (codename {})",
                name(&release.suite),
                name(&release.codename)
            )));
        }
        let now = now
            .duration_since(UNIX_EPOCH)
            .map_or(0, |time| i64::try_from(time.as_secs()).unwrap_or(i64::MAX));
        match release.valid_until {
            Some(until) if until < now => Err(self.unusable(format!(
                "it was valid until {}; the mirror is behind, or the clock of this machine is wrong",
                show_date(until)
            ))),
            _ => Ok(()),
        }
    }

    /// The package lists that are needed: path below the suite without the ending, and in which forms there are.
    fn lists(&self, release: &Release) -> Result<Vec<(String, Forms)>, Error> {
        let mut lists = Vec::new();
        for component in &self.suite.components {
            let forms = |architecture: &str| {
                let name = format!("{component}/binary-{architecture}/Packages");
                let forms: Forms = PACKINGS
                    .iter()
                    .filter_map(|(ending, _)| {
                        Some((*ending, release.files.get(&format!("{name}{ending}"))?.clone()))
                    })
                    .collect();
                (name, forms)
            };
            let list = forms(&self.suite.architecture);
            if list.1.is_empty() {
                return Err(self.unusable(format!(
                    "it has no packages of component {component} for {}; it has components {} and architectures {}",
                    self.suite.architecture,
                    release.components.join(", "),
                    release.architectures.join(", ")
                )));
            }
            lists.push(list);
            if !release.all_included && release.architectures.iter().any(|name| name == "all") {
                let list = forms("all");
                if !list.1.is_empty() {
                    lists.push(list);
                }
            }
        }
        Ok(lists)
    }

    /// One package list, from the cache or the mirror.
    fn list(
        &self,
        release: &Release,
        name: &str,
        forms: &Forms,
        progress: &dyn Progress,
    ) -> Result<String, Error> {
        // Kept as it is signed: unpacked if that form has a hash of its own, packed otherwise.
        for (ending, packing) in PACKINGS.iter().rev() {
            let Some((hash, size)) = forms.get(ending) else { continue };
            // A damaged file is the same as none: it is written anew below.
            if let Ok(Some(bytes)) = read_if_there(&self.cache.path(Room::Indexes, hash), *size)
                && sha256(&bytes) == *hash
            {
                return self.unpack(name, &bytes, *packing, forms).map(text);
            }
        }
        if self.network == Network::Offline {
            return Err(Error::NoCachedIndex {
                mirror: self.mirror.to_owned(),
                suite: self.suite.suite.clone(),
            });
        }
        let mut last = None;
        for (ending, packing) in PACKINGS {
            let Some((hash, size)) = forms.get(ending) else { continue };
            let bytes = match self.download(release, &format!("{name}{ending}"), hash, *size, progress) {
                Ok(bytes) => bytes,
                // A mirror need not have all forms.
                Err(error @ Error::Mirror { .. }) => {
                    last.get_or_insert(error);
                    continue;
                }
                Err(error) => return Err(error),
            };
            let unpacked = self.unpack(name, &bytes, packing, forms)?;
            match forms.get("") {
                Some((hash, _)) => self.cache.write(&self.cache.path(Room::Indexes, hash), &unpacked)?,
                None => self.cache.write(&self.cache.path(Room::Indexes, hash), &bytes)?,
            }
            return Ok(text(unpacked));
        }
        Err(last.unwrap_or_else(|| self.unusable(format!("it has no form of {name} that can be read"))))
    }

    /// Fetches and verifies a file that the signed index names.
    fn download(
        &self,
        release: &Release,
        name: &str,
        hash: &str,
        size: u64,
        progress: &dyn Progress,
    ) -> Result<Vec<u8>, Error> {
        if size > MAX_LIST {
            return Err(self.unusable(format!("{name} has more than {MAX_LIST} bytes")));
        }
        let folder = format!("dists/{}", self.suite.suite);
        let plain = format!("{folder}/{name}");
        progress.begin(&format!("package list {}/{name}", self.suite.suite), size);
        let read = |path: &str| self.client.read(self.mirror, path, size);
        let by_hash = release.by_hash.then(|| {
            let (place, _) = name.rsplit_once('/').unwrap_or(("", name));
            format!("{folder}/{place}/by-hash/SHA256/{hash}")
        });
        let bytes = match by_hash.map(|path| read(&path)) {
            Some(Ok(bytes)) => Ok(bytes),
            _ => read(&plain),
        };
        if let Ok(bytes) = &bytes {
            progress.advance(bytes.len() as u64);
        }
        progress.end();
        let bytes = bytes?;
        let got = sha256(&bytes);
        if got == hash {
            return Ok(bytes);
        }
        Err(Error::Hash {
            path: plain,
            mirror: self.mirror.to_owned(),
            expected: format!("{size} bytes with SHA-256 {hash}"),
            got: format!("{} bytes with SHA-256 {got}", bytes.len()),
        })
    }

    /// Unpacks a list and compares it with the signed hash of the unpacked form, if there is one.
    fn unpack(&self, name: &str, bytes: &[u8], packing: Packing, forms: &Forms) -> Result<Vec<u8>, Error> {
        let mut reader: Box<dyn Read + '_> = match packing {
            Packing::Xz => Box::new(liblzma::read::XzDecoder::new(bytes)),
            Packing::Gzip => Box::new(flate2::read::MultiGzDecoder::new(bytes)),
            Packing::None => return Ok(bytes.to_vec()),
        };
        let limit = forms.get("").map_or(MAX_LIST, |(_, size)| (*size).min(MAX_LIST));
        let mut unpacked = Vec::new();
        (&mut reader)
            .take(limit.saturating_add(1))
            .read_to_end(&mut unpacked)
            .map_err(|error| self.unusable(format!("{name} cannot be unpacked: {error}")))?;
        if unpacked.len() as u64 > limit {
            return Err(self.unusable(format!("{name} has more than {limit} bytes when unpacked")));
        }
        match forms.get("") {
            Some((hash, _)) if sha256(&unpacked) != *hash => {
                Err(self.unusable(format!("{name} is not what was signed once it is unpacked")))
            }
            _ => Ok(unpacked),
        }
    }
}

/// Package lists are UTF-8; what is not is replaced, as it can only be in a description.
fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}
