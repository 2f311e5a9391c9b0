//! Looking up and changing a tree by path. Symbolic links in the leading directories of a path are
//! followed inside the tree (merged `/usr` makes `/lib/x` mean `/usr/lib/x`), never outside of it.

use crate::{Kind, Metadata, Node, Tree};
use std::collections::BTreeMap;

/// The entries of a directory by name.
type Entries = BTreeMap<Vec<u8>, Node>;

/// How many symbolic links one look-up may follow, as in Linux (`MAXSYMLINKS`).
const MAX_LINKS: usize = 40;

/// Why a tree could not be changed.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TreeError {
    /// A component is empty, `..` beyond the root, or holds a NUL byte or is longer than 255 bytes.
    #[error("`{0}` is not a path that can be stored in an image")]
    BadPath(String),
    /// A leading component exists and is no directory.
    #[error("`{path}`: `{component}` is a file, not a directory")]
    NotADirectory {
        /// The path that was asked for.
        path: String,
        /// The component that is in the way.
        component: String,
    },
    /// More than 40 symbolic links, so very likely a loop.
    #[error("`{0}`: too many levels of symbolic links")]
    LinkLoop(String),
    /// A file and a directory claim the same path.
    #[error("`{path}` is both {existing} and {added}")]
    Clash {
        /// The contested path.
        path: String,
        /// What is there.
        existing: &'static str,
        /// What was to be added.
        added: &'static str,
    },
}

fn show(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

fn kind_name(kind: &Kind) -> &'static str {
    match kind {
        Kind::Directory(_) => "a directory",
        Kind::File(_) => "a file",
        Kind::Symlink(_) => "a symbolic link",
        Kind::CharDevice { .. } | Kind::BlockDevice { .. } => "a device",
        Kind::Fifo => "a pipe",
        Kind::Socket => "a socket",
        Kind::HardLink(_) => "a hard link",
    }
}

/// Splits a path into components: leading `/` and `./` do not matter, `.` and repeated slashes vanish.
fn components(path: &[u8]) -> Result<Vec<Vec<u8>>, TreeError> {
    let mut parts = Vec::new();
    for part in path.split(|&b| b == b'/') {
        match part {
            b"" | b"." => {}
            _ if part.len() > 255 || part.contains(&0) => return Err(TreeError::BadPath(show(path))),
            _ => parts.push(part.to_vec()),
        }
    }
    Ok(parts)
}

/// The files of a part of a tree by their paths.
fn collect(path: &[u8], node: Node, files: &mut BTreeMap<Vec<u8>, Node>) {
    match node.kind {
        Kind::Directory(entries) => {
            for (name, child) in entries {
                collect(&[path, b"/", &name].concat(), child, files);
            }
        }
        Kind::HardLink(_) => {}
        _ => {
            files.insert(path.to_vec(), node);
        }
    }
}

impl Tree {
    /// A tree with nothing but its root directory.
    pub fn new(root: Metadata) -> Self {
        Self { root: Node::directory(root) }
    }

    /// The root directory.
    pub fn root(&self) -> &Node {
        &self.root
    }

    /// The root directory's metadata, to be changed.
    pub fn root_metadata_mut(&mut self) -> &mut Metadata {
        &mut self.root.metadata
    }

    /// Where `path` really lies once the symbolic links in its leading directories are followed:
    /// absolute, without `.` and `..`. The last component is not followed. Missing components stay as
    /// they are.
    pub fn resolve(&self, path: &[u8]) -> Result<Vec<u8>, TreeError> {
        let mut pending: Vec<Vec<u8>> = components(path)?;
        pending.reverse();
        let mut done: Vec<Vec<u8>> = Vec::new();
        let mut links = 0;
        while let Some(part) = pending.pop() {
            if part == b".." {
                done.pop();
                continue;
            }
            done.push(part);
            if pending.is_empty() {
                break;
            }
            if let Some(Node { kind: Kind::Symlink(target), .. }) = self.at(&done) {
                links += 1;
                if links > MAX_LINKS {
                    return Err(TreeError::LinkLoop(show(path)));
                }
                done.pop();
                if target.first() == Some(&b'/') {
                    done.clear();
                }
                let mut parts = components(target)?;
                parts.reverse();
                pending.extend(parts);
            }
        }
        let mut out = Vec::new();
        for part in &done {
            out.push(b'/');
            out.extend_from_slice(part);
        }
        if out.is_empty() {
            out.push(b'/');
        }
        Ok(out)
    }

