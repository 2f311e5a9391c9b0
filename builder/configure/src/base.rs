//! Small files that base packages make in their scripts: base-files, debianutils, libc-bin, systemd, tzdata.

use crate::accounts::Ids;
use crate::report::{Log, State};
use crate::scripts::Found;
use crate::{ConfigureError, Step, view};
use ashlar_tree::{Kind, Metadata, Node, Tree};

/// Directories and links of base-files' script: path and mode.
const DIRECTORIES: [(&str, u32); 5] =
    [("/etc/opt", 0o755), ("/var/opt", 0o755), ("/mnt", 0o755), ("/srv", 0o755), ("/media", 0o755)];
/// What base-files copies where it is missing.
const COPIES: [(&str, &str); 6] = [
    ("/usr/share/base-files/dot.profile", "/root/.profile"),
    ("/usr/share/base-files/dot.bashrc", "/root/.bashrc"),
    ("/usr/share/base-files/profile", "/etc/profile"),
    ("/usr/share/base-files/motd", "/etc/motd"),
    ("/usr/share/libc-bin/nsswitch.conf", "/etc/nsswitch.conf"),
    ("/usr/share/base-files/info.dir", "/usr/share/info/dir"),
];

/// Makes them, those of them whose packages are in the tree.
pub(crate) fn configure(
    tree: &mut Tree,
    ids: &Ids,
    time_zone: Option<&str>,
    time: i64,
    log: &mut Log,
) -> Result<(), ConfigureError> {
    base_files(tree, ids, time, log)?;
    for (from, to) in COPIES {
        // The index of info documents is of use only where there are some.
        if view::exists(tree, to)
            || (to.starts_with("/usr/share/info") && !view::is_directory(tree, "/usr/share/info"))
        {
            continue;
        }
        if let Some(bytes) = view::read(tree, from, view::TEXT_MAX)? {
            view::write(tree, to, 0o644, time, bytes)?;
            log.done(Step::BaseFile, to, &[], format!("from {from}"));
        }
    }
    machine_id(tree, time, log)?;
    local_time(tree, time_zone, time, log)?;
    shells(tree, time, log)
}

fn base_files(tree: &mut Tree, ids: &Ids, time: i64, log: &mut Log) -> Result<(), ConfigureError> {
    if !view::is_directory(tree, "/usr/share/base-files") {
        return Ok(());
    }
    for (path, mode) in DIRECTORIES {
        if !view::exists(tree, path) {
            tree.insert(path.as_bytes(), Node::directory(Metadata::root(mode, time)))?;
            log.done(Step::BaseFile, path, &["base-files"], "directory");
        }
    }
    if let Some(&gid) = ids.groups.get("mail").filter(|_| !view::exists(tree, "/var/mail")) {
        let metadata = Metadata { gid, ..Metadata::root(0o2775, time) };
        tree.insert(b"/var/mail", Node::directory(metadata))?;
        log.done(Step::BaseFile, "/var/mail", &["base-files"], "directory");
    }
    for (path, target) in [("/var/run", "/run"), ("/var/lock", "/run/lock"), ("/var/spool/mail", "../mail")] {
        let replaceable = match tree.get(path.as_bytes()).map(|node| &node.kind) {
            None => true,
            Some(Kind::Directory(entries)) => entries.is_empty(),
            Some(_) => false,
        };
        if replaceable {
            tree.remove(path.as_bytes());
            view::link(tree, path, target, time)?;
            log.done(Step::BaseFile, path, &["base-files"], format!("link to {target}"));
        }
    }
    if view::exists(tree, "/etc/dpkg/origins/debian") && tree.get(b"/etc/dpkg/origins/default").is_none() {
        view::link(tree, "/etc/dpkg/origins/default", "debian", time)?;
        log.done(Step::BaseFile, "/etc/dpkg/origins/default", &["base-files"], "link to debian");
    }
    log.left_out("/var/log/wtmp, btmp, lastlog", "the record of logins begins on the machine");
    Ok(())
}

