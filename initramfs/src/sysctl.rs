//! Settings of the kernel. Few, each with its reason; what a kernel does not have is left out with a warning.

use crate::console;
use std::path::PathBuf;

/// Names and values.
pub const SETTINGS: [(&str, &str); 17] = [
    // Addresses and messages of the kernel are nobody's business but root's, and not even root's in part.
    ("kernel.kptr_restrict", "2"),
    ("kernel.dmesg_restrict", "1"),
    ("kernel.perf_event_paranoid", "3"),
    ("kernel.unprivileged_bpf_disabled", "1"),
    ("net.core.bpf_jit_harden", "2"),
    ("kernel.yama.ptrace_scope", "1"),
    // A kernel that was started by kexec was measured by nobody.
    ("kernel.kexec_load_disabled", "1"),
    // A console cable must not be a way to kill or to read the machine.
    ("kernel.sysrq", "0"),
    ("fs.suid_dumpable", "0"),
    ("fs.protected_hardlinks", "1"),
    ("fs.protected_symlinks", "1"),
    ("fs.protected_fifos", "2"),
    ("fs.protected_regular", "2"),
    // Loose: a machine with two interfaces in one network stays reachable by both.
    ("net.ipv4.conf.all.rp_filter", "2"),
    ("net.ipv4.conf.default.rp_filter", "2"),
    ("net.ipv4.conf.all.accept_redirects", "0"),
    ("net.ipv4.conf.default.accept_redirects", "0"),
];

fn path(name: &str) -> PathBuf {
    PathBuf::from("/proc/sys").join(name.replace('.', "/"))
}

/// Writes the settings.
pub fn apply() {
    for (name, value) in SETTINGS {
        if let Err(error) = std::fs::write(path(name), value) {
            console::warning(format_args!("cannot set {name} to `{value}`: {error}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_paths_and_occur_once() {
        assert_eq!(path("kernel.sysrq"), PathBuf::from("/proc/sys/kernel/sysrq"));
        for (index, (name, _)) in SETTINGS.iter().enumerate() {
            assert!(SETTINGS[index + 1..].iter().all(|(other, _)| other != name), "{name}");
        }
    }
}
