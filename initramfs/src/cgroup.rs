//! Control groups, version 2 (Linux, `Documentation/admin-guide/cgroup-v2.rst`).
//!
//! ```text
//! /sys/fs/cgroup/init                      PID 1
//! /sys/fs/cgroup/services/NAME             a service
//! /sys/fs/cgroup/containers/NAME/runtime   the runtime that watches a container
//! /sys/fs/cgroup/containers/NAME/payload   the container itself, made by the runtime
//! ```

use crate::console;
use crate::error::Error;
use crate::mounts::make_dir;
use ashlar_image::manifest::PIDS_MAX;
use ashlar_image::report::Usage;
use rustix::process::Pid;
use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where the hierarchy is mounted.
pub const ROOT: &str = "/sys/fs/cgroup";
/// Controllers that are switched on for services and containers, where the kernel has them.
const CONTROLLERS: [&str; 5] = ["cpu", "cpuset", "io", "memory", "pids"];
/// The period of `cpu.max` in microseconds; the kernel's default.
pub const CPU_PERIOD: u64 = 100_000;

/// Limits of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// Memory in bytes.
    pub memory_max: Option<u64>,
    /// Processor time in thousandths of one processor.
    pub cpu_milli: Option<u32>,
    /// Processes and threads; [`PIDS_MAX`] unless given.
    pub pids_max: Option<u32>,
}

/// Microseconds of processor time in each [`CPU_PERIOD`] for `milli` thousandths of one processor. The kernel
/// takes no less than a millisecond.
pub fn cpu_quota(milli: u32) -> u64 {
    (u64::from(milli) * CPU_PERIOD / 1000).max(1000)
}

impl Limits {
    /// The files to write, their content, and whether somebody has asked for it: what is only good to have may be
    /// missing in the kernel.
    pub fn files(self) -> [(&'static str, String, bool); 4] {
        let quota = self.cpu_milli.map_or_else(|| "max".to_owned(), |milli| cpu_quota(milli).to_string());
        let memory = self.memory_max.map_or_else(|| "max".to_owned(), |bytes| bytes.to_string());
        [
            ("memory.max", memory, self.memory_max.is_some()),
            // A service of which one process is missing does not work; it is better started again whole.
            ("memory.oom.group", "1".into(), false),
            ("cpu.max", format!("{quota} {CPU_PERIOD}"), self.cpu_milli.is_some()),
            ("pids.max", self.pids_max.unwrap_or(PIDS_MAX).to_string(), self.pids_max.is_some()),
        ]
    }
}

/// What the processes of a group and below it use. `pids` is the group whose limit of processes counts.
pub fn usage(group: &Path, pids: &Path) -> Usage {
    let read = |path: PathBuf| fs::read_to_string(path).ok();
    let number = |file: &str| read(group.join(file))?.trim().parse().ok();
    let keyed = |path: PathBuf, key: &str| field(&read(path)?, key);
    Usage {
        memory: number("memory.current"),
        memory_peak: number("memory.peak"),
        cpu: keyed(group.join("cpu.stat"), "usage_usec"),
        processes: number("pids.current"),
        oom_kills: keyed(group.join("memory.events"), "oom_kill"),
        refused_processes: keyed(pids.join("pids.events"), "max"),
    }
}

/// A value of a file with a key and a number on each line.
fn field(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let (name, value) = line.split_once(' ')?;
        (name == key).then(|| value.trim().parse().ok())?
    })
}

/// Whether a process is in `group` or below it.
pub fn holds(group: &Path, pid: Pid) -> bool {
    let path = format!("/proc/{}/cgroup", pid.as_raw_nonzero());
    let text = fs::read_to_string(path).unwrap_or_default();
    group.strip_prefix(mount()).is_ok_and(|relative| is_below(&text, relative))
}

/// Whether `/proc/PID/cgroup` names the group `relative` of the version 2 hierarchy, or one below it.
fn is_below(text: &str, relative: &Path) -> bool {
    let own = text.lines().find_map(|line| line.strip_prefix("0::/"));
    own.is_some_and(|own| Path::new(own).starts_with(relative))
}

