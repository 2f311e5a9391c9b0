//! Reading the index of one suite: signature, validity, package lists.

use crate::Error;
use crate::index::IndexSource;
use crate::openpgp;
use crate::preferences::SourceNames;
use crate::progress::Progress;
use crate::relation::is_name;
use crate::release::{Release, show_date};
use crate::suite::{Snapshot, Suite, SuiteSource};
use crate::transport::{Client, Network};
use ashlar_cache::{Cache, Room, read_if_there, sha256};
use std::collections::BTreeMap;
use std::io::Read;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

/// Largest package list, packed or not, in bytes. Debian's main has 57 MB.
const MAX_LIST: u64 = 1 << 30;
/// Largest keyring, in bytes.
const MAX_KEYRING: u64 = 16 << 20;
/// Priority of a suite that says nothing of itself (apt_preferences(5)).
const PRIORITY: i32 = 500;
/// What to do about a damaged file of the cache when nothing may be fetched.
const OFFLINE: &str = "`--offline` forbids to fetch it again; build once without `--offline`";

/// The verified index of one suite.
pub(crate) struct Loaded {
    pub(crate) names: SourceNames,
    pub(crate) url: String,
    pub(crate) date: i64,
    pub(crate) in_release_sha256: String,
    pub(crate) lists: Vec<String>,
}

impl Loaded {
    /// What is public of it.
    pub(crate) fn describe(&self) -> IndexSource {
        let names = &self.names;
        IndexSource {
            name: names.name.clone(),
            url: self.url.clone(),
            date: self.date,
            in_release_sha256: self.in_release_sha256.clone(),
            codename: names.codename.clone().or_else(|| names.suite.clone()).unwrap_or_default(),
            priority: names.priority,
        }
    }

    /// Lists that no archive has signed.
    #[cfg(test)]
    pub(crate) fn of_lists(name: &str, priority: i32, lists: Vec<String>) -> Self {
        let names = SourceNames { name: name.into(), priority, ..SourceNames::default() };
        Self { names, url: String::new(), date: 0, in_release_sha256: String::new(), lists }
    }
}

/// Reads and verifies the index of a suite, from the mirror or the cache.
pub(crate) fn load(
    source: &SuiteSource,
    cache: &Cache,
    network: Network,
    now: SystemTime,
    progress: &dyn Progress,
) -> Result<Loaded, Error> {
    let mirror = source.base_url()?;
    let suite = &source.suite;
    let parts = [&suite.suite, &suite.architecture];
    for name in parts.into_iter().chain(&suite.components) {
        if !name.split('/').all(is_name) {
            return Err(Error::BadName(name.clone()));
        }
    }
    let loader = Loader { source, suite, mirror: &mirror, cache, network, progress, client: Client::new() };
    let (in_release, release) = loader.release(now)?;
    let mut lists = Vec::new();
    for (name, files) in loader.lists(&release)? {
        lists.push(loader.list(&release, &name, &files)?);
    }
    let priority = match (source.priority, release.not_automatic, release.but_automatic_upgrades) {
        (Some(priority), ..) => priority,
        (None, false, _) => PRIORITY,
        (None, true, true) => 100,
        (None, true, false) => 1,
    };
    let names =
        SourceNames { name: source.name.clone(), suite: release.suite, codename: release.codename, priority };
    let in_release_sha256 = sha256(&in_release);
    Ok(Loaded { names, url: mirror, date: release.date, in_release_sha256, lists })
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
    source: &'a SuiteSource,
    suite: &'a Suite,
    mirror: &'a str,
    cache: &'a Cache,
    network: Network,
    progress: &'a dyn Progress,
    client: Client,
}

