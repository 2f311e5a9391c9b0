//! Digests of streams and trees.

use crate::Error;
use ashlar_image::digest::Digest;
use ashlar_tree::{Content, Kind, Tree};
use rayon::prelude::*;
use ring::digest::{Context, SHA256};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};

/// Bytes that are read at once.
pub(crate) const CHUNK: usize = 256 << 10;

/// A running SHA-256.
pub(crate) struct Hash(Context);

impl Hash {
    pub(crate) fn new() -> Self {
        Self(Context::new(&SHA256))
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Takes up a value of variable length so that no two sequences of values give the same bytes.
    fn field(&mut self, bytes: &[u8]) {
        self.0.update(&(bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
    }

    pub(crate) fn finish(self) -> Digest {
        let mut digest = Digest::ZERO;
        digest.0.copy_from_slice(self.0.finish().as_ref());
        digest
    }
}

/// Hashes and counts what is read through it.
pub(crate) struct HashingReader<R> {
    inner: R,
    pub(crate) hash: Hash,
    pub(crate) count: u64,
}

impl<R: Read> HashingReader<R> {
    pub(crate) fn new(inner: R) -> Self {
        Self { inner, hash: Hash::new(), count: 0 }
    }
}

impl<R: Read> Read for HashingReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let length = self.inner.read(buffer)?;
        self.hash.update(buffer.get(..length).unwrap_or_default());
        self.count += length as u64;
        Ok(length)
    }
}

/// The digest of all that a reader gives.
pub(crate) fn of_reader(reader: impl Read) -> std::io::Result<Digest> {
    let mut reader = HashingReader::new(reader);
    let mut buffer = vec![0; CHUNK];
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return Ok(reader.hash.finish()),
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn of_content(content: &Content) -> Result<Digest, Error> {
    match content {
        Content::Inline(bytes) => Ok(Digest::of(bytes)),
        Content::Range { path, offset, len } => {
            let read = || {
                let mut file = File::open(path.as_path())?;
                file.seek(SeekFrom::Start(*offset))?;
                let mut reader = file.take(*len);
                let digest = of_reader(&mut reader)?;
                if reader.limit() != 0 {
                    return Err(std::io::ErrorKind::UnexpectedEof.into());
                }
                Ok(digest)
            };
            read().map_err(Error::io("read", path))
        }
    }
}

/// The digest of a tree: of all names, kinds, modes, owners, times, extended attributes and bytes. Reads all contents.
///
/// # Errors
/// Fails when a content cannot be read.
pub fn tree_digest(tree: &Tree) -> Result<Digest, Error> {
    let mut contents = Vec::new();
    tree.walk(|path, node| {
        if let Kind::File(content) = &node.kind {
            contents.push((path.to_vec(), content));
        }
    });
    let digests: BTreeMap<Vec<u8>, Digest> = contents
        .into_par_iter()
        .map(|(path, content)| Ok((path, of_content(content)?)))
        .collect::<Result<_, Error>>()?;
    Ok(fingerprint(tree, |path, _| digests.get(path).map(|digest| digest.0.to_vec()).unwrap_or_default()))
}

/// The digest of a tree's metadata and of what `identity` says of its contents.
pub(crate) fn fingerprint(tree: &Tree, identity: impl Fn(&[u8], &Content) -> Vec<u8>) -> Digest {
    let mut hash = Hash::new();
    tree.walk(|path, node| {
        hash.field(path);
        let meta = &node.metadata;
        for number in [meta.mode, meta.uid, meta.gid] {
            hash.update(&number.to_le_bytes());
        }
        hash.update(&meta.mtime.to_le_bytes());
        hash.update(&(meta.xattrs.len() as u64).to_le_bytes());
        for (name, value) in &meta.xattrs {
            hash.field(name);
            hash.field(value);
        }
        let device = |hash: &mut Hash, kind: &[u8], major: u32, minor: u32| {
            hash.update(kind);
            hash.update(&major.to_le_bytes());
            hash.update(&minor.to_le_bytes());
        };
        match &node.kind {
            Kind::Directory(_) => hash.update(b"d"),
            Kind::File(content) => {
                hash.update(b"f");
                hash.update(&content.len().to_le_bytes());
                hash.field(&identity(path, content));
            }
            Kind::Symlink(target) => {
                hash.update(b"l");
                hash.field(target);
            }
            Kind::HardLink(target) => {
                hash.update(b"h");
                hash.field(target);
            }
            Kind::CharDevice { major, minor } => device(&mut hash, b"c", *major, *minor),
            Kind::BlockDevice { major, minor } => device(&mut hash, b"b", *major, *minor),
            Kind::Fifo => hash.update(b"p"),
            Kind::Socket => hash.update(b"s"),
        }
    });
    hash.finish()
}
