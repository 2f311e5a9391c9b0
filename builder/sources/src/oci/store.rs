//! Where the blobs of an image lie.

use super::document::{Descriptor, MAX_DOCUMENT, bad};
use super::verified;
use crate::Error;
use crate::digest::CHUNK;
use ashlar_image::digest::Digest;
use ashlar_tar::{EntryKind, read_entries};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// Gives the blobs of one image.
pub(crate) trait Store {
    /// For messages.
    fn name(&self) -> String;
    /// A manifest or index, verified.
    fn document(&self, descriptor: &Descriptor) -> Result<Vec<u8>, Error>;
    /// A configuration, verified.
    fn config(&self, descriptor: &Descriptor) -> Result<Vec<u8>, Error>;
    /// A layer: at most as many bytes as declared, to be verified by who reads it.
    fn layer(&self, descriptor: &Descriptor) -> Result<Box<dyn Read>, Error>;
    /// The layer lies unpacked in the cache and is not needed any more.
    fn unpacked(&self, _descriptor: &Descriptor) {}
}

/// A layout on the build host (`image-layout.md`).
pub(crate) struct LayoutStore {
    path: PathBuf,
    /// Files of the tar archive that holds the layout, with their place and length; none for a directory.
    members: Option<BTreeMap<Vec<u8>, (u64, u64)>>,
}

impl LayoutStore {
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let metadata = std::fs::metadata(path).map_err(Error::io("open the OCI layout", path))?;
        if metadata.is_dir() {
            return Ok(Self { path: path.to_owned(), members: None });
        }
        let file = File::open(path).map_err(Error::io("open the OCI layout", path))?;
        let entries = read_entries(&mut BufReader::with_capacity(CHUNK, file))
            .map_err(|why| Error::Archive { name: format!("the OCI archive `{}`", path.display()), why })?;
        let mut members = BTreeMap::new();
        for entry in entries {
            if let EntryKind::File { offset, len } = entry.kind {
                members.insert(entry.path, (offset, len));
            }
        }
        let store = Self { path: path.to_owned(), members: Some(members) };
        if store.lacks("index.json") && !store.lacks("manifest.json") {
            let why = "it is an archive of an older `docker save`; convert it with `skopeo copy docker-archive:FILE oci:FOLDER`";
            return Err(bad(&store.name(), why));
        }
        Ok(store)
    }

    fn lacks(&self, member: &str) -> bool {
        self.members.as_ref().is_some_and(|members| !members.contains_key(member.as_bytes()))
    }

    /// The bytes of `index.json`.
    pub(crate) fn index(&self) -> Result<Vec<u8>, Error> {
        let mut bytes = Vec::new();
        let reader = self.open_file("index.json")?;
        reader.take(MAX_DOCUMENT + 1).read_to_end(&mut bytes).map_err(Error::io("read", &self.path))?;
        Ok(bytes)
    }

    fn open_file(&self, name: &str) -> Result<Box<dyn Read>, Error> {
        let Some(members) = &self.members else {
            let path = self.path.join(name);
            let file = File::open(&path).map_err(Error::io("open", &path))?;
            return Ok(Box::new(file));
        };
        let (offset, len) =
            *members.get(name.as_bytes()).ok_or_else(|| bad(&self.name(), format!("`{name}` is missing")))?;
        let mut file = File::open(&self.path).map_err(Error::io("open", &self.path))?;
        file.seek(SeekFrom::Start(offset)).map_err(Error::io("read", &self.path))?;
        Ok(Box::new(file.take(len)))
    }

    fn blob(&self, digest: Digest) -> Result<Box<dyn Read>, Error> {
        self.open_file(&format!("blobs/sha256/{digest}"))
    }
}

impl Store for LayoutStore {
    fn name(&self) -> String {
        format!("the OCI layout `{}`", self.path.display())
    }

    fn document(&self, descriptor: &Descriptor) -> Result<Vec<u8>, Error> {
        let name = format!("the blob sha256:{} of {}", descriptor.digest, self.name());
        verified(self.blob(descriptor.digest)?, descriptor, &name)
    }

    fn config(&self, descriptor: &Descriptor) -> Result<Vec<u8>, Error> {
        self.document(descriptor)
    }

    fn layer(&self, descriptor: &Descriptor) -> Result<Box<dyn Read>, Error> {
        // One byte more than declared changes the digest.
        Ok(Box::new(self.blob(descriptor.digest)?.take(descriptor.size.saturating_add(1))))
    }
}
