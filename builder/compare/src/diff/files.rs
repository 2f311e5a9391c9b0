//! Files of the root and of the initramfs.

use crate::CompareError;
use crate::cpio::Member;
use crate::folder::Root;
use crate::initramfs::Initramfs;
use crate::stream::first_difference;
use crate::text::shown;
use ashlar_formats::erofs::read::{Entry, EntryKind};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// What a file is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Facts {
    /// `file`, `directory`, `link to TARGET`, `character device 1:3`, …
    pub kind: String,
    /// Permission bits in octal: `0755`.
    pub mode: String,
    /// Owner and group: `0:0`.
    pub owner: String,
    /// Length of a regular file in bytes; 0 for others.
    pub size: u64,
    /// Modification time, seconds since 1970.
    pub mtime: i64,
    /// Extended attributes: name and value in hexadecimal.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub xattrs: BTreeMap<String, String>,
}

/// A file that was added, removed or changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FileChange {
    /// Path without a leading slash.
    pub path: String,
    /// Before; none when it was added.
    pub before: Option<Facts>,
    /// After; none when it was removed.
    pub after: Option<Facts>,
    /// What changed of a file that is in both: `content`, `kind`, `mode`, `owner`, `time`, `xattrs`.
    pub changed: Vec<&'static str>,
}

impl FileChange {
    /// Whether nothing but the modification time changed.
    pub fn only_time(&self) -> bool {
        self.changed == ["time"]
    }
}

/// What differs of two files but their content.
pub(crate) fn aspects(a: &Facts, b: &Facts) -> Vec<&'static str> {
    let mut changed = Vec::new();
    for (name, differs) in [
        ("kind", a.kind != b.kind),
        ("mode", a.mode != b.mode),
        ("owner", a.owner != b.owner),
        ("time", a.mtime != b.mtime),
        ("xattrs", a.xattrs != b.xattrs),
    ] {
        if differs {
            changed.push(name);
        }
    }
    changed
}

pub(crate) fn facts(entry: &Entry) -> Facts {
    let kind = match &entry.kind {
        EntryKind::Directory => "directory".to_owned(),
        EntryKind::File => "file".to_owned(),
        EntryKind::Symlink(target) => {
            format!("link to {}", crate::text::clean(&String::from_utf8_lossy(target)))
        }
        EntryKind::CharDevice { major, minor } => format!("character device {major}:{minor}"),
        EntryKind::BlockDevice { major, minor } => format!("block device {major}:{minor}"),
        EntryKind::Fifo => "pipe".to_owned(),
        EntryKind::Socket => "socket".to_owned(),
    };
    Facts {
        kind,
        mode: format!("{:04o}", entry.mode),
        owner: format!("{}:{}", entry.uid, entry.gid),
        size: if entry.kind == EntryKind::File { entry.size } else { 0 },
        mtime: entry.mtime,
        xattrs: entry.xattrs.iter().map(|(name, value)| (shown(name), hex::encode(value))).collect(),
    }
}

/// Files of two roots. Contents of the same length are read and compared.
pub(super) fn of_roots(a: &Root, b: &Root) -> Result<Vec<FileChange>, CompareError> {
    let (of_a, of_b) = (a.by_path(), b.by_path());
    let paths: BTreeSet<&[u8]> = of_a.keys().chain(of_b.keys()).copied().collect();
    // Names of one file are compared once.
    let mut compared: BTreeMap<(u64, u64), bool> = BTreeMap::new();
    let mut changes = Vec::new();
    for path in paths {
        let (before, after) = (of_a.get(path), of_b.get(path));
        let mut changed = Vec::new();
        if let (Some(old), Some(new)) = (before, after) {
            changed = aspects(&facts(old), &facts(new));
            if old.kind == EntryKind::File && new.kind == EntryKind::File {
                let same = match compared.get(&(old.nid, new.nid)) {
                    Some(same) => *same,
                    None => {
                        let same = old.size == new.size && content_difference(a, old, b, new)?.is_none();
                        compared.insert((old.nid, new.nid), same);
                        same
                    }
                };
                if !same {
                    changed.insert(0, "content");
                }
            }
            if changed.is_empty() {
                continue;
            }
        }
        let facts_of = |entry: Option<&&Entry>| entry.map(|entry| facts(entry));
        changes.push(FileChange {
            path: shown(path),
            before: facts_of(before),
            after: facts_of(after),
            changed,
        });
    }
    Ok(changes)
}

/// Where the contents of two files first differ.
pub(crate) fn content_difference(
    a: &Root,
    old: &Entry,
    b: &Root,
    new: &Entry,
) -> Result<Option<u64>, CompareError> {
    let open = |root: &Root, source| CompareError::Root { path: root.path.clone(), source };
    let mut of_a = a.reader.open_entry(old).map_err(|source| open(a, source))?;
    let mut of_b = b.reader.open_entry(new).map_err(|source| open(b, source))?;
    first_difference(&mut of_a, &mut of_b)
        .map_err(|source| CompareError::Read { path: b.path.clone(), source })
}

pub(crate) fn member_facts(archive: &Initramfs, member: &Member) -> Facts {
    let [_, mode, uid, gid, _, mtime, size, _, _, major, minor, ..] = member.fields;
    let kind = match mode & 0o170_000 {
        0o040_000 => "directory".to_owned(),
        0o100_000 => "file".to_owned(),
        0o120_000 => {
            format!("link to {}", crate::text::clean(&String::from_utf8_lossy(archive.data(member))))
        }
        0o020_000 => format!("character device {major}:{minor}"),
        0o060_000 => format!("block device {major}:{minor}"),
        0o010_000 => "pipe".to_owned(),
        other => format!("type {other:o}"),
    };
    Facts {
        size: if kind == "file" { u64::from(size) } else { 0 },
        kind,
        mode: format!("{:04o}", mode & 0o7777),
        owner: format!("{uid}:{gid}"),
        mtime: i64::from(mtime),
        xattrs: BTreeMap::new(),
    }
}

/// Files of two initramfs archives.
pub(super) fn of_archives(a: &Initramfs, b: &Initramfs) -> Vec<FileChange> {
    let (of_a, of_b) = (a.by_name(), b.by_name());
    let names: BTreeSet<&[u8]> = of_a.keys().chain(of_b.keys()).copied().collect();
    let mut changes = Vec::new();
    for name in names {
        let (old, new) = (of_a.get(name), of_b.get(name));
        let before = old.map(|member| member_facts(a, member));
        let after = new.map(|member| member_facts(b, member));
        let mut changed = Vec::new();
        if let (Some(old), Some(new), Some(before), Some(after)) = (old, new, &before, &after) {
            changed = aspects(before, after);
            if before.kind == "file" && after.kind == "file" && a.data(old) != b.data(new) {
                changed.insert(0, "content");
            }
            if changed.is_empty() {
                continue;
            }
        }
        changes.push(FileChange { path: shown(name), before, after, changed });
    }
    changes
}