/// Where the hierarchy is mounted.
fn mount() -> &'static Path {
    #[cfg(test)]
    if let Some((mount, _)) = tests::tree() {
        return mount;
    }
    Path::new(ROOT)
}

/// The group that the tree lies in.
fn root() -> &'static Path {
    #[cfg(test)]
    if let Some((_, root)) = tests::tree() {
        return root;
    }
    Path::new(ROOT)
}

fn put(path: &Path, text: &str) -> Result<(), Error> {
    fs::write(path, text).map_err(Error::io("write", path))
}

/// Makes controllers available below `group`.
fn enable(group: &Path) -> Result<(), Error> {
    let available = group.join("cgroup.controllers");
    let available = fs::read_to_string(&available).map_err(Error::io("read", &available))?;
    let wanted: Vec<String> = available
        .split_whitespace()
        .filter(|name| CONTROLLERS.contains(name))
        .map(|name| format!("+{name}"))
        .collect();
    put(&group.join("cgroup.subtree_control"), &wanted.join(" "))
}

/// Makes the tree and moves PID 1 into its leaf.
pub fn set_up() -> Result<(), Error> {
    let root = root();
    for name in ["init", "services", "containers"] {
        make_dir(&root.join(name), 0o755)?;
    }
    put(&root.join("init/cgroup.procs"), "0")?;
    // Whoever is killed when memory runs out, it is not PID 1. Each child gives this up again before it executes.
    put(Path::new("/proc/self/oom_score_adj"), "-1000")?;
    enable(root)?;
    enable(&root.join("services"))?;
    enable(&root.join("containers"))
}

/// The group of a service.
pub fn service(name: &str) -> PathBuf {
    root().join("services").join(name)
}

/// The group of a container, with the runtime and the container itself in it.
pub fn container(name: &str) -> PathBuf {
    root().join("containers").join(name)
}

/// Makes a service's group and opens the file that moves a process into it.
pub fn enter_service(name: &str, limits: Limits) -> Result<File, Error> {
    let group = service(name);
    make_dir(&group, 0o755)?;
    for (file, text, asked) in limits.files() {
        let path = group.join(file);
        if asked || path.exists() {
            put(&path, &text)?;
        }
    }
    procs(&group)
}

/// Makes a container's group and opens the file that moves a process into the runtime's part of it. The runtime
/// sets the limits.
pub fn enter_runtime(name: &str) -> Result<File, Error> {
    let group = container(name);
    make_dir(&group.join("runtime"), 0o755)?;
    enable(&group)?;
    procs(&group.join("runtime"))
}

fn procs(group: &Path) -> Result<File, Error> {
    let path = group.join("cgroup.procs");
    OpenOptions::new().write(true).open(&path).map_err(Error::io("open", &path))
}

/// Kills everything in a group and below it.
pub fn kill(group: &Path) {
    let path = group.join("cgroup.kill");
    if path.exists()
        && let Err(error) = fs::write(&path, "1")
    {
        console::warning(format_args!("cannot kill {}: {error}", group.display()));
    }
}

/// Kills all services and containers.
pub fn kill_payload() {
    for name in ["services", "containers"] {
        kill(&root().join(name));
    }
}

/// Whether a process is in a group or below it.
fn is_populated(events: &str) -> bool {
    events.lines().any(|line| line == "populated 1")
}

