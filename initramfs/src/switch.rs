//! The switch of root: the mounts move along, the initramfs is emptied, the root's own init takes over.

use crate::error::Error;
use ashlar_image::manifest::INIT_PATH;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use std::convert::Infallible;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Where the root is mounted before the switch.
pub const SYSROOT: &str = "/sysroot";
/// What moves to the root with all that is mounted below.
const MOVED: [&str; 4] = ["/proc", "/sys", "/dev", "/run"];

fn failed(step: &'static str) -> impl FnOnce(rustix::io::Errno) -> Error {
    move |error| Error::Switch { step, source: error.into() }
}

/// Removes what lies in `folder` on the file system `device`, and nothing on others: what is mounted stays.
fn empty(folder: &OwnedFd, device: u64) -> io::Result<()> {
    let mut dir = Dir::read_from(folder)?;
    while let Some(entry) = dir.read() {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let status = rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)?;
        if status.st_dev != device {
            continue;
        }
        if FileType::from_raw_mode(status.st_mode) == FileType::Directory {
            empty(&open_dir(folder, name)?, device)?;
            match rustix::fs::unlinkat(folder, name, AtFlags::REMOVEDIR) {
                // A mount point with a mount below.
                Ok(()) | Err(rustix::io::Errno::NOTEMPTY | rustix::io::Errno::BUSY) => {}
                Err(error) => return Err(error.into()),
            }
        } else {
            rustix::fs::unlinkat(folder, name, AtFlags::empty())?;
        }
    }
    Ok(())
}

fn open_dir(parent: impl AsFd, name: impl rustix::path::Arg) -> rustix::io::Result<OwnedFd> {
    rustix::fs::openat(
        parent,
        name,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )
}

/// Makes [`SYSROOT`] the root and executes the init that lies there. Comes back only with an error.
pub fn switch() -> Result<Infallible, Error> {
    for mount in MOVED {
        rustix::mount::mount_move(mount, format!("{SYSROOT}{mount}")).map_err(failed("move the mounts"))?;
    }
    let old = open_dir(rustix::fs::CWD, "/").map_err(failed("open the initramfs"))?;
    let device = rustix::fs::fstat(&old).map_err(failed("look at the initramfs"))?.st_dev;
    rustix::process::chdir(SYSROOT).map_err(failed("enter the root"))?;
    rustix::mount::mount_move(".", "/").map_err(failed("move the root"))?;
    rustix::process::chroot(".").map_err(failed("change the root"))?;
    rustix::process::chdir("/").map_err(failed("enter the root"))?;
    // Gives the memory back; keys and programs of the initramfs are of no use any more.
    empty(&old, device).map_err(|source| Error::Switch { step: "empty the initramfs", source })?;
    let source = Command::new(INIT_PATH).env_clear().exec();
    Err(Error::Switch { step: "execute the root's init", source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn emptying_removes_all_and_follows_no_link() {
        let folder = tempfile::tempdir().unwrap();
        let inside = folder.path().join("inside");
        let outside = folder.path().join("outside");
        std::fs::create_dir_all(inside.join("a/b/c")).unwrap();
        std::fs::create_dir(&outside).unwrap();
        std::fs::write(outside.join("kept"), "x").unwrap();
        std::fs::write(inside.join("a/file"), "x").unwrap();
        std::os::unix::fs::symlink(&outside, inside.join("a/link")).unwrap();
        let root = open_dir(rustix::fs::CWD, &inside).unwrap();
        let device = rustix::fs::fstat(&root).unwrap().st_dev;
        empty(&root, device + 1).unwrap();
        assert!(inside.join("a/file").exists(), "another file system is left alone");
        empty(&root, device).unwrap();
        assert_eq!(std::fs::read_dir(&inside).unwrap().count(), 0);
        assert!(outside.join("kept").exists());
    }
}
