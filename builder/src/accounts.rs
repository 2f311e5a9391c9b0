//! What names of users and groups mean in a file tree.

use crate::error::BuildError;
use crate::recipe::{Identity, Service};
use ashlar_tree::{Kind, Tree};

/// Largest account file, in bytes.
const MAX_ACCOUNTS: u64 = 4 << 20;

/// The fields of an account file's lines.
fn lines(tree: &Tree, path: &str) -> Vec<Vec<String>> {
    let content = match tree.get_followed(path.as_bytes()).map(|(_, node)| &node.kind) {
        Some(Kind::File(content)) if content.len() <= MAX_ACCOUNTS => content.read().unwrap_or_default(),
        _ => Vec::new(),
    };
    let text = String::from_utf8_lossy(&content).into_owned();
    text.lines().map(|line| line.split(':').map(str::to_owned).collect()).collect()
}

/// The numbers of `user`, `user:group`, each a name or a number (OCI image specification, `config.User`): names are
/// looked up in the image's own files, and a user's group is that of its line in `/etc/passwd`, or 0.
pub fn user_of(tree: &Tree, text: &str) -> Option<(u32, u32)> {
    let find = |lines: &[Vec<String>], key: &str| -> Option<Vec<String>> {
        let fits = |line: &&Vec<String>| line.first().is_some_and(|name| name == key);
        let by_number = |line: &&Vec<String>| line.get(2).is_some_and(|number| number == key);
        lines.iter().find(fits).or_else(|| lines.iter().find(by_number)).cloned()
    };
    let number = |line: &[String], at: usize| line.get(at).and_then(|field| field.parse().ok());
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    let line = find(&lines(tree, "/etc/passwd"), user);
    let uid = user.parse().ok().or_else(|| number(line.as_ref()?, 2))?;
    let gid = match group {
        Some(group) => group.parse().ok().or_else(|| number(&find(&lines(tree, "/etc/group"), group)?, 2))?,
        None => line.and_then(|line| number(&line, 3)).unwrap_or(0),
    };
    Some((uid, gid))
}

/// As whom the service `name` runs in the root `tree`: further groups are those that `/etc/group` lists its user in.
pub fn identity(tree: &Tree, name: &str, service: &Service) -> Result<Identity, BuildError> {
    let user = service.user.as_deref().unwrap_or("0");
    let text = service.group.as_ref().map_or_else(|| user.to_owned(), |group| format!("{user}:{group}"));
    let (uid, gid) = user_of(tree, &text)
        .ok_or_else(|| BuildError::UnknownServiceUser { service: name.to_owned(), user: text.clone() })?;
    let passwd = lines(tree, "/etc/passwd");
    let account = passwd.iter().find(|line| line.get(2).and_then(|field| field.parse().ok()) == Some(uid));
    let mut groups = Vec::new();
    if let Some(user) = account.and_then(|line| line.first())
        && service.user.is_some()
    {
        let member = |line: &&Vec<String>| {
            line.get(3).is_some_and(|members| members.split(',').any(|member| member == user))
        };
        let found = lines(tree, "/etc/group");
        groups.extend(found.iter().filter(member).filter_map(|line| line.get(2)?.parse::<u32>().ok()));
        groups.retain(|group| *group != gid);
        groups.sort_unstable();
        groups.dedup();
    }
    Ok(Identity { uid, gid, groups })
}

#[cfg(test)]
mod tests {
    use super::*;
    use ashlar_tree::{Metadata, Node};

    #[test]
    fn users_of_images_are_names_or_numbers() {
        let mut tree = Tree::new(Metadata::root(0o755, 0));
        let file = |text: &str| Node::file(Metadata::root(0o644, 0), text.as_bytes().to_vec());
        tree.insert(b"/etc/passwd", file("root:x:0:0::/:/bin/sh\napp:x:1000:1001::/:/x\n")).unwrap();
        tree.insert(b"/etc/group", file("web:x:33:\n")).unwrap();
        for (text, numbers) in [
            ("app", Some((1000, 1001))),
            ("1000", Some((1000, 1001))),
            ("app:web", Some((1000, 33))),
            ("7", Some((7, 0))),
            ("7:8", Some((7, 8))),
            ("nobody-knows", None),
            ("app:nobody-knows", None),
        ] {
            assert_eq!(user_of(&tree, text), numbers, "{text}");
        }
    }

    #[test]
    fn services_run_as_whom_the_root_knows() {
        let mut tree = Tree::new(Metadata::root(0o755, 0));
        let file = |text: &str| Node::file(Metadata::root(0o644, 0), text.as_bytes().to_vec());
        tree.insert(b"/etc/passwd", file("root:x:0:0::/:/bin/sh\napp:x:1000:1001::/:/x\n")).unwrap();
        tree.insert(b"/etc/group", file("root:x:0:\nweb:x:33:app,other\ntty:x:5:other\n")).unwrap();
        let service =
            |keys: &str| -> Service { toml::from_str(&format!("command = [\"/x\"]\n{keys}")).unwrap() };
        let of = |keys: &str| identity(&tree, "one", &service(keys));
        assert_eq!(of("").unwrap(), Identity::default());
        assert_eq!(of("user = \"app\"").unwrap(), Identity { uid: 1000, gid: 1001, groups: vec![33] });
        assert_eq!(
            of("user = \"7\"\ngroup = \"web\"").unwrap(),
            Identity { uid: 7, gid: 33, groups: vec![] }
        );
        assert_eq!(of("group = \"web\"").unwrap(), Identity { uid: 0, gid: 33, groups: vec![] });
        let error = of("user = \"who\"").unwrap_err().to_string();
        assert!(error.contains("`one`") && error.contains("`who`"), "{error}");
    }
}
