//! What the recipe and the maintainer scripts want of users and groups.

use super::database::{check_field, check_name, check_path};
use super::{Group, Primary, Request, Strength, User, Wish};
use crate::ConfigureError;
use crate::report::State;
use crate::scripts::Found;

pub(super) fn of_recipe(users: &[User], groups: &[Group]) -> Result<Vec<Request>, ConfigureError> {
    let mut requests = Vec::new();
    let mut add = |wish: Wish, from: String| {
        requests.push(Request { wish, from, package: None, strength: Strength::Recipe });
    };
    for group in groups {
        let from = format!("the recipe's group {}", group.name);
        check_name(&group.name, "a group's name", &from)?;
        add(Wish::Group { name: group.name.clone(), gid: group.gid }, from.clone());
        for member in &group.members {
            add(Wish::Member { user: member.clone(), group: group.name.clone() }, from.clone());
        }
    }
    for user in users {
        let from = format!("the recipe's user {}", user.name);
        check_name(&user.name, "a user's name", &from)?;
        check_field(&user.comment, "a comment", &from)?;
        if let Some(home) = &user.home {
            check_path(home, "a home directory", &from)?;
        }
        if let Some(shell) = &user.shell {
            check_path(shell, "a shell", &from)?;
        }
        if let Some(hash) = &user.password_hash {
            check_field(hash, "a password's hash", &from)?;
        }
        let wish = Wish::User {
            name: user.name.clone(),
            uid: user.uid,
            primary: user.gid.map_or(Primary::Own, Primary::Number),
            comment: Some(user.comment.clone()).filter(|comment| !comment.is_empty()),
            home: user.home.clone(),
            shell: user.shell.clone(),
            make_home: user.home.is_some(),
        };
        add(wish, from.clone());
        for group in &user.groups {
            add(Wish::Member { user: user.name.clone(), group: group.clone() }, from.clone());
        }
    }
    Ok(requests)
}

/// The literal `adduser`, `useradd` and so on of scripts. Every such command is settled: done, or left out
/// with the reason.
pub(super) fn of_scripts(found: &mut [Found<'_>]) -> Result<Vec<Request>, ConfigureError> {
    let mut requests = Vec::new();
    for found in found.iter_mut().filter(|found| found.at_installation()) {
        let name = found.command.name().to_owned();
        let parse = match name.as_str() {
            "adduser" | "addgroup" => adduser,
            "useradd" => useradd,
            "groupadd" => groupadd,
            "usermod" | "gpasswd" => membership,
            _ => continue,
        };
        let Some(arguments) = found.command.arguments() else {
            found.settle(
                State::LeftOut,
                "its arguments are not literal; add it with `[[user]]` or `[[group]]`",
            );
            continue;
        };
        match parse(&name, &arguments) {
            Ok(wishes) => {
                let from = found.place();
                for wish in wishes {
                    check(&wish, &from)?;
                    let package = Some(found.package.to_owned());
                    requests.push(Request { wish, from: from.clone(), package, strength: Strength::Script });
                }
                found.settle(State::Done, "");
            }
            Err(why) => found.settle(State::LeftOut, format!("{why}; add it with `[[user]]` or `[[group]]`")),
        }
    }
    Ok(requests)
}

fn check(wish: &Wish, from: &str) -> Result<(), ConfigureError> {
    match wish {
        Wish::User { name, comment, home, shell, .. } => {
            check_name(name, "a user's name", from)?;
            check_field(comment.as_deref().unwrap_or_default(), "a comment", from)?;
            for (path, what) in [(home, "a home directory"), (shell, "a shell")] {
                check_path(path.as_deref().unwrap_or("/"), what, from)?;
            }
            Ok(())
        }
        Wish::Group { name, .. } => check_name(name, "a group's name", from),
        Wish::Member { user, group } => {
            check_name(user, "a user's name", from)?;
            check_name(group, "a group's name", from)
        }
    }
}

/// Options with their values, and what is left. `valued` are the options that take a value; short ones may be
/// written together with it. Unknown options are refused: they may change what the command does.
type Parsed<'a> = (Vec<(&'a str, &'a str)>, Vec<&'a str>);
fn options<'a>(arguments: &[&'a str], valued: &[&str], flags: &[&str]) -> Result<Parsed<'a>, String> {
    let (mut found, mut rest) = (Vec::new(), Vec::new());
    let mut arguments = arguments.iter().copied().filter(|argument| !argument.is_empty());
    while let Some(argument) = arguments.next() {
        if !argument.starts_with('-') || argument == "-" {
            rest.push(argument);
            continue;
        }
        let (option, inline) = match argument.split_once('=') {
            Some((option, value)) if argument.starts_with("--") => (option, Some(value)),
            _ => (argument, None),
        };
        if valued.contains(&option) {
            let value =
                inline.or_else(|| arguments.next()).ok_or_else(|| format!("`{option}` has no value"))?;
            found.push((option, value));
        } else if flags.contains(&option) {
            found.push((option, ""));
        } else {
            return Err(format!("the option `{option}` is not known"));
        }
    }
    Ok((found, rest))
}

