//! Directories, and the walk through all of them.

use super::data::FileReader;
use super::inode::Inode;
use super::{Entry, EntryKind, Limits, ReadAt, ReadError, Reader, number, u16_at};
use std::collections::BTreeSet;

/// Longest path and longest target of a symbolic link in bytes (Linux, `PATH_MAX`).
const PATH_MAX: usize = 4096;

/// A directory that is being walked: what is left of it.
struct Open {
    path: Vec<u8>,
    names: std::vec::IntoIter<(Vec<u8>, u64)>,
}

impl<S: ReadAt> Reader<S> {
    /// Names and inodes in a directory by name, without `.` and `..`.
    fn names(&self, inode: &Inode, left: usize) -> Result<Vec<(Vec<u8>, u64)>, ReadError> {
        let mut file = FileReader::new(self, inode.clone())?;
        let mut block = vec![0; self.block_size() as usize];
        let mut names = Vec::new();
        let mut offset = 0;
        loop {
            let length = file.read_at(offset, &mut block)?;
            if length == 0 {
                break;
            }
            offset += length as u64;
            Self::block_names(inode, &block[..length], &mut names)?;
            if names.len() > left {
                return Err(ReadError::Limit("names"));
            }
        }
        names.sort_unstable();
        if names.windows(2).any(|pair| pair[0].0 == pair[1].0) {
            return Self::damaged(inode, "a directory has a name twice");
        }
        Ok(names)
    }

    fn block_names(inode: &Inode, block: &[u8], names: &mut Vec<(Vec<u8>, u64)>) -> Result<(), ReadError> {
        let first = usize::from(u16_at(block, 8));
        if first < 12 || !first.is_multiple_of(12) || first > block.len() {
            return Self::damaged(inode, "a directory block is damaged");
        }
        let starts: Vec<usize> = (0..first / 12).map(|at| usize::from(u16_at(block, at * 12 + 8))).collect();
        for (at, &start) in starts.iter().enumerate() {
            let end = starts.get(at + 1).copied().unwrap_or(block.len());
            let mut name = block.get(start..end).unwrap_or_default();
            if at + 1 == starts.len() {
                // Only the last may have zeros behind it.
                name = name.split(|&byte| byte == 0).next().unwrap_or_default();
            }
            if name.is_empty() || name.len() > 255 || name.iter().any(|byte| matches!(byte, 0 | b'/')) {
                return Self::damaged(inode, "a directory has a name that is none");
            }
            if name != b"." && name != b".." {
                names.push((name.to_vec(), number::<8>(block, at * 12)));
            }
        }
        Ok(())
    }

    /// See [`Reader::entries`].
    pub(super) fn entries_within(&self, limits: Limits) -> Result<Vec<Entry>, ReadError> {
        let prefixes = self.long_prefixes()?;
        let mut budget = limits.bytes;
        let root = self.inode(self.root)?;
        if !root.is_directory() {
            return Self::damaged(&root, "the root is no directory");
        }
        // Each directory has one place, which also ends circles.
        let mut directories = BTreeSet::from([root.nid]);
        let mut entries = vec![self.entry(b"/".to_vec(), &root, &prefixes, &mut budget)?];
        let mut open = vec![Open { path: Vec::new(), names: self.names(&root, limits.entries)?.into_iter() }];
        let mut waiting = open[0].names.len();
        while let Some(directory) = open.last_mut() {
            let Some((name, nid)) = directory.names.next() else {
                open.pop();
                continue;
            };
            waiting -= 1;
            let path = [directory.path.as_slice(), b"/", &name].concat();
            if path.len() > PATH_MAX {
                return Err(ReadError::Limit("paths"));
            }
            budget = budget.checked_sub(path.len()).ok_or(ReadError::Limit("paths"))?;
            let inode = self.inode(nid)?;
            entries.push(self.entry(path.clone(), &inode, &prefixes, &mut budget)?);
            if inode.is_directory() {
                if !directories.insert(nid) {
                    return Self::damaged(&inode, "a directory is in two places");
                }
                let left = limits.entries.saturating_sub(entries.len() + waiting);
                let names = self.names(&inode, left)?.into_iter();
                waiting += names.len();
                open.push(Open { path, names });
            }
        }
        Ok(entries)
    }

    fn entry(
        &self,
        path: Vec<u8>,
        inode: &Inode,
        prefixes: &[Vec<u8>],
        budget: &mut usize,
    ) -> Result<Entry, ReadError> {
        let kind = match inode.kind() {
            Some(EntryKind::Symlink(_)) => {
                if inode.size > PATH_MAX as u64 {
                    return Self::damaged(inode, "a symbolic link is longer than a path");
                }
                let mut target = vec![0; inode.size as usize];
                *budget = budget.checked_sub(target.len()).ok_or(ReadError::Limit("symbolic links"))?;
                FileReader::new(self, inode.clone())?.read_full(0, &mut target)?;
                EntryKind::Symlink(target)
            }
            Some(kind) => kind,
            None => return Self::damaged(inode, "its file type is unknown"),
        };
        Ok(Entry {
            path,
            nid: inode.nid,
            kind,
            mode: inode.mode & 0o7777,
            uid: inode.uid,
            gid: inode.gid,
            mtime: inode.mtime,
            mtime_nanoseconds: inode.mtime_nanoseconds,
            size: inode.size,
            nlink: inode.nlink,
            xattrs: self.xattrs(inode, prefixes, budget)?,
        })
    }
}
