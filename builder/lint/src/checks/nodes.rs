//! What is wrong with a node by its type, mode, owner, time and attributes alone.

use super::{Context, capabilities};
use crate::parts::Lookup;
use crate::report::Severity::{Error, Note, Warning};
use crate::report::{Part, Severity};
use ashlar_tree::Kind;

type Found = ((&'static str, Severity), Part, String, String, &'static str);

const SHELLS: [&str; 8] = ["sh", "bash", "dash", "busybox", "zsh", "ksh", "fish", "ash"];

pub(crate) fn check(context: &mut Context<'_, '_>) {
    let mut found: Vec<Found> = Vec::new();
    let time = context.subject.build_time;
    for part in context.parts {
        let mut add = |rule, path: &crate::parts::Entry<'_>, message: String, help| {
            found.push((rule, part.part.clone(), path.shown(), message, help));
        };
        // The topmost directory with a foreign owner; what lies below with the same owner is not named again.
        let mut owned: Option<(&[u8], u32)> = None;
        for entry in &part.entries {
            let meta = &entry.node.metadata;
            let mode = meta.mode & 0o7777;
            match &entry.node.kind {
                // Its target is looked at where it lies.
                Kind::HardLink(_) => continue,
                Kind::Symlink(_) => {}
                Kind::Directory(_) => {
                    if mode & 0o1002 == 0o002 {
                        add(
                            ("world-writable", Error),
                            entry,
                            format!("mode {mode:04o}: everybody may replace what lies in this directory"),
                            "give it mode 0755, or 1777 if it is shared as /tmp is",
                        );
                    }
                }
                Kind::File(_) => {
                    if mode & 0o002 != 0 {
                        add(
                            ("world-writable", Error),
                            entry,
                            format!("mode {mode:04o}: everybody may write it"),
                            "take the write bit for others away (`mode` in the recipe)",
                        );
                    }
                    // setgid without group execute means mandatory locking, long gone, and raises nothing.
                    let setgid = mode & 0o2010 == 0o2010;
                    if mode & 0o4000 != 0 || setgid {
                        let owner = meta.uid;
                        let group = meta.gid;
                        let message = match (mode & 0o4000 != 0, setgid) {
                            (true, true) => format!("mode {mode:04o}: runs as uid {owner} and gid {group}"),
                            (true, false) => format!("mode {mode:04o}: runs as uid {owner}"),
                            _ => format!("mode {mode:04o}: runs with gid {group}"),
                        };
                        add(("setuid", Error), entry, message, "remove the program, or take the bit away");
                    }
                }
                Kind::CharDevice { major: 0, minor: 0 } => add(
                    ("device-node", Error),
                    entry,
                    "a whiteout (character device 0:0): a layer was copied instead of applied".into(),
                    "apply the layers, then build",
                ),
                Kind::CharDevice { major, minor } => add(
                    ("device-node", Error),
                    entry,
                    format!("character device {major}:{minor}"),
                    "remove it: /dev is mounted at run time",
                ),
                Kind::BlockDevice { major, minor } => add(
                    ("device-node", Error),
                    entry,
                    format!("block device {major}:{minor}"),
                    "remove it: /dev is mounted at run time",
                ),
                Kind::Fifo | Kind::Socket => add(
                    ("device-node", Warning),
                    entry,
                    "a pipe or socket, left over from a program that ran".into(),
                    "remove it: its program makes it at run time",
                ),
            }
            if let Some(value) = meta.xattrs.get(b"security.capability".as_slice()) {
                let message =
                    capabilities::describe(value).unwrap_or_else(|| "a value that the kernel refuses".into());
                let help =
                    "name the capability in the recipe of the container or service, and remove it here";
                add(("file-capabilities", Error), entry, message, help);
            }
            if meta.mtime > time {
                let message =
                    format!("its time is {} s after the build time", meta.mtime.saturating_sub(time));
                add(
                    ("future-time", Warning),
                    entry,
                    message,
                    "give it a time that has passed, or set `build-time`",
                );
            }
            let system = [b"/usr/".as_slice(), b"/etc/", b"/boot/"].iter().any(|p| entry.path.starts_with(p));
            let link = matches!(entry.node.kind, Kind::Symlink(_));
            if system && !link && meta.uid != 0 {
                let covered = owned.is_some_and(|(top, uid)| uid == meta.uid && below(&entry.path, top));
                if !covered {
                    owned = Some((&entry.path, meta.uid));
                    let message = format!("belongs to uid {}", meta.uid);
                    add(("writable-system", Warning), entry, message, "give it to root");
                }
            } else if system && !link && mode & 0o020 != 0 && meta.gid != 0 {
                // setgid directories for local administrators (/usr/local, group staff) are Debian's policy 9.1.2,
                // and empty.
                if entry.node.entries().is_none_or(|entries| !entries.is_empty()) {
                    let message = format!("mode {mode:04o}: group {} may write it", meta.gid);
                    add(
                        ("writable-system", Warning),
                        entry,
                        message,
                        "take the write bit for the group away",
                    );
                }
            }
        }
        if part.part == Part::Root {
            let mut shells: Vec<String> = Vec::new();
            for directory in ["/usr/bin", "/usr/sbin", "/bin"] {
                for name in SHELLS {
                    let path = format!("{directory}/{name}");
                    if let Lookup::Found(real, _) = part.follow(b"/", path.as_bytes()) {
                        let real = String::from_utf8_lossy(&real).into_owned();
                        if !shells.contains(&real) {
                            shells.push(real);
                        }
                    }
                }
            }
            if !shells.is_empty() {
                found.push((
                    ("shell", Note),
                    Part::Root,
                    shells.first().cloned().unwrap_or_default(),
                    format!("the root has a shell: {}", shells.join(", ")),
                    "exclude the package, unless the shell is meant",
                ));
            }
        }
    }
    for (rule, part, path, message, help) in found {
        context.add(rule, &part, Some(path), message, help);
    }
}

