//! The file systems that the kernel provides and those in memory.

use crate::error::Error;
use rustix::mount::MountFlags;
use std::ffi::CStr;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, symlink};
use std::path::Path;

/// One file system to mount.
#[derive(Debug, Clone, Copy)]
pub struct Mount {
    /// Type.
    pub kind: &'static str,
    /// Where.
    pub target: &'static str,
    /// Flags.
    pub flags: MountFlags,
    /// Options of the file system.
    pub options: &'static CStr,
}

/// What holds data and no programs.
const DATA: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV).union(MountFlags::NOEXEC);

/// What both stages need; the second inherits it from the first.
pub const BASE: [Mount; 4] = [
    // Who may not trace a process does not see it: PID 1 sees all, a service with a user of its own only its own.
    Mount { kind: "proc", target: "/proc", flags: DATA, options: c"hidepid=invisible" },
    Mount { kind: "sysfs", target: "/sys", flags: DATA, options: c"" },
    Mount {
        kind: "devtmpfs",
        target: "/dev",
        flags: MountFlags::NOSUID.union(MountFlags::NOEXEC),
        options: c"mode=0755",
    },
    Mount { kind: "tmpfs", target: "/run", flags: DATA, options: c"mode=0755,size=20%" },
];

/// Below `/sys`, after the modules are loaded: efivarfs is one of them. In the root, [`lock_variables`] makes it read only.
pub const FIRMWARE: [Mount; 2] = [
    Mount { kind: "securityfs", target: "/sys/kernel/security", flags: DATA, options: c"" },
    Mount { kind: "efivarfs", target: crate::efi::MOUNT, flags: DATA, options: c"" },
];

/// What only the root needs.
pub const ROOT: [Mount; 5] = [
    Mount { kind: "tmpfs", target: "/tmp", flags: DATA, options: c"mode=1777,size=20%" },
    Mount {
        kind: "devpts",
        target: "/dev/pts",
        flags: MountFlags::NOSUID.union(MountFlags::NOEXEC),
        options: c"mode=0620,ptmxmode=0666,gid=5",
    },
    Mount { kind: "tmpfs", target: "/dev/shm", flags: DATA, options: c"mode=1777,size=20%" },
    Mount { kind: "mqueue", target: "/dev/mqueue", flags: DATA, options: c"" },
    Mount {
        kind: "cgroup2",
        target: crate::cgroup::ROOT,
        flags: DATA,
        options: c"nsdelegate,memory_recursiveprot",
    },
];

/// What helps and may be missing.
pub const OPTIONAL: [Mount; 2] = [
    Mount { kind: "pstore", target: "/sys/fs/pstore", flags: DATA, options: c"" },
    Mount { kind: "bpf", target: "/sys/fs/bpf", flags: DATA, options: c"mode=0700" },
];

impl Mount {
    /// Mounts it. Directories below a writable file system are made; the others are in the image or in sysfs.
    pub fn mount(&self) -> Result<(), Error> {
        let target = Path::new(self.target);
        if !target.exists() {
            make_dir(target, 0o755)?;
        }
        let options = (!self.options.is_empty()).then_some(self.options);
        rustix::mount::mount(self.kind, target, self.kind, self.flags, options).map_err(|error| {
            Error::Mount { kind: self.kind.into(), target: target.into(), source: error.into() }
        })
    }
}

/// Makes a directory and what leads to it; one that is there is left as it is.
pub fn make_dir(path: &Path, mode: u32) -> Result<(), Error> {
    fs::DirBuilder::new().recursive(true).mode(mode).create(path).map_err(Error::io("make", path))
}

/// The symbolic links in `/dev` that programs expect and devtmpfs does not make.
pub fn link_standard_files() -> Result<(), Error> {
    for (link, target) in [
        ("/dev/fd", "/proc/self/fd"),
        ("/dev/stdin", "/proc/self/fd/0"),
        ("/dev/stdout", "/proc/self/fd/1"),
        ("/dev/stderr", "/proc/self/fd/2"),
    ] {
        link_to(link, target)?;
    }
    Ok(())
}

