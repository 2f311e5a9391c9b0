//! A channel in a folder: a stick, a mounted share.

use crate::limit::end;
use crate::{Body, FetchError, Request, Source, is_inside};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// A folder. No name and no link leads out of it.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    folder: OwnedFd,
}

impl Folder {
    /// Opens a folder.
    pub fn open(path: &Path) -> Result<Self, FetchError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = rustix::fs::open(path, flags, Mode::empty()).map_err(|error| FetchError::Failed {
            path: path.display().to_string(),
            reason: error.to_string(),
        })?;
        Ok(Self { path: path.to_owned(), folder })
    }
}

/// The part of an open file that is asked for.
pub(crate) fn part(mut file: File, base: u64, size: u64, request: &Request) -> Result<Body, FetchError> {
    let failed = |reason: String| FetchError::Failed { path: request.path.clone(), reason };
    let (start, stop) = match request.range {
        None => (0, size),
        Some(range) => (range.start, end(range).unwrap_or(u64::MAX).min(size)),
    };
    let length = stop.checked_sub(start).filter(|length| *length > 0 || request.range.is_none());
    let length =
        length.ok_or_else(|| failed(format!("it has {size} bytes, and byte {start} is asked for")))?;
    if length > request.max {
        return Err(FetchError::TooLong { path: request.path.clone(), max: request.max });
    }
    let at = base.checked_add(start).ok_or_else(|| failed("its place is out of bounds".into()))?;
    file.seek(SeekFrom::Start(at)).map_err(|error| failed(error.to_string()))?;
    Ok(Body { start, length: Some(length), reader: Box::new(file.take(length)) })
}

impl Source for Folder {
    fn open(&self, request: &Request) -> Result<Body, FetchError> {
        let failed = |reason: String| FetchError::Failed { path: request.path.clone(), reason };
        if !is_inside(&request.path) {
            return Err(failed("this is no path of a channel".into()));
        }
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let inside = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let file =
            match rustix::fs::openat2(&self.folder, request.path.as_str(), flags, Mode::empty(), inside) {
                Ok(file) => File::from(file),
                Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => {
                    return Err(FetchError::NotFound(request.path.clone()));
                }
                Err(error) => return Err(failed(error.to_string())),
            };
        let metadata = file.metadata().map_err(|error| failed(error.to_string()))?;
        if !metadata.is_file() {
            return Err(failed("it is no plain file".into()));
        }
        part(file, 0, metadata.len(), request)
    }

    fn name(&self) -> String {
        self.path.display().to_string()
    }
}
