//! A tar archive, compressed or not, as a file tree; and unpacking into the cache.

use crate::digest::{CHUNK, Hash, HashingReader, fingerprint, of_reader};
use crate::keep::{Keep, Notes};
use crate::layers::{Layers, Mode};
use crate::{Error, Source};
use ashlar_cache::{Cache, CacheError, Room};
use ashlar_image::digest::Digest;
use ashlar_tar::{Entry, read_entries};
use ashlar_tree::{Content, Tree};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Most memory that an xz stream may ask for, in bytes: `xz -9` needs 65 MiB.
const XZ_MEMORY: u64 = 256 << 20;

/// How an archive is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TarOptions {
    /// SHA-256 that the file must have.
    pub sha256: Option<Digest>,
    /// Devices and extended attributes.
    pub keep: Keep,
    /// Most bytes that may come out of the decompressor.
    pub max_unpacked: u64,
}

impl Default for TarOptions {
    fn default() -> Self {
        Self { sha256: None, keep: Keep::default(), max_unpacked: 16 << 30 }
    }
}

/// Reads a tar archive: plain or compressed by gzip, xz or Zstandard, which is seen from its first bytes; ustar, GNU and pax
/// headers. It is decompressed once; after that its tar lies in the cache under its SHA-256 and is verified in each build.
///
/// An entry that comes again replaces the earlier one; a file where a directory is (or the other way) is refused, as are
/// absolute paths, `..`, hard links to nothing, sparse files (make the archive without `--sparse`). An entry below a symbolic
/// link goes where the link leads inside the tree.
///
/// # Errors
/// [`Error::Digest`] when the file has another SHA-256, [`Error::Archive`] names the entry that cannot be taken,
/// [`Error::TooLarge`] when it unpacks to more than `max_unpacked`.
pub fn tar(path: &Path, options: &TarOptions, cache: &Cache) -> Result<Source, Error> {
    let name = format!("the archive `{}`", path.display());
    let open = || File::open(path).map_err(Error::io("open", path));
    let packed = of_reader(open()?).map_err(Error::io("read", path))?;
    if let Some(expected) = options.sha256.filter(|expected| *expected != packed) {
        return Err(digest_error(&name, expected, packed));
    }
    let mut layers = Layers::new(&options.keep);
    // Which tar this file holds was found out when it was unpacked.
    let index = cache.path(Room::Blobs, &format!("{packed}.tar-sha256"));
    let _lock = cache.lock(&format!("tar-{packed}"), || ())?;
    let known = ashlar_cache::read_if_there(&index, 64)?;
    let known = known.and_then(|text| std::str::from_utf8(&text).ok()?.parse::<Digest>().ok());
    let found = match known {
        Some(tar) => entries_in(cache, tar, &name, &mut layers.notes)?.map(|entries| (tar, entries)),
        None => None,
    };
    let (tar, entries) = match found {
        Some(found) => found,
        None => {
            let mut file = BufReader::with_capacity(CHUNK, open()?);
            let compression = Compression::detect(file.fill_buf().map_err(Error::io("read", path))?)
                .map_err(|why| Error::Archive { name: name.clone(), why })?;
            let wanted = Wanted { packed, tar: None, limit: options.max_unpacked };
            let tar = unpack(file, compression, &name, &wanted, cache)?;
            cache.write(&index, tar.to_string().as_bytes())?;
            let entries = entries_in(cache, tar, &name, &mut layers.notes)?;
            (tar, entries.ok_or_else(|| Error::Offline(name.clone()))?)
        }
    };
    cache.touch(&index);
    let blob = Arc::new(cache.blob_path(&tar.to_string()));
    layers.apply(entries, &blob, Mode::Archive).map_err(|why| Error::Archive { name, why })?;
    let (tree, notes) = layers.finish();
    Ok(source(tree, notes))
}

/// Applies plain tar archives to an empty tree, as the layers of an image or (if it is one and not `layered`) as an archive;
/// contents refer to a file that does not exist. For fuzzing and tests of what entries do.
///
/// # Errors
/// Says which archive is damaged or which entry cannot be taken.
pub fn tar_tree(archives: &[&[u8]], layered: bool, keep: &Keep) -> Result<Tree, String> {
    let mut layers = Layers::new(keep);
    for archive in archives {
        let entries = read_entries(&mut &archive[..])?;
        let mode = if layered { Mode::Layer } else { Mode::Archive };
        layers.apply(entries, &Arc::new(PathBuf::from("/nonexistent")), mode)?;
    }
    Ok(layers.finish().0)
}

/// A source whose contents lie in blobs of the cache, whose names are their digests.
pub(crate) fn source(tree: Tree, notes: Notes) -> Source {
    let digest = fingerprint(&tree, |_, content| match content {
        Content::Inline(bytes) => Digest::of(bytes).0.to_vec(),
        Content::Range { path, offset, .. } => {
            let blob = path.file_name().map(|name| name.as_encoded_bytes().to_vec()).unwrap_or_default();
            [blob.as_slice(), b"@", offset.to_string().as_bytes()].concat()
        }
    });
    Source { tree, digest, notes: notes.finish(), stamps: Vec::new() }
}

