//! From packages to a file tree.

use crate::Error;
use crate::fetch::Package;
use crate::locked::Locked;
use crate::relation::parse_relations;
use crate::stanza::Stanza;
use ashlar_tar::{Entry, EntryKind};
use ashlar_tree::{Content, Kind, Node, Tree, TreeError};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

/// Adds the files of all packages to `tree`, in the order of `packages`.
///
/// - Symbolic links in the root directory come first, whoever brings them: what a package has in `/lib` then lies in
///   `/usr/lib` when another package makes the one a link to the other (merged `/usr`).
/// - A directory gets owner, mode and time from the first package that brings it, as with dpkg.
/// - A path that two packages bring is refused, unless both bring the same (owner, mode, content; the first one's
///   time stays), or one of them `Replaces` the other: its file is taken then, in whichever order they come. Should
///   both replace each other, the later one's is taken.
pub fn compose(packages: &[Package], tree: &mut Tree) -> Result<(), Error> {
    let replaces = packages.iter().map(Replaces::of).collect::<Result<_, _>>()?;
    let mut composer = Composer {
        packages,
        replaces,
        tree,
        owners: HashMap::new(),
        directories: HashSet::new(),
        linked: HashSet::new(),
    };
    let is_root_link =
        |entry: &Entry| matches!(entry.kind, EntryKind::Symlink(_)) && !entry.path.contains(&b'/');
    for root_links in [true, false] {
        for (at, package) in packages.iter().enumerate() {
            for entry in package.unpacked.entries.iter().filter(|entry| is_root_link(entry) == root_links) {
                composer.place(at, entry)?;
            }
        }
    }
    Ok(())
}

/// What a package may overwrite (policy 7.6.1).
struct Replaces(Vec<crate::Alternative>);

impl Replaces {
    fn of(package: &Package) -> Result<Self, Error> {
        let field = Stanza(package.control()).field("Replaces").unwrap_or("");
        let clauses = parse_relations(field, &package.locked.architecture).map_err(|why| Error::Unpack {
            package: package.locked.label(),
            why: format!("{why} (in `Replaces`)"),
        })?;
        Ok(Self(clauses.into_iter().flatten().collect()))
    }

    fn includes(&self, other: &Locked) -> bool {
        self.0.iter().any(|replaced| {
            replaced.name == other.name
                && replaced.constraint.as_ref().is_none_or(|constraint| constraint.accepts(&other.version))
        })
    }
}

struct Composer<'a> {
    packages: &'a [Package],
    replaces: Vec<Replaces>,
    tree: &'a mut Tree,
    /// Which package a path comes from; directories have no owner.
    owners: HashMap<Vec<u8>, usize>,
    /// Directories that a package has brought.
    directories: HashSet<Vec<u8>>,
    /// Files that have further names.
    linked: HashSet<Vec<u8>>,
}

