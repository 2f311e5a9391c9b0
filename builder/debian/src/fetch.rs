//! Fetching packages into the cache: verified, unpacked, several at a time.

use crate::Error;
use crate::compose::compose;
use crate::local::LockedFile;
use crate::locked::{Locked, Origin};
use crate::progress::Progress;
use crate::store::{self, Loaded, Unpacked};
use crate::suite::SuiteSource;
use crate::transport::{Client, Failure, Network, check_mirror};
use ashlar_cache::{Cache, Room};
use ashlar_tree::Tree;
use ring::digest::{Context, SHA256};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// How many packages are worked on at a time: enough to hide a mirror's latency, few enough not to be a burden.
const WORKERS: usize = 6;
/// Bytes that are read at once.
const CHUNK: usize = 128 << 10;

/// Where the package files of a lock file come from.
#[derive(Debug, Clone, Default)]
pub struct Places {
    /// For packages that do not say.
    first: Option<String>,
    named: BTreeMap<String, String>,
    /// Local files are named from here.
    local: PathBuf,
}

impl Places {
    /// One mirror for all packages. Without it a full cache is enough.
    ///
    /// # Errors
    /// Fails when it cannot be used as a mirror.
    pub fn mirror(mirror: Option<&str>) -> Result<Self, Error> {
        let first = mirror.map(check_mirror).transpose()?.map(str::to_owned);
        Ok(Self { first, ..Self::default() })
    }

    /// The mirrors (or snapshots) of some sources; `local` is the folder that local files are named from.
    ///
    /// # Errors
    /// Fails when the URL of a source cannot be used.
    pub fn of(sources: &[SuiteSource], local: &Path) -> Result<Self, Error> {
        let mut places = Self { local: local.to_owned(), ..Self::default() };
        for source in sources {
            let url = source.base_url()?;
            places.first.get_or_insert_with(|| url.clone());
            places.named.insert(source.name.clone(), url);
        }
        Ok(places)
    }

    fn find(&self, package: &Locked) -> Result<Option<&str>, Error> {
        match &package.origin {
            Origin::First => Ok(self.first.as_deref()),
            Origin::Local => Ok(None),
            Origin::Source(name) => match self.named.get(name) {
                Some(url) => Ok(Some(url)),
                None => Err(Error::UnknownSource { package: package.label(), source_name: name.clone() }),
            },
        }
    }
}

/// A package that was verified and unpacked in the cache.
#[derive(Debug, Clone)]
pub struct Package {
    /// What the lock file says.
    pub locked: Locked,
    pub(crate) unpacked: Unpacked,
}

impl Package {
    /// Adds the files of this package alone; for several use [`compose`], which watches that they do
    /// not overwrite each other's files.
    pub fn add_to(&self, tree: &mut Tree) -> Result<(), Error> {
        compose(std::slice::from_ref(self), tree)
    }

    /// The package's control file (deb-control(5)).
    pub fn control(&self) -> &str {
        self.control_file("control").unwrap_or("")
    }

    /// A file of the package's control archive (deb(5)): `postinst`, `preinst`, `postrm`, `prerm`, `config`, `triggers`,
    /// `conffiles`, `templates`, `md5sums`, `shlibs` and so on; at most 16 MiB. None when the package has no such file, or
    /// one that is not UTF-8 (see [`Package::control_files`]).
    pub fn control_file(&self, name: &str) -> Option<&str> {
        self.unpacked.control.get(name)?.as_deref()
    }

    /// All files of the control archive, by name. A script that is a program and no text has no content here.
    pub fn control_files(&self) -> impl Iterator<Item = (&str, Option<&str>)> {
        self.unpacked.control.iter().map(|(name, content)| (name.as_str(), content.as_deref()))
    }
}

/// Brings packages into the cache, verified and unpacked, and returns them in the order of `packages`.
///
/// What the cache has is verified again. A damaged file in it is named ([`Progress::note`]) and repaired from the
/// package file, or fetched again if that is damaged too. `mirror` may be none when everything is in the cache.
///
/// # Errors
/// The first error stops the others. Nothing that was not verified stays in the cache.
pub fn fetch(
    packages: &[Locked],
    mirror: Option<&str>,
    cache: &Cache,
    network: Network,
    progress: &dyn Progress,
) -> Result<Vec<Package>, Error> {
    fetch_from(packages, &Places::mirror(mirror)?, cache, network, progress)
}

