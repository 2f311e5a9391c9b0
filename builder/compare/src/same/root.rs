//! The root and its verity tree.

use super::Difference;
use super::hints::{Hints, around};
use crate::CompareError;
use crate::diff::files::{aspects, content_difference, facts};
use crate::folder::{ReleaseFolder, Root};
use crate::stream::{fill, first_byte, first_difference};
use crate::text::shown;
use ashlar_formats::erofs::read::{Entry, EntryKind, Part};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::unix::fs::FileExt;

/// Differing blocks of the image that are looked at one by one.
const MAX_BLOCKS: usize = 4096;
/// Contents that are looked at whole for a hint, in bytes.
const MAX_CONTENT: u64 = 1 << 20;

/// Fields of the superblock: offset in it, length, name (Linux, `fs/erofs/erofs_fs.h`).
const SUPERBLOCK: [(usize, usize, &str); 22] = [
    (0, 4, "magic"),
    (4, 4, "checksum"),
    (8, 4, "compatible features"),
    (12, 1, "block size"),
    (13, 1, "superblock size"),
    (14, 2, "number of the root inode"),
    (16, 8, "number of inodes"),
    (24, 8, "build time"),
    (32, 4, "nanoseconds of the build time"),
    (36, 4, "number of blocks"),
    (40, 4, "place of the inodes"),
    (44, 4, "place of the shared attributes"),
    (48, 16, "UUID"),
    (64, 16, "volume name"),
    (80, 4, "incompatible features"),
    (84, 2, "compression"),
    (86, 4, "devices"),
    (90, 1, "directory block size"),
    (91, 5, "attribute prefixes"),
    (96, 8, "packed inode"),
    (104, 1, "attribute filter"),
    (105, 23, "reserved bytes"),
];
/// Where the superblock begins.
const SUPERBLOCK_AT: u64 = 1024;

/// Adds every place of the root that differs; none when the bytes are the same.
pub(super) fn compare(
    a: &ReleaseFolder,
    b: &ReleaseFolder,
    out: &mut Vec<Difference>,
    hints: &mut Hints,
) -> Result<(), CompareError> {
    let artifact = a.release().slot.root.file.clone();
    let ((file_a, size_a), (file_b, size_b)) = (a.file(&artifact)?, b.file(&b.release().slot.root.file)?);
    let places = scan(&file_a, &file_b)
        .map_err(|source| CompareError::Read { path: b.path().join(&artifact), source })?;
    let first = match places.first() {
        Some(first) => *first,
        None if size_a != size_b => size_a.min(size_b),
        None => return Ok(()),
    };
    let superblock = superblock(&artifact, &file_a, &file_b, hints);
    let opened = a.root().and_then(|a| b.root().map(|b| (a, b)));
    let owned = opened.and_then(|(a, b)| match Owned::new(&a, &b, &places) {
        Ok(owned) => Ok((a, b, owned)),
        Err(source) => Err(CompareError::Root { path: b.path, source }),
    });
    let (root_a, root_b, owned) = match owned {
        Ok(owned) => owned,
        Err(error) => {
            // A damaged superblock is named by its field; of anything else only the byte is known.
            let text = format!("differs at byte {first}; it cannot be read: {error}");
            out.extend(superblock);
            out.push(Difference::new(&artifact, "image", text).at(first).byte(first));
            return Ok(());
        }
    };
    let files = files(&artifact, &root_a, &root_b, &owned, hints);
    let moved = files.iter().any(|difference| difference.place_moves);
    let changed: BTreeSet<Vec<u8>> = files.iter().map(|file| file.path.clone()).collect();
    let explained = !files.is_empty();
    out.extend(files.into_iter().map(|file| file.difference));
    for difference in superblock {
        // Counts, sums and places follow from the files; identity and time do not.
        let own = ["UUID", "volume name", "build time", "nanoseconds of the build time", "magic"];
        let follows = explained && !own.iter().any(|name| difference.place.ends_with(name));
        out.push(difference.following(follows));
    }
    let rest = owned.rest(&artifact, &changed);
    if moved && !rest.is_empty() {
        let text = format!("{} more places of the image differ, as things have moved", rest.len());
        out.push(Difference::new(&artifact, "layout", text).following(true));
    } else {
        let follows = |difference: &Difference| explained && difference.place == "padding";
        out.extend(rest.into_iter().map(|difference| {
            let follows = follows(&difference);
            difference.following(follows)
        }));
    }
    if out.is_empty() {
        // Nothing owns the byte: it is told all the same.
        out.push(
            Difference::new(&artifact, "image", format!("differs at byte {first}")).at(first).byte(first),
        );
    }
    Ok(())
}