impl Composer<'_> {
    fn place(&mut self, at: usize, entry: &Entry) -> Result<(), Error> {
        let label = || self.packages[at].locked.label();
        let fail = |source: TreeError| Error::Tree { package: label(), source };
        let path = self.tree.resolve(&entry.path).map_err(fail)?;
        if entry.kind == EntryKind::Directory {
            if matches!(self.tree.get(&path), Some(Node { kind: Kind::Symlink(_), .. })) {
                return self.place_behind_link(&path, entry).map_err(fail);
            }
            if self.directories.insert(path.clone()) {
                let node = Node { metadata: entry.metadata.clone(), kind: Kind::Directory(BTreeMap::new()) };
                self.tree.insert(&path, node).map_err(fail)?;
            }
            return Ok(());
        }
        let node = Node { metadata: entry.metadata.clone(), kind: self.kind(at, entry, &path)? };
        if let Some(&owner) = self.owners.get(&path)
            && owner != at
        {
            let (old, new) = (&self.packages[owner].locked, &self.packages[at].locked);
            if self.is_same(&path, &node)? {
                return Ok(());
            }
            let new_wins = self.replaces[at].includes(old);
            let old_wins = self.replaces[owner].includes(new);
            // Other names of a file must not change with it.
            if !(new_wins || old_wins) || self.linked.contains(&path) {
                return Err(Error::TwoOwners {
                    first: old.label(),
                    second: new.label(),
                    path: String::from_utf8_lossy(&path).into_owned(),
                });
            }
            if !new_wins {
                return Ok(());
            }
        }
        if let Kind::HardLink(target) = &node.kind {
            self.linked.insert(target.clone());
        }
        self.tree.insert(&path, node).map_err(fail)?;
        self.owners.insert(path, at);
        Ok(())
    }

    /// A directory where a link lies (merged `/usr`): what the link leads to is made, in case no package has brought it
    /// yet. The one that does decides on owner and mode.
    fn place_behind_link(&mut self, path: &[u8], entry: &Entry) -> Result<(), TreeError> {
        let below = self.tree.resolve(&[path, b"/x"].concat())?;
        let target = below.strip_suffix(b"/x").unwrap_or(&below);
        if !target.is_empty() && self.tree.get(target).is_none() {
            let node = Node { metadata: entry.metadata.clone(), kind: Kind::Directory(BTreeMap::new()) };
            self.tree.insert(target, node)?;
        }
        Ok(())
    }

    fn kind(&self, at: usize, entry: &Entry, path: &[u8]) -> Result<Kind, Error> {
        let package = &self.packages[at];
        Ok(match &entry.kind {
            EntryKind::Directory => Kind::Directory(BTreeMap::new()),
            EntryKind::File { offset, len } => Kind::File(Content::Range {
                path: Arc::clone(&package.unpacked.data),
                offset: *offset,
                len: *len,
            }),
            EntryKind::Symlink(target) => Kind::Symlink(target.clone()),
            EntryKind::CharDevice { major, minor } => Kind::CharDevice { major: *major, minor: *minor },
            EntryKind::BlockDevice { major, minor } => Kind::BlockDevice { major: *major, minor: *minor },
            EntryKind::Fifo => Kind::Fifo,
            EntryKind::HardLink(target) => {
                let dangling = || Error::DanglingHardLink {
                    package: package.locked.label(),
                    path: String::from_utf8_lossy(&entry.path).into_owned(),
                    target: String::from_utf8_lossy(target).into_owned(),
                };
                let resolved = self
                    .tree
                    .resolve(target)
                    .map_err(|source| Error::Tree { package: package.locked.label(), source })?;
                let real = match self.tree.get(&resolved).map(|node| &node.kind) {
                    None | Some(Kind::Directory(_)) => return Err(dangling()),
                    Some(Kind::HardLink(real)) => real.clone(),
                    Some(_) => resolved,
                };
                // A file that has further names cannot itself become one; nor can a file be its own.
                let own = self.owners.get(&real) == Some(&at);
                if real == path || !own || self.linked.contains(path) {
                    return Err(dangling());
                }
                Kind::HardLink(real)
            }
        })
    }

    /// Whether the node at `path` has the owner, mode and content of `node`.
    fn is_same(&self, path: &[u8], node: &Node) -> Result<bool, Error> {
        let Some(old) = self.tree.get(path) else { return Ok(false) };
        let (a, b) = (&old.metadata, &node.metadata);
        if (a.mode, a.uid, a.gid, &a.xattrs) != (b.mode, b.uid, b.gid, &b.xattrs) {
            return Ok(false);
        }
        let (Kind::File(a), Kind::File(b)) = (&old.kind, &node.kind) else {
            return Ok(old.kind == node.kind);
        };
        if a.len() != b.len() {
            return Ok(false);
        }
        let read = |content: &Content| {
            let path = match content {
                Content::Range { path, .. } => path.as_path(),
                Content::Inline(_) => std::path::Path::new(""),
            };
            content.read().map_err(Error::io("read", path))
        };
        Ok(read(a)? == read(b)?)
    }
}
