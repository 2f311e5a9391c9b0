//! Accounts and who owns the files.

use super::Context;
use crate::error::LintError;
use crate::report::Severity::{Error, Warning};
use std::collections::BTreeSet;

/// Account files are small; a larger one is no account file.
const LIMIT: u64 = 4 << 20;

/// Fields of the lines of a file such as passwd(5): comments and short lines left out.
fn lines(text: &str) -> impl Iterator<Item = Vec<&str>> {
    text.lines()
        .filter(|line| !line.starts_with('#') && !line.trim().is_empty())
        .map(|line| line.split(':').collect::<Vec<_>>())
}

/// The numbers in the third field.
fn ids(text: &str) -> BTreeSet<u32> {
    lines(text).filter_map(|fields| fields.get(2)?.parse().ok()).collect()
}

pub(crate) fn check(context: &mut Context<'_, '_>) -> Result<(), LintError> {
    let mut found = Vec::new();
    for part in context.parts {
        let mut add = |rule, path: &str, message: String, help| {
            found.push((rule, part.part.clone(), path.to_owned(), message, help));
        };
        let passwd = part.read_text("/etc/passwd", LIMIT)?;
        let group = part.read_text("/etc/group", LIMIT)?;
        let shadow = part.read_text("/etc/shadow", LIMIT)?;
        let lock = "lock the account: `!` or `*` in the password field";
        for fields in passwd.iter().flat_map(|text| lines(text)) {
            let (Some(name), Some(password), Some(uid)) = (fields.first(), fields.get(1), fields.get(2))
            else {
                continue;
            };
            // NIS entries begin with `+` or `-` and are no accounts.
            if name.starts_with(['+', '-']) {
                continue;
            }
            if password.is_empty() {
                add(("account", Error), "/etc/passwd", format!("`{name}` has no password"), lock);
            }
            if *name != "root" && uid.parse() == Ok(0u32) {
                let message = format!("`{name}` has uid 0: it is root under another name");
                add(("account", Error), "/etc/passwd", message, "give it a uid of its own");
            }
        }
        for fields in shadow.iter().flat_map(|text| lines(text)) {
            let (Some(name), Some(password)) = (fields.first(), fields.get(1)) else { continue };
            if password.is_empty() {
                add(("account", Error), "/etc/shadow", format!("`{name}` has no password"), lock);
            } else if password.starts_with('$') || (password.len() == 13 && !password.starts_with(['!', '*']))
            {
                let message =
                    format!("the password hash of `{name}` is the same on every machine, for all to read");
                let help = "lock the account here; give it credentials when the machine is provisioned";
                add(("account", Warning), "/etc/shadow", message, help);
            }
        }

        // Each kind of owner is judged only where there is a list of them.
        let users = passwd.as_deref().map(ids);
        let groups = group.as_deref().map(ids);
        let mut named: Option<(&[u8], u32, u32)> = None;
        for entry in &part.entries {
            let meta = &entry.node.metadata;
            let no_user = users.as_ref().is_some_and(|users| !users.contains(&meta.uid));
            let no_group = groups.as_ref().is_some_and(|groups| !groups.contains(&meta.gid));
            // Root is root, listed or not.
            let (no_user, no_group) = (no_user && meta.uid != 0, no_group && meta.gid != 0);
            if !no_user && !no_group {
                continue;
            }
            let (uid, gid) = (meta.uid, meta.gid);
            let top = named
                .is_some_and(|(top, u, g)| u == uid && g == gid && super::nodes::below(&entry.path, top));
            if top || matches!(entry.node.kind, ashlar_tree::Kind::HardLink(_)) {
                continue;
            }
            named = Some((&entry.path, uid, gid));
            let message = match (no_user, no_group) {
                (true, true) => format!(
                    "belongs to uid {uid} and gid {gid}, which /etc/passwd and /etc/group do not have"
                ),
                (true, false) => format!("belongs to uid {uid}, which /etc/passwd does not have"),
                _ => format!("belongs to gid {gid}, which /etc/group does not have"),
            };
            add(
                ("unowned", Warning),
                &entry.shown(),
                message,
                "add the account to the recipe, or give it to root",
            );
        }
    }
    for (rule, part, path, message, help) in found {
        context.add(rule, &part, Some(path), message, help);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::testing::{PREFIX, meta, of_rule, put, report, tree};
    use ashlar_tree::Node;

    #[test]
    fn accounts() {
        let mut tree = tree();
        let passwd =
            "root:x:0:0::/:/x\nopen::1:1::/:/x\ntoor:x:0:0::/:/x\n# c::0\n+nis::0:0:::\nok:*:2:2::/:/x\n";
        put(&mut tree, "/etc/passwd", 0o644, passwd);
        let shadow = "root:!:1::::::\nopen::1::::::\nok:*:1::::::\nhash:$6$salt$0123456789:1::::::\nlocked:!$6$s$0:1::::::\n";
        put(&mut tree, &format!("{PREFIX}/etc/shadow"), 0o600, shadow);
        let found = of_rule(&report(&tree), "account");
        assert_eq!(found.len(), 4, "{found:?}");
        for expected in [
            "root /etc/passwd: `open` has no password",
            "root /etc/passwd: `toor` has uid 0: it is root under another name",
            "container web /etc/shadow: `open` has no password",
            "container web /etc/shadow: the password hash of `hash` is the same on every machine, for all to read",
        ] {
            assert!(found.iter().any(|f| f == expected), "{expected}: {found:?}");
        }
    }

    #[test]
    fn owners_are_looked_for_in_their_own_root() {
        let mut tree = tree();
        put(&mut tree, "/etc/passwd", 0o644, "root:x:0:0::/:/x\nwww:x:33:33::/:/x\n");
        put(&mut tree, "/etc/group", 0o644, "root:x:0:\nwww:x:33:\n");
        for path in ["/srv", "/srv/a", &format!("{PREFIX}/srv"), &format!("{PREFIX}/srv/b")] {
            let mut node = Node::directory(meta(0o755));
            (node.metadata.uid, node.metadata.gid) = (33, 33);
            tree.insert(path.as_bytes(), node).unwrap();
        }
        let found = of_rule(&report(&tree), "unowned");
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with("container web /srv: belongs to uid 33 and gid 33"), "{found:?}");

        // Without a list nothing can be said.
        tree.remove(format!("{PREFIX}/etc/passwd").as_bytes()).unwrap();
        tree.remove(format!("{PREFIX}/etc/group").as_bytes()).unwrap();
        assert!(of_rule(&report(&tree), "unowned").is_empty());
    }
}
