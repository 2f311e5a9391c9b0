//! Alternatives: one of several programs under a generic name (update-alternatives(1)).
//!
//! Every alternative is in automatic mode: the one of the highest priority is chosen; of two with the same, the
//! one whose path comes first, so that the order of packages does not matter.

use crate::report::{Log, State};
use crate::scripts::Found;
use crate::{ConfigureError, Step, view};
use ashlar_tree::{Kind, Tree};
use std::collections::{BTreeMap, BTreeSet};

const LINKS: &str = "/etc/alternatives";
const DATABASE: &str = "/var/lib/dpkg/alternatives";

/// A `--slave` (or `--follower`) of an alternative.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Follower {
    link: String,
    name: String,
    path: String,
}

/// One `--install`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Install {
    link: String,
    name: String,
    path: String,
    priority: i32,
    followers: Vec<Follower>,
}

/// A generic name with its choices by path.
#[derive(Debug, Default)]
struct Group {
    link: String,
    /// Name to link.
    followers: BTreeMap<String, String>,
    choices: BTreeMap<String, (i32, BTreeMap<String, String>)>,
    packages: BTreeSet<String>,
}

/// Reads the arguments of `update-alternatives`; the error says why they make no alternative.
fn parse(arguments: &[&str]) -> Result<Install, String> {
    let mut install: Option<Install> = None;
    let mut followers = Vec::new();
    let mut arguments = arguments.iter().copied().filter(|argument| !argument.is_empty());
    let mut next =
        |what: &str| arguments.next().map(str::to_owned).ok_or_else(|| format!("{what} is missing"));
    while let Ok(option) = next("an option") {
        match option.as_str() {
            "--quiet" | "--force" | "--verbose" | "--skip-auto" => {}
            "--install" if install.is_none() => {
                let (link, name, path) = (next("the link")?, next("the name")?, next("the path")?);
                let priority = next("the priority")?;
                let priority = priority.parse().map_err(|_| format!("`{priority}` is no priority"))?;
                install = Some(Install { link, name, path, priority, followers: Vec::new() });
            }
            "--slave" | "--follower" => {
                followers.push(Follower {
                    link: next("the link")?,
                    name: next("the name")?,
                    path: next("the path")?,
                });
            }
            other => return Err(format!("`{other}` is not known")),
        }
    }
    let install = Install { followers, ..install.ok_or("it installs nothing")? };
    let names = std::iter::once(&install.name).chain(install.followers.iter().map(|follower| &follower.name));
    let paths = [&install.link, &install.path]
        .into_iter()
        .chain(install.followers.iter().flat_map(|follower| [&follower.link, &follower.path]));
    for name in names {
        if name.is_empty() || name.contains(['/', ' ', '\t', '\n']) {
            return Err(format!("`{name}` is no name"));
        }
    }
    for path in paths {
        if !path.starts_with('/') || path.contains('\n') {
            return Err(format!("`{path}` is no absolute path"));
        }
    }
    Ok(install)
}

/// Makes the links of all alternatives that scripts install, and, where `database` says so, dpkg's files about them.
pub(crate) fn configure(
    tree: &mut Tree,
    found: &mut [Found<'_>],
    database: bool,
    time: i64,
    log: &mut Log,
) -> Result<(), ConfigureError> {
    let mut groups: BTreeMap<String, Group> = BTreeMap::new();
    for found in found.iter_mut().filter(|found| found.at_installation()) {
        let installs = found.command.words.iter().any(|word| word.text == "--install");
        if found.command.name() != "update-alternatives" || !installs {
            continue;
        }
        let Some(arguments) = found.command.arguments() else {
            found.settle(State::LeftOut, "its arguments are not literal");
            continue;
        };
        let install = match parse(&arguments) {
            Ok(install) => install,
            Err(why) => {
                found.settle(State::LeftOut, why);
                continue;
            }
        };
        if !view::exists(tree, &install.path) {
            found.settle(State::LeftOut, format!("`{}` is not in the tree", install.path));
            continue;
        }
        let group = groups.entry(install.name).or_default();
        if group.link.is_empty() {
            group.link.clone_from(&install.link);
        }
        if group.link != install.link {
            found.settle(State::LeftOut, format!("another package has the same name at `{}`", group.link));
            continue;
        }
        let mut paths = BTreeMap::new();
        for follower in install.followers {
            group.followers.entry(follower.name.clone()).or_insert(follower.link);
            paths.insert(follower.name, follower.path);
        }
        group.packages.insert(found.package.to_owned());
        group.choices.insert(install.path, (install.priority, paths));
        found.settle(State::Done, "");
    }
    for (name, group) in &groups {
        apply(tree, name, group, time, log)?;
        if database {
            view::write(tree, &format!("{DATABASE}/{name}"), 0o644, time, record(group).into_bytes())?;
        }
    }
    Ok(())
}

fn apply(tree: &mut Tree, name: &str, group: &Group, time: i64, log: &mut Log) -> Result<(), ConfigureError> {
    let mut best: Option<(&String, i32, &BTreeMap<String, String>)> = None;
    for (path, (priority, followers)) in &group.choices {
        if best.is_none_or(|(_, best, _)| *priority > best) {
            best = Some((path, *priority, followers));
        }
    }
    let Some((path, _, followers)) = best else { return Ok(()) };
    let packages: Vec<&str> = group.packages.iter().map(String::as_str).collect();
    let mut links = vec![(name, group.link.as_str(), path.as_str())];
    for (name, path) in followers {
        if let Some(link) = group.followers.get(name).filter(|_| view::exists(tree, path)) {
            links.push((name, link, path));
        }
    }
    for (name, link, path) in links {
        let taken = matches!(tree.get(link.as_bytes()), Some(node) if !matches!(node.kind, Kind::Symlink(_)));
        let middle = format!("{LINKS}/{name}");
        view::link(tree, &middle, path, time)?;
        if taken {
            log.left_out(
                format!("alternative {name} at {link}"),
                "a file of a package is there, which is not replaced by a link",
            );
            continue;
        }
        view::link(tree, link, &middle, time)?;
        log.done(Step::Alternative, link, &packages, format!("{name} is {path}"));
    }
    Ok(())
}

/// dpkg's file about a name: mode and link, followers, then the choices.
fn record(group: &Group) -> String {
    let mut text = format!("auto\n{}\n", group.link);
    for (name, link) in &group.followers {
        text.push_str(&format!("{name}\n{link}\n"));
    }
    text.push('\n');
    for (path, (priority, followers)) in &group.choices {
        text.push_str(&format!("{path}\n{priority}\n"));
        for name in group.followers.keys() {
            text.push_str(followers.get(name).map_or("", String::as_str));
            text.push('\n');
        }
    }
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments() {
        let install = parse(&[
            "--quiet",
            "--install",
            "/usr/bin/awk",
            "awk",
            "/usr/bin/mawk",
            "5",
            "--slave",
            "/usr/share/man/awk.1.gz",
            "awk.1.gz",
            "/usr/share/man/mawk.1.gz",
        ])
        .unwrap();
        assert_eq!((install.priority, install.followers.len()), (5, 1));
        assert!(parse(&["--install", "/a", "b", "/c", "x"]).unwrap_err().contains("priority"));
        assert!(parse(&["--install", "a", "b", "/c", "1"]).unwrap_err().contains("absolute"));
        assert!(parse(&["--install", "/a", "../b", "/c", "1"]).is_err());
        assert!(parse(&["--set", "a", "/c"]).is_err());
    }
}
