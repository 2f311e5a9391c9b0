//! Hardening as a list that is read back.
//!
//! [`expectations`] is the one source: the builder writes the list into `release.json`, init sets what can be set,
//! then reads the machine back ([`Observed`]) and compares ([`check()`]). What differs makes the boot not good.

mod check;
pub mod settings;

pub use check::check;

use crate::manifest::{CONTROL_SERVICE, Manifest, SystemCalls};
use crate::update::UPDATE_SERVICE;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// One thing that must hold on a machine that runs the release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Expectation {
    /// A setting of the kernel has a value.
    Sysctl {
        /// Name; a part that is `*` stands for everything that is there.
        name: String,
        /// Value.
        value: String,
        /// Whether the kernel may have no such setting.
        #[serde(default, skip_serializing_if = "is_false")]
        optional: bool,
    },
    /// The kernel keeps itself from root.
    Lockdown {
        /// The weakest mode that will do.
        at_least: Lockdown,
    },
    /// No kernel module is loaded without a signature that the kernel trusts: by `module.sig_enforce`, or by lockdown,
    /// which in mode `integrity` refuses unsigned modules too.
    ModuleSignatures,
    /// No other kernel is loaded and none can be.
    KexecOff,
    /// What is mounted in a place, and how.
    Mount {
        /// Where.
        target: String,
        /// Types of file systems, one of which it must have.
        types: Vec<String>,
        /// Options that it must have, of the mount or of the file system.
        options: Vec<String>,
        /// Whether it may be missing.
        #[serde(default, skip_serializing_if = "is_false")]
        optional: bool,
    },
    /// Nothing is mounted in PID 1's view that no other line names.
    OnlyKnownMounts,
    /// No file of the root file system gives who executes it more rights than he has.
    NoPrivilegedFiles {
        /// Paths of those that the owner has allowed.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        except: Vec<String>,
    },
    /// Memory goes to disk encrypted or not at all.
    NoPlainSwap,
    /// What the processes of a service or container may do.
    Confined {
        /// Whose.
        unit: Unit,
        /// Whether a list of system calls is in force (`Seccomp: 2`).
        seccomp: bool,
        /// Whether executing a program never gives rights (`NoNewPrivs: 1`).
        no_new_privileges: bool,
        /// The capabilities that it may have in any of its sets, the bounding set included.
        capabilities: Vec<String>,
        /// The user id of all processes, if they cannot change it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        uid: Option<u32>,
    },
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "the form that serde calls")]
const fn is_false(value: &bool) -> bool {
    !*value
}

/// How far the kernel keeps itself from root (Linux, `kernel_lockdown.7`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Lockdown {
    /// Not at all.
    None,
    /// The running kernel cannot be changed.
    Integrity,
    /// Nor can its secrets be read.
    Confidentiality,
}

impl Lockdown {
    /// The mode in force, from `/sys/kernel/security/lockdown`: `none [integrity] confidentiality`.
    pub fn parse(text: &str) -> Option<Self> {
        match text.split_once('[')?.1.split_once(']')?.0 {
            "none" => Some(Self::None),
            "integrity" => Some(Self::Integrity),
            "confidentiality" => Some(Self::Confidentiality),
            _ => None,
        }
    }

    /// As the kernel writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Integrity => "integrity",
            Self::Confidentiality => "confidentiality",
        }
    }
}

/// A service or container.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unit {
    /// A service.
    Service(String),
    /// A container.
    Container(String),
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service(name) => write!(f, "service {name}"),
            Self::Container(name) => write!(f, "container {name}"),
        }
    }
}

/// A line of `/proc/PID/mountinfo` (proc_pid_mountinfo(5)).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mounted {
    /// Where.
    pub target: String,
    /// Type of the file system.
    pub kind: String,
    /// Options of the mount, then those of the file system.
    pub options: Vec<String>,
}

/// A file that gives rights.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrivilegedFile {
    /// Path in the root file system.
    pub path: String,
    /// How: `setuid`, `setgid`, `file capabilities`.
    pub how: String,
}