    fn at(&self, parts: &[Vec<u8>]) -> Option<&Node> {
        parts.iter().try_fold(&self.root, |node, part| node.entries()?.get(part))
    }

    /// The node at `path`, leading links followed, the last component not.
    pub fn get(&self, path: &[u8]) -> Option<&Node> {
        let parts = components(&self.resolve(path).ok()?).ok()?;
        self.at(&parts)
    }

    /// The node at `path` with symbolic links followed to the end, and the path that it really has.
    pub fn get_followed(&self, path: &[u8]) -> Option<(Vec<u8>, &Node)> {
        let mut at = self.resolve(path).ok()?;
        for _ in 0..MAX_LINKS {
            let node = self.get(&at)?;
            let target = match &node.kind {
                Kind::Symlink(target) => target,
                Kind::HardLink(target) => {
                    at.clone_from(target);
                    continue;
                }
                _ => return Some((at, node)),
            };
            let mut next = Vec::new();
            if target.first() != Some(&b'/') {
                next.extend_from_slice(&at[..at.iter().rposition(|&b| b == b'/').unwrap_or(0)]);
                next.push(b'/');
            }
            next.extend_from_slice(target);
            at = self.resolve(&next).ok()?;
        }
        None
    }

    /// The node at `path`, to be changed; leading links followed, the last component not.
    pub fn get_mut(&mut self, path: &[u8]) -> Option<&mut Node> {
        let parts = components(&self.resolve(path).ok()?).ok()?;
        let mut node = &mut self.root;
        for part in parts {
            match &mut node.kind {
                Kind::Directory(entries) => node = entries.get_mut(&part)?,
                _ => return None,
            }
        }
        Some(node)
    }

    fn directory_of(
        &mut self,
        path: &[u8],
        parents: &Metadata,
    ) -> Result<(&mut Entries, Vec<u8>), TreeError> {
        let mut parts = components(&self.resolve(path)?)?;
        let name = parts.pop().ok_or_else(|| TreeError::BadPath(show(path)))?;
        let mut node = &mut self.root;
        for part in parts {
            let Kind::Directory(entries) = &mut node.kind else {
                return Err(TreeError::NotADirectory { path: show(path), component: show(&part) });
            };
            node = entries.entry(part.clone()).or_insert_with(|| Node::directory(parents.clone()));
            if !matches!(node.kind, Kind::Directory(_)) {
                return Err(TreeError::NotADirectory { path: show(path), component: show(&part) });
            }
        }
        match &mut node.kind {
            Kind::Directory(entries) => Ok((entries, name)),
            _ => Err(TreeError::NotADirectory { path: show(path), component: String::new() }),
        }
    }

