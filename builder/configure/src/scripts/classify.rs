//! What the commands that no step took care of are about, and whether the image misses them.

use super::{Found, When};
use crate::Scripts;
use crate::report::{Action, Kind, Log, PackageReport, State};

/// Packages whose scripts, apart from what is listed by kind, do nothing at installation that a step here does not.
const REPLACED: [&str; 7] =
    ["base-files", "base-passwd", "ca-certificates", "debianutils", "libc-bin", "passwd", "tzdata"];

/// What stands behind a kind that is left out.
fn reason(kind: Kind) -> &'static str {
    match kind {
        Kind::Accounts | Kind::Alternatives | Kind::StatOverride => "no step here does that",
        Kind::ConfigurationFiles => {
            "the configuration file is not put in place; add it with the recipe's files"
        }
        Kind::Pam => "no PAM profiles are combined; add /etc/pam.d/common-* with the recipe's files",
        Kind::Debconf => "no questions are asked; the defaults of the package's files hold",
        Kind::SystemdUnits => "no systemd runs in the image; start it as a service of the recipe",
        Kind::InitScripts => "no init scripts run in the image; start it as a service of the recipe",
        Kind::Tmpfiles => "no systemd-tmpfiles runs; add needed directories in the recipe",
        Kind::PythonByteCode => "Python compiles its modules in memory",
        Kind::Cache => "programs do without it",
        Kind::Boot => "Ashlar makes initramfs and boot entry itself",
        Kind::Locale => "only C.UTF-8 is there",
        Kind::Running => "there is no running system at build time",
        Kind::Capabilities => "set the file's capabilities in the recipe",
        Kind::Files => "do it with the recipe's files where it matters",
        Kind::Trigger => "no step here makes what it asks for",
        _ => "not recognised",
    }
}