/// Makes the folders of `/var`, which lies on the state volume and is empty at the first start.
pub fn populate_var() -> Result<(), Error> {
    for folder in
        ["/var/cache", "/var/lib", "/var/lib/ashlar", "/var/log", "/var/log/ashlar", "/var/spool", "/var/tmp"]
    {
        make_dir(Path::new(folder), 0o755)?;
    }
    fs::set_permissions("/var/tmp", fs::Permissions::from_mode(0o1777))
        .map_err(Error::io("open to everybody", "/var/tmp"))?;
    for (link, target) in [("/var/run", "/run"), ("/var/lock", "/run/lock")] {
        link_to(link, target)?;
    }
    make_dir(Path::new("/run/lock"), 0o755)
}

/// Makes a symbolic link; what is there already stays.
fn link_to(link: &str, target: &str) -> Result<(), Error> {
    match symlink(target, link) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(Error::io("make", link)(error)),
        _ => Ok(()),
    }
}

/// Makes the firmware's variables read only where the caller sees them, or writable.
pub fn lock_variables(read_only: bool) -> io::Result<()> {
    let flags = DATA | MountFlags::BIND | if read_only { MountFlags::RDONLY } else { MountFlags::empty() };
    Ok(rustix::mount::mount_remount(crate::efi::MOUNT, flags, c"")?)
}

/// Does `change` while the firmware's variables can be written to.
pub fn with_variables<T>(change: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let is_locked = rustix::fs::statvfs(crate::efi::MOUNT)
        .is_ok_and(|status| status.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY));
    if is_locked {
        lock_variables(false)?;
    }
    let result = change();
    if is_locked {
        lock_variables(true)?;
    }
    result
}

/// Whether something is mounted on `path`: another device than its parent's.
pub fn is_mounted(path: &Path) -> bool {
    let device = |path: &Path| rustix::fs::stat(path).map(|status| status.st_dev).ok();
    path.parent().is_some_and(|parent| device(path).is_some() && device(path) != device(parent))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ashlar_image::hardening::{Expectation, check, defaults};
    use ashlar_image::hardening::{Mounted, Observed};

    /// What is mounted here is what is expected afterwards.
    #[test]
    fn the_mounts_are_those_of_the_list() {
        let options = |mount: &Mount| {
            let flags = [
                (MountFlags::NOSUID, "nosuid"),
                (MountFlags::NODEV, "nodev"),
                (MountFlags::NOEXEC, "noexec"),
                (MountFlags::RDONLY, "ro"),
            ];
            // The root's init locks it.
            let locked = mount.target == crate::efi::MOUNT;
            let of = if locked { mount.flags | MountFlags::RDONLY } else { mount.flags };
            let flags = flags.into_iter().filter(move |(flag, _)| of.contains(*flag));
            let own = mount.options.to_str().unwrap().split(',').map(str::to_owned);
            flags.map(|(_, name)| name.to_owned()).chain(own).collect()
        };
        let mut mounts: Vec<Mounted> = BASE
            .iter()
            .chain(&FIRMWARE)
            .chain(&ROOT)
            .chain(&OPTIONAL)
            .map(|mount| Mounted {
                target: mount.target.into(),
                kind: mount.kind.into(),
                options: options(mount),
            })
            .collect();
        let root = ["ro", "nosuid", "nodev"].map(str::to_owned).to_vec();
        mounts.push(Mounted { target: "/".into(), kind: "erofs".into(), options: root });
        if mounts.iter().all(|mount| mount.target != "/var") {
            // The state volume.
            let options = ["nosuid", "nodev", "noexec"].map(str::to_owned).to_vec();
            mounts.push(Mounted { target: "/var".into(), kind: "ext4".into(), options });
        }
        let list: Vec<Expectation> = defaults()
            .into_iter()
            .filter(|one| matches!(one, Expectation::Mount { .. } | Expectation::OnlyKnownMounts))
            .collect();
        assert_eq!(check(&list, &Observed { mounts: Some(mounts), ..Observed::default() }), []);
    }

    #[test]
    fn nothing_but_the_device_folders_can_hold_devices() {
        for mount in BASE.iter().chain(&FIRMWARE).chain(&ROOT).chain(&OPTIONAL) {
            assert!(mount.flags.contains(MountFlags::NOSUID | MountFlags::NOEXEC), "{}", mount.target);
            let devices = mount.target == "/dev" || mount.target == "/dev/pts";
            assert_eq!(mount.flags.contains(MountFlags::NODEV), !devices, "{}", mount.target);
        }
    }
}