/// An empty file: the machine fills it in, or mounts over it (machine-id(5), "Initialization"). Only programs of
/// systemd and D-Bus read it.
fn machine_id(tree: &mut Tree, time: i64, log: &mut Log) -> Result<(), ConfigureError> {
    let reads = ["/usr/bin/systemd-machine-id-setup", "/usr/bin/dbus-daemon", "/usr/bin/dbus-broker"]
        .iter()
        .any(|path| view::exists(tree, path));
    if !reads {
        return Ok(());
    }
    let filled =
        view::read(tree, "/etc/machine-id", 4096).ok().flatten().is_some_and(|bytes| !bytes.is_empty());
    if filled || tree.get(b"/etc/machine-id").is_none() {
        let detail = if filled {
            "emptied: no two machines may share an id"
        } else {
            "empty: filled in on the machine"
        };
        tree.remove(b"/etc/machine-id");
        view::write(tree, "/etc/machine-id", 0o444, time, *b"")?;
        log.done(Step::BaseFile, "/etc/machine-id", &[], detail);
    }
    Ok(())
}

/// `/etc/localtime` and `/etc/timezone`, by default Etc/UTC as tzdata's script has it.
fn local_time(tree: &mut Tree, zone: Option<&str>, time: i64, log: &mut Log) -> Result<(), ConfigureError> {
    if zone.is_none()
        && (!view::is_directory(tree, "/usr/share/zoneinfo") || tree.get(b"/etc/localtime").is_some())
    {
        return Ok(());
    }
    let name = zone.unwrap_or("Etc/UTC");
    let path = format!("/usr/share/zoneinfo/{name}");
    let inside = !name.is_empty() && name.split('/').all(|part| !matches!(part, "" | "." | ".."));
    if !inside || !view::is_file(tree, &path) {
        return if zone.is_some() { Err(ConfigureError::NoSuchTimeZone(name.to_owned())) } else { Ok(()) };
    }
    view::link(tree, "/etc/localtime", &path, time)?;
    view::write(tree, "/etc/timezone", 0o644, time, format!("{name}\n").into_bytes())?;
    log.done(Step::BaseFile, "/etc/localtime", &["tzdata"], format!("time zone {name}"));
    Ok(())
}

/// `/etc/shells` from debianutils' list and `shells.d` of the packages, as update-shells(8) makes it: each shell
/// whose program is in the tree, under both of its names where `/usr` is merged.
fn shells(tree: &mut Tree, time: i64, log: &mut Log) -> Result<(), ConfigureError> {
    const FOLDER: &str = "/usr/share/debianutils/shells.d";
    let files = view::names(tree, FOLDER);
    let base = match view::text(tree, "/etc/shells")? {
        Some(text) => Some(text),
        None => view::text(tree, "/usr/share/debianutils/shells")?,
    };
    if files.is_empty() && base.is_none() {
        return Ok(());
    }
    let base = base.unwrap_or_default();
    let mut lines: Vec<String> = base.lines().map(str::to_owned).collect();
    let merged = view::target(tree, "/bin").is_some();
    for file in files {
        let text = view::text(tree, &format!("{FOLDER}/{file}"))?.unwrap_or_default();
        for shell in text.lines().map(str::trim).filter(|line| line.starts_with('/')) {
            let bare = shell.strip_prefix("/usr").unwrap_or(shell);
            let both = [bare.to_owned(), format!("/usr{bare}")];
            let names = if merged && bare.starts_with("/bin/") { &both[..] } else { &[shell.to_owned()][..] };
            for name in names {
                if view::exists(tree, name) && !lines.contains(name) {
                    lines.push(name.clone());
                }
            }
        }
    }
    let text = lines.join("\n") + "\n";
    if text.trim() != base.trim() || !view::exists(tree, "/etc/shells") {
        view::write(tree, "/etc/shells", 0o644, time, text.into_bytes())?;
        log.done(Step::BaseFile, "/etc/shells", &[], "shells that may be logged in with");
    }
    Ok(())
}

