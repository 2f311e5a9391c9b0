//! Symbolic links to nothing.

use super::Context;
use crate::parts::Lookup;
use crate::report::Severity::Warning;
use ashlar_tree::Kind;

/// Directories that are filled at run time.
const RUN_TIME: [&[u8]; 6] = [b"/run", b"/proc", b"/sys", b"/dev", b"/tmp", b"/var"];
/// May be missing: the time zone is UTC then (localtime(5)). Debian's tzdata has a link to it.
const LOCALTIME: &[u8] = b"/etc/localtime";

pub(crate) fn check(context: &mut Context<'_, '_>) {
    let mut found = Vec::new();
    for part in context.parts {
        for entry in &part.entries {
            let Kind::Symlink(target) = &entry.node.kind else { continue };
            let target_text = String::from_utf8_lossy(target);
            let folder =
                entry.path.get(..entry.path.iter().rposition(|&b| b == b'/').unwrap_or(0)).unwrap_or(b"");
            let message = match part.follow(folder, target) {
                Lookup::Found(..) => continue,
                Lookup::Loop => format!("points to `{target_text}`, which leads back to it"),
                Lookup::Missing(path) => {
                    if path == LOCALTIME {
                        continue;
                    }
                    if RUN_TIME.iter().any(|top| path == *top || super::nodes::below(&path, top)) {
                        continue;
                    }
                    format!("points to `{target_text}`; there is no `{}`", String::from_utf8_lossy(&path))
                }
            };
            found.push((part.part.clone(), entry.shown(), message));
        }
    }
    for (part, path, message) in found {
        let help = "add what it points to, or `remove` the link";
        context.add(("dangling-link", Warning), &part, Some(path), message, help);
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{PREFIX, meta, of_rule, put, report, tree};
    use ashlar_tree::Node;

    #[test]
    fn links_are_judged_in_their_own_root() {
        let mut tree = tree();
        put(&mut tree, "/usr/lib/only-root", 0o644, "");
        put(&mut tree, &format!("{PREFIX}/usr/lib/only-web"), 0o644, "");
        let links = [
            ("/a", "usr/lib/only-root"),
            ("/up", "../../../usr/lib/only-root"),
            ("/b", "/usr/lib/only-web"),
            (&format!("{PREFIX}/c"), "/usr/lib/only-web"),
            (&format!("{PREFIX}/d"), "/usr/lib/only-root"),
            (&format!("{PREFIX}/lib"), "usr/lib"),
            (&format!("{PREFIX}/e"), "lib/only-web"),
            ("/loop", "loop"),
            ("/chain", "b"),
            ("/etc/mtab", "/proc/self/mounts"),
            ("/etc/resolv.conf", "../run/ashlar/resolv.conf"),
            ("/usr/share/zoneinfo/localtime", "/etc/localtime"),
            ("/runner", "/runtime/x"),
        ];
        for (path, target) in links {
            tree.insert(path.as_bytes(), Node::symlink(meta(0o777), target)).unwrap();
        }
        assert_eq!(
            of_rule(&report(&tree), "dangling-link"),
            [
                "root /b: points to `/usr/lib/only-web`; there is no `/usr/lib/only-web`",
                "root /chain: points to `b`; there is no `/usr/lib/only-web`",
                "root /loop: points to `loop`, which leads back to it",
                "root /runner: points to `/runtime/x`; there is no `/runtime/x`",
                "container web /d: points to `/usr/lib/only-root`; there is no `/usr/lib/only-root`",
            ]
        );
    }

    #[test]
    fn a_link_through_a_file_dangles() {
        let mut tree = tree();
        tree.insert(b"/x", Node::symlink(meta(0o777), "/etc/passwd/y")).unwrap();
        assert_eq!(
            of_rule(&report(&tree), "dangling-link"),
            ["root /x: points to `/etc/passwd/y`; there is no `/etc/passwd/y`"]
        );
    }
}