/// An area that memory is swapped to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Swap {
    /// Device or file.
    pub path: String,
    /// Whether what is written to it is encrypted, or never leaves memory (zram).
    pub safe: bool,
}

/// What `/proc/PID/status` says about one process (proc_pid_status(5)).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Process id.
    pub pid: u32,
    /// Name of its program, at most 15 bytes.
    pub name: String,
    /// Real, effective, saved and file system user id.
    pub uids: [u32; 4],
    /// All capabilities that are in one of its five sets.
    pub capabilities: u64,
    /// `NoNewPrivs`.
    pub no_new_privileges: bool,
    /// `Seccomp`: 0 off, 1 strict, 2 a filter.
    pub seccomp: u8,
}

/// What was read on a machine. None is what could not be read.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Observed {
    /// Settings of the kernel that are there, with their values.
    pub sysctls: BTreeMap<String, String>,
    /// `/sys/kernel/security/lockdown`.
    pub lockdown: Option<String>,
    /// `/sys/module/module/parameters/sig_enforce`.
    pub signatures_enforced: Option<bool>,
    /// Whether another kernel is loaded (`/sys/kernel/kexec_loaded`, `kexec_crash_loaded`).
    pub kexec_loaded: Option<bool>,
    /// What is mounted.
    pub mounts: Option<Vec<Mounted>>,
    /// Files of the root that give rights.
    pub privileged_files: Option<Vec<PrivilegedFile>>,
    /// Where memory is swapped to.
    pub swaps: Option<Vec<Swap>>,
    /// The processes of services and containers that run; one that does not run is not named.
    pub processes: Vec<(Unit, Vec<Process>)>,
}

/// Something that is not as it must be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// What it is about.
    pub subject: String,
    /// What must hold.
    pub expected: String,
    /// What was read.
    pub found: String,
    /// Whether it is about one process. Such a difference counts when it was read twice: between its start and its
    /// first program a process is not confined yet.
    #[serde(default, skip_serializing_if = "is_false")]
    pub of_process: bool,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: expected {}, found {}", self.subject, self.expected, self.found)
    }
}

/// What holds data and no programs.
const DATA: &[&str] = &["nosuid", "nodev", "noexec"];
/// What holds devices.
const DEVICES: &[&str] = &["nosuid", "noexec"];

/// Target, types, options, whether it may be missing.
const MOUNTS: &[(&str, &[&str], &[&str], bool)] = &[
    ("/", &["erofs"], &["ro", "nosuid", "nodev"], false),
    ("/proc", &["proc"], &["nosuid", "nodev", "noexec", "hidepid=invisible"], false),
    ("/sys", &["sysfs"], DATA, false),
    ("/sys/kernel/security", &["securityfs"], DATA, false),
    ("/sys/firmware/efi/efivars", &["efivarfs"], &["ro", "nosuid", "nodev", "noexec"], true),
    ("/sys/fs/cgroup", &["cgroup2"], DATA, false),
    ("/sys/fs/pstore", &["pstore"], DATA, true),
    ("/sys/fs/bpf", &["bpf"], DATA, true),
    ("/dev", &["devtmpfs"], DEVICES, false),
    ("/dev/pts", &["devpts"], DEVICES, false),
    ("/dev/shm", &["tmpfs"], DATA, false),
    ("/dev/mqueue", &["mqueue"], DATA, false),
    ("/run", &["tmpfs"], DATA, false),
    ("/tmp", &["tmpfs"], DATA, false),
    ("/etc", &["tmpfs"], DATA, true),
    ("/var", &["ext4", "tmpfs"], DATA, false),
];

