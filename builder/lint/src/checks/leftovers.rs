//! What a build leaves behind: identities, caches, logs, the network of the build host.

use super::Context;
use super::contents::is_host_key;
use crate::error::LintError;
use crate::report::Severity::{Error, Warning};
use crate::report::mebibytes;
use ashlar_tree::Kind;
use std::net::IpAddr;

/// Files that make a machine unique, and what they are. The content is of no interest, only that there is one.
const IDENTITIES: [(&str, &str); 4] = [
    ("/var/lib/systemd/random-seed", "a random seed that all machines would share"),
    ("/var/lib/urandom/random-seed", "a random seed that all machines would share"),
    (
        "/var/lib/systemd/credential.secret",
        "the key of systemd's credentials, which all machines would share",
    ),
    ("/etc/iscsi/initiatorname.iscsi", "an iSCSI name that all machines would share"),
];

/// Folders whose files are left over, and what they are.
const FOLDERS: [(&str, &str); 8] = [
    ("/var/cache/apt", "apt's cache"),
    ("/var/cache/debconf", "debconf's cache"),
    ("/var/cache/ldconfig", "ldconfig's own cache"),
    ("/var/cache/man", "the index of manual pages"),
    ("/var/lib/apt/lists", "lists of packages"),
    ("/var/log", "logs of the build"),
    ("/var/cache/dnf", "dnf's cache"),
    ("/var/cache/apk", "apk's cache"),
];

/// Single files that are left over.
const FILES: [(&str, &str); 10] = [
    ("/etc/passwd-", "a backup of the accounts"),
    ("/etc/group-", "a backup of the groups"),
    ("/etc/shadow-", "a backup of the passwords"),
    ("/etc/gshadow-", "a backup of the groups' passwords"),
    ("/etc/.pwd.lock", "a lock of the account files"),
    ("/var/lib/dpkg/status-old", "a backup of dpkg's state"),
    ("/var/lib/dpkg/available-old", "a backup of dpkg's state"),
    ("/var/lib/dpkg/diversions-old", "a backup of dpkg's state"),
    ("/var/lib/dpkg/statoverride-old", "a backup of dpkg's state"),
    ("/root/.bash_history", "a history of commands"),
];

pub(crate) fn check(context: &mut Context<'_, '_>) -> Result<(), LintError> {
    let mut found = Vec::new();
    for part in context.parts {
        let mut add = |rule, path: String, message: String, help: &'static str| {
            found.push((rule, part.part.clone(), path, message, help));
        };
        for path in ["/etc/machine-id", "/var/lib/dbus/machine-id"] {
            // A link between the two is named once, where the file is.
            let is_file = part
                .entries
                .iter()
                .any(|e| e.path == path.as_bytes() && matches!(e.node.kind, Kind::File(_)));
            let text = if is_file { part.read_text(path, 4096)? } else { None };
            if text.is_some_and(|text| !text.trim().is_empty() && text.trim() != "uninitialized") {
                let message = "a machine id that all machines would share";
                add(("machine-identity", Error), path.into(), message.into(), "remove the file, or empty it");
            }
        }
        let mut folders = [(0u64, 0u64); FOLDERS.len()];
        for entry in &part.entries {
            let Kind::File(content) = &entry.node.kind else { continue };
            let path = entry.path.as_slice();
            if content.is_empty() {
                continue;
            }
            if is_host_key(path) {
                let message = "an SSH host key that all machines would share".into();
                add(("machine-identity", Error), entry.shown(), message, "remove it; make it at first boot");
            }
            if let Some((_, what)) = IDENTITIES.iter().find(|(known, _)| known.as_bytes() == path) {
                let help = "remove it; the machine makes its own";
                add(("machine-identity", Error), entry.shown(), (*what).into(), help);
            }
            if let Some((_, what)) = FILES.iter().find(|(known, _)| known.as_bytes() == path) {
                let help = "`remove` it in the recipe";
                add(("left-over", Warning), entry.shown(), format!("{what}, {} bytes", content.len()), help);
            }
            let folder = FOLDERS.iter().position(|(folder, _)| super::nodes::below(path, folder.as_bytes()));
            if let Some((files, bytes)) = folder.and_then(|i| folders.get_mut(i)) {
                *files += 1;
                *bytes = bytes.saturating_add(content.len());
            }
        }
        for ((folder, what), (files, bytes)) in FOLDERS.iter().zip(folders) {
            if files > 0 {
                let number = if files == 1 { "1 file".to_owned() } else { format!("{files} files") };
                let message = format!("{what}: {number}, {:.1} MiB", mebibytes(bytes));
                add(("left-over", Warning), (*folder).into(), message, "`remove` it in the recipe");
            }
        }
        network(part, &mut add)?;
    }
    for (rule, part, path, message, help) in found {
        context.add(rule, &part, Some(path), message, help);
    }
    Ok(())
}

type Add<'f> = dyn FnMut((&'static str, crate::report::Severity), String, String, &'static str) + 'f;

