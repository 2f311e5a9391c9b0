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
}

/// Microseconds of processor time in each [`CPU_PERIOD`] for `milli` thousandths of one processor. The kernel
/// takes no less than a millisecond.
pub fn cpu_quota(milli: u32) -> u64 {
    (u64::from(milli) * CPU_PERIOD / 1000).max(1000)
}

impl Limits {
    /// The files to write and their content.
    pub fn files(self) -> Vec<(&'static str, String)> {
        let mut files = Vec::new();
        if let Some(bytes) = self.memory_max {
            files.push(("memory.max", bytes.to_string()));
            // A service of which one process is missing does not work; it is better started again whole.
            files.push(("memory.oom.group", "1".into()));
        }
        if let Some(milli) = self.cpu_milli {
            files.push(("cpu.max", format!("{} {CPU_PERIOD}", cpu_quota(milli))));
        }
        files
    }
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
    let root = Path::new(ROOT);
    for name in ["init", "services", "containers"] {
        make_dir(&root.join(name), 0o755)?;
    }
    put(&root.join("init/cgroup.procs"), "0")?;
    enable(root)?;
    enable(&root.join("services"))?;
    enable(&root.join("containers"))
}

/// The group of a service.
pub fn service(name: &str) -> PathBuf {
    Path::new(ROOT).join("services").join(name)
}

/// The group of a container, with the runtime and the container itself in it.
pub fn container(name: &str) -> PathBuf {
    Path::new(ROOT).join("containers").join(name)
}

/// Makes a service's group and opens the file that moves a process into it.
pub fn enter_service(name: &str, limits: Limits) -> Result<File, Error> {
    let group = service(name);
    make_dir(&group, 0o755)?;
    for (file, text) in limits.files() {
        put(&group.join(file), &text)?;
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
        kill(&Path::new(ROOT).join(name));
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
            fs::read_to_string(Path::new(ROOT).join(name).join("cgroup.events"))
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
mod tests {
    use super::*;

    #[test]
    fn limits_as_files() {
        let limits = Limits { memory_max: Some(64 << 20), cpu_milli: Some(500) };
        assert_eq!(
            limits.files(),
            [
                ("memory.max", "67108864".to_owned()),
                ("memory.oom.group", "1".to_owned()),
                ("cpu.max", "50000 100000".to_owned())
            ]
        );
        assert!(Limits::default().files().is_empty());
        assert_eq!(cpu_quota(1), 1000);
        assert_eq!(cpu_quota(u32::MAX), 429_496_729_500);
    }

    #[test]
    fn populated() {
        assert!(is_populated("populated 1\nfrozen 0\n"));
        assert!(!is_populated("populated 0\nfrozen 1\n"));
    }
}
