//! Reading the extended attribute `security.capability` (`struct vfs_ns_cap_data` of `linux/capability.h`).

use std::fmt::Write;

/// Names of the capabilities, by number.
const NAMES: [&str; 41] = [
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

/// Revision and flags share the first word.
const REVISION_MASK: u32 = 0xff00_0000;
const EFFECTIVE: u32 = 1;

fn word(value: &[u8], index: usize) -> Option<u32> {
    value.get(index * 4..index * 4 + 4)?.try_into().ok().map(u32::from_le_bytes)
}

fn names(set: u64) -> String {
    let known = |i: usize| NAMES.get(i).map_or_else(|| format!("capability {i}"), ToString::to_string);
    (0..64).filter(|i| set & (1 << i) != 0).map(known).collect::<Vec<_>>().join(", ")
}

/// What an attribute value grants, for people: `CAP_NET_RAW, effective at once`. `None` when it has no known
/// revision or a wrong length, in which case the kernel refuses it.
pub fn describe(value: &[u8]) -> Option<String> {
    let magic = word(value, 0)?;
    let (pairs, words) = match magic & REVISION_MASK {
        0x0100_0000 => (1, 3),
        0x0200_0000 => (2, 5),
        0x0300_0000 => (2, 6),
        _ => return None,
    };
    if value.len() != words * 4 {
        return None;
    }
    let mut permitted = 0;
    let mut inheritable = 0;
    for i in 0..pairs {
        permitted |= u64::from(word(value, 1 + 2 * i)?) << (32 * i);
        inheritable |= u64::from(word(value, 2 + 2 * i)?) << (32 * i);
    }
    let mut out = if permitted == 0 { "no permitted capability".to_owned() } else { names(permitted) };
    if magic & EFFECTIVE != 0 {
        out.push_str(", effective at once");
    }
    if inheritable != 0 {
        out.push_str(", inheritable: ");
        out.push_str(&names(inheritable));
    }
    if words == 6 {
        let _ = write!(out, ", for the user namespace of uid {}", word(value, 5)?);
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::describe;

    /// As `setcap cap_net_raw+ep` stores it.
    const PING: [u8; 20] = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

    #[test]
    fn names_of_all_revisions() {
        assert_eq!(describe(&PING).unwrap(), "CAP_NET_RAW, effective at once");
        let mut namespaced = PING.to_vec();
        namespaced[3] = 3;
        namespaced.extend(1000u32.to_le_bytes());
        assert_eq!(
            describe(&namespaced).unwrap(),
            "CAP_NET_RAW, effective at once, for the user namespace of uid 1000"
        );
        // CAP_BPF is bit 39, in the second pair; inheritable CAP_CHOWN in the first.
        let bpf = [0, 0, 0, 2, 0, 0, 0, 0, 1, 0, 0, 0, 0x80, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(describe(&bpf).unwrap(), "CAP_BPF, inheritable: CAP_CHOWN");
    }

    #[test]
    fn broken_values_are_no_capabilities() {
        for len in 0..PING.len() {
            assert_eq!(describe(&PING[..len]), None);
        }
        assert_eq!(describe(&[1, 0, 0, 9, 0, 0, 0, 0]), None);
    }
}