fn value<'a>(options: &[(&'a str, &'a str)], names: &[&str]) -> Option<&'a str> {
    options.iter().rev().find(|(option, _)| names.contains(option)).map(|(_, value)| *value)
}

fn id(text: Option<&str>) -> Result<Option<u32>, String> {
    text.map(|text| text.parse().map_err(|_| format!("`{text}` is no id"))).transpose()
}

/// adduser(8): `--system` users get the group nogroup, no home and no shell unless told otherwise.
fn adduser(command: &str, arguments: &[&str]) -> Result<Vec<Wish>, String> {
    let (options, rest) = options(
        arguments,
        &[
            "--home",
            "--shell",
            "--gecos",
            "--comment",
            "--uid",
            "--gid",
            "--ingroup",
            "--conf",
            "--firstuid",
            "--lastuid",
            "--firstgid",
            "--lastgid",
        ],
        &[
            "--system",
            "--group",
            "--quiet",
            "-q",
            "--no-create-home",
            "--disabled-password",
            "--disabled-login",
            "--force-badname",
            "--allow-bad-names",
            "--allow-badname",
            "--allow-all-names",
            "--debug",
            "--verbose",
        ],
    )?;
    let system = value(&options, &["--system"]).is_some();
    let with_group = value(&options, &["--group"]).is_some();
    match rest[..] {
        [user, group] if !system => Ok(vec![Wish::Member { user: user.into(), group: group.into() }]),
        [name] if system && (command == "addgroup") => {
            Ok(vec![Wish::Group { name: name.into(), gid: id(value(&options, &["--gid"]))? }])
        }
        [name] if system => {
            let primary = match (value(&options, &["--ingroup"]), id(value(&options, &["--gid"]))?) {
                (Some(group), _) => Primary::Name(group.to_owned()),
                (None, Some(gid)) => Primary::Number(gid),
                (None, None) if with_group => Primary::Own,
                _ => Primary::Name("nogroup".into()),
            };
            let home = value(&options, &["--home"]);
            Ok(vec![Wish::User {
                name: name.into(),
                uid: id(value(&options, &["--uid"]))?,
                primary,
                comment: value(&options, &["--gecos", "--comment"]).map(str::to_owned),
                home: home.map(str::to_owned),
                shell: value(&options, &["--shell"]).map(str::to_owned),
                make_home: home.is_some() && value(&options, &["--no-create-home"]).is_none(),
            }])
        }
        _ => Err("only system users and groups, and memberships, are made".into()),
    }
}