impl Loader<'_> {
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
            Release::parse(&text).map_err(|why| self.unusable(why))
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
            let release = verify(&bytes).map_err(|error| Error::Damaged {
                path: path.clone(),
                what: error.to_string(),
                why: OFFLINE,
            })?;
            self.check(&release, now)?;
            self.cache.touch(&path);
            return Ok((bytes, release));
        }
        // A cached index that does not verify or is not valid any more is as good as none.
        let mut damaged = None;
        let cached = cached.and_then(|bytes| match verify(&bytes) {
            Ok(release) => self.check(&release, now).is_ok().then_some((bytes, release)),
            Err(error) => {
                damaged = Some(error);
                None
            }
        });
        let url = format!("dists/{}/InRelease", self.suite.suite);
        match self.client.read(self.mirror, &url, openpgp::MAX_MESSAGE) {
            Ok(bytes) => {
                let release = verify(&bytes)?;
                self.check(&release, now)?;
                if let Some(error) = damaged {
                    self.progress.note(&format!(
                        "`{}` in the cache was damaged and was fetched again: {error}",
                        path.display()
                    ));
                }
                match cached {
                    Some(cached) if cached.1.date > release.date => Ok(cached),
                    Some(cached) if cached.0 == bytes => {
                        self.cache.touch(&path);
                        Ok(cached)
                    }
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
        let snapshot = self.source.snapshot.as_ref();
        if let Some(snapshot) = snapshot.filter(|snapshot| release.date > snapshot.seconds()) {
            return Err(self.unusable(format!(
                "it is of {}, later than the snapshot of {snapshot} that was asked for",
                show_date(release.date)
            )));
        }
        // A snapshot was valid in its time; that it is not any more is what one asks for.
        let judged_at = snapshot.map_or(now, Snapshot::seconds);
        match release.valid_until {
            Some(until) if until < judged_at && !self.source.allow_expired => {
                let why = match snapshot {
                    Some(snapshot) => format!("which is before the snapshot of {snapshot}"),
                    None => "the mirror is behind, or the clock of this machine is wrong".into(),
                };
                let until = show_date(until);
                Err(self.unusable(format!(
                    "it was valid until {until}; {why}; `allow-expired` takes it all the same"
                )))
            }
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
    fn list(&self, release: &Release, name: &str, forms: &Forms) -> Result<String, Error> {
        if let Some(list) = self.cached_list(name, forms, &mut Vec::new())? {
            return Ok(list);
        }
        let key = forms.values().next().map_or("", |(hash, _)| hash);
        let what = format!("package list {}/{name}", self.suite.suite);
        let waiting = || self.progress.note(&format!("another build fetches the {what}; waiting for it"));
        let _lock = self.cache.lock(&format!("list-{key}"), waiting)?;
        let mut damaged = Vec::new();
        if let Some(list) = self.cached_list(name, forms, &mut damaged)? {
            return Ok(list);
        }
        if self.network == Network::Offline {
            return Err(match damaged.pop() {
                Some(path) => Error::Damaged { path, what, why: OFFLINE },
                None => {
                    Error::NoCachedIndex { mirror: self.mirror.to_owned(), suite: self.suite.suite.clone() }
                }
            });
        }
        let mut last = None;
        for (ending, packing) in PACKINGS {
            let Some((hash, size)) = forms.get(ending) else { continue };
            let bytes = match self.download(release, &format!("{name}{ending}"), hash, *size) {
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
            for path in damaged {
                let path = path.display();
                self.progress
                    .note(&format!("`{path}` in the cache was damaged ({what}) and was fetched again"));
            }
            return Ok(text(unpacked));
        }
        Err(last.unwrap_or_else(|| self.unusable(format!("it has no form of {name} that can be read"))))
    }

    /// The list in the cache, if it is there and what was signed: unpacked if that form has a hash of its own, packed
    /// otherwise. Files that were changed are added to `damaged`.
    fn cached_list(
        &self,
        name: &str,
        forms: &Forms,
        damaged: &mut Vec<PathBuf>,
    ) -> Result<Option<String>, Error> {
        for (ending, packing) in PACKINGS.iter().rev() {
            let Some((hash, size)) = forms.get(ending) else { continue };
            let path = self.cache.path(Room::Indexes, hash);
            match read_if_there(&path, *size) {
                Ok(Some(bytes)) if sha256(&bytes) == *hash => {
                    self.cache.touch(&path);
                    return self.unpack(name, &bytes, *packing, forms).map(text).map(Some);
                }
                Ok(None) => {}
                // Too long, or unreadable, is damaged too.
                Ok(Some(_)) | Err(_) => damaged.push(path),
            }
        }
        Ok(None)
    }

    /// Fetches and verifies a file that the signed index names.
    fn download(&self, release: &Release, name: &str, hash: &str, size: u64) -> Result<Vec<u8>, Error> {
        if size > MAX_LIST {
            return Err(self.unusable(format!("{name} has more than {MAX_LIST} bytes")));
        }
        let folder = format!("dists/{}", self.suite.suite);
        let plain = format!("{folder}/{name}");
        self.progress.begin(&format!("package list {}/{name}", self.suite.suite), size);
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
            self.progress.advance(bytes.len() as u64);
        }
        self.progress.end();
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
