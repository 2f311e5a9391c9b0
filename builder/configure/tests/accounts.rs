//! `pwck`, `grpck` and `systemd-sysusers` judge the account files.

#![allow(clippy::unwrap_used)] // a test fails by it

mod common;

use ashlar_configure::{ConfigureError, Group, Options, Scripts, State, User, configure};
use ashlar_tree::Tree;
use common::{bytes, merged, put, run, succeed, text, tool, write_out};
use std::collections::BTreeMap;
use std::process::Command;

const PASSWD: &str = "root:*:0:0:root:/root:/bin/bash\ndaemon:*:1:1:daemon:/usr/sbin:/usr/sbin/nologin\n\
    www-data:*:33:33:www-data:/var/www:/usr/sbin/nologin\nnobody:*:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n";
const GROUP: &str =
    "root:*:0:\ndaemon:*:1:\nmail:*:8:\nwww-data:*:33:\nshadow:*:42:\nusers:*:100:\nnogroup:*:65534:\n";

fn base() -> Tree {
    let mut tree = merged();
    put(&mut tree, "/usr/share/base-passwd/passwd.master", PASSWD);
    put(&mut tree, "/usr/share/base-passwd/group.master", GROUP);
    tree
}

fn postinst<'a>(package: &'a str, script: &'a str) -> Scripts<'a> {
    Scripts { package, version: "1", files: BTreeMap::from([("postinst", script)]) }
}

/// Name to the line's fields.
fn table(tree: &Tree, path: &str) -> BTreeMap<String, Vec<String>> {
    text(tree, path)
        .lines()
        .map(|line| line.split(':').map(str::to_owned).collect::<Vec<_>>())
        .map(|fields| (fields[0].clone(), fields))
        .collect()
}

fn options() -> Options<'static> {
    Options { time: 20_000 * 86_400, ..Options::default() }
}

#[test]
fn all_sources_together_satisfy_pwck_and_grpck() {
    let mut tree = base();
    put(&mut tree, "/usr/lib/sysusers.d/dbus.conf", "u messagebus - \"System Message Bus\"\n");
    put(
        &mut tree,
        "/usr/lib/sysusers.d/web.conf",
        "u www-data 33 - /var/www\ng input - -\nu web 404 \"Web: no\"\n".replace(": no", "").as_str(),
    );
    put(&mut tree, "/usr/lib/sysusers.d/hidden.conf", "u hidden -\n");
    put(&mut tree, "/etc/sysusers.d/hidden.conf", "m messagebus input\n");
    let packages = [
        postinst(
            "tss",
            "#!/bin/sh\naddgroup --system tss\nadduser --system --ingroup tss --shell /bin/false \\\n --home /var/lib/tpm --gecos 'TPM' tss >/dev/null\nadduser --quiet tss mail\n",
        ),
        postinst("odd", "#!/bin/sh\nadduser --system $QUIET odd\nuseradd -r -g users -s /bin/false plain\n"),
    ];
    let mut options = options();
    options.users.push(User {
        name: "operator".into(),
        uid: Some(1000),
        home: Some("/home/operator".into()),
        shell: Some("/bin/sh".into()),
        groups: vec!["mail".into(), "keepers".into()],
        password_hash: Some("$y$j9T$abc$def".into()),
        ..User::default()
    });
    options.groups.push(Group { name: "keepers".into(), gid: Some(2000), members: vec!["web".into()] });
    let report = configure(&mut tree, &packages, &options).unwrap();

    let (users, groups) = (table(&tree, "/etc/passwd"), table(&tree, "/etc/group"));
    assert_eq!(users["operator"][2..4], ["1000", "1000"]);
    assert_eq!(users["web"][2..], ["404", "404", "Web", "/", "/usr/sbin/nologin"]);
    assert_eq!(users["plain"][3], "100");
    assert_eq!(users["tss"][4..], ["TPM", "/var/lib/tpm", "/bin/false"]);
    assert_eq!(users["tss"][3], groups["tss"][2]);
    assert_eq!(groups["mail"][3], "operator,tss");
    assert_eq!(groups["keepers"][2..], ["2000", "operator,web"]);
    assert_eq!(groups["input"][3], "messagebus");
    assert!(!users.contains_key("hidden") && !users.contains_key("odd"));
    let shadow = table(&tree, "/etc/shadow");
    assert_eq!(shadow["operator"][1..3], ["$y$j9T$abc$def", "20000"]);
    assert_eq!((shadow["root"][1].as_str(), shadow["tss"][1].as_str()), ("*", "!*"));
    let node = tree.get(b"/etc/shadow").unwrap();
    assert_eq!((node.metadata.mode, node.metadata.gid), (0o640, 42));
    let home = &tree.get(b"/home/operator").unwrap().metadata;
    assert_eq!((home.uid, home.gid), (1000, 1000));
    let missing: Vec<_> =
        report.missing().map(|(package, action)| (package, action.detail.as_str())).collect();
    assert_eq!(missing.len(), 1);
    assert!(missing[0].0 == "odd" && missing[0].1.contains("not literal"), "{missing:?}");

    let folder = tempfile::tempdir().unwrap();
    write_out(&tree, folder.path());
    let file = |name: &str| folder.path().join("etc").join(name);
    for (judge, first, second) in [("pwck", "passwd", "shadow"), ("grpck", "group", "gshadow")] {
        let Some(judge) = tool(judge) else { continue };
        let mut command = Command::new(judge);
        if first == "passwd" {
            command.arg("-q");
        }
        let output = run(command.arg("-r").arg(file(first)).arg(file(second)));
        let said =
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        // `pwck` looks for homes and shells on this machine, and `grpck` for members: that says nothing of the files.
        let member = |line: &str| {
            line.split("no user ").nth(1).is_some_and(|name| users.contains_key(name))
                || line
                    .split('\'')
                    .nth(1)
                    .is_some_and(|name| line.starts_with("delete member") && users.contains_key(name))
        };
        let known = ["does not exist", "no changes", "no matching group file entry"];
        let bad: Vec<&str> = said
            .lines()
            .filter(|line| {
                !line.is_empty() && !member(line) && known.iter().all(|known| !line.contains(known))
            })
            .collect();
        assert!(bad.is_empty(), "the judge of {first} says {bad:?}");
    }
}