/// The kind of a command and whether an image needs it; none for what has no effect by itself.
fn kind(found: &Found<'_>) -> Option<(Kind, State)> {
    use Kind::{
        Accounts, Alternatives, Boot, Cache, Capabilities, Certificates, ConfigurationFiles, Debconf, Depmod,
        Files, InitScripts, Ldconfig, Locale, Pam, PythonByteCode, Running, Shells, StatOverride,
        SystemdUnits, Tmpfiles, Trigger, Unknown,
    };
    use State::{Done, LeftOut, NotNeeded};
    if found.command.calls_function {
        return None;
    }
    let words = &found.command.words;
    let second = words.get(1).map_or("", |word| word.text.as_str());
    Some(match found.command.name() {
        "[" | "test" | ":" | "true" | "false" | "echo" | "printf" | "exit" | "return" | "set" | "local"
        | "shift" | "export" | "unset" | "cd" | "umask" | "command" | "which" | "getent" | "grep"
        | "egrep" | "fgrep" | "cat" | "id" | "dpkg" | "dpkg-query" | "sed" | "awk" | "cut" | "sort"
        | "uniq" | "head" | "tail" | "tr" | "wc" | "read" | "for" | "break" | "continue" | "trap"
        | "type" | "dirname" | "basename" | "readlink" | "find" | "xargs" | "ls" | "stat" | "cmp"
        | "diff" | "md5sum" | "sha256sum" | "mktemp" | "sleep" | "eval" | "exec" | "function"
        | "readonly" | "unalias" | "hash" | "wait" | "print" | "getcap" | "file" | "realpath" | "date"
        | "uname" | "mountpoint" | "expr" => return None,
        "." | "source" if !second.contains("debconf") => return None,
        "." | "source" => (Debconf, LeftOut),
        name if name.starts_with("db_") => (Debconf, LeftOut),
        "adduser" | "addgroup" | "useradd" | "groupadd" | "usermod" | "gpasswd" | "chfn" | "chsh"
        | "groupmod" => (Accounts, LeftOut),
        "systemd-sysusers" | "update-passwd" | "pwconv" | "grpconv" | "shadowconfig" => (Accounts, Done),
        "deluser" | "delgroup" | "userdel" | "groupdel" => (Accounts, NotNeeded),
        "update-alternatives" if words.iter().any(|word| word.text == "--install") => (Alternatives, LeftOut),
        "update-alternatives" => (Alternatives, NotNeeded),
        "dpkg-statoverride" if words.iter().any(|word| word.text == "--add") => (StatOverride, LeftOut),
        "dpkg-statoverride" => (StatOverride, NotNeeded),
        "ldconfig" => (Ldconfig, Done),
        "update-ca-certificates" => (Certificates, Done),
        "depmod" => (Depmod, Done),
        "add-shell" | "update-shells" | "remove-shell" => (Shells, Done),
        "deb-systemd-helper" | "deb-systemd-invoke" | "systemctl" => (SystemdUnits, LeftOut),
        "systemd-tmpfiles" => (Tmpfiles, LeftOut),
        "update-rc.d" | "invoke-rc.d" | "service" => (InitScripts, LeftOut),
        "dpkg-maintscript-helper" | "dpkg-divert" => (ConfigurationFiles, NotNeeded),
        "ucf" | "ucfr" => (ConfigurationFiles, LeftOut),
        "py3compile" | "pycompile" | "py3clean" | "pyclean" | "pypy3compile" => (PythonByteCode, LeftOut),
        "update-mime-database"
        | "update-desktop-database"
        | "gtk-update-icon-cache"
        | "update-icon-caches"
        | "glib-compile-schemas"
        | "fc-cache"
        | "install-info"
        | "mandb"
        | "update-menus"
        | "update-mime"
        | "gdk-pixbuf-query-loaders"
        | "update-catalog"
        | "install-sgmlcatalog"
        | "update-xmlcatalog"
        | "update-sgmlcatalog"
        | "appstreamcli"
        | "journalctl"
        | "systemd-hwdb"
        | "update-fonts-dir"
        | "update-fonts-scale"
        | "update-fonts-alias"
        | "iconvconfig"
        | "update-pciids"
        | "gio-querymodules"
        | "gtk-query-immodules-2.0"
        | "gtk-query-immodules-3.0" => (Cache, LeftOut),
        "pam-auth-update" => (Pam, LeftOut),
        "update-initramfs" | "update-grub" | "grub-install" | "linux-update-symlinks" | "run-parts" => {
            (Boot, LeftOut)
        }
        "locale-gen" | "update-locale" | "validlocale" | "localedef" => (Locale, LeftOut),
        "apparmor_parser" | "udevadm" | "modprobe" | "sysctl" | "kill" | "killall" | "start-stop-daemon"
        | "pidof" | "dbus-send" | "aa-enabled" | "restorecon" | "selinuxenabled" | "mount" | "umount"
        | "ischroot" | "nscd" | "aa-status" | "update-binfmts" => (Running, NotNeeded),
        "systemd-machine-id-setup" | "dbus-uuidgen" => (Files, Done),
        "setcap" => (Capabilities, LeftOut),
        "dpkg-trigger" if words.iter().any(|word| word.text.starts_with("update-ca-certificates")) => {
            (Certificates, Done)
        }
        "dpkg-trigger" if words.iter().any(|word| word.text == "ldconfig") => (Ldconfig, Done),
        "dpkg-trigger" => (Trigger, LeftOut),
        "chown" | "chmod" | "chgrp" | "mkdir" | "install" | "ln" | "touch" | "cp" | "mv" | "tee" => {
            (Files, LeftOut)
        }
        "rm" | "rmdir" | "unlink" => (Files, NotNeeded),
        _ => (Unknown, LeftOut),
    })
}

