//! The comparison of what must hold with what was read.

use super::{Difference, Expectation, Lockdown, Mounted, Observed, Process, Unit, settings};
use crate::capability;
use std::fmt::Write as _;

/// Most differences that one line of the list gives; the rest is counted.
const MAX_OF_ONE: usize = 16;

/// What of `expectations` does not hold.
pub fn check(expectations: &[Expectation], observed: &Observed) -> Vec<Difference> {
    let mut all = Vec::new();
    for expectation in expectations {
        let mut found = of_one(expectation, expectations, observed);
        let more = found.len().saturating_sub(MAX_OF_ONE);
        found.truncate(MAX_OF_ONE);
        if let (Some(last), true) = (found.last_mut(), more > 0) {
            let _ = write!(last.found, " (and {more} more)");
        }
        all.append(&mut found);
    }
    all
}

fn difference(
    subject: impl Into<String>,
    expected: impl Into<String>,
    found: impl Into<String>,
) -> Difference {
    Difference { subject: subject.into(), expected: expected.into(), found: found.into(), of_process: false }
}

fn of_one(expectation: &Expectation, all: &[Expectation], observed: &Observed) -> Vec<Difference> {
    match expectation {
        Expectation::Sysctl { name, value, optional } => sysctl(name, value, *optional, observed),
        Expectation::Lockdown { at_least } => {
            let text = observed.lockdown.as_deref().unwrap_or_default();
            let found = Lockdown::parse(text);
            let fails = found.is_none_or(|mode| mode < *at_least);
            let found = found.map_or("unknown: the kernel does not tell", Lockdown::name);
            let expected = format!("at least {}", at_least.name());
            fails.then(|| difference("kernel lockdown", expected, found)).into_iter().collect()
        }
        Expectation::ModuleSignatures => {
            let mode = observed.lockdown.as_deref().and_then(Lockdown::parse);
            let by_lockdown = mode.is_some_and(|mode| mode >= Lockdown::Integrity);
            let holds = observed.signatures_enforced == Some(true) || by_lockdown;
            let found = match observed.signatures_enforced {
                Some(_) => "not enforced, and no lockdown that does it",
                None => "not told by the kernel",
            };
            let make = || difference("signatures of kernel modules", "enforced", found);
            (!holds).then(make).into_iter().collect()
        }
        Expectation::KexecOff => {
            let found = match observed.kexec_loaded {
                Some(false) => None,
                Some(true) => Some("one"),
                None => Some("not told by the kernel"),
            };
            found.map(|found| difference("kernel loaded by kexec", "none", found)).into_iter().collect()
        }
        Expectation::Mount { target, types, options, optional } => {
            mount(target, types, options, *optional, observed)
        }
        Expectation::OnlyKnownMounts => unknown_mounts(all, observed),
        Expectation::NoPrivilegedFiles { except } => match &observed.privileged_files {
            Some(files) => files
                .iter()
                .filter(|file| !except.contains(&file.path))
                .map(|file| difference(&file.path, "a file that gives no rights", &file.how))
                .collect(),
            None => vec![difference("files that give rights", "none", "not looked at")],
        },
        Expectation::NoPlainSwap => match &observed.swaps {
            Some(swaps) => swaps
                .iter()
                .filter(|swap| !swap.safe)
                .map(|swap| difference(format!("swap on {}", swap.path), "encrypted or none", "plain text"))
                .collect(),
            None => vec![difference("swap", "encrypted or none", "not told by the kernel")],
        },
        Expectation::Confined { unit, seccomp, no_new_privileges, capabilities, uid } => {
            let bounds = Bounds {
                seccomp: *seccomp,
                no_new_privileges: *no_new_privileges,
                capabilities: mask(capabilities),
                uid: *uid,
            };
            observed
                .processes
                .iter()
                .filter(|(of, _)| of == unit)
                .flat_map(|(_, processes)| processes)
                .flat_map(|process| confined(unit, &bounds, process))
                .collect()
        }
    }
}

