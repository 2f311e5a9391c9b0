//! Settings of the kernel (`/proc/sys`): what init writes and reads back.
//!
//! The list follows the Kernel Self Protection Project's recommended settings and the network part of the CIS
//! benchmark for Debian as far as containers live with them. Left out on purpose: `net.ipv4.conf.*.log_martians`
//! (strangers could fill the log), `net.ipv4.ip_forward` (containers with a network of their own need it),
//! `kernel.panic` (the signed command line says it).

/// One setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setting {
    /// Name, as `sysctl` writes it. A part that is `*` stands for everything that is there.
    pub name: &'static str,
    /// Value.
    pub value: &'static str,
    /// Whether the kernel may have no such setting: then there is nothing to protect.
    pub optional: bool,
}

const fn must(name: &'static str, value: &'static str) -> Setting {
    Setting { name, value, optional: false }
}

const fn may(name: &'static str, value: &'static str) -> Setting {
    Setting { name, value, optional: true }
}

/// All settings in the order in which they are written.
#[rustfmt::skip]
pub const SETTINGS: &[Setting] = &[
    // Addresses and messages of the kernel are nobody's business but root's, and not even root's in part.
    must("kernel.kptr_restrict", "2"),
    must("kernel.dmesg_restrict", "1"),
    // 3 is Debian's: not without CAP_PERFMON.
    must("kernel.perf_event_paranoid", "3"),
    // 1 is for good: it cannot be taken back before the next start.
    must("kernel.unprivileged_bpf_disabled", "1"),
    must("net.core.bpf_jit_harden", "2"),
    // Only with CAP_SYS_PTRACE. 3, never, would also end debugging in a container that the owner allows it to.
    must("kernel.yama.ptrace_scope", "2"),
    // User namespaces give everybody the kernel's code for root to attack. crun needs none for our containers.
    must("user.max_user_namespaces", "0"),
    // Containers cannot use io_uring anyway: their list of system calls does not have it.
    may("kernel.io_uring_disabled", "2"),
    // A page fault that waits for a program makes races in the kernel easy to win.
    must("vm.unprivileged_userfaultfd", "0"),
    must("vm.mmap_min_addr", "65536"),
    must("kernel.randomize_va_space", "2"),
    // The most that x86-64 has.
    may("vm.mmap_rnd_bits", "32"),
    may("vm.mmap_rnd_compat_bits", "16"),
    // Line disciplines are old drivers that any program could load; typing into another's terminal is as old.
    must("dev.tty.ldisc_autoload", "0"),
    may("dev.tty.legacy_tiocsti", "0"),
    // A kernel that was started by kexec was measured by nobody.
    must("kernel.kexec_load_disabled", "1"),
    // A console cable must not be a way to kill or to read the machine.
    must("kernel.sysrq", "0"),
    // A kernel that has failed in one place is not to be trusted in others; the record of it goes to pstore.
    must("kernel.panic_on_oops", "1"),
    // No core dumps: empty pattern and no process id means none at all (core(5)).
    must("kernel.core_uses_pid", "0"),
    must("kernel.core_pattern", ""),
    must("fs.suid_dumpable", "0"),
    must("fs.protected_hardlinks", "1"),
    must("fs.protected_symlinks", "1"),
    must("fs.protected_fifos", "2"),
    must("fs.protected_regular", "2"),

    // Loose: a machine with two interfaces in one network stays reachable by both.
    must("net.ipv4.conf.*.rp_filter", "2"),
    // Nobody in the network tells this machine where to send its packets.
    must("net.ipv4.conf.*.accept_redirects", "0"),
    must("net.ipv4.conf.*.secure_redirects", "0"),
    must("net.ipv4.conf.*.send_redirects", "0"),
    must("net.ipv4.conf.*.accept_source_route", "0"),
    may("net.ipv6.conf.*.accept_redirects", "0"),
    may("net.ipv6.conf.*.accept_source_route", "0"),
    must("net.ipv4.icmp_echo_ignore_broadcasts", "1"),
    must("net.ipv4.icmp_ignore_bogus_error_responses", "1"),
    must("net.ipv4.tcp_syncookies", "1"),
    must("net.ipv4.tcp_rfc1337", "1"),

    // The last: init has loaded all modules that the image has, and nothing else may load one. For good.
    must("kernel.modules_disabled", "1"),
];

/// Whether the setting `name` is one of those that `pattern` names.
pub fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = name.split('.');
    // An interface may have dots in its name, as `eth0.7`; then the middle of the name is longer.
    let Some((before, after)) = pattern.split_once(".*.") else { return pattern == name };
    let mut rest =
        before.split('.').all(|part| parts.next() == Some(part)).then(|| parts.collect::<Vec<_>>());
    let Some(rest) = rest.as_mut() else { return false };
    for part in after.rsplit('.') {
        if rest.pop() != Some(part) {
            return false;
        }
    }
    !rest.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_occur_once_and_have_at_most_one_star() {
        for (index, setting) in SETTINGS.iter().enumerate() {
            let name = setting.name;
            assert!(SETTINGS[index + 1..].iter().all(|other| other.name != name), "{name}");
            assert!(name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._*".contains(&b)), "{name}");
            assert_eq!(name.matches('*').count(), name.matches(".*.").count(), "{name}");
            assert!(name.matches('*').count() < 2, "{name}");
        }
        assert_eq!(SETTINGS.last().unwrap().name, "kernel.modules_disabled");
    }

    #[test]
    fn stars() {
        let pattern = "net.ipv4.conf.*.rp_filter";
        for name in ["net.ipv4.conf.all.rp_filter", "net.ipv4.conf.eth0.7.rp_filter"] {
            assert!(matches(pattern, name), "{name}");
        }
        for name in
            ["net.ipv4.conf.rp_filter", "net.ipv4.conf.all.forwarding", "net.ipv6.conf.all.rp_filter", ""]
        {
            assert!(!matches(pattern, name), "{name}");
        }
        assert!(matches("kernel.sysrq", "kernel.sysrq"));
        assert!(!matches("kernel.sysrq", "kernel.sysrq.x"));
    }
}
