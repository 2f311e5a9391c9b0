//! Which system calls a container or service may make. A list of what is allowed, as the container engines' default
//! profiles have it: everything that programs use, nothing that reaches the machine itself. What a capability
//! is for comes with that capability.

use serde_json::{Value, json};

/// Allowed to everything.
#[rustfmt::skip]
const ALLOWED: &[&str] = &[
    "_llseek", "_newselect", "accept", "accept4", "access", "adjtimex", "alarm", "arch_prctl", "bind",
    "brk", "cachestat", "capget", "capset", "chdir", "chmod", "chown", "chown32", "clock_adjtime",
    "clock_adjtime64", "clock_getres", "clock_getres_time64", "clock_gettime", "clock_gettime64",
    "clock_nanosleep", "clock_nanosleep_time64", "close", "close_range", "connect", "copy_file_range",
    "creat", "dup", "dup2", "dup3", "epoll_create", "epoll_create1", "epoll_ctl", "epoll_ctl_old",
    "epoll_pwait", "epoll_pwait2", "epoll_wait", "epoll_wait_old", "eventfd", "eventfd2", "execve",
    "execveat", "exit", "exit_group", "faccessat", "faccessat2", "fadvise64", "fadvise64_64", "fallocate",
    "fanotify_mark", "fchdir", "fchmod", "fchmodat", "fchmodat2", "fchown", "fchown32", "fchownat", "fcntl",
    "fcntl64", "fdatasync", "fgetxattr", "flistxattr", "flock", "fork", "fremovexattr", "fsetxattr",
    "fstat", "fstat64", "fstatat64", "fstatfs", "fstatfs64", "fsync", "ftruncate", "ftruncate64", "futex",
    "futex_requeue", "futex_time64", "futex_wait", "futex_waitv", "futex_wake", "futimesat",
    "get_robust_list", "get_thread_area", "getcpu", "getcwd", "getdents", "getdents64", "getegid",
    "getegid32", "geteuid", "geteuid32", "getgid", "getgid32", "getgroups", "getgroups32", "getitimer",
    "getpeername", "getpgid", "getpgrp", "getpid", "getppid", "getpriority", "getrandom", "getresgid",
    "getresgid32", "getresuid", "getresuid32", "getrlimit", "getrusage", "getsid", "getsockname",
    "getsockopt", "gettid", "gettimeofday", "getuid", "getuid32", "getxattr", "getxattrat",
    "inotify_add_watch", "inotify_init", "inotify_init1", "inotify_rm_watch", "io_cancel", "io_destroy",
    "io_getevents", "io_pgetevents", "io_pgetevents_time64", "io_setup", "io_submit", "ioctl", "ioprio_get",
    "ioprio_set", "ipc", "kill", "landlock_add_rule", "landlock_create_ruleset", "landlock_restrict_self",
    "lchown", "lchown32", "lgetxattr", "link", "linkat", "listen", "listmount", "listxattr", "listxattrat",
    "llistxattr", "lremovexattr", "lseek", "lsetxattr", "lstat", "lstat64", "madvise", "map_shadow_stack",
    "membarrier", "memfd_create", "memfd_secret", "mincore", "mkdir", "mkdirat", "mknod", "mknodat",
    "mlock", "mlock2", "mlockall", "mmap", "mmap2", "modify_ldt", "mprotect", "mq_getsetattr", "mq_notify",
    "mq_open", "mq_timedreceive", "mq_timedreceive_time64", "mq_timedsend", "mq_timedsend_time64",
    "mq_unlink", "mremap", "mseal", "msgctl", "msgget", "msgrcv", "msgsnd", "msync", "munlock",
    "munlockall", "munmap", "name_to_handle_at", "nanosleep", "newfstatat", "open", "openat", "openat2",
    "pause", "pidfd_open", "pidfd_send_signal", "pipe", "pipe2", "pkey_alloc", "pkey_free", "pkey_mprotect",
    "poll", "ppoll", "ppoll_time64", "prctl", "pread64", "preadv", "preadv2", "prlimit64",
    "process_mrelease", "pselect6", "pselect6_time64", "pwrite64", "pwritev", "pwritev2", "read",
    "readahead", "readlink", "readlinkat", "readv", "recv", "recvfrom", "recvmmsg", "recvmmsg_time64",
    "recvmsg", "remap_file_pages", "removexattr", "removexattrat", "rename", "renameat", "renameat2",
    "restart_syscall", "rmdir", "rseq", "rt_sigaction", "rt_sigpending", "rt_sigprocmask",
    "rt_sigqueueinfo", "rt_sigreturn", "rt_sigsuspend", "rt_sigtimedwait", "rt_sigtimedwait_time64",
    "rt_tgsigqueueinfo", "sched_get_priority_max", "sched_get_priority_min", "sched_getaffinity",
    "sched_getattr", "sched_getparam", "sched_getscheduler", "sched_rr_get_interval",
    "sched_rr_get_interval_time64", "sched_setaffinity", "sched_setattr", "sched_setparam",
    "sched_setscheduler", "sched_yield", "seccomp", "select", "semctl", "semget", "semop", "semtimedop",
    "semtimedop_time64", "send", "sendfile", "sendfile64", "sendmmsg", "sendmsg", "sendto",
    "set_robust_list", "set_thread_area", "set_tid_address", "setfsgid", "setfsgid32", "setfsuid",
    "setfsuid32", "setgid", "setgid32", "setgroups", "setgroups32", "setitimer", "setpgid", "setpriority",
    "setregid", "setregid32", "setresgid", "setresgid32", "setresuid", "setresuid32", "setreuid",
    "setreuid32", "setrlimit", "setsid", "setsockopt", "setuid", "setuid32", "setxattr", "setxattrat",
    "shmat", "shmctl", "shmdt", "shmget", "shutdown", "sigaltstack", "signalfd", "signalfd4", "sigprocmask",
    "sigreturn", "socketcall", "socketpair", "splice", "stat", "stat64", "statfs", "statfs64", "statmount",
    "statx", "symlink", "symlinkat", "sync", "sync_file_range", "syncfs", "sysinfo", "tee", "tgkill",
    "time", "timer_create", "timer_delete", "timer_getoverrun", "timer_gettime", "timer_gettime64",
    "timer_settime", "timer_settime64", "timerfd_create", "timerfd_gettime", "timerfd_gettime64",
    "timerfd_settime", "timerfd_settime64", "times", "tkill", "truncate", "truncate64", "ugetrlimit",
    "umask", "uname", "unlink", "unlinkat", "uretprobe", "utime", "utimensat", "utimensat_time64", "utimes",
    "vfork", "vmsplice", "wait4", "waitid", "waitpid", "write", "writev",
];