fn network(part: &crate::parts::PartView<'_>, add: &mut Add<'_>) -> Result<(), LintError> {
    const HELP: &str = "leave the file out: init writes it when the network is up";
    let rule = ("build-network", Warning);
    let lines = |text: &str| -> Vec<Vec<String>> {
        text.lines()
            .map(|line| line.split(['#', ';']).next().unwrap_or(line))
            .map(|line| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
            .filter(|words| words.len() >= 2)
            .collect()
    };
    let path = "/etc/resolv.conf";
    for words in part.read_text(path, 1 << 20)?.iter().flat_map(|text| lines(text)) {
        let message = match words.split_first() {
            Some((key, servers)) if key == "nameserver" && servers.iter().any(|s| is_elsewhere(s)) => {
                format!("the name server `{}`", servers.join(" "))
            }
            Some((key, domains)) if key == "search" || key == "domain" => {
                format!("the search domain `{}`", domains.join(" "))
            }
            _ => continue,
        };
        add(rule, path.into(), message, HELP);
    }
    let path = "/etc/hosts";
    for words in part.read_text(path, 1 << 20)?.iter().flat_map(|text| lines(text)) {
        if let Some((address, names)) = words.split_first()
            && is_elsewhere(address)
        {
            add(rule, path.into(), format!("the address `{address}` of `{}`", names.join(" ")), HELP);
        }
    }
    Ok(())
}

/// Whether the text is an address of another machine: not loopback, multicast, link-local or unspecified.
fn is_elsewhere(text: &str) -> bool {
    // A zone may follow: fe80::1%eth0.
    match text.split('%').next().unwrap_or(text).parse::<IpAddr>() {
        Ok(IpAddr::V4(a)) => {
            !(a.is_loopback() || a.is_multicast() || a.is_unspecified() || a.is_link_local())
        }
        Ok(IpAddr::V6(a)) => {
            // fe00::0 is `ip6-localnet` in Debian's file.
            !(a.is_loopback() || a.is_multicast() || a.is_unspecified() || a.segments()[0] & 0xfe00 == 0xfe00)
        }
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{PREFIX, meta, of_rule, put, report, tree};
    use ashlar_tree::Node;

    #[test]
    fn identities() {
        let mut tree = tree();
        put(&mut tree, "/etc/machine-id", 0o444, "0123456789abcdef0123456789abcdef\n");
        tree.insert(b"/var/lib/dbus/machine-id", Node::symlink(meta(0o777), "/etc/machine-id")).unwrap();
        put(&mut tree, &format!("{PREFIX}/etc/machine-id"), 0o444, "uninitialized\n");
        let key =
            format!("-----BEGIN {}-----\n{}\n", "OPENSSH PRIVATE KEY", "b3BlbnNzaC1rZXktdjEA".repeat(4));
        put(&mut tree, &format!("{PREFIX}/etc/ssh/ssh_host_ed25519_key"), 0o600, key);
        put(&mut tree, &format!("{PREFIX}/etc/ssh/ssh_host_ed25519_key.pub"), 0o644, "ssh-ed25519 AAAA\n");
        put(&mut tree, "/var/lib/systemd/random-seed", 0o600, "x");
        let report = report(&tree);
        assert_eq!(
            of_rule(&report, "machine-identity"),
            [
                "root /etc/machine-id: a machine id that all machines would share",
                "root /var/lib/systemd/random-seed: a random seed that all machines would share",
                "container web /etc/ssh/ssh_host_ed25519_key: an SSH host key that all machines would share",
            ]
        );
        assert!(of_rule(&report, "private-key").is_empty(), "one finding is enough");
    }

    #[test]
    fn caches_lists_and_logs() {
        let mut tree = tree();
        put(&mut tree, "/var/lib/apt/lists/a", 0o644, "x");
        put(&mut tree, "/var/lib/apt/lists/partial/b", 0o644, "x");
        put(&mut tree, "/var/log/empty.log", 0o644, "");
        put(&mut tree, "/var/lib/apt/listsx", 0o644, "x");
        put(&mut tree, &format!("{PREFIX}/etc/passwd-"), 0o644, "root");
        assert_eq!(
            of_rule(&report(&tree), "left-over"),
            [
                "root /var/lib/apt/lists: lists of packages: 2 files, 0.0 MiB",
                "container web /etc/passwd-: a backup of the accounts, 4 bytes",
            ]
        );
    }

    #[test]
    fn the_network_of_the_build() {
        let mut tree = tree();
        let resolv =
            "# comment\nnameserver 192.0.2.1\nnameserver 127.0.0.53\nsearch corp.example\noptions edns0\n";
        put(&mut tree, "/etc/resolv.conf", 0o644, resolv);
        let hosts = "127.0.0.1 localhost\n::1 ip6-localhost\nfe00:: ip6-localnet\nff02::1 ip6-allnodes\n192.0.2.7 forge\n";
        put(&mut tree, &format!("{PREFIX}/etc/hosts"), 0o644, hosts);
        put(&mut tree, &format!("{PREFIX}/etc/resolv.conf"), 0o644, "");
        assert_eq!(
            of_rule(&report(&tree), "build-network"),
            [
                "root /etc/resolv.conf: the name server `192.0.2.1`",
                "root /etc/resolv.conf: the search domain `corp.example`",
                "container web /etc/hosts: the address `192.0.2.7` of `forge`",
            ]
        );
    }
}