    /// Puts `node` at `path`, making missing parents with mode 0755 owned by root and `node`'s time.
    ///
    /// A directory that is already there keeps its entries and takes the new metadata. A symbolic link
    /// that leads to a directory is kept where a directory is added (merged `/usr`). Any other node is
    /// replaced by a node that is no directory.
    ///
    /// # Errors
    /// [`TreeError::Clash`] when a directory would replace a file or a file a directory.
    pub fn insert(&mut self, path: &[u8], node: Node) -> Result<(), TreeError> {
        if components(&self.resolve(path)?)?.is_empty() {
            return match node.kind {
                Kind::Directory(_) => {
                    self.root.metadata = node.metadata;
                    Ok(())
                }
                other => Err(TreeError::Clash {
                    path: "/".into(),
                    existing: "a directory",
                    added: kind_name(&other),
                }),
            };
        }
        if matches!(node.kind, Kind::Directory(_)) {
            let through_link = matches!(self.get(path), Some(Node { kind: Kind::Symlink(_), .. }));
            if through_link
                && matches!(self.get_followed(path), Some((_, Node { kind: Kind::Directory(_), .. })))
            {
                return Ok(());
            }
        }
        let parents = Metadata::root(0o755, node.metadata.mtime);
        let (entries, name) = self.directory_of(path, &parents)?;
        match entries.get_mut(&name) {
            None => {
                entries.insert(name, node);
            }
            Some(old) => match (&old.kind, &node.kind) {
                (Kind::Directory(_), Kind::Directory(_)) => old.metadata = node.metadata,
                (Kind::Directory(_), added) | (added, Kind::Directory(_)) => {
                    return Err(TreeError::Clash {
                        path: show(path),
                        existing: kind_name(&old.kind),
                        added: if matches!(node.kind, Kind::Directory(_)) {
                            "a directory"
                        } else {
                            kind_name(added)
                        },
                    });
                }
                _ => *old = node,
            },
        }
        Ok(())
    }

    /// Takes the node at `path` out of the tree with all below it.
    pub fn remove(&mut self, path: &[u8]) -> Option<Node> {
        let mut parts = components(&self.resolve(path).ok()?).ok()?;
        let name = parts.pop()?;
        let mut node = &mut self.root;
        for part in parts {
            match &mut node.kind {
                Kind::Directory(entries) => node = entries.get_mut(&part)?,
                _ => return None,
            }
        }
        match &mut node.kind {
            Kind::Directory(entries) => entries.remove(&name),
            _ => None,
        }
    }