/// The report by package, and notes on what is missing from the tree as a whole.
pub(crate) fn classify(packages: &[Scripts<'_>], found: &[Found<'_>], log: &mut Log) -> Vec<PackageReport> {
    let mut sorted: Vec<&Scripts<'_>> = packages.iter().collect();
    sorted.sort_by_key(|scripts| (scripts.package, scripts.version));
    let mut reports = Vec::new();
    for scripts in sorted {
        let mut actions: Vec<Action> = Vec::new();
        for found in found.iter().filter(|found| found.package == scripts.package) {
            let Some((kind, mut state)) = kind(found) else { continue };
            let mut why = if state == State::LeftOut { reason(kind).to_owned() } else { String::new() };
            if let Some((settled, reason)) = &found.outcome {
                (state, why) = (*settled, reason.clone());
            } else if found.command.when != When::Installation {
                state = State::NotNeeded;
                why = match found.command.when {
                    When::Upgrade => "on upgrades only".into(),
                    _ => "not at installation".into(),
                };
            }
            if state == State::LeftOut
                && matches!(kind, Kind::Unknown | Kind::Files)
                && REPLACED.contains(&scripts.package)
            {
                (state, why) = (State::Done, "a step here does what this script is for".into());
            }
            push(&mut actions, found, kind, state, &why);
        }
        for script in ["config", "preinst", "postinst"] {
            let Some(text) = scripts.files.get(script) else { continue };
            let interpreter = text.lines().next().unwrap_or_default();
            let is_shell = ["/sh", "/bash", "/dash"].iter().any(|shell| interpreter.contains(shell));
            if (interpreter.starts_with("#!") && !is_shell) || text.len() > 1 << 20 {
                actions.retain(|action| action.script != script);
                actions.push(Action {
                    script: script.to_owned(),
                    line: 1,
                    kind: Kind::Unknown,
                    state: State::LeftOut,
                    detail: format!("{} lines for `{interpreter}`, which is no shell", text.lines().count()),
                    commands: 1,
                });
            }
        }
        actions.extend(scripts.files.get("triggers").into_iter().flat_map(|text| triggers(text)));
        actions.sort();
        if !actions.is_empty() {
            reports.push(PackageReport {
                package: scripts.package.to_owned(),
                version: scripts.version.to_owned(),
                actions,
            });
        }
    }
    if reports.iter().flat_map(|report| &report.actions).any(|action| action.kind == Kind::SystemdUnits) {
        log.left_out(
            "systemd units: enabling and presets",
            "no systemd runs in the image; services are started by the recipe",
        );
    }
    reports
}

/// Adds a command, to the entry of the same kind and reason if there is one. Commands that a step settled stand
/// for themselves.
fn push(actions: &mut Vec<Action>, found: &Found<'_>, kind: Kind, state: State, why: &str) {
    let shown = found.command.shown();
    let tail = if why.is_empty() { String::new() } else { format!(": {why}") };
    let same = |action: &Action| {
        action.script == found.script
            && action.kind == kind
            && action.state == state
            && action.detail.ends_with(&tail)
            && found.outcome.is_none()
    };
    if let Some(action) = actions.iter_mut().find(|action| same(action)) {
        action.commands += 1;
        return;
    }
    let by = found.command.generated_by.as_ref().map_or(String::new(), |tool| format!(" (by {tool})"));
    actions.push(Action {
        script: found.script.to_owned(),
        line: found.command.line,
        kind,
        state,
        detail: format!("`{shown}`{by}{tail}"),
        commands: 1,
    });
}

/// The triggers that a package activates (deb-triggers(5)).
fn triggers(text: &str) -> impl Iterator<Item = Action> + '_ {
    text.lines().take(10_000).enumerate().filter_map(|(index, line)| {
        let line = line.split('#').next().unwrap_or_default();
        let mut words = line.split_ascii_whitespace();
        let directive = words.next()?;
        let name = words.next()?;
        let (kind, state, why) = match (directive.split('-').next()?, name) {
            ("activate", "ldconfig") => (Kind::Ldconfig, State::Done, ""),
            ("activate", "update-ca-certificates" | "update-ca-certificates-fresh") => {
                (Kind::Certificates, State::Done, "")
            }
            ("activate", "update-initramfs") => (Kind::Boot, State::LeftOut, reason(Kind::Boot)),
            ("activate", _) => (Kind::Trigger, State::LeftOut, reason(Kind::Trigger)),
            // Interest alone does nothing: the package's own script does, which is reported by itself.
            _ => return None,
        };
        let tail = if why.is_empty() { String::new() } else { format!(": {why}") };
        let detail = format!("`{directive} {name}`{tail}");
        Some(Action { script: "triggers".into(), line: index + 1, kind, state, detail, commands: 1 })
    })
}