/// The first differing byte of each 32 bytes, which is the granularity of inodes; in the first differing blocks.
fn scan(a: &File, b: &File) -> std::io::Result<Vec<u64>> {
    let (mut a, mut b) = (a, b);
    let (mut of_a, mut of_b) = (vec![0; 256 << 10], vec![0; 256 << 10]);
    let mut found = Vec::new();
    let mut blocks = 0;
    let mut offset = 0_u64;
    loop {
        let (in_a, in_b) = (fill(&mut a, &mut of_a)?, fill(&mut b, &mut of_b)?);
        let common = in_a.min(in_b);
        if common == 0 {
            return Ok(found);
        }
        for (block, (x, y)) in of_a[..common].chunks(4096).zip(of_b[..common].chunks(4096)).enumerate() {
            if x == y {
                continue;
            }
            blocks += 1;
            let start = offset + block as u64 * 4096;
            for (slot, (x, y)) in x.chunks(32).zip(y.chunks(32)).enumerate() {
                found.extend(first_byte(x, y).map(|at| start + (slot * 32 + at) as u64));
            }
            if blocks == MAX_BLOCKS {
                return Ok(found);
            }
        }
        offset += common as u64;
    }
}

fn superblock(artifact: &str, a: &File, b: &File, hints: &mut Hints) -> Vec<Difference> {
    let read = |file: &File| {
        let mut bytes = [0; 128];
        file.read_exact_at(&mut bytes, SUPERBLOCK_AT).is_ok().then_some(bytes)
    };
    let (Some(a), Some(b)) = (read(a), read(b)) else { return Vec::new() };
    let mut found = Vec::new();
    for (start, length, name) in SUPERBLOCK {
        let (old, new) = (&a[start..start + length], &b[start..start + length]);
        if old == new {
            continue;
        }
        if name.contains("build time") {
            hints.time_field(&format!("{artifact}, superblock"));
        }
        let byte = SUPERBLOCK_AT + start as u64;
        let text =
            format!("superblock: {name} is {} and {} (byte {byte})", hex::encode(old), hex::encode(new));
        found.push(Difference::new(artifact, format!("superblock: {name}"), text).byte(byte));
    }
    found
}

/// A path (none: not a file's) and the kind of part.
type PartOf = (Option<Vec<u8>>, &'static str);

/// Which differing bytes of the image belong to what.
struct Owned {
    /// The first differing byte of each part.
    by_part: BTreeMap<PartOf, u64>,
    /// By path: first differing byte of the content, its byte in the image, whether it is compressed there.
    data: BTreeMap<Vec<u8>, (u64, u64, bool)>,
    /// Bytes that belong to nothing.
    padding: Vec<u64>,
}

fn part_name(part: Part) -> &'static str {
    match part {
        Part::Superblock => "superblock",
        Part::Inode => "inode",
        Part::Xattrs => "extended attributes",
        Part::Index => "index",
        Part::Data { .. } => "data",
    }
}

impl Owned {
    fn new(a: &Root, b: &Root, places: &[u64]) -> Result<Self, ashlar_formats::erofs::read::ReadError> {
        let (of_a, of_b) = (a.reader.owners(&a.entries)?, b.reader.owners(&b.entries)?);
        let mut owned = Self { by_part: BTreeMap::new(), data: BTreeMap::new(), padding: Vec::new() };
        for &byte in places {
            let Some(owner) = of_a.locate(byte).or_else(|| of_b.locate(byte)) else {
                owned.padding.push(byte);
                continue;
            };
            if let (Some(path), Part::Data { offset, compressed, .. }) = (&owner.path, owner.part) {
                let best = owned.data.entry(path.clone()).or_insert((offset, byte, compressed));
                *best = (*best).min((offset, byte, compressed));
            }
            owned.by_part.entry((owner.path.clone(), part_name(owner.part))).or_insert(byte);
        }
        Ok(owned)
    }