    /// Takes the nodes at `paths` out of the tree with all below them, and gives back those paths where nothing was. A
    /// file that has further names stays under these.
    pub fn remove_all<'p>(&mut self, paths: impl IntoIterator<Item = &'p [u8]>) -> Vec<&'p [u8]> {
        let mut gone = BTreeMap::new();
        let mut missing = Vec::new();
        for path in paths {
            let place = self.resolve(path);
            match (place, self.remove(path)) {
                (Ok(place), Some(node)) => collect(&place, node, &mut gone),
                _ => missing.push(path),
            }
        }
        self.mend_links(&gone);
        missing
    }

    /// As [`Tree::insert`], but further names of a file that is replaced keep what they had.
    pub fn replace(&mut self, path: &[u8], node: Node) -> Result<(), TreeError> {
        let place = self.resolve(path)?;
        let old = self.get(&place).filter(|old| matches!(old.kind, Kind::File(_))).cloned();
        self.insert(path, node)?;
        if let Some(old) = old {
            self.mend_links(&BTreeMap::from([(place, old)]));
        }
        Ok(())
    }

    /// Gives hard links to files that are `gone` what those were: the first takes the file's place, the others name it.
    fn mend_links(&mut self, gone: &BTreeMap<Vec<u8>, Node>) {
        let mut orphans: BTreeMap<Vec<u8>, Vec<Vec<u8>>> = BTreeMap::new();
        self.walk(|path, node| {
            if let Kind::HardLink(target) = &node.kind
                && gone.contains_key(target)
            {
                orphans.entry(target.clone()).or_default().push(path.to_vec());
            }
        });
        for (target, names) in orphans {
            let (Some(first), Some(file)) = (names.first(), gone.get(&target)) else { continue };
            for name in &names {
                let Some(node) = self.get_mut(name) else { continue };
                if name == first {
                    *node = file.clone();
                } else {
                    node.kind = Kind::HardLink(first.clone());
                }
            }
        }
    }

    /// Calls `visit` for every node with its absolute path, parents before children, in byte order of
    /// the names; the root comes first as `/`.
    pub fn walk<'a>(&'a self, mut visit: impl FnMut(&[u8], &'a Node)) {
        fn go<'a>(path: &mut Vec<u8>, node: &'a Node, visit: &mut impl FnMut(&[u8], &'a Node)) {
            visit(if path.is_empty() { b"/" } else { path }, node);
            for (name, child) in node.entries().into_iter().flatten() {
                let len = path.len();
                path.push(b'/');
                path.extend_from_slice(name);
                go(path, child, visit);
                path.truncate(len);
            }
        }
        go(&mut Vec::new(), &self.root, &mut visit);
    }

    /// Calls `change` for every node, parents before children.
    pub fn walk_mut(&mut self, mut change: impl FnMut(&mut Node)) {
        fn go(node: &mut Node, change: &mut impl FnMut(&mut Node)) {
            change(node);
            if let Kind::Directory(entries) = &mut node.kind {
                for child in entries.values_mut() {
                    go(child, change);
                }
            }
        }
        go(&mut self.root, &mut change);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta() -> Metadata {
        Metadata::root(0o755, 0)
    }

    fn merged() -> Tree {
        let mut tree = Tree::new(meta());
        tree.insert(b"/usr/lib", Node::directory(meta())).unwrap();
        tree.insert(b"/lib", Node::symlink(meta(), "usr/lib")).unwrap();
        tree
    }

    #[test]
    fn files_land_behind_merged_usr_links() {
        let mut tree = merged();
        tree.insert(b"./lib/modules/a.ko", Node::file(meta(), *b"x")).unwrap();
        tree.insert(b"/lib", Node::directory(meta())).unwrap();
        assert!(tree.get(b"/usr/lib/modules/a.ko").is_some());
        assert!(matches!(tree.get(b"/lib").unwrap().kind, Kind::Symlink(_)));
    }

    #[test]
    fn a_file_never_replaces_a_directory() {
        let mut tree = merged();
        let error = tree.insert(b"/usr/lib", Node::file(meta(), *b"x")).unwrap_err();
        assert_eq!(error.to_string(), "`/usr/lib` is both a directory and a file");
        let error = tree.insert(b"/", Node::file(meta(), *b"x")).unwrap_err();
        assert_eq!(error.to_string(), "`/` is both a directory and a file");
    }

    #[test]
    fn links_cannot_leave_the_tree_or_loop_for_ever() {
        let mut tree = merged();
        tree.insert(b"/up", Node::symlink(meta(), "../../..")).unwrap();
        assert_eq!(tree.resolve(b"/up/etc/passwd").unwrap(), b"/etc/passwd");
        tree.insert(b"/loop", Node::symlink(meta(), "loop")).unwrap();
        assert_eq!(tree.resolve(b"/loop/x"), Err(TreeError::LinkLoop("/loop/x".into())));
    }

    #[test]
    fn what_has_further_names_outlives_the_first() {
        let mut tree = merged();
        tree.insert(b"/doc/a", Node::file(meta(), *b"text")).unwrap();
        for name in [&b"/usr/b"[..], b"/usr/c"] {
            let kind = Kind::HardLink(b"/doc/a".to_vec());
            tree.insert(name, Node { metadata: meta(), kind }).unwrap();
        }
        let mut replaced = tree.clone();
        assert_eq!(tree.remove_all([&b"/doc"[..], b"/none"]), [b"/none"]);
        assert_eq!(tree.get(b"/usr/b").unwrap(), &Node::file(meta(), *b"text"));
        assert_eq!(tree.get(b"/usr/c").unwrap().kind, Kind::HardLink(b"/usr/b".to_vec()));
        replaced.replace(b"/doc/a", Node::file(meta(), *b"other")).unwrap();
        assert_eq!(replaced.get(b"/doc/a").unwrap(), &Node::file(meta(), *b"other"));
        assert_eq!(replaced.get(b"/usr/b").unwrap(), &Node::file(meta(), *b"text"));
    }

    #[test]
    fn walk_is_sorted_and_complete() {
        let mut tree = merged();
        tree.insert(b"/b", Node::file(meta(), *b"")).unwrap();
        tree.insert(b"/a/c", Node::file(meta(), *b"")).unwrap();
        let mut seen = Vec::new();
        tree.walk(|path, _| seen.push(String::from_utf8_lossy(path).into_owned()));
        assert_eq!(seen, ["/", "/a", "/a/c", "/b", "/lib", "/usr", "/usr/lib"]);
    }
}
