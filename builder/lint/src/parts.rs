//! The tree cut into its parts, each with its own root, and look-ups that stay inside of it.

use crate::error::LintError;
use crate::report::Part;
use crate::subject::Subject;
use ashlar_tree::{Kind, Node, Tree};

/// How many symbolic links one look-up may follow, as in Linux (`MAXSYMLINKS`).
const MAX_LINKS: usize = 40;

/// A node of a part.
#[derive(Debug, Clone)]
pub(crate) struct Entry<'a> {
    /// Absolute path inside the part.
    pub path: Vec<u8>,
    /// The node; a hard link is not followed.
    pub node: &'a Node,
}

impl Entry<'_> {
    /// The path as text.
    pub fn shown(&self) -> String {
        String::from_utf8_lossy(&self.path).into_owned()
    }
}

/// The root file system or a container's.
#[derive(Debug)]
pub(crate) struct PartView<'a> {
    /// Which.
    pub part: Part,
    /// Where it lies in the tree; empty for the root.
    pub prefix: &'a str,
    /// All its nodes in byte order of the walk, the part's root first.
    pub entries: Vec<Entry<'a>>,
    root: &'a Node,
    tree: &'a Tree,
}

/// What a look-up came to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Lookup<'a> {
    /// A node that is no symbolic link, and its path in the part.
    Found(Vec<u8>, &'a Node),
    /// Nothing; the path that was not there, links before it followed.
    Missing(Vec<u8>),
    /// More than 40 links.
    Loop,
}

impl<'a> PartView<'a> {
    /// Follows `path` to its end inside the part; a link to `/` or `..` never leaves it. Relative paths start at
    /// `from`.
    pub fn follow(&self, from: &[u8], path: &[u8]) -> Lookup<'a> {
        let mut pending: Vec<&[u8]> = Vec::new();
        let mut done: Vec<&[u8]> = Vec::new();
        pending.extend(path.rsplit(|&b| b == b'/'));
        if path.first() != Some(&b'/') {
            pending.extend(from.rsplit(|&b| b == b'/'));
        }
        let mut links = 0;
        // The nodes on the way, so that `..` costs nothing.
        let mut nodes: Vec<&'a Node> = vec![self.root];
        while let Some(part) = pending.pop() {
            match part {
                b"" | b"." => continue,
                b".." => {
                    if done.pop().is_some() {
                        nodes.pop();
                    }
                    continue;
                }
                _ => {}
            }
            let child = nodes.last().and_then(|node| node.entries()).and_then(|entries| entries.get(part));
            let child = match child.map(|node| &node.kind) {
                Some(Kind::HardLink(target)) => self.tree.get(target),
                _ => child,
            };
            match child {
                None => {
                    done.push(part);
                    let rest = pending.iter().rev().filter(|p| !matches!(**p, b"" | b".")).copied();
                    return Lookup::Missing(joined(done.iter().copied().chain(rest)));
                }
                Some(Node { kind: Kind::Symlink(target), .. }) => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Lookup::Loop;
                    }
                    if target.first() == Some(&b'/') {
                        done.clear();
                        nodes.truncate(1);
                    }
                    pending.extend(target.rsplit(|&b| b == b'/'));
                }
                Some(node) => {
                    done.push(part);
                    nodes.push(node);
                }
            }
        }
        match nodes.last() {
            Some(node) => Lookup::Found(joined(done.into_iter()), node),
            None => Lookup::Missing(joined(done.into_iter())),
        }
    }

    /// The node at an absolute path, links followed.
    pub fn get(&self, path: &str) -> Option<&'a Node> {
        match self.follow(b"/", path.as_bytes()) {
            Lookup::Found(_, node) => Some(node),
            _ => None,
        }
    }

    /// The content of the file at `path`, if it is one and has at most `limit` bytes.
    pub fn read(&self, path: &str, limit: u64) -> Result<Option<Vec<u8>>, LintError> {
        let Some(Node { kind: Kind::File(content), .. }) = self.get(path) else { return Ok(None) };
        if content.len() > limit {
            return Ok(None);
        }
        content.read().map(Some).map_err(|source| LintError::Read {
            file: path.to_owned(),
            path: host_path(content),
            source,
        })
    }

    /// Like [`Self::read`], as text.
    pub fn read_text(&self, path: &str, limit: u64) -> Result<Option<String>, LintError> {
        Ok(self.read(path, limit)?.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    }
}

/// Where the bytes lie on the host, for errors.
pub(crate) fn host_path(content: &ashlar_tree::Content) -> std::path::PathBuf {
    match content {
        ashlar_tree::Content::Range { path, .. } => path.as_path().to_owned(),
        ashlar_tree::Content::Inline(_) => "(memory)".into(),
    }
}

fn joined<'b>(parts: impl Iterator<Item = &'b [u8]>) -> Vec<u8> {
    let mut out = Vec::new();
    for part in parts {
        out.push(b'/');
        out.extend_from_slice(part);
    }
    if out.is_empty() {
        out.push(b'/');
    }
    out
}

/// Cuts the tree of the subject into the root and its containers.
pub(crate) fn split<'a>(subject: &Subject<'a>) -> Result<Vec<PartView<'a>>, LintError> {
    let tree = subject.tree;
    let mut parts =
        vec![PartView { part: Part::Root, prefix: "", entries: Vec::new(), root: tree.root(), tree }];
    for container in subject.containers {
        let prefix = container.prefix.trim_end_matches('/');
        let root = tree.get(prefix.as_bytes()).filter(|node| node.entries().is_some());
        let root = root.ok_or_else(|| LintError::NoContainer {
            name: container.name.to_owned(),
            prefix: container.prefix.to_owned(),
        })?;
        parts.push(PartView {
            part: Part::Container(container.name.to_owned()),
            prefix,
            entries: Vec::new(),
            root,
            tree,
        });
    }
    tree.walk(|path, node| {
        // The longest prefix wins; the root's is empty and fits all.
        let mut best = 0;
        for (i, part) in parts.iter().enumerate().skip(1) {
            let inside = path.strip_prefix(part.prefix.as_bytes());
            if inside.is_some_and(|rest| rest.is_empty() || rest.first() == Some(&b'/'))
                && parts.get(best).is_none_or(|b| part.prefix.len() > b.prefix.len())
            {
                best = i;
            }
        }
        if let Some(part) = parts.get_mut(best) {
            let inside = path.get(part.prefix.len()..).filter(|rest| !rest.is_empty()).unwrap_or(b"/");
            part.entries.push(Entry { path: inside.to_vec(), node });
        }
    });
    Ok(parts)
}
