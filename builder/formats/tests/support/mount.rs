//! The kernel as a judge.
#![allow(dead_code, clippy::unwrap_used)] // each test uses a part of it; a test fails by unwrap

use super::run;
use std::path::{Path, PathBuf};
use std::process::Command;

/// An image, mounted by the kernel until it is dropped.
#[derive(Debug)]
pub struct Mount(PathBuf);

impl Mount {
    /// Mounts `image` in `folder`, read-only. None, with a remark, for an ordinary user and where there are no loop
    /// devices or the kernel does not know the compression.
    pub fn new(image: &Path, folder: &Path) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: the kernel is asked only where the tests run as root");
            return None;
        }
        let at = folder.join("mounted");
        std::fs::create_dir_all(&at).unwrap();
        let output =
            run(Command::new("mount").args(["-t", "erofs", "-o", "loop,ro"]).args([image, &at]), "mount")?;
        if output.status.success() {
            return Some(Self(at));
        }
        // A kernel that can mount erofs says more than one that cannot.
        let can = std::fs::read_to_string("/proc/filesystems").unwrap_or_default().contains("\terofs");
        let loops = Path::new("/dev/loop-control").exists();
        assert!(!can || !loops || known_to_lack(image), "{output:?}");
        eprintln!(
            "skipped: this kernel does not mount it: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
        None
    }

    /// Where.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

/// Whether the image needs zstd, which kernels before 6.10 and some since do not know.
fn known_to_lack(image: &Path) -> bool {
    let mut head = [0; 128];
    let file = std::fs::File::open(image).unwrap();
    std::os::unix::fs::FileExt::read_exact_at(&file, &mut head, 1024).unwrap();
    head[80] & 2 != 0 && head[84] & 8 != 0
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = run(Command::new("umount").arg(&self.0), "mount");
    }
}