/// Waits until no process is left in services and containers; false when `limit` passes before.
pub fn wait_until_empty(limit: Duration) -> bool {
    let step = Duration::from_millis(20);
    let mut left = limit;
    loop {
        let busy = ["services", "containers"].iter().any(|name| {
            fs::read_to_string(root().join(name).join("cgroup.events"))
                .is_ok_and(|events| is_populated(&events))
        });
        if !busy || left.is_zero() {
            return !busy;
        }
        std::thread::sleep(step);
        left = left.saturating_sub(step);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::sync::OnceLock;

    /// A part of the version 2 hierarchy of the machine that runs the tests, and where that is mounted; none where it
    /// cannot be written to.
    pub fn tree() -> Option<(&'static Path, &'static Path)> {
        static TREE: OnceLock<Option<(PathBuf, PathBuf)>> = OnceLock::new();
        let make = || {
            let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
            let mount = mounts.lines().find_map(|line| {
                let mut fields = line.split(' ');
                let (target, kind) = (fields.nth(1)?, fields.next()?);
                (kind == "cgroup2").then(|| PathBuf::from(target))
            })?;
            // What tests before this one left behind.
            for entry in fs::read_dir(&mount).ok()?.flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                let pid =
                    name.strip_prefix("ashlar-test-").filter(|pid| !Path::new("/proc").join(pid).exists());
                if pid.is_some() {
                    for part in ["services", "containers", ""] {
                        let _ = fs::remove_dir(entry.path().join(part));
                    }
                }
            }
            let root = mount.join(format!("ashlar-test-{}", std::process::id()));
            for name in ["services", "containers"] {
                fs::create_dir_all(root.join(name)).ok()?;
            }
            // Where controllers are to be had, they are used.
            let _ = enable(&root).and_then(|()| enable(&root.join("services")));
            // A kernel before 5.14 cannot kill a group.
            root.join("cgroup.kill").exists().then_some((mount, root))
        };
        TREE.get_or_init(make).as_ref().map(|(mount, root)| (mount.as_path(), root.as_path()))
    }

    #[test]
    fn limits_as_files() {
        let limits = Limits { memory_max: Some(64 << 20), cpu_milli: Some(500), pids_max: Some(7) };
        assert_eq!(
            limits.files(),
            [
                ("memory.max", "67108864".to_owned(), true),
                ("memory.oom.group", "1".to_owned(), false),
                ("cpu.max", "50000 100000".to_owned(), true),
                ("pids.max", "7".to_owned(), true),
            ]
        );
        let files = Limits::default().files().map(|(file, text, asked)| (file, text, !asked));
        assert!(files.iter().all(|(_, _, optional)| *optional), "{files:?}");
        assert_eq!(
            (files[0].1.as_str(), files[2].1.as_str(), files[3].1.as_str()),
            ("max", "max 100000", "2048")
        );
        assert_eq!(cpu_quota(1), 1000);
        assert_eq!(cpu_quota(u32::MAX), 429_496_729_500);
    }

    #[test]
    fn populated() {
        assert!(is_populated("populated 1\nfrozen 0\n"));
        assert!(!is_populated("populated 0\nfrozen 1\n"));
    }

    #[test]
    fn accounting() {
        let folder = tempfile::tempdir().unwrap();
        for (file, text) in [
            ("memory.current", "4096\n"),
            ("memory.peak", "8192\n"),
            ("cpu.stat", "usage_usec 77\nuser_usec 70\n"),
            ("pids.current", "3\n"),
            ("memory.events", "low 0\nmax 4\noom 2\noom_kill 1\noom_group_kill 1\n"),
            ("pids.events", "max 9\n"),
        ] {
            fs::write(folder.path().join(file), text).unwrap();
        }
        let expected = Usage {
            memory: Some(4096),
            memory_peak: Some(8192),
            cpu: Some(77),
            processes: Some(3),
            oom_kills: Some(1),
            refused_processes: Some(9),
        };
        assert_eq!(usage(folder.path(), folder.path()), expected);
        assert_eq!(usage(Path::new("/nowhere"), Path::new("/nowhere")), Usage::default());
    }

    #[test]
    fn who_is_in_a_group() {
        let relative = Path::new("services/web");
        for (text, inside) in [
            ("0::/services/web\n", true),
            ("12:pids:/x\n0::/services/web/deep\n", true),
            ("0::/services/web2\n", false),
            ("0::/services\n", false),
            ("1:name=systemd:/services/web\n", false),
            ("", false),
        ] {
            assert_eq!(is_below(text, relative), inside, "{text}");
        }
    }
}
