//! Package files of the user's own.

use crate::Error;
use crate::deb::Deb;
use crate::locked::Locked;
use crate::relation::is_name;
use crate::stanza::stanzas;
use ashlar_cache::Cache;
use ring::digest::{Context, SHA256};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// Most package files that are taken from one folder.
const MAX_FILES: usize = 10_000;
/// Bytes that are read and hashed at once.
const CHUNK: usize = 256 << 10;

/// A local package file that was read.
#[derive(Debug, Clone)]
pub struct LocalDeb {
    /// As the user has named it, or as it lies in the folder that the user has named.
    pub path: String,
    /// Package name.
    pub name: String,
    /// Version.
    pub version: String,
    /// SHA-256 of the file, in lower-case hexadecimal.
    pub sha256: String,
    /// Its entry as a package list would have it.
    pub(crate) stanza: String,
}

/// Reads the package files `paths`, relative to `base`; of a folder all `*.deb` directly in it, in the order of their names.
/// A file for another architecture is refused when it is named, and passed over in a folder.
///
/// # Errors
/// Names the file that is no package, cannot be read, or is a second one with the same name and version.
pub fn read_local_debs(base: &Path, paths: &[PathBuf], architecture: &str) -> Result<Vec<LocalDeb>, Error> {
    let mut debs: Vec<LocalDeb> = Vec::new();
    for path in paths {
        let whole = base.join(path);
        let metadata = std::fs::metadata(&whole).map_err(Error::io("read", &whole))?;
        let is_folder = metadata.is_dir();
        let files = if is_folder { debs_in(base, path)? } else { vec![path.clone()] };
        for file in files {
            let Some(deb) = read(base, &file, architecture, is_folder)? else { continue };
            match debs.iter().find(|o| (&o.name, &o.version) == (&deb.name, &deb.version)) {
                None => debs.push(deb),
                // The same file may be named twice, by itself and by its folder.
                Some(other) if other.sha256 == deb.sha256 => {}
                Some(other) => {
                    return Err(Error::LocalTwice {
                        package: format!("{} {}", deb.name, deb.version),
                        first: other.path.clone(),
                        second: deb.path,
                    });
                }
            }
        }
    }
    Ok(debs)
}

fn debs_in(base: &Path, folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let whole = base.join(folder);
    let mut files = Vec::new();
    for entry in std::fs::read_dir(&whole).map_err(Error::io("read", &whole))? {
        let name = entry.map_err(Error::io("read", &whole))?.file_name();
        if Path::new(&name).extension().is_some_and(|extension| extension == "deb") {
            files.push(folder.join(name));
        }
    }
    files.sort();
    if files.len() > MAX_FILES {
        let why = format!("the folder has more than {MAX_FILES} package files");
        return Err(Error::LocalFile { path: whole, why });
    }
    Ok(files)
}

fn read(base: &Path, path: &Path, architecture: &str, pass_over: bool) -> Result<Option<LocalDeb>, Error> {
    let whole = base.join(path);
    let bad = |why: String| Error::LocalFile { path: whole.clone(), why };
    let shown = path.to_str().filter(|path| !path.contains('\n'));
    let shown = shown.ok_or_else(|| bad("its name cannot be written to the lock file".into()))?.to_owned();
    let mut file = open(&whole)?;
    let control = Deb::read(&mut file).and_then(|deb| deb.control(&mut file)).map_err(bad)?;
    let stanza = stanzas(&control).next().ok_or_else(|| bad("its control file is empty".into()))?;
    let field = |name: &str| {
        stanza.field(name).map(str::to_owned).ok_or_else(|| bad(format!("its control file has no `{name}`")))
    };
    let (name, version, of) = (field("Package")?, field("Version")?, field("Architecture")?);
    if !is_name(&name) {
        return Err(bad(format!("`{name}` is not the name of a package")));
    }
    if of != architecture && of != "all" {
        if pass_over {
            return Ok(None);
        }
        return Err(bad(format!("it is for architecture {of}; the image is for {architecture}")));
    }
    let (sha256, size) = hash(&mut file).map_err(Error::io("read", &whole))?;
    // The first of several fields with one name counts.
    let stanza = format!(
        "Filename: {shown}\nSize: {size}\nSHA256: {sha256}\n{}\n\n",
        stanza.0.trim_end_matches(['\n', '\r'])
    );
    Ok(Some(LocalDeb { path: shown, name, version, sha256, stanza }))
}

fn open(path: &Path) -> Result<File, Error> {
    File::open(path).map_err(Error::io("read", path))
}

/// SHA-256 and length of a file, which is then at its start again.
fn hash(file: &mut File) -> std::io::Result<(String, u64)> {
    copy_and_hash(file, &mut std::io::sink())
}

/// As [`hash`], with a copy.
fn copy_and_hash(file: &mut File, copy: &mut impl Write) -> std::io::Result<(String, u64)> {
    file.seek(SeekFrom::Start(0))?;
    let mut context = Context::new(&SHA256);
    let mut buffer = vec![0; CHUNK];
    let mut length = 0;
    loop {
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(step) => {
                let bytes = buffer.get(..step).unwrap_or_default();
                context.update(bytes);
                copy.write_all(bytes)?;
                length += step as u64;
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    file.seek(SeekFrom::Start(0))?;
    Ok((hex::encode(context.finish()), length))
}

/// A local package file that the lock file names.
pub(crate) struct LockedFile<'a> {
    package: &'a Locked,
    path: PathBuf,
    file: File,
}

impl<'a> LockedFile<'a> {
    /// Opens it, if it is still the same.
    pub(crate) fn open(base: &Path, package: &'a Locked) -> Result<Self, Error> {
        let path = base.join(&package.path);
        let mut file = open(&path)?;
        let found = hash(&mut file).map_err(Error::io("read", &path))?;
        let opened = Self { package, path, file };
        opened.compare(found)?;
        Ok(opened)
    }

    fn compare(&self, (sha256, size): (String, u64)) -> Result<(), Error> {
        if sha256 == self.package.sha256 && size == self.package.size {
            return Ok(());
        }
        Err(Error::LocalChanged {
            path: self.path.clone(),
            expected: format!("{} bytes with SHA-256 {}", self.package.size, self.package.sha256),
            got: format!("{size} bytes with SHA-256 {sha256}"),
        })
    }

    /// A copy to unpack from. The file is the user's and may be written to meanwhile; what comes into the cache under its
    /// hash must be what was hashed.
    pub(crate) fn copy(&mut self, cache: &Cache) -> Result<File, Error> {
        let mut copy = cache.temporary()?.into_file();
        let found = copy_and_hash(&mut self.file, &mut copy).map_err(Error::io("copy", &self.path))?;
        self.compare(found)?;
        copy.seek(SeekFrom::Start(0)).map_err(Error::io("copy", &self.path))?;
        Ok(copy)
    }
}