/// The entries of the tar with this digest in the cache, all of it verified; none when it is not there or was damaged, in
/// which case it is gone and there is a note.
pub(crate) fn entries_in(
    cache: &Cache,
    tar: Digest,
    name: &str,
    notes: &mut Notes,
) -> Result<Option<Vec<Entry>>, Error> {
    let Some(blob) = cache.blob_reader(&tar.to_string())? else { return Ok(None) };
    let mut reader = BufReader::with_capacity(CHUNK, blob);
    let entries = read_entries(&mut reader);
    match reader.into_inner().finish() {
        Ok(()) => entries.map(Some).map_err(|why| Error::Archive { name: name.to_owned(), why }),
        Err(error @ CacheError::Damaged { .. }) => {
            notes.add(format!("unpacked again: {error}"));
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

/// What has to come out of unpacking.
pub(crate) struct Wanted {
    /// Digest of the packed bytes.
    pub(crate) packed: Digest,
    /// Digest of the tar, if it is known.
    pub(crate) tar: Option<Digest>,
    /// Most bytes that the tar may have.
    pub(crate) limit: u64,
}

/// Unpacks into the cache; both digests are made on the way, and nothing is kept when one is wrong.
pub(crate) fn unpack(
    packed: impl Read,
    compression: Compression,
    name: &str,
    wanted: &Wanted,
    cache: &Cache,
) -> Result<Digest, Error> {
    let mut packed = HashingReader::new(packed);
    let mut file = cache.temporary()?;
    let mut hash = Hash::new();
    let result =
        decompress(BufReader::with_capacity(CHUNK, &mut packed), compression, wanted.limit, |bytes| {
            hash.update(bytes);
            file.write_all(bytes)
        });
    let broken = match result {
        Ok(None) => None,
        Ok(Some(TooLarge)) => {
            return Err(Error::TooLarge { name: name.to_owned(), limit: wanted.limit, ours: true });
        }
        Err(Failed::Write(source)) => return Err(Error::io("write", file.path())(source)),
        Err(Failed::Read(error)) => Some(error),
    };
    // The digest is of all bytes, also those that no decompressor wants; and it says more than a decompressor's complaint.
    let drained = std::io::copy(&mut packed, &mut std::io::sink());
    let got = packed.hash.finish();
    if let Some(error) = drained.err() {
        return Err(Error::Archive { name: name.to_owned(), why: format!("it cannot be read: {error}") });
    }
    if got != wanted.packed {
        return Err(digest_error(name, wanted.packed, got));
    }
    if let Some(error) = broken {
        return Err(Error::Archive { name: name.to_owned(), why: format!("it cannot be unpacked: {error}") });
    }
    let tar = hash.finish();
    if let Some(expected) = wanted.tar.filter(|expected| *expected != tar) {
        return Err(digest_error(&format!("the unpacked content of {name}"), expected, tar));
    }
    cache.keep(file, &cache.blob_path(&tar.to_string()))?;
    Ok(tar)
}

pub(crate) fn digest_error(name: &str, expected: Digest, got: Digest) -> Error {
    Error::Digest { name: name.to_owned(), expected: expected.to_string(), got: got.to_string() }
}

/// The output is larger than it may be.
struct TooLarge;

enum Failed {
    Read(std::io::Error),
    Write(std::io::Error),
}

fn decompress(
    packed: impl BufRead,
    compression: Compression,
    limit: u64,
    mut sink: impl FnMut(&[u8]) -> std::io::Result<()>,
) -> Result<Option<TooLarge>, Failed> {
    let mut reader = compression.decoder(packed).map_err(Failed::Read)?;
    let mut buffer = vec![0; CHUNK];
    let mut left = limit;
    loop {
        let length = match reader.read(&mut buffer) {
            Ok(0) => return Ok(None),
            Ok(length) => length,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(Failed::Read(error)),
        };
        let Some(rest) = left.checked_sub(length as u64) else { return Ok(Some(TooLarge)) };
        left = rest;
        sink(buffer.get(..length).unwrap_or_default()).map_err(Failed::Write)?;
    }
}

/// How an archive is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compression {
    /// Not.
    None,
    /// RFC 1952.
    Gzip,
    /// The .xz format.
    Xz,
    /// RFC 8878.
    Zstd,
}

impl Compression {
    /// By the first bytes of a file.
    fn detect(head: &[u8]) -> Result<Self, String> {
        Ok(match head {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            [b'B', b'Z', b'h', ..] => return Err("it is compressed by bzip2; use gzip, xz or zstd".into()),
            [b'P', b'K', 3, 4, ..] => return Err("it is a zip archive; make it a tar archive".into()),
            _ => Self::None,
        })
    }

    fn decoder<'a>(self, packed: impl BufRead + 'a) -> std::io::Result<Box<dyn Read + 'a>> {
        Ok(match self {
            Self::None => Box::new(packed),
            Self::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(packed)),
            Self::Xz => {
                use liblzma::stream::{CONCATENATED, Stream};
                let stream =
                    Stream::new_stream_decoder(XZ_MEMORY, CONCATENATED).map_err(std::io::Error::other)?;
                Box::new(liblzma::bufread::XzDecoder::new_stream(packed, stream))
            }
            Self::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(packed)?),
        })
    }
}
