//! What processes may do, as `/proc/PID/status` shows it (proc_pid_status(5)).

use ashlar_image::hardening::Process;
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

/// Most processes of one service or container that are looked at.
const MAX_PROCESSES: usize = 4096;
/// How deep below a group its processes may be.
const MAX_DEPTH: usize = 8;
/// Longest `status` that is read, in bytes; the kernel's has about 1500.
const MAX_STATUS: u64 = 64 << 10;

/// Reads a `status`. None if a field is missing, or of a process that has ended and is only waited for.
pub fn parse(text: &str) -> Option<Process> {
    let field = |name: &str| {
        text.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            (key == name).then(|| value.trim())
        })
    };
    if field("State")?.starts_with(['Z', 'X']) {
        return None;
    }
    let mut uids = field("Uid")?.split_whitespace().map(str::parse);
    let mut uid = || uids.next()?.ok();
    let set = |name: &str| field(name).and_then(|text| u64::from_str_radix(text, 16).ok());
    let sets = ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"];
    Some(Process {
        pid: field("Pid")?.parse().ok()?,
        name: field("Name")?.chars().take(64).collect(),
        uids: [uid()?, uid()?, uid()?, uid()?],
        capabilities: sets.into_iter().try_fold(0, |all, name| Some(all | set(name)?))?,
        no_new_privileges: field("NoNewPrivs")? == "1",
        seccomp: field("Seccomp")?.parse().ok()?,
    })
}

/// The process ids in `group` and below it.
fn members(group: &Path, depth: usize, found: &mut Vec<u32>) {
    let text = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    let room = MAX_PROCESSES.saturating_sub(found.len());
    found.extend(text.lines().filter_map(|line| line.parse::<u32>().ok()).take(room));
    if depth == 0 {
        return;
    }
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            members(&entry.path(), depth - 1, found);
        }
    }
}

/// The processes of a control group and of those below it. One that ends meanwhile is left out.
pub fn of_group(group: &Path) -> Vec<Process> {
    let mut pids = Vec::new();
    members(group, MAX_DEPTH, &mut pids);
    // Zero is a process of another pid namespace, which PID 1 of the machine never sees.
    pids.into_iter().filter(|pid| *pid != 0).filter_map(of_pid).collect()
}

fn of_pid(pid: u32) -> Option<Process> {
    let mut text = String::new();
    File::open(format!("/proc/{pid}/status")).ok()?.take(MAX_STATUS).read_to_string(&mut text).ok()?;
    parse(&text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TEXT: &str = "Name:\tweb\nUmask:\t0022\nState:\tS (sleeping)\nPid:\t77\nUid:\t7\t7\t0\t7\nGid:\t7\t7\t7\t7\n\
        CapInh:\t0000000000000000\nCapPrm:\t0000000000000400\nCapEff:\t0000000000000000\nCapBnd:\t0000000000000001\n\
        CapAmb:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t1\n";

    #[test]
    fn fields() {
        let process = parse(TEXT).unwrap();
        let expected = Process {
            pid: 77,
            name: "web".into(),
            uids: [7, 7, 0, 7],
            capabilities: 0x401,
            no_new_privileges: true,
            seccomp: 2,
        };
        assert_eq!(process, expected);
        assert_eq!(parse(&TEXT.replace("S (sleeping)", "Z (zombie)")), None);
        for line in TEXT
            .lines()
            .filter(|line| !["Umask", "Gid", "Seccomp_filters"].iter().any(|key| line.starts_with(key)))
        {
            assert_eq!(parse(&TEXT.replace(&format!("{line}\n"), "")), None, "without {line}");
        }
        // A program's name may look like another field; the kernel escapes the end of the line.
        assert_eq!(parse(&TEXT.replace("web", "Seccomp:\\n2")).unwrap().name, "Seccomp:\\n2");
    }

    #[test]
    fn this_process() {
        let own = of_pid(std::process::id()).unwrap();
        assert_eq!(own.pid, std::process::id());
        assert_eq!(own.uids[1], rustix::process::geteuid().as_raw());
    }

    #[test]
    fn groups_are_walked() {
        let folder = tempfile::tempdir().unwrap();
        let below = folder.path().join("a/b");
        fs::create_dir_all(&below).unwrap();
        let own = std::process::id();
        fs::write(folder.path().join("cgroup.procs"), "0\n4294967295\nx\n").unwrap();
        fs::write(below.join("cgroup.procs"), format!("{own}\n")).unwrap();
        let found: Vec<u32> = of_group(folder.path()).iter().map(|process| process.pid).collect();
        assert_eq!(found, [own]);
        assert!(of_group(&folder.path().join("none")).is_empty());
    }

    proptest! {
        #[test]
        fn anything(text in ".{0,300}", at in 0..TEXT.len(), byte in any::<u8>()) {
            let _ = parse(&text);
            let mut changed = TEXT.as_bytes().to_vec();
            changed[at] = byte;
            let _ = parse(&String::from_utf8_lossy(&changed));
            let _ = parse(&TEXT[..at]);
        }
    }
}