    /// What is not explained by `changed` files.
    fn rest(&self, artifact: &str, changed: &BTreeSet<Vec<u8>>) -> Vec<Difference> {
        let mut found = Vec::new();
        for ((path, part), byte) in &self.by_part {
            if *part == "superblock" || path.as_ref().is_some_and(|path| changed.contains(path)) {
                continue;
            }
            let (place, name) = match path {
                Some(path) => (shown(path), shown(path)),
                None => ("packed inode".into(), "the packed inode".into()),
            };
            let what = match *part {
                "inode" => "is stored in another place or form",
                "data" => "has the same content, stored in another way",
                "index" => "has another index of its clusters",
                _ => "has extended attributes stored in another way",
            };
            let text = format!("{name} {what} ({artifact} byte {byte})");
            found.push(Difference::new(artifact, place, text).byte(*byte));
        }
        if let Some(first) = self.padding.first() {
            let text = format!(
                "padding or shared attributes differ at byte {first} ({} places)",
                self.padding.len()
            );
            found.push(Difference::new(artifact, "padding", text).at(*first).byte(*first));
        }
        found
    }
}

/// A difference of one file.
struct OfFile {
    path: Vec<u8>,
    /// Whether what comes behind it in the image lies elsewhere because of it.
    place_moves: bool,
    difference: Difference,
}

fn files(artifact: &str, a: &Root, b: &Root, owned: &Owned, hints: &mut Hints) -> Vec<OfFile> {
    let (of_a, of_b) = (a.by_path(), b.by_path());
    let paths: BTreeSet<&[u8]> = of_a.keys().chain(of_b.keys()).copied().collect();
    let mut found = Vec::new();
    let mut compared: BTreeSet<(u64, u64)> = BTreeSet::new();
    for path in paths {
        let name = shown(path);
        let mut add = |place_moves: bool, difference: Difference| {
            found.push(OfFile { path: path.to_vec(), place_moves, difference });
        };
        let (old, new) = match (of_a.get(path), of_b.get(path)) {
            (Some(old), Some(new)) => (*old, *new),
            (old, _) => {
                let which = if old.is_some() { "first" } else { "second" };
                add(true, Difference::new(artifact, &name, format!("{name} is only in the {which} release")));
                continue;
            }
        };
        // Other names of a file that was compared tell nothing new.
        if !compared.insert((old.nid, new.nid)) {
            continue;
        }
        let (facts_a, facts_b) = (facts(old), facts(new));
        let byte = owned
            .by_part
            .get(&(Some(path.to_vec()), "inode"))
            .or_else(|| owned.by_part.get(&(Some(path.to_vec()), "extended attributes")))
            .copied();
        for aspect in aspects(&facts_a, &facts_b) {
            let (x, y) = match aspect {
                "kind" => (facts_a.kind.clone(), facts_b.kind.clone()),
                "mode" => (facts_a.mode.clone(), facts_b.mode.clone()),
                "owner" => (facts_a.owner.clone(), facts_b.owner.clone()),
                "time" => (facts_a.mtime.to_string(), facts_b.mtime.to_string()),
                _ => (format!("{:?}", facts_a.xattrs), format!("{:?}", facts_b.xattrs)),
            };
            if aspect == "time" {
                hints.time_field(artifact);
            }
            let place = byte.map_or(String::new(), |byte| format!(" ({artifact} byte {byte})"));
            let mut difference =
                Difference::new(artifact, &name, format!("{name}: {aspect} is {x} and {y}{place}"));
            difference.byte = byte;
            add(matches!(aspect, "kind" | "xattrs" | "time"), difference);
        }
        if old.kind != EntryKind::File || new.kind != EntryKind::File {
            continue;
        }
        let content = match content_difference(a, old, b, new) {
            Ok(content) => content,
            Err(error) => {
                let text = format!("{name} cannot be read: {error}");
                add(false, Difference::new(artifact, &name, text));
                continue;
            }
        };
        if let Some(at) = content {
            content_hints(&name, a, old, b, new, at, hints);
            let of = if old.size == new.size {
                old.size.to_string()
            } else {
                format!("{} and {}", old.size, new.size)
            };
            let mut text = format!("{name} differs at byte {at} of {of}");
            let mut difference = Difference::new(artifact, &name, "").at(at);
            match owned.data.get(path) {
                Some((offset, byte, false)) if *offset == at => {
                    text = format!("{text} ({artifact} byte {byte})");
                    difference = difference.byte(*byte);
                }
                Some((_, byte, true)) => {
                    text = format!("{text} (in a compressed cluster, {artifact} byte {byte})");
                    difference = difference.byte(*byte);
                }
                _ => {}
            }
            difference.text = text;
            // Compressed contents of the same length may take other room.
            let packed = owned.data.get(path).is_some_and(|(_, _, compressed)| *compressed);
            add(old.size != new.size || packed, difference);
        }
    }
    found
}

