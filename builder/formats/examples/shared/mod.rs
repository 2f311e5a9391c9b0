//! A folder as a tree.
#![allow(dead_code)] // each example uses a part of it

use ashlar_tree::{Content, Kind, Metadata, Node, Tree};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::sync::Arc;

/// All of `folder`, with the same time for everything; sockets and extended attributes are left out.
pub fn tree(folder: &Path, time: i64) -> io::Result<Tree> {
    let mut tree = Tree::new(Metadata::root(0o755, time));
    let mut pending = vec![folder.to_path_buf()];
    let mut linked = std::collections::BTreeMap::new();
    while let Some(at) = pending.pop() {
        for entry in std::fs::read_dir(&at)? {
            let path = entry?.path();
            let found = std::fs::symlink_metadata(&path)?;
            let relative = path.strip_prefix(folder).map_err(io::Error::other)?;
            let name = [b"/", relative.as_os_str().as_bytes()].concat();
            let device = found.rdev();
            let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
            let file_type = found.file_type();
            let kind = if file_type.is_dir() {
                pending.push(path);
                Kind::Directory(std::collections::BTreeMap::new())
            } else if file_type.is_symlink() {
                Kind::Symlink(std::fs::read_link(&path)?.as_os_str().as_bytes().to_vec())
            } else if file_type.is_file() {
                match linked.get(&(found.dev(), found.ino())) {
                    Some(first) => Kind::HardLink(Vec::clone(first)),
                    None => {
                        linked.insert((found.dev(), found.ino()), name.clone());
                        Kind::File(Content::Range { path: Arc::new(path), offset: 0, len: found.len() })
                    }
                }
            } else if file_type.is_char_device() {
                Kind::CharDevice { major, minor }
            } else if file_type.is_block_device() {
                Kind::BlockDevice { major, minor }
            } else if file_type.is_fifo() {
                Kind::Fifo
            } else {
                continue;
            };
            let metadata = Metadata {
                mode: found.mode() & 0o7777,
                uid: found.uid(),
                gid: found.gid(),
                mtime: time,
                ..Metadata::default()
            };
            // The links of the packed tree are not followed: each path is what it is called.
            insert(&mut tree, &name, Node { metadata, kind })?;
        }
    }
    Ok(tree)
}

fn insert(tree: &mut Tree, name: &[u8], node: Node) -> io::Result<()> {
    tree.insert(name, node).map_err(io::Error::other)
}
