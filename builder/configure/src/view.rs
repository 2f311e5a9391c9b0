//! Reading and writing files of a tree with bounds.

use crate::ConfigureError;
use ashlar_tree::{Kind, Metadata, Node, Tree};

/// Greatest size of a text file that is read, in bytes.
pub(crate) const TEXT_MAX: u64 = 4 << 20;

/// A path or a name as it is shown to people.
pub(crate) fn show(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The bytes of the regular file at `path`, links followed; none if there is no regular file.
pub(crate) fn read(tree: &Tree, path: &str, limit: u64) -> Result<Option<Vec<u8>>, ConfigureError> {
    let Some((_, Node { kind: Kind::File(content), .. })) = tree.get_followed(path.as_bytes()) else {
        return Ok(None);
    };
    if content.len() > limit {
        return Err(ConfigureError::TooLarge { path: path.to_owned(), len: content.len(), limit });
    }
    content.read().map(Some).map_err(|source| ConfigureError::Read { path: path.to_owned(), source })
}

/// A small text file; bytes that are no UTF-8 are replaced.
pub(crate) fn text(tree: &Tree, path: &str) -> Result<Option<String>, ConfigureError> {
    Ok(read(tree, path, TEXT_MAX)?.map(|bytes| show(&bytes)))
}

/// Whether `path` leads to anything, links followed.
pub(crate) fn exists(tree: &Tree, path: &str) -> bool {
    tree.get_followed(path.as_bytes()).is_some()
}

/// Whether `path` leads to a directory, links followed.
pub(crate) fn is_directory(tree: &Tree, path: &str) -> bool {
    matches!(tree.get_followed(path.as_bytes()), Some((_, Node { kind: Kind::Directory(_), .. })))
}

/// Whether `path` leads to a regular file, links followed.
pub(crate) fn is_file(tree: &Tree, path: &str) -> bool {
    matches!(tree.get_followed(path.as_bytes()), Some((_, Node { kind: Kind::File(_), .. })))
}

/// The names in a directory, in byte order; names that are no UTF-8 are left out. Empty if it is none.
pub(crate) fn names(tree: &Tree, path: &str) -> Vec<String> {
    let Some((_, node)) = tree.get_followed(path.as_bytes()) else { return Vec::new() };
    node.entries()
        .into_iter()
        .flatten()
        .filter_map(|(name, _)| String::from_utf8(name.clone()).ok())
        .collect()
}

/// Writes a file owned by root.
pub(crate) fn write(
    tree: &mut Tree,
    path: &str,
    mode: u32,
    time: i64,
    bytes: impl Into<std::sync::Arc<[u8]>>,
) -> Result<(), ConfigureError> {
    Ok(tree.insert(path.as_bytes(), Node::file(Metadata::root(mode, time), bytes))?)
}

/// Makes a symbolic link owned by root.
pub(crate) fn link(tree: &mut Tree, path: &str, target: &str, time: i64) -> Result<(), ConfigureError> {
    Ok(tree.insert(path.as_bytes(), Node::symlink(Metadata::root(0o777, time), target))?)
}

/// The target of the symbolic link at `path`, if it is one.
pub(crate) fn target(tree: &Tree, path: &str) -> Option<String> {
    match &tree.get(path.as_bytes())?.kind {
        Kind::Symlink(target) => String::from_utf8(target.clone()).ok(),
        _ => None,
    }
}