fn content_hints(name: &str, a: &Root, old: &Entry, b: &Root, new: &Entry, at: u64, hints: &mut Hints) {
    let read = |root: &Root, entry: &Entry, from: u64, length: usize| {
        let mut bytes = vec![0; length];
        let done = root.reader.read(entry, from, &mut bytes).unwrap_or(0);
        bytes.truncate(done);
        bytes
    };
    let from = at.saturating_sub(32);
    hints.window(name, &read(a, old, from, 64), &read(b, new, from, 64));
    if old.size == new.size && old.size <= MAX_CONTENT {
        let length = usize::try_from(old.size).unwrap_or(0);
        hints.contents(name, &read(a, old, 0, length), &read(b, new, 0, length));
    }
}

/// Fields of the verity superblock: offset, length, name (cryptsetup, on-disk format 1).
const VERITY: [(usize, usize, &str); 8] = [
    (0, 8, "magic"),
    (8, 8, "version"),
    (16, 16, "UUID"),
    (32, 32, "algorithm"),
    (64, 8, "block sizes"),
    (72, 8, "number of data blocks"),
    (80, 264, "salt"),
    (344, 168, "padding"),
];

/// The verity partition: its tree follows from the root.
pub(super) fn verity(
    a: &ReleaseFolder,
    b: &ReleaseFolder,
    root_differs: bool,
) -> Result<Vec<Difference>, CompareError> {
    let artifact = a.release().slot.verity.file.clone();
    let ((mut file_a, _), (mut file_b, _)) = (a.file(&artifact)?, b.file(&b.release().slot.verity.file)?);
    let fail = |source| CompareError::Read { path: b.path().join(&artifact), source };
    let (mut head_a, mut head_b) = (vec![0; 4096], vec![0; 4096]);
    let (in_a, in_b) =
        (fill(&mut file_a, &mut head_a).map_err(fail)?, fill(&mut file_b, &mut head_b).map_err(fail)?);
    let mut found = Vec::new();
    for (start, length, name) in VERITY {
        let range = start..start + length;
        if in_a >= 512 && in_b >= 512 && head_a[range.clone()] != head_b[range] {
            let follows = root_differs && name == "number of data blocks";
            let text = format!("superblock: {name} differs (byte {start})");
            let difference =
                Difference::new(&artifact, format!("superblock: {name}"), text).byte(start as u64);
            found.push(difference.following(follows));
        }
    }
    let salt_differs = found.iter().any(|difference| difference.place.ends_with("salt"));
    let tree = first_difference(&mut file_a, &mut file_b).map_err(fail)?.map(|at| at + 4096);
    let head = first_byte(&head_a[..in_a], &head_b[..in_b]).filter(|_| found.is_empty()).map(|at| at as u64);
    if let Some(at) = head.or(tree) {
        let follows = root_differs || salt_differs;
        let why = match (root_differs, salt_differs) {
            (true, _) => "follows from the root".to_owned(),
            (false, true) => "follows from the salt".to_owned(),
            (false, false) => "though the root is the same: one of the trees is damaged".to_owned(),
        };
        let text = format!("hash tree differs at byte {at}, {why}");
        found.push(Difference::new(&artifact, "hash tree", text).at(at).byte(at).following(follows));
    }
    Ok(found)
}

/// The bytes around a place of a slice, for other artefacts.
pub(super) fn window<'a>(a: &'a [u8], b: &'a [u8], at: usize) -> (&'a [u8], &'a [u8]) {
    (around(a, at), around(b, at))
}