/// Allowed with a capability.
const WITH_CAPABILITY: &[(&str, &[&str])] = &[
    ("CAP_BPF", &["bpf"]),
    ("CAP_DAC_READ_SEARCH", &["open_by_handle_at"]),
    ("CAP_PERFMON", &["perf_event_open"]),
    (
        "CAP_SYS_ADMIN",
        &[
            "bpf",
            "clone",
            "clone3",
            "fanotify_init",
            "fsconfig",
            "fsmount",
            "fsopen",
            "fspick",
            "lsm_get_self_attr",
            "lsm_list_modules",
            "lsm_set_self_attr",
            "mount",
            "mount_setattr",
            "move_mount",
            "open_tree",
            "perf_event_open",
            "pivot_root",
            "quotactl",
            "quotactl_fd",
            "setdomainname",
            "sethostname",
            "setns",
            "syslog",
            "umount",
            "umount2",
            "unshare",
        ],
    ),
    ("CAP_SYS_CHROOT", &["chroot"]),
    ("CAP_SYS_NICE", &["get_mempolicy", "mbind", "set_mempolicy", "set_mempolicy_home_node"]),
    ("CAP_SYS_PACCT", &["acct"]),
    (
        "CAP_SYS_PTRACE",
        &["kcmp", "pidfd_getfd", "process_madvise", "process_vm_readv", "process_vm_writev", "ptrace"],
    ),
    ("CAP_SYS_RAWIO", &["ioperm", "iopl"]),
    ("CAP_SYS_TIME", &["clock_settime", "clock_settime64", "settimeofday", "stime"]),
    ("CAP_SYS_TTY_CONFIG", &["vhangup"]),
    ("CAP_SYSLOG", &["syslog"]),
];

/// Never allowed, whatever the capabilities: the kernel itself is the image's, not a container's. They are named
/// so that they fail with "not permitted"; calls that nobody named fail with "not implemented", on which C
/// libraries fall back to older calls.
#[rustfmt::skip]
const REFUSED: &[&str] = &[
    "add_key", "create_module", "delete_module", "finit_module", "get_kernel_syms", "init_module",
    "io_uring_enter", "io_uring_register", "io_uring_setup", "kexec_file_load", "kexec_load", "keyctl",
    "lookup_dcookie", "migrate_pages", "move_pages", "nfsservctl", "query_module", "reboot", "request_key",
    "swapoff", "swapon", "sysfs", "uselib", "userfaultfd", "ustat", "vm86", "vm86old",
];

/// `CLONE_NEWNS`, `NEWCGROUP`, `NEWUTS`, `NEWIPC`, `NEWUSER`, `NEWPID` and `NEWNET`.
pub const NEW_NAMESPACES: u64 = 0x7e02_0000;
/// `AF_VSOCK`: a way to the hypervisor that knows no namespaces.
pub const VSOCK: u64 = 40;
/// Personalities that programs ask for: Linux, Linux on 32 bits, both with the flag that `uname` tells 2.6, and
/// the question which one is set.
pub const PERSONALITIES: [u64; 5] = [0x0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];
/// The error of what is refused: operation not permitted.
pub const EPERM: i32 = 1;
/// The error of what nobody named: function not implemented.
pub const ENOSYS: i32 = 38;

