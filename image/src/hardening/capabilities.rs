//! Capabilities by number (Linux, `include/uapi/linux/capability.h`).

/// Names in the order of their numbers.
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

/// The set of `names` as a mask. A name that is none adds nothing.
pub fn mask<'a>(names: impl IntoIterator<Item = &'a str>) -> u64 {
    names
        .into_iter()
        .filter_map(|name| NAMES.iter().position(|known| *known == name))
        .fold(0, |mask, number| mask | 1 << number)
}

/// The names of a mask; a capability that is newer than this list by its number.
pub fn names(mask: u64) -> Vec<String> {
    (0..64)
        .filter(|number| mask >> number & 1 == 1)
        .map(|number| {
            NAMES.get(number).map_or_else(|| format!("capability {number}"), |&name| name.to_owned())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        assert_eq!(mask(["CAP_CHOWN", "CAP_NET_BIND_SERVICE", "CAP_NONE"]), 0x401);
        assert_eq!(mask(["CAP_CHECKPOINT_RESTORE"]), 1 << 40);
        assert_eq!(names(0x401), ["CAP_CHOWN", "CAP_NET_BIND_SERVICE"]);
        assert_eq!(names(1 << 63 | 1), ["CAP_CHOWN", "capability 63"]);
        assert_eq!(names(mask(NAMES)).len(), NAMES.len());
    }
}