/// `systemd-sysusers` finds nothing to add to our files, and makes the same users from the same declarations.
#[test]
fn systemd_sysusers_agrees() {
    let Some(judge) = tool("systemd-sysusers") else { return };
    let declarations = "g adm 4 -\ng tape -\nu web 404 \"HTTP User\" /srv /bin/sh\nu daemon 1 - /usr/sbin\nu in 7:adm\n\
        u pair 8:4 \"A B\"\nm web adm\nm new tape\nu any -\n";
    let mut tree = merged();
    put(&mut tree, "/usr/lib/sysusers.d/a.conf", declarations);
    let folder = tempfile::tempdir().unwrap();
    write_out(&tree, folder.path());
    let output = run(Command::new(&judge).arg("--root").arg(folder.path()));
    if !output.status.success() {
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        eprintln!("skipped: systemd-sysusers cannot run here: {error}");
        return;
    }
    configure(&mut tree, &[], &options()).unwrap();
    let theirs = |name: &str| std::fs::read_to_string(folder.path().join("etc").join(name)).unwrap();
    let parse = |text: &str, skip: &[&str]| -> BTreeMap<String, Vec<String>> {
        text.lines()
            .map(|line| line.split(':').map(str::to_owned).collect::<Vec<_>>())
            .filter(|fields| !skip.contains(&fields[0].as_str()))
            .map(|fields| (fields[0].clone(), fields))
            .collect()
    };
    // Numbers that nobody gives are found in another way; all else must be alike.
    let base = ["root", "nobody", "nogroup"];
    let mut skip = base.to_vec();
    skip.extend(["any", "new", "tape"]);
    for name in ["passwd", "group"] {
        let ours = parse(&text(&tree, &format!("/etc/{name}")), &skip);
        assert_eq!(ours, parse(&theirs(name), &skip), "{name}");
        let names = |text: &str| parse(text, &base).into_keys().collect::<Vec<_>>();
        assert_eq!(names(&text(&tree, &format!("/etc/{name}"))), names(&theirs(name)));
    }
    // Nothing is left to do.
    let folder = tempfile::tempdir().unwrap();
    write_out(&tree, folder.path());
    succeed(Command::new(&judge).arg("--root").arg(folder.path()));
    for name in ["passwd", "group", "shadow", "gshadow"] {
        let after = std::fs::read(folder.path().join("etc").join(name)).unwrap();
        assert!(after == bytes(&tree, &format!("/etc/{name}")), "systemd-sysusers changed {name}");
    }
}

#[test]
fn ids_do_not_depend_on_what_else_is_there() {
    let ids = |scripts: &[&str]| {
        let mut tree = base();
        let names: Vec<String> = (0..scripts.len()).map(|index| format!("p{index}")).collect();
        let packages: Vec<_> =
            scripts.iter().zip(&names).map(|(script, name)| postinst(name, script)).collect();
        configure(&mut tree, &packages, &options()).unwrap();
        table(&tree, "/etc/passwd")
            .into_iter()
            .map(|(name, fields)| (name, fields[2].clone()))
            .collect::<BTreeMap<_, _>>()
    };
    let (a, b, c) = (
        "#!/bin/sh\nadduser --system --group alpha",
        "#!/bin/sh\nadduser --system beta",
        "#!/bin/sh\nuseradd -r gamma",
    );
    let all = ids(&[a, b, c]);
    assert_eq!(all, ids(&[c, b, a]));
    assert_eq!(all["beta"], ids(&[b])["beta"]);
    assert_eq!(all["gamma"], ids(&[a, c])["gamma"]);
    assert!(all["beta"].parse::<u32>().is_ok_and(|id| (101..=999).contains(&id)));
}