/// What holds for a unit with certain capabilities.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Allowed, whatever the arguments.
    pub allowed: Vec<&'static str>,
    /// Refused with [`EPERM`]. All others fail with [`ENOSYS`].
    pub refused: Vec<&'static str>,
    /// Whether namespaces may be made; `clone` and `clone3` are restricted otherwise.
    pub namespaces: bool,
}

/// The policy for a unit with `capabilities`.
pub fn policy(capabilities: &[String]) -> Policy {
    let holds = |name: &str| capabilities.iter().any(|capability| capability == name);
    let mut allowed = ALLOWED.to_vec();
    let mut refused = REFUSED.to_vec();
    for (capability, names) in WITH_CAPABILITY {
        if holds(capability) {
            allowed.extend(*names);
        } else {
            refused.extend(names.iter().filter(|name| {
                let elsewhere = |(other, names): &(&str, &[&str])| holds(other) && names.contains(*name);
                !matches!(**name, "clone" | "clone3") && !WITH_CAPABILITY.iter().any(elsewhere)
            }));
        }
    }
    for list in [&mut allowed, &mut refused] {
        list.sort_unstable();
        list.dedup();
    }
    Policy { allowed, refused, namespaces: holds("CAP_SYS_ADMIN") }
}

/// All names that any policy knows.
pub fn names() -> impl Iterator<Item = &'static str> {
    let capabilities = WITH_CAPABILITY.iter().flat_map(|(_, names)| *names);
    ALLOWED.iter().chain(REFUSED).chain(capabilities).chain(&["socket", "personality"]).copied()
}

/// The profile for a container with `capabilities`.
pub fn profile(capabilities: &[String]) -> Value {
    let policy = policy(capabilities);
    let mut rules = vec![
        json!({ "names": policy.allowed, "action": "SCMP_ACT_ALLOW" }),
        json!({ "names": policy.refused, "action": "SCMP_ACT_ERRNO", "errnoRet": EPERM }),
    ];
    let when = |names: &[&str], value: u64, other: u64, operation: &str| {
        json!({
            "names": names,
            "action": "SCMP_ACT_ALLOW",
            "args": [{ "index": 0, "value": value, "valueTwo": other, "op": operation }],
        })
    };
    if !policy.namespaces {
        // Threads and processes, but no namespaces. The flags of clone3 lie in memory, where no filter can see
        // them; C libraries go back to clone when it is not there.
        rules.push(when(&["clone"], NEW_NAMESPACES, 0, "SCMP_CMP_MASKED_EQ"));
        rules.push(json!({ "names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": ENOSYS }));
    }
    rules.push(when(&["socket"], VSOCK, 0, "SCMP_CMP_NE"));
    rules.extend(PERSONALITIES.map(|value| when(&["personality"], value, 0, "SCMP_CMP_EQ")));
    json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": ENOSYS,
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": rules,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(profile: &Value, name: &str) -> bool {
        profile["syscalls"].as_array().unwrap().iter().any(|rule| {
            rule["action"] == "SCMP_ACT_ALLOW"
                && rule["args"].is_null()
                && rule["names"].as_array().unwrap().iter().any(|known| known == name)
        })
    }

    fn refused(profile: &Value, name: &str) -> bool {
        profile["syscalls"].as_array().unwrap().iter().any(|rule| {
            rule["action"] == "SCMP_ACT_ERRNO"
                && rule["errnoRet"] == EPERM
                && rule["names"].as_array().unwrap().iter().any(|known| known == name)
        })
    }

    #[test]
    fn lists_are_sorted_and_do_not_overlap() {
        assert!(ALLOWED.is_sorted_by(|a, b| a < b));
        assert!(REFUSED.is_sorted_by(|a, b| a < b));
        assert!(REFUSED.iter().all(|name| !ALLOWED.contains(name)));
        for (capability, names) in WITH_CAPABILITY {
            for name in *names {
                assert!(!ALLOWED.contains(name) && !REFUSED.contains(name), "{capability} {name}");
            }
        }
    }

    #[test]
    fn a_capability_brings_its_calls() {
        let none = profile(&[]);
        for name in ["mount", "bpf", "ptrace", "reboot", "init_module", "setns", "unshare", "io_uring_setup"]
        {
            assert!(!allowed(&none, name) && refused(&none, name), "{name}");
        }
        for name in ["clone", "clone3", "socket", "personality"] {
            assert!(!allowed(&none, name) && !refused(&none, name), "{name} depends on its argument");
        }
        assert!(allowed(&none, "read") && allowed(&none, "execve") && allowed(&none, "futex"));

        let admin = profile(&["CAP_SYS_ADMIN".into()]);
        assert!(allowed(&admin, "mount") && allowed(&admin, "clone"));
        // Also CAP_BPF would bring it, but it is already there.
        assert!(allowed(&admin, "bpf") && !refused(&admin, "bpf"));
        assert!(refused(&admin, "init_module") && refused(&admin, "kexec_load"));
    }
}