/// As [`fetch`], from several sources and from local files. A local file is hashed in each build, also when the cache has
/// what was unpacked from it: one that was changed or is gone since it was locked is an error that names it.
///
/// # Errors
/// As [`fetch`].
pub fn fetch_from(
    packages: &[Locked],
    places: &Places,
    cache: &Cache,
    network: Network,
    progress: &dyn Progress,
) -> Result<Vec<Package>, Error> {
    for package in packages {
        package.check().map_err(|why| Error::BadEntry { package: package.name.clone(), why })?;
        places.find(package)?;
    }
    let fetcher =
        Fetcher { places, cache, network, progress, client: Client::new(), stop: AtomicBool::new(false) };
    // The largest first: a kernel that comes last would keep one worker busy while the others have nothing to do.
    let mut order: Vec<usize> = (0..packages.len()).collect();
    order.sort_by_key(|&at| std::cmp::Reverse(packages[at].size));
    let next = AtomicUsize::new(0);
    let results: Vec<Mutex<Option<Unpacked>>> = packages.iter().map(|_| Mutex::new(None)).collect();
    let failure = Mutex::new(None);

    progress.begin("packages", packages.iter().map(|package| package.size).sum());
    let work = || {
        while let Some(&at) = order.get(next.fetch_add(1, Ordering::Relaxed)) {
            if fetcher.stop.load(Ordering::Relaxed) {
                return;
            }
            match fetcher.obtain(&packages[at]) {
                Ok(unpacked) => *results[at].lock().unwrap_or_else(PoisonError::into_inner) = Some(unpacked),
                Err(error) => {
                    fetcher.stop.store(true, Ordering::Relaxed);
                    failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                    return;
                }
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..WORKERS.min(packages.len()) {
            scope.spawn(work);
        }
    });
    progress.end();
    if let Some(error) = failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(error);
    }
    let finished = packages.iter().zip(results).filter_map(|(locked, result)| {
        let unpacked = result.into_inner().unwrap_or_else(PoisonError::into_inner)?;
        Some(Package { locked: locked.clone(), unpacked })
    });
    Ok(finished.collect())
}

struct Fetcher<'a> {
    places: &'a Places,
    cache: &'a Cache,
    network: Network,
    progress: &'a dyn Progress,
    client: Client,
    /// Another worker has failed.
    stop: AtomicBool,
}

/// Where the package file with this SHA-256 lies.
fn deb_path(cache: &Cache, sha256: &str) -> PathBuf {
    cache.path(Room::Packages, &format!("{sha256}.deb"))
}