/// What holds on every machine.
pub fn defaults() -> Vec<Expectation> {
    let owned = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
    let mut list = vec![
        Expectation::Lockdown { at_least: Lockdown::Integrity },
        Expectation::ModuleSignatures,
        Expectation::KexecOff,
        Expectation::NoPrivilegedFiles { except: Vec::new() },
        Expectation::NoPlainSwap,
        Expectation::OnlyKnownMounts,
    ];
    list.extend(MOUNTS.iter().map(|&(target, types, options, optional)| Expectation::Mount {
        target: target.to_owned(),
        types: owned(types),
        options: owned(options),
        optional,
    }));
    list.extend(settings::SETTINGS.iter().map(|setting| Expectation::Sysctl {
        name: setting.name.to_owned(),
        value: setting.value.to_owned(),
        optional: setting.optional,
    }));
    list
}

/// The user id that all processes keep: root's processes in a container may have others, and so may those that are
/// allowed to change it.
fn kept_uid(uid: u32, capabilities: &[String]) -> Option<u32> {
    (uid != 0 && !capabilities.iter().any(|name| name == "CAP_SETUID")).then_some(uid)
}

/// What must hold on a machine that runs an image: [`defaults`], and what its services and containers may do.
pub fn expectations(manifest: &Manifest) -> Vec<Expectation> {
    let mut list = defaults();
    list.extend(manifest.containers.iter().map(|(name, container)| Expectation::Confined {
        unit: Unit::Container(name.clone()),
        seccomp: true,
        no_new_privileges: true,
        capabilities: container.capabilities.clone(),
        uid: kept_uid(container.uid, &container.capabilities),
    }));
    list.extend(manifest.services.iter().map(|(name, service)| Expectation::Confined {
        unit: Unit::Service(name.clone()),
        seccomp: service.system_calls == SystemCalls::Common,
        no_new_privileges: !service.new_privileges,
        capabilities: service.capabilities.clone(),
        uid: kept_uid(service.uid, &service.capabilities),
    }));
    // What init adds to every machine, both of which speak with the outside: control service and update engine.
    list.extend([CONTROL_SERVICE, UPDATE_SERVICE].map(|name| Expectation::Confined {
        unit: Unit::Service(name.to_owned()),
        seccomp: true,
        no_new_privileges: true,
        capabilities: Vec::new(),
        uid: None,
    }));
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_in_json_comes_back() {
        let manifest: Manifest = serde_json::from_str(
            r#"{"image_id":"a","image_version":"1","security_version":1,"hostname":"a","build_time":0,
                "containers":{"web":{"command":["/web"],"uid":7,"capabilities":["CAP_CHOWN"]},
                              "root":{"command":["/r"],"uid":7,"capabilities":["CAP_SETUID"]}},
                "services":{"time":{"command":["/t"],"system_calls":"all","new_privileges":true}}}"#,
        )
        .unwrap();
        let list = expectations(&manifest);
        let text = serde_json::to_string(&list).unwrap();
        assert_eq!(serde_json::from_str::<Vec<Expectation>>(&text).unwrap(), list);
        assert!(text.contains(r#"{"kind":"sysctl","name":"kernel.sysrq","value":"0"}"#), "{text}");
        assert!(text.contains(
            r#"{"kind":"confined","unit":{"container":"web"},"seccomp":true,"no_new_privileges":true,"capabilities":["CAP_CHOWN"],"uid":7}"#
        ), "{text}");
        assert!(matches!(&list[list.len() - 5], Expectation::Confined { uid: None, .. }), "it can change it");
        assert!(matches!(
            list[list.len() - 3],
            Expectation::Confined { unit: Unit::Service(_), seccomp: false, no_new_privileges: false, .. }
        ));
        assert!(
            serde_json::from_str::<Expectation>(r#"{"kind":"lockdown","at_least":"none","else":1}"#).is_err()
        );
    }

    #[test]
    fn lockdown_modes() {
        assert_eq!(Lockdown::parse("none [integrity] confidentiality\n"), Some(Lockdown::Integrity));
        assert_eq!(Lockdown::parse("[none] integrity"), Some(Lockdown::None));
        for bad in ["", "integrity", "[", "]integrity[", "[other]"] {
            assert_eq!(Lockdown::parse(bad), None, "{bad}");
        }
        assert!(Lockdown::Confidentiality > Lockdown::Integrity);
    }
}
