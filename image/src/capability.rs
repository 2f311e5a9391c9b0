//! The capabilities of Linux by name (`include/uapi/linux/capability.h`).

/// Names in the order of their numbers, from 0 on.
pub const NAMES: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// The number of a capability; none if there is no such name.
pub fn number(name: &str) -> Option<u32> {
    NAMES.iter().position(|known| *known == name).and_then(|number| u32::try_from(number).ok())
}

/// The set of the capabilities with these names, one bit each; an unknown name is given back.
pub fn set<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<u64, &'a str> {
    names.into_iter().try_fold(0, |set, name| number(name).map(|number| set | 1 << number).ok_or(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_linux() {
        let header = "/usr/include/linux/capability.h";
        let Ok(text) = std::fs::read_to_string(header) else {
            assert!(
                std::env::var_os("ASHLAR_TESTS_NO_SKIP").is_none(),
                "{header} is missing (package linux-libc-dev)"
            );
            eprintln!("skipped: {header} is missing (package linux-libc-dev)");
            return;
        };
        let defined: Vec<(String, u32)> = text
            .lines()
            .filter_map(|line| {
                let mut words = line.strip_prefix("#define CAP_")?.split_whitespace();
                Some((format!("CAP_{}", words.next()?), words.next()?.parse().ok()?))
            })
            .collect();
        assert!(defined.len() >= 38, "{defined:?}");
        for (name, value) in defined {
            assert!(number(&name) == Some(value) || value as usize >= NAMES.len(), "{name}");
        }
        assert_eq!(set(["CAP_CHOWN", "CAP_CHECKPOINT_RESTORE"]), Ok(1 << 40 | 1));
        assert_eq!(set(["CAP_CHOWN", "chown"]), Err("chown"));
    }
}