impl Fetcher<'_> {
    fn obtain(&self, package: &Locked) -> Result<Unpacked, Error> {
        let local = match package.origin {
            Origin::Local => Some(LockedFile::open(&self.places.local, package)?),
            _ => None,
        };
        if let Loaded::Good(unpacked) = store::load(self.cache, &package.sha256)? {
            self.progress.advance(package.size);
            return Ok(unpacked);
        }
        // A worker holds one lock at a time, so that no two builds wait for each other.
        let waiting =
            || self.progress.note(&format!("another build fetches {}; waiting for it", package.label()));
        let _lock = self.cache.lock(&package.sha256, waiting)?;
        let mut damaged = match store::load(self.cache, &package.sha256)? {
            Loaded::Good(unpacked) => {
                self.progress.advance(package.size);
                return Ok(unpacked);
            }
            Loaded::Missing => Vec::new(),
            Loaded::Damaged(path) => vec![path],
        };
        let deb = match local {
            Some(mut local) => Some((local.copy(self.cache)?, "the local package file")),
            None => {
                self.cached_deb(package, &mut damaged)?.map(|file| (file, "the package file in the cache"))
            }
        };
        let (file, from) = match deb {
            Some((file, from)) => {
                self.progress.advance(package.size);
                (file, from)
            }
            None => (self.download(package, &damaged)?, "the mirror"),
        };
        let unpacked = store::unpack(self.cache, &package.sha256, file, &package.label())?;
        for path in &damaged {
            self.progress.note(&format!(
                "`{}` in the cache was damaged ({}) and was repaired from {from}",
                path.display(),
                package.label()
            ));
        }
        Ok(unpacked)
    }

    /// The package file in the cache, if it is there and what it should be.
    fn cached_deb(&self, package: &Locked, damaged: &mut Vec<PathBuf>) -> Result<Option<File>, Error> {
        let path = deb_path(self.cache, &package.sha256);
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io("read", &path)(error)),
        };
        let mut context = Context::new(&SHA256);
        hash_into(&mut file, &mut context).map_err(Error::io("read", &path))?;
        if hex::encode(context.finish()) != package.sha256 {
            damaged.push(path);
            return Ok(None);
        }
        file.seek(SeekFrom::Start(0)).map_err(Error::io("read", &path))?;
        self.cache.touch(&path);
        Ok(Some(file))
    }

    fn download(&self, package: &Locked, damaged: &[PathBuf]) -> Result<File, Error> {
        let why = match (self.network, self.places.find(package)?) {
            (Network::Online, Some(mirror)) => return self.download_from(mirror, package),
            (Network::Offline, _) => "`--offline` forbids to fetch it; build once without `--offline`",
            (Network::Online, None) => "no mirror is known to fetch it from; name one with `--mirror URL`",
        };
        Err(match damaged.last() {
            Some(path) => Error::Damaged { path: path.clone(), what: package.label(), why },
            None => Error::NotCached { package: package.label(), why },
        })
    }

    /// Fetches a package file. What an earlier attempt, or an earlier build, has got of it is gone on with; should that
    /// come to a wrong hash, it is fetched again from its start.
    fn download_from(&self, mirror: &str, package: &Locked) -> Result<File, Error> {
        let path = deb_path(self.cache, &package.sha256);
        let partial = self.cache.partial(&package.sha256);
        let mut told = 0;
        let mut resumed = partial.exists();
        loop {
            let received = self.receive(mirror, package, &partial, &mut told);
            let wrong = match received {
                Ok((mut file, None)) => {
                    self.cache.keep_path(&file, &partial, &path)?;
                    file.seek(SeekFrom::Start(0)).map_err(Error::io("read", &path))?;
                    return Ok(file);
                }
                Ok((_, Some(wrong))) => wrong,
                Err(error) => return Err(error),
            };
            std::fs::remove_file(&partial).map_err(Error::io("remove", &partial))?;
            if !resumed {
                return Err(wrong);
            }
            resumed = false;
        }
    }

    /// Receives what is missing of `partial`, and says what is wrong with the whole. `told` is how many bytes of it the
    /// progress has been told of: what is received again does not count again.
    fn receive(
        &self,
        mirror: &str,
        package: &Locked,
        partial: &Path,
        told: &mut u64,
    ) -> Result<(File, Option<Error>), Error> {
        let wrong = |expected: String, got: String| Error::PackageHash {
            package: package.label(),
            mirror: mirror.to_owned(),
            expected,
            got,
        };
        let io = |error| Error::io("write", partial)(error);
        let mut file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o644)
            .open(partial)
            .map_err(io)?;
        let mut context = Context::new(&SHA256);
        let mut length = hash_into(&mut file, &mut context).map_err(io)?;
        let mut tell = |length: u64| {
            if length > *told {
                self.progress.advance(length - *told);
                *told = length;
            }
        };
        // A whole file that only lacks its name is not asked for; one that is too long can only be wrong.
        if length < package.size {
            self.client.get_from(mirror, &package.path, &mut length, |body, from, length| {
                if from != *length {
                    file.set_len(from).map_err(|error| Failure::Ours(io(error)))?;
                    file.seek(SeekFrom::Start(0)).map_err(|error| Failure::Ours(io(error)))?;
                    context = Context::new(&SHA256);
                    *length = hash_into(&mut file, &mut context).map_err(|error| Failure::Ours(io(error)))?;
                }
                let mut buffer = vec![0; CHUNK];
                loop {
                    if self.stop.load(Ordering::Relaxed) {
                        return Err(Failure::Final("stopped, as another package failed".into()));
                    }
                    let step = body.read(&mut buffer)?;
                    let bytes = buffer.get(..step).unwrap_or_default();
                    if step == 0 || *length > package.size {
                        return Ok(());
                    }
                    file.write_all(bytes).map_err(|error| Failure::Ours(io(error)))?;
                    context.update(bytes);
                    *length += step as u64;
                    tell((*length).min(package.size));
                }
            })?;
        }
        tell(length.min(package.size));
        let got = hex::encode(context.finish());
        let verdict = if length > package.size {
            Some(wrong(format!("{} bytes", package.size), "more".into()))
        } else if length < package.size {
            Some(wrong(format!("{} bytes", package.size), format!("{length} bytes")))
        } else if got != package.sha256 {
            Some(wrong(format!("SHA-256 {}", package.sha256), got))
        } else {
            None
        };
        Ok((file, verdict))
    }
}

/// Hashes what is left of a file and says how many bytes that was.
fn hash_into(file: &mut File, context: &mut Context) -> std::io::Result<u64> {
    let mut buffer = vec![0; CHUNK];
    let mut length = 0;
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(length),
            Ok(step) => {
                context.update(buffer.get(..step).unwrap_or_default());
                length += step as u64;
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
