//! The walk over the root for files that give rights, in steps: PID 1 has other things to do meanwhile.

use ashlar_image::hardening::PrivilegedFile;
use std::collections::VecDeque;
use std::fs::{self, DirEntry, Metadata, ReadDir};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Most files that are looked at; an image has a few thousand.
const MAX_FILES: usize = 2_000_000;
/// Most files that are named.
const MAX_FOUND: usize = 1000;
/// The extended attribute of file capabilities (capabilities(7)).
const CAPABILITY: &str = "security.capability";

/// A walk over one file system.
#[derive(Debug)]
pub struct Walk {
    device: u64,
    folders: VecDeque<PathBuf>,
    open: Option<ReadDir>,
    seen: usize,
    found: Vec<PrivilegedFile>,
}

/// How a file of `mode` gives rights. Setgid without the right to execute for the group is mandatory locking of old.
const fn by_mode(mode: u32) -> Option<&'static str> {
    match mode {
        _ if mode & 0o170_000 != 0o100_000 => None,
        _ if mode & 0o4000 != 0 => Some("setuid"),
        _ if mode & 0o2010 == 0o2010 => Some("setgid"),
        _ => None,
    }
}

impl Walk {
    /// Begins at `root`. What is mounted below it is left out.
    pub fn new(root: &Path) -> io::Result<Self> {
        Ok(Self {
            device: fs::symlink_metadata(root)?.dev(),
            folders: VecDeque::from([root.to_owned()]),
            open: None,
            seen: 0,
            found: Vec::new(),
        })
    }

    /// Looks at `count` more files, at least at one. True when there are no more. A folder that cannot be read is an
    /// error: what lies in it is not known.
    pub fn step(&mut self, count: usize) -> io::Result<bool> {
        for _ in 0..count.max(1) {
            let Some(open) = &mut self.open else {
                let Some(folder) = self.folders.pop_front() else { return Ok(true) };
                self.open = Some(fs::read_dir(folder)?);
                continue;
            };
            match open.next() {
                None => self.open = None,
                Some(entry) => self.look(&entry?)?,
            }
        }
        Ok(false)
    }

    fn look(&mut self, entry: &DirEntry) -> io::Result<()> {
        self.seen += 1;
        if self.seen > MAX_FILES || self.found.len() >= MAX_FOUND {
            return Err(io::Error::other("more files than init looks at"));
        }
        let metadata: Metadata = entry.metadata()?;
        if metadata.dev() != self.device {
            return Ok(());
        }
        if metadata.is_dir() {
            self.folders.push_back(entry.path());
            return Ok(());
        }
        if !metadata.is_file() {
            return Ok(());
        }
        let path = entry.path();
        let how = by_mode(metadata.mode());
        let how = match how {
            Some(how) => Some(how),
            None if metadata.mode() & 0o111 != 0 && has_capabilities(&path)? => Some("file capabilities"),
            None => None,
        };
        if let Some(how) = how {
            self.found.push(PrivilegedFile { path: path.to_string_lossy().into_owned(), how: how.into() });
        }
        Ok(())
    }

    /// How many files were looked at.
    pub const fn seen(&self) -> usize {
        self.seen
    }

    /// What was found, in the order of the paths.
    pub fn finish(mut self) -> Vec<PrivilegedFile> {
        self.found.sort_by(|one, other| one.path.cmp(&other.path));
        self.found
    }
}

/// Whether a file has capabilities of its own; a file system without extended attributes has none.
fn has_capabilities(path: &Path) -> io::Result<bool> {
    use rustix::io::Errno;
    let mut buffer = [0u8; 64];
    match rustix::fs::lgetxattr(path, CAPABILITY, &mut buffer) {
        Ok(_) | Err(Errno::RANGE) => Ok(true),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn walk(root: &Path, step: usize) -> io::Result<(usize, Vec<PrivilegedFile>)> {
        let mut walk = Walk::new(root)?;
        while !walk.step(step)? {}
        Ok((walk.seen(), walk.finish()))
    }

    #[test]
    fn files_that_give_rights_are_found_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, mode: u32| {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, "x").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            path
        };
        file("bin/plain", 0o755);
        file("bin/locked", 0o2644);
        let su = file("bin/su", 0o4755);
        let wall = file("deep/er/wall", 0o2755);
        symlink(&su, folder.path().join("link")).unwrap();
        fs::set_permissions(folder.path().join("deep"), fs::Permissions::from_mode(0o2775)).unwrap();
        let ping = file("bin/ping", 0o755);
        // CAP_NET_RAW, version 2 of the format.
        let value = [1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let set = rustix::fs::setxattr(&ping, CAPABILITY, &value, rustix::fs::XattrFlags::empty());
        let mut expected = vec![(&su, "setuid"), (&wall, "setgid")];
        if set.is_ok() {
            expected.insert(0, (&ping, "file capabilities"));
        } else {
            println!("no file capabilities in this test: only root sets them");
        }
        for step in [0, 1, 3, 1000] {
            let (seen, found) = walk(folder.path(), step).unwrap();
            let found: Vec<(PathBuf, String)> =
                found.into_iter().map(|file| (file.path.into(), file.how)).collect();
            let expected: Vec<(PathBuf, String)> =
                expected.iter().map(|(path, how)| ((*path).clone(), (*how).to_owned())).collect();
            assert_eq!(found, expected, "{step}");
            assert_eq!(seen, 9);
        }
        assert!(walk(&folder.path().join("none"), 1).is_err());
    }

    #[test]
    fn another_file_system_is_left_out() {
        // /proc and /dev lie below the root of the machine that runs the tests.
        let mut walk = Walk::new(Path::new("/")).unwrap();
        walk.device += 1;
        while !walk.step(100).unwrap() {}
        assert!(walk.seen() < 1000 && walk.finish().is_empty());
    }
}
