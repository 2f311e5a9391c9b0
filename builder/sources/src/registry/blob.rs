//! Fetching a blob into the cache: hashed on the way, gone on with where it stopped.

use super::http::Failure;
use super::{PAUSES, Reference, Registry};
use crate::Error;
use crate::archive::digest_error;
use crate::digest::{CHUNK, Hash};
use crate::oci::document::Descriptor;
use ashlar_cache::{Cache, CacheError};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::PathBuf;

/// Attempts that got at least some bytes: a connection that breaks again and again.
const MAX_ATTEMPTS: usize = 20;

/// A blob that is on its way.
struct Download {
    path: PathBuf,
    file: File,
    hash: Hash,
    /// Bytes that are there and hashed.
    at: u64,
}

impl Download {
    /// Takes up what an earlier build left.
    fn open(path: PathBuf, size: u64) -> Result<Self, Error> {
        let open = || {
            let mut file = File::options().read(true).write(true).create(true).truncate(false).open(&path)?;
            let mut hash = Hash::new();
            let mut at = 0;
            let mut buffer = vec![0; CHUNK];
            loop {
                let length = file.read(&mut buffer)?;
                if length == 0 {
                    break;
                }
                hash.update(buffer.get(..length).unwrap_or_default());
                at += length as u64;
            }
            Ok((file, hash, at))
        };
        let (file, hash, at) = open().map_err(Error::io("open", &path))?;
        let mut download = Self { path, file, hash, at };
        if at > size {
            download.restart()?;
        }
        Ok(download)
    }

    fn restart(&mut self) -> Result<(), Error> {
        self.file.set_len(0).map_err(Error::io("empty", &self.path))?;
        self.file.seek(SeekFrom::Start(0)).map_err(Error::io("empty", &self.path))?;
        self.hash = Hash::new();
        self.at = 0;
        Ok(())
    }
}

impl Registry {
    /// The blob, verified and in the cache.
    pub(super) fn blob(
        &self,
        reference: &Reference,
        descriptor: &Descriptor,
        cache: &Cache,
    ) -> Result<File, Error> {
        let digest = descriptor.digest.to_string();
        let what = format!("{}/blobs/sha256:{digest}", reference.repository);
        let name = format!("the blob `{what}` of {}", reference.registry);
        let _lock = cache.lock(&format!("blob-{digest}"), || ())?;
        match cache.blob(&digest) {
            Ok(Some(file)) => return Ok(file),
            // It was removed, so it is fetched again.
            Ok(None) | Err(CacheError::Damaged { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        let mut download = Download::open(cache.partial(&format!("blob-{digest}")), descriptor.size)?;
        let resumed = download.at > 0;
        self.fill(reference, &what, &name, descriptor.size, &mut download)?;
        let mut got = std::mem::replace(&mut download.hash, Hash::new()).finish();
        if got != descriptor.digest && resumed {
            // The part that an earlier build left may have been the damaged one.
            download.restart()?;
            self.fill(reference, &what, &name, descriptor.size, &mut download)?;
            got = std::mem::replace(&mut download.hash, Hash::new()).finish();
        }
        if got != descriptor.digest {
            let _ = std::fs::remove_file(&download.path);
            return Err(digest_error(&name, descriptor.digest, got));
        }
        let path = cache.blob_path(&digest);
        cache.keep_path(&download.file, &download.path, &path)?;
        File::open(&path).map_err(Error::io("open", &path))
    }

    /// Gets what is missing, however often the connection breaks.
    fn fill(
        &self,
        reference: &Reference,
        what: &str,
        name: &str,
        size: u64,
        download: &mut Download,
    ) -> Result<(), Error> {
        let mut pauses = PAUSES.iter();
        for _ in 0..MAX_ATTEMPTS {
            if download.at == size {
                return Ok(());
            }
            let before = download.at;
            let why = match self.part(reference, what, name, size, download) {
                Ok(()) if download.at == size => return Ok(()),
                Ok(()) => format!("it ends after {} of {size} bytes", download.at),
                Err(Failure::Passing(why)) => why,
                Err(Failure::Ours(error)) => return Err(error),
                Err(Failure::Final(why)) => return Err(failed(reference, what, why)),
            };
            if download.at > before {
                pauses = PAUSES.iter();
            }
            match pauses.next() {
                Some(pause) => std::thread::sleep(*pause),
                None => return Err(failed(reference, what, why)),
            }
        }
        Err(failed(reference, what, format!("the connection broke {MAX_ATTEMPTS} times")))
    }

    /// One request for the rest.
    fn part(
        &self,
        reference: &Reference,
        what: &str,
        name: &str,
        size: u64,
        download: &mut Download,
    ) -> Result<(), Failure> {
        let range = format!("bytes={}-", download.at);
        let headers: &[(&str, &str)] = if download.at > 0 { &[("range", &range)] } else { &[] };
        let mut answer = self.get(reference, what, headers)?;
        let continues = answer.status().as_u16() == 206
            && answer
                .headers()
                .get("content-range")
                .and_then(|value| value.to_str().ok())
                .is_some_and(|value| value.starts_with(&format!("bytes {}-", download.at)));
        if download.at > 0 && !continues {
            download.restart()?;
        }
        let mut body = answer.body_mut().with_config().limit(u64::MAX).reader();
        let mut buffer = vec![0; CHUNK];
        loop {
            let length = match body.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(length) => length,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Failure::Passing(error.to_string())),
            };
            let bytes = buffer.get(..length).unwrap_or_default();
            if download.at + length as u64 > size {
                let _ = std::fs::remove_file(&download.path);
                return Err(Error::TooLarge { name: name.to_owned(), limit: size, ours: false }.into());
            }
            download.file.write_all(bytes).map_err(Error::io("write", &download.path))?;
            download.hash.update(bytes);
            download.at += length as u64;
        }
    }
}

fn failed(reference: &Reference, what: &str, why: String) -> Error {
    Error::Registry { registry: reference.registry.clone(), what: what.to_owned(), why }
}