/// Whether `path` lies below the directory `top`.
pub(super) fn below(path: &[u8], top: &[u8]) -> bool {
    path.strip_prefix(top).is_some_and(|rest| rest.first() == Some(&b'/'))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{PREFIX, TIME, meta, of_rule, put, report, tree};
    use ashlar_tree::{Metadata, Node};

    #[test]
    fn modes() {
        let mut tree = tree();
        put(&mut tree, "/usr/bin/su", 0o4755, "");
        put(&mut tree, &format!("{PREFIX}/usr/bin/wall"), 0o2755, "");
        put(&mut tree, "/usr/bin/locked", 0o2644, "");
        put(&mut tree, "/srv/all", 0o666, "");
        put(&mut tree, "/srv/some", 0o664, "");
        tree.insert(b"/tmp", Node::directory(meta(0o1777))).unwrap();
        tree.insert(b"/shared", Node::directory(meta(0o777))).unwrap();
        tree.insert(b"/var/mail", Node::directory(meta(0o2775))).unwrap();
        tree.insert(b"/link", Node::symlink(meta(0o777), "/srv/all")).unwrap();
        let report = report(&tree);
        assert_eq!(
            of_rule(&report, "setuid"),
            [
                "root /usr/bin/su: mode 4755: runs as uid 0",
                "container web /usr/bin/wall: mode 2755: runs with gid 0"
            ]
        );
        let found = of_rule(&report, "world-writable");
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(
            found[0].starts_with("root /shared: mode 0777")
                && found[1].starts_with("root /srv/all: mode 0666")
        );
    }

    #[test]
    fn capabilities_devices_and_times() {
        let mut tree = tree();
        let mut ping = Node::file(meta(0o755), *b"");
        let value = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        ping.metadata.xattrs.insert(b"security.capability".to_vec(), value.to_vec());
        ping.metadata.xattrs.insert(b"user.comment".to_vec(), b"x".to_vec());
        tree.insert(b"/usr/bin/ping", ping).unwrap();
        let device = |kind| Node { metadata: meta(0o600), kind };
        tree.insert(b"/dev/mem", device(ashlar_tree::Kind::CharDevice { major: 1, minor: 1 })).unwrap();
        tree.insert(b"/gone", device(ashlar_tree::Kind::CharDevice { major: 0, minor: 0 })).unwrap();
        tree.insert(b"/s", device(ashlar_tree::Kind::Socket)).unwrap();
        tree.insert(b"/new", Node::file(Metadata::root(0o644, TIME + 5), *b"")).unwrap();
        let report = report(&tree);
        assert_eq!(
            of_rule(&report, "file-capabilities"),
            ["root /usr/bin/ping: CAP_NET_RAW, effective at once"]
        );
        let found = of_rule(&report, "device-node");
        assert!(found.iter().any(|f| f == "root /dev/mem: character device 1:1"), "{found:?}");
        assert!(found.iter().any(|f| f.contains("/gone: a whiteout")) && found.len() == 3, "{found:?}");
        assert_eq!(of_rule(&report, "future-time"), ["root /new: its time is 5 s after the build time"]);
    }

    #[test]
    fn owners_of_the_system() {
        let mut tree = tree();
        for path in ["/usr/lib/app", "/usr/lib/app/a", "/home/u"] {
            let mut node = Node::directory(meta(0o755));
            node.metadata.uid = 1000;
            tree.insert(path.as_bytes(), node).unwrap();
        }
        let mut local = Node::directory(meta(0o2775));
        local.metadata.gid = 50;
        tree.insert(b"/usr/local/lib", local).unwrap();
        let found = of_rule(&report(&tree), "writable-system");
        assert_eq!(found, ["root /usr/lib/app: belongs to uid 1000"]);
    }

    #[test]
    fn a_shell_of_the_root_is_a_note_and_one_of_a_container_is_not() {
        let mut tree = tree();
        put(&mut tree, &format!("{PREFIX}/usr/bin/sh"), 0o755, "");
        assert!(of_rule(&report(&tree), "shell").is_empty());
        put(&mut tree, "/usr/bin/dash", 0o755, "");
        let report = report(&tree);
        assert_eq!(of_rule(&report, "shell"), ["root /usr/bin/dash: the root has a shell: /usr/bin/dash"]);
        assert!(!report.has_errors() && report.warnings == 0, "{}", report.text());
    }
}
