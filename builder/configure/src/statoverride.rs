//! Owner and mode of single files, as packages ask for with `dpkg-statoverride --add` (dpkg-statoverride(1)).

use crate::accounts::Ids;
use crate::report::{Log, State};
use crate::scripts::Found;
use crate::{ConfigureError, Step, view};
use ashlar_tree::Tree;

const DATABASE: &str = "/var/lib/dpkg/statoverride";

/// Carries out all literal ones; where `database` says so, dpkg's list of them is written too.
pub(crate) fn configure(
    tree: &mut Tree,
    found: &mut [Found<'_>],
    ids: &Ids,
    database: bool,
    time: i64,
    log: &mut Log,
) -> Result<(), ConfigureError> {
    let mut list = Vec::new();
    for found in found.iter_mut().filter(|found| found.at_installation()) {
        let adds = found.command.words.iter().any(|word| word.text == "--add");
        if found.command.name() != "dpkg-statoverride" || !adds {
            continue;
        }
        let Some(arguments) = found.command.arguments() else {
            found.settle(State::LeftOut, "its arguments are not literal");
            continue;
        };
        match apply(tree, &arguments, ids) {
            Ok((path, line)) => {
                log.done(Step::StatOverride, &path, &[found.package], line.clone());
                list.push(line);
                found.settle(State::Done, "");
            }
            Err(why) => found.settle(State::LeftOut, why),
        }
    }
    if database && !list.is_empty() {
        list.sort();
        list.dedup();
        view::write(tree, DATABASE, 0o644, time, (list.join("\n") + "\n").into_bytes())?;
    }
    Ok(())
}

/// Changes one file; gives its path and the line for dpkg's list.
fn apply(tree: &mut Tree, arguments: &[&str], ids: &Ids) -> Result<(String, String), String> {
    let rest: Vec<&str> = arguments.iter().copied().filter(|argument| !argument.starts_with("--")).collect();
    let [user, group, mode, path] = rest[..] else {
        return Err("it does not name owner, group, mode and file".into());
    };
    let id = |name: &str, known: &std::collections::BTreeMap<String, u32>| match name.strip_prefix('#') {
        Some(number) => number.parse().map_err(|_| format!("`{name}` is no id")),
        None => known.get(name).copied().ok_or_else(|| format!("there is no `{name}`")),
    };
    // Where no account file is in the tree there is still a superuser.
    let uid = if user == "root" { 0 } else { id(user, &ids.users)? };
    let gid = if group == "root" { 0 } else { id(group, &ids.groups)? };
    let bits = u32::from_str_radix(mode, 8)
        .ok()
        .filter(|bits| *bits <= 0o7777)
        .ok_or_else(|| format!("`{mode}` is no mode"))?;
    let (real, _) =
        tree.get_followed(path.as_bytes()).ok_or_else(|| format!("`{path}` is not in the tree"))?;
    let node = tree.get_mut(&real).ok_or_else(|| format!("`{path}` is not in the tree"))?;
    node.metadata.uid = uid;
    node.metadata.gid = gid;
    node.metadata.mode = bits;
    Ok((path.to_owned(), format!("{user} {group} {mode} {path}")))
}