/// A value for people: white space between numbers is the kernel's taste.
fn normal(value: &str) -> String {
    value.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn shown(value: &str) -> String {
    if value.is_empty() { "nothing".to_owned() } else { format!("`{value}`") }
}

fn sysctl(name: &str, value: &str, optional: bool, observed: &Observed) -> Vec<Difference> {
    let wanted = normal(value);
    let mut is_there = false;
    let mut found = Vec::new();
    for (name, value) in observed.sysctls.iter().filter(|(known, _)| settings::matches(name, known)) {
        is_there = true;
        let value = normal(value);
        if value != wanted {
            found.push(difference(format!("sysctl {name}"), shown(&wanted), shown(&value)));
        }
    }
    if !is_there && !optional {
        let none = "no such setting in this kernel, or it cannot be read";
        found.push(difference(format!("sysctl {name}"), shown(&wanted), none));
    }
    found
}

fn mount(
    target: &str,
    types: &[String],
    options: &[String],
    optional: bool,
    observed: &Observed,
) -> Vec<Difference> {
    let subject = format!("mount {target}");
    let expected = || format!("{} with {}", types.join(" or "), options.join(","));
    let Some(mounts) = &observed.mounts else {
        return vec![difference(subject, expected(), "not told by the kernel")];
    };
    let here: Vec<&Mounted> = mounts.iter().filter(|mount| mount.target == target).collect();
    if here.is_empty() && !optional {
        return vec![difference(subject, expected(), "nothing mounted")];
    }
    // One may lie over another: whoever takes the upper away finds the lower.
    here.into_iter()
        .filter_map(|mount| {
            let missing: Vec<&str> =
                options.iter().filter(|option| !mount.options.contains(option)).map(String::as_str).collect();
            if !types.contains(&mount.kind) {
                Some(difference(&subject, expected(), &mount.kind))
            } else if !missing.is_empty() {
                let found = format!("{} without {}", mount.kind, missing.join(","));
                Some(difference(&subject, expected(), found))
            } else {
                None
            }
        })
        .collect()
}

fn unknown_mounts(all: &[Expectation], observed: &Observed) -> Vec<Difference> {
    let known =
        |path: &str| all.iter().any(|one| matches!(one, Expectation::Mount { target, .. } if target == path));
    let Some(mounts) = &observed.mounts else {
        return vec![difference("mounts", "only those of the list", "not told by the kernel")];
    };
    mounts
        .iter()
        .filter(|mount| !known(&mount.target))
        .map(|mount| {
            let found = format!("{} ({})", mount.kind, mount.options.join(","));
            difference(format!("mount {}", mount.target), "nothing", found)
        })
        .collect()
}

/// The set of `names`, one bit each. A name that is none allows nothing.
fn mask(names: &[String]) -> u64 {
    names.iter().filter_map(|name| capability::number(name)).fold(0, |mask, number| mask | 1 << number)
}

/// The names of a set; a capability that is newer than the list by its number.
fn names(mask: u64) -> Vec<String> {
    let name = |number: usize| {
        capability::NAMES.get(number).map_or_else(|| format!("capability {number}"), |&name| name.to_owned())
    };
    (0..64).filter(|number| mask >> number & 1 == 1).map(name).collect()
}

/// [`Expectation::Confined`] without its unit.
struct Bounds {
    seccomp: bool,
    no_new_privileges: bool,
    capabilities: u64,
    uid: Option<u32>,
}

fn confined(unit: &Unit, bounds: &Bounds, process: &Process) -> Vec<Difference> {
    let mut found = Vec::new();
    let mut add = |expected: String, read: String| {
        let subject = format!("{unit}, process {} ({})", process.pid, process.name);
        found.push(Difference { of_process: true, ..difference(subject, expected, read) });
    };
    if bounds.seccomp && process.seccomp != 2 {
        add("a list of system calls (seccomp 2)".into(), format!("seccomp {}", process.seccomp));
    }
    if bounds.no_new_privileges && !process.no_new_privileges {
        add("no new privileges".into(), "it may gain them".into());
    }
    let more = process.capabilities & !bounds.capabilities;
    if more != 0 {
        let allowed = names(bounds.capabilities);
        let allowed = if allowed.is_empty() { "none".to_owned() } else { allowed.join(" ") };
        let gained = names(more);
        // A process that was never confined has all of them; four are enough to see it.
        let rest = gained.len().saturating_sub(4);
        let mut text = gained.into_iter().take(4).collect::<Vec<_>>().join(" ");
        if rest > 0 {
            let _ = write!(text, " and {rest} more");
        }
        add(format!("the capabilities {allowed}"), text);
    }
    if let Some(uid) = bounds.uid
        && process.uids != [uid; 4]
    {
        add(format!("user id {uid}"), format!("{:?}", process.uids));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hardening::{PrivilegedFile, Swap, defaults};

    /// A machine on which all of [`defaults`] holds.
    fn good() -> Observed {
        let mut observed = Observed {
            lockdown: Some("none [integrity] confidentiality\n".into()),
            signatures_enforced: Some(true),
            kexec_loaded: Some(false),
            mounts: Some(Vec::new()),
            privileged_files: Some(Vec::new()),
            swaps: Some(Vec::new()),
            ..Observed::default()
        };
        for expectation in defaults() {
            match expectation {
                Expectation::Sysctl { name, value, .. } => {
                    observed.sysctls.insert(name.replace('*', "all"), value);
                }
                Expectation::Mount { target, types, options, .. } => {
                    let mounted = Mounted { target, kind: types[0].clone(), options };
                    observed.mounts.as_mut().unwrap().push(mounted);
                }
                _ => {}
            }
        }
        observed
    }

    fn texts(list: &[Expectation], observed: &Observed) -> Vec<String> {
        check(list, observed).iter().map(ToString::to_string).collect()
    }

    fn add_mount(observed: &mut Observed, target: &str, kind: &str, options: &[&str]) {
        observed.mounts.as_mut().unwrap().push(Mounted {
            target: target.into(),
            kind: kind.into(),
            options: options.iter().map(|&option| option.to_owned()).collect(),
        });
    }

    fn add_file(observed: &mut Observed, path: &str, how: &str) {
        let file = PrivilegedFile { path: path.into(), how: how.into() };
        observed.privileged_files.as_mut().unwrap().push(file);
    }

    fn swap((path, safe): (&str, bool)) -> Swap {
        Swap { path: path.into(), safe }
    }

    /// One change of a good machine.
    type Change = fn(&mut Observed);

    #[test]
    fn each_change_of_a_good_machine_is_one_difference() {
        assert_eq!(texts(&defaults(), &good()), Vec::<String>::new());
        // Optional settings and mounts may be missing.
        let mut without = good();
        without.sysctls.retain(|name, _| !name.starts_with("net.ipv6") && name != "kernel.io_uring_disabled");
        without.mounts.as_mut().unwrap().retain(|mount| mount.target != "/sys/fs/pstore");
        assert_eq!(texts(&defaults(), &without), Vec::<String>::new());

        let cases: &[(Change, &str)] = &[
            (
                |o| drop(o.sysctls.insert("kernel.kptr_restrict".into(), "1".into())),
                "sysctl kernel.kptr_restrict: expected `2`, found `1`",
            ),
            (
                |o| drop(o.sysctls.insert("kernel.core_pattern".into(), "core".into())),
                "sysctl kernel.core_pattern: expected nothing, found `core`",
            ),
            (
                |o| drop(o.sysctls.insert("net.ipv4.conf.eth0.7.accept_redirects".into(), "1".into())),
                "sysctl net.ipv4.conf.eth0.7.accept_redirects: expected `0`, found `1`",
            ),
            (
                |o| drop(o.sysctls.remove("kernel.yama.ptrace_scope")),
                "sysctl kernel.yama.ptrace_scope: expected `2`, found no such setting in this kernel, or it cannot be read",
            ),
            (|o| o.kexec_loaded = Some(true), "kernel loaded by kexec: expected none, found one"),
            (
                |o| add_file(o, "/usr/bin/su", "setuid"),
                "/usr/bin/su: expected a file that gives no rights, found setuid",
            ),
            (|o| o.privileged_files = None, "files that give rights: expected none, found not looked at"),
            (
                |o| o.swaps = Some([("/dev/dm-2", true), ("/dev/vda9", false)].map(swap).to_vec()),
                "swap on /dev/vda9: expected encrypted or none, found plain text",
            ),
            (|o| add_mount(o, "/mnt", "vfat", &["rw"]), "mount /mnt: expected nothing, found vfat (rw)"),
            (
                |o| add_mount(o, "/tmp", "tmpfs", &["nosuid", "nodev"]),
                "mount /tmp: expected tmpfs with nosuid,nodev,noexec, found tmpfs without noexec",
            ),
            (
                |o| o.mounts.as_mut().unwrap().retain(|mount| mount.target != "/run"),
                "mount /run: expected tmpfs with nosuid,nodev,noexec, found nothing mounted",
            ),
            (
                |o| o.mounts.as_mut().unwrap()[0].kind = "ext4".into(),
                "mount /: expected erofs with ro,nosuid,nodev, found ext4",
            ),
        ];
        for (change, expected) in cases {
            let mut observed = good();
            change(&mut observed);
            assert_eq!(texts(&defaults(), &observed), [*expected]);
        }
    }

    #[test]
    fn lockdown_and_signatures() {
        let list = [Expectation::Lockdown { at_least: Lockdown::Integrity }, Expectation::ModuleSignatures];
        let read = |lockdown: Option<&str>, enforced| {
            let observed = Observed {
                lockdown: lockdown.map(str::to_owned),
                signatures_enforced: enforced,
                ..Observed::default()
            };
            texts(&list, &observed)
        };
        assert!(
            read(Some("none [integrity] confidentiality"), Some(false)).is_empty(),
            "lockdown enforces them"
        );
        assert!(read(Some("none integrity [confidentiality]"), None).is_empty());
        assert_eq!(
            read(Some("[none] integrity"), Some(false)),
            [
                "kernel lockdown: expected at least integrity, found none",
                "signatures of kernel modules: expected enforced, found not enforced, and no lockdown that does it"
            ]
        );
        assert_eq!(read(None, Some(true)).len(), 1, "no lockdown in the kernel");
        assert_eq!(read(None, None).len(), 2);
    }

    #[test]
    fn processes() {
        let unit = Unit::Container("web".into());
        let list = [Expectation::Confined {
            unit: unit.clone(),
            seccomp: true,
            no_new_privileges: true,
            capabilities: vec!["CAP_NET_BIND_SERVICE".into()],
            uid: Some(7),
        }];
        let good = Process {
            pid: 9,
            name: "web".into(),
            uids: [7; 4],
            capabilities: 0x400,
            no_new_privileges: true,
            seccomp: 2,
        };
        let read = |process: Process| {
            let observed = Observed {
                processes: vec![
                    (unit.clone(), vec![good.clone(), process]),
                    (Unit::Service("web".into()), vec![Process { seccomp: 0, ..good.clone() }]),
                ],
                ..Observed::default()
            };
            assert!(check(&list, &observed).iter().all(|one| one.of_process));
            texts(&list, &observed)
        };
        assert!(read(good.clone()).is_empty());
        assert!(read(Process { capabilities: 0, ..good.clone() }).is_empty(), "fewer are fine");
        let start = "container web, process 9 (web): expected ";
        for (process, expected) in [
            (Process { seccomp: 0, ..good.clone() }, "a list of system calls (seccomp 2), found seccomp 0"),
            (
                Process { no_new_privileges: false, ..good.clone() },
                "no new privileges, found it may gain them",
            ),
            (
                Process { capabilities: 0x401, ..good.clone() },
                "the capabilities CAP_NET_BIND_SERVICE, found CAP_CHOWN",
            ),
            (Process { uids: [7, 7, 0, 7], ..good.clone() }, "user id 7, found [7, 7, 0, 7]"),
        ] {
            assert_eq!(read(process), [format!("{start}{expected}")]);
        }
        let all = read(Process { capabilities: u64::MAX, ..good.clone() });
        assert!(
            all[0].ends_with("found CAP_CHOWN CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH CAP_FOWNER and 59 more"),
            "{all:?}"
        );
    }

    #[test]
    fn capabilities_have_names() {
        let set = mask(&["CAP_CHOWN", "CAP_NET_BIND_SERVICE", "CAP_NONE"].map(str::to_owned));
        assert_eq!(set, 0x401);
        assert_eq!(names(set), ["CAP_CHOWN", "CAP_NET_BIND_SERVICE"]);
        assert_eq!(names(1 << 63 | 1), ["CAP_CHOWN", "capability 63"]);
    }

    #[test]
    fn nothing_read_is_not_good_and_many_differences_are_bounded() {
        let nothing = check(&defaults(), &Observed::default());
        assert!(nothing.len() > 40, "{}", nothing.len());
        let file = |n| PrivilegedFile { path: format!("/{n}"), how: "setuid".into() };
        let many = Observed { privileged_files: Some((0..100).map(file).collect()), ..Observed::default() };
        let found = texts(&[Expectation::NoPrivilegedFiles { except: vec!["/0".into()] }], &many);
        assert_eq!(found.len(), MAX_OF_ONE);
        assert!(found[15].ends_with("setuid (and 83 more)"), "{}", found[15]);
    }
}