/// useradd(8) with Debian's defaults: a group of the user's name, a home that is not made, the shell sh.
fn useradd(_: &str, arguments: &[&str]) -> Result<Vec<Wish>, String> {
    let (options, rest) = options(
        arguments,
        &[
            "-u",
            "--uid",
            "-g",
            "--gid",
            "-d",
            "--home-dir",
            "--home",
            "-s",
            "--shell",
            "-c",
            "--comment",
            "-G",
            "--groups",
            "-K",
            "--key",
        ],
        &[
            "-r",
            "--system",
            "-M",
            "--no-create-home",
            "-N",
            "--no-user-group",
            "-U",
            "--user-group",
            "-m",
            "--create-home",
            "--badname",
            "-l",
            "--no-log-init",
        ],
    )?;
    let [name] = rest[..] else { return Err("it does not name one user".into()) };
    if value(&options, &["-r", "--system"]).is_none() {
        return Err("only system users are made".into());
    }
    let primary = match value(&options, &["-g", "--gid"]) {
        Some(group) => group.parse().map_or_else(|_| Primary::Name(group.to_owned()), Primary::Number),
        None if value(&options, &["-N", "--no-user-group"]).is_some() => Primary::Name("users".into()),
        None => Primary::Own,
    };
    let mut wishes = vec![Wish::User {
        name: name.into(),
        uid: id(value(&options, &["-u", "--uid"]))?,
        primary,
        comment: value(&options, &["-c", "--comment"]).map(str::to_owned),
        home: Some(
            value(&options, &["-d", "--home-dir", "--home"])
                .map_or_else(|| format!("/home/{name}"), str::to_owned),
        ),
        shell: Some(value(&options, &["-s", "--shell"]).unwrap_or("/bin/sh").into()),
        make_home: value(&options, &["-m", "--create-home"]).is_some(),
    }];
    for group in value(&options, &["-G", "--groups"]).unwrap_or_default().split(',').filter(|g| !g.is_empty())
    {
        wishes.push(Wish::Member { user: name.into(), group: group.into() });
    }
    Ok(wishes)
}

/// groupadd(8).
fn groupadd(_: &str, arguments: &[&str]) -> Result<Vec<Wish>, String> {
    let (options, rest) =
        options(arguments, &["-g", "--gid", "-K", "--key"], &["-r", "--system", "-f", "--force"])?;
    let [name] = rest[..] else { return Err("it does not name one group".into()) };
    let gid = id(value(&options, &["-g", "--gid"]))?;
    if gid.is_none() && value(&options, &["-r", "--system"]).is_none() {
        return Err("only system groups are made".into());
    }
    Ok(vec![Wish::Group { name: name.into(), gid }])
}

/// usermod(8) `-a -G`, gpasswd(1) `-a`.
fn membership(command: &str, arguments: &[&str]) -> Result<Vec<Wish>, String> {
    let only = "only memberships are added".to_owned();
    if command == "gpasswd" {
        let (options, rest) = options(arguments, &["-a", "--add"], &[])?;
        return match (value(&options, &["-a", "--add"]), &rest[..]) {
            (Some(user), [group]) => Ok(vec![Wish::Member { user: user.into(), group: (*group).into() }]),
            _ => Err(only),
        };
    }
    let (options, rest) = options(arguments, &["-G", "-aG", "--groups"], &["-a", "--append"])?;
    let appends = value(&options, &["-a", "--append", "-aG"]).is_some();
    match (value(&options, &["-G", "-aG", "--groups"]), &rest[..]) {
        (Some(groups), [user]) if appends => Ok(groups
            .split(',')
            .filter(|group| !group.is_empty())
            .map(|group| Wish::Member { user: (*user).into(), group: group.into() })
            .collect()),
        _ => Err(only),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adduser_and_its_like() {
        let wishes =
            adduser("adduser", &["--system", "--group", "--home", "/var/lib/x", "--no-create-home", "x"])
                .unwrap();
        let [Wish::User { name, primary: Primary::Own, home, shell, make_home: false, .. }] = &wishes[..]
        else {
            panic!("{wishes:?}");
        };
        assert_eq!((name.as_str(), home.as_deref(), shell), ("x", Some("/var/lib/x"), &None));
        assert_eq!(
            adduser("adduser", &["--quiet", "postgres", "ssl-cert"]).unwrap(),
            [Wish::Member { user: "postgres".into(), group: "ssl-cert".into() }]
        );
        assert_eq!(
            adduser("addgroup", &["--system", "--gid=42", "g"]).unwrap(),
            [Wish::Group { name: "g".into(), gid: Some(42) }]
        );
        assert!(adduser("adduser", &["tom"]).is_err());
        assert!(adduser("adduser", &["--system", "--encrypt", "x"]).unwrap_err().contains("--encrypt"));
        assert_eq!(
            membership("usermod", &["-a", "-G", "a,b", "x"]).unwrap().len()
                + useradd("", &["-r", "-G", "g", "x"]).unwrap().len(),
            4
        );
        assert!(membership("usermod", &["-G", "a", "x"]).is_err());
        assert!(groupadd("", &["-g", "x", "y"]).is_err());
    }
}