#[test]
fn contradictions_are_named() {
    let error = |prepare: &dyn Fn(&mut Tree, &mut Options<'_>)| {
        let (mut tree, mut options) = (base(), options());
        prepare(&mut tree, &mut options);
        configure(&mut tree, &[], &options).unwrap_err()
    };
    let taken = error(&|_, options| {
        options.users.push(User { name: "mine".into(), uid: Some(33), gid: Some(100), ..User::default() });
    });
    assert!(matches!(taken, ConfigureError::IdTaken { kind: "user", id: 33, .. }), "{taken}");
    let differ = error(&|tree, _| {
        put(tree, "/usr/lib/sysusers.d/a.conf", "u x 300\n");
        put(tree, "/usr/lib/sysusers.d/b.conf", "u x 301:nogroup\n");
    });
    let said = differ.to_string();
    assert!(
        said.contains("a.conf, line 1") && said.contains("b.conf, line 1") && said.contains("[[user]]"),
        "{said}"
    );
    let nobody = error(&|_, options| {
        options.groups.push(Group { name: "g".into(), gid: None, members: vec!["ghost".into()] });
    });
    assert!(matches!(nobody, ConfigureError::NoSuchAccount { kind: "user", .. }), "{nobody}");
    let name = error(&|_, options| options.users.push(User { name: "a:b".into(), ..User::default() }));
    assert!(matches!(name, ConfigureError::BadAccountField { .. }), "{name}");
    let line = error(&|tree, _| put(tree, "/etc/passwd", "root:x:0:0\n"));
    assert_eq!(line.to_string(), "`/etc/passwd`, line 1: a line has seven fields, separated by `:`");
}

#[test]
fn the_recipe_changes_only_what_it_gives() {
    let mut tree = base();
    let mut options = options();
    options.users.push(User { name: "root".into(), password_hash: Some("$6$a$b".into()), ..User::default() });
    options.users.push(User { name: "www-data".into(), shell: Some("/bin/sh".into()), ..User::default() });
    configure(&mut tree, &[], &options).unwrap();
    let (users, shadow) = (table(&tree, "/etc/passwd"), table(&tree, "/etc/shadow"));
    assert_eq!(users["root"][2..], ["0", "0", "root", "/root", "/bin/bash"]);
    assert_eq!(users["www-data"][2..], ["33", "33", "www-data", "/var/www", "/bin/sh"]);
    assert_eq!((shadow["root"][1].as_str(), shadow["www-data"][1].as_str()), ("$6$a$b", "*"));

    // A second run finds all as it wants it.
    let before = tree.clone();
    configure(&mut tree, &[], &options).unwrap();
    assert_eq!(tree, before);
}

#[test]
fn overrides_of_owner_and_mode_know_the_new_users() {
    let mut tree = base();
    put(&mut tree, "/usr/lib/helper", "x");
    let script = "#!/bin/sh\naddgroup --system help\nif ! dpkg-statoverride --list /usr/lib/helper; then\n dpkg-statoverride --update --add root help 4754 /lib/helper\n dpkg-statoverride --add root none 755 /lib/helper\nfi";
    let report = configure(&mut tree, &[postinst("helper", script)], &options()).unwrap();
    let metadata = &tree.get(b"/usr/lib/helper").unwrap().metadata;
    let gid: u32 = table(&tree, "/etc/group")["help"][2].parse().unwrap();
    assert_eq!((metadata.uid, metadata.gid, metadata.mode), (0, gid, 0o4754));
    let states: Vec<State> = report.packages[0].actions.iter().map(|action| action.state).collect();
    assert!(states.contains(&State::LeftOut) && states.contains(&State::Done), "{report:?}");
}

#[test]
fn mutated_files_are_refused_or_read() {
    use ashlar_configure::parsers::{parse_group, parse_passwd, parse_sysusers_line};
    let line = "u web 404:405 \"HTTP \\\" User %%\" /srv /bin/sh";
    for text in [PASSWD, GROUP, line] {
        for at in 0..text.len() {
            for byte in [b':', b'\n', b'"', b'%', b'\\', b'9', b'-', 0] {
                let mut bad = text.as_bytes().to_vec();
                bad[at] = byte;
                let bad = String::from_utf8(bad).unwrap();
                let _ = parse_passwd(&bad, "p");
                let _ = parse_group(&bad, "g");
                let _ = parse_sysusers_line(bad.lines().next().unwrap_or_default());
            }
            let _ = parse_sysusers_line(&line[..at.min(line.len())]);
        }
    }
}