/// Configuration files that packages put in place with `ucf SOURCE DESTINATION` (ucf(1)): where the destination is
/// missing, it is a copy of the source.
pub(crate) fn configuration_files(
    tree: &mut Tree,
    found: &mut [Found<'_>],
    time: i64,
    log: &mut Log,
) -> Result<(), ConfigureError> {
    for found in found.iter_mut().filter(|found| found.at_installation() && found.command.name() == "ucf") {
        const VALUED: [&str; 3] = ["--sum-file", "--state-dir", "--src-dir"];
        let Some(arguments) = found.command.arguments() else {
            found.settle(
                State::LeftOut,
                "its arguments are not literal; add the file with the recipe's files",
            );
            continue;
        };
        let mut before = "";
        let mut paths = Vec::new();
        for argument in arguments {
            if !argument.starts_with('-') && !argument.is_empty() && !VALUED.contains(&before) {
                paths.push(argument.to_owned());
            }
            before = argument;
        }
        let [from, to] = &paths[..] else {
            found.settle(State::LeftOut, "it does not name two files");
            continue;
        };
        if !to.starts_with('/') || view::exists(tree, to) {
            found.settle(State::NotNeeded, "the file is there");
            continue;
        }
        let Some(bytes) = view::read(tree, from, view::TEXT_MAX)? else {
            found.settle(State::LeftOut, format!("`{from}` is not in the tree"));
            continue;
        };
        view::write(tree, to, 0o644, time, bytes)?;
        log.done(Step::ConfigurationFile, to, &[found.package], format!("from {from}"));
        found.settle(State::Done, "");
    }
    Ok(())
}

/// dpkg's list of installed packages, which scanners read, from the packages' control stanzas.
pub(crate) fn package_database(
    tree: &mut Tree,
    stanzas: &[&str],
    time: i64,
    log: &mut Log,
) -> Result<(), ConfigureError> {
    const PATH: &str = "/var/lib/dpkg/status";
    let mut sorted: Vec<(&str, &str)> =
        stanzas.iter().map(|stanza| (field(stanza, "Package"), stanza.trim())).collect();
    sorted.sort_unstable();
    sorted.dedup();
    let mut text = String::new();
    for (package, stanza) in sorted {
        if package.is_empty() || stanza.contains("\n\n") {
            let why = "a stanza names no package, or is more than one".to_owned();
            return Err(ConfigureError::Format { path: PATH.into(), line: None, why });
        }
        let mut lines = stanza.lines();
        // dpkg writes the status right after the name.
        text.push_str(lines.next().unwrap_or_default());
        text.push_str("\nStatus: install ok installed\n");
        for line in lines.filter(|line| !line.to_ascii_lowercase().starts_with("status:")) {
            text.push_str(line);
            text.push('\n');
        }
        text.push('\n');
    }
    let count = stanzas.len();
    view::write(tree, PATH, 0o644, time, text.into_bytes())?;
    log.done(Step::PackageDatabase, PATH, &[], format!("{count} packages"));
    Ok(())
}

fn field<'a>(stanza: &'a str, name: &str) -> &'a str {
    stanza
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(key, _)| key.eq_ignore_ascii_case(name))
        .map_or("", |(_, value)| value.trim())
}

/// What no step makes, said where its input is in the tree.
pub(crate) fn notes(tree: &Tree, log: &mut Log) -> Result<(), ConfigureError> {
    let gconv = ["x86_64-linux-gnu", "aarch64-linux-gnu"]
        .iter()
        .any(|t| view::exists(tree, &format!("/usr/lib/{t}/gconv/gconv-modules")));
    if gconv {
        log.left_out("gconv-modules.cache", "the C library reads gconv-modules itself, a little more slowly");
    }
    if view::exists(tree, "/usr/share/i18n/locales") {
        log.left_out("/usr/lib/locale/locale-archive", "no locales are compiled; C.UTF-8 is built in");
    }
    if view::exists(tree, "/usr/lib/udev/hwdb.d") {
        log.left_out("udev's hwdb.bin", "no udev runs in the image");
    }
    for folder in ["/usr/lib/tmpfiles.d", "/etc/tmpfiles.d"] {
        for name in view::names(tree, folder).into_iter().filter(|name| name.ends_with(".conf")) {
            let path = format!("{folder}/{name}");
            let text = view::text(tree, &path)?.unwrap_or_default();
            let wanted: Vec<&str> = text
                .lines()
                .filter_map(tmpfiles_directory)
                .filter(|directory| !view::is_directory(tree, directory))
                .collect();
            if !wanted.is_empty() {
                log.left_out(
                    format!("{path}: {}", wanted.join(", ")),
                    "no systemd-tmpfiles runs; add the directories that are needed to the recipe",
                );
            }
        }
    }
    Ok(())
}

/// The path of a line of tmpfiles.d(5) that makes a directory in `/var` or `/etc`.
fn tmpfiles_directory(line: &str) -> Option<&str> {
    let mut fields = line.split_ascii_whitespace();
    let kind = fields.next()?;
    let path = fields.next()?;
    let makes = kind.starts_with(['d', 'D', 'v', 'q', 'Q']);
    (makes && (path.starts_with("/var/") || path.starts_with("/etc/"))).then_some(path)
}
