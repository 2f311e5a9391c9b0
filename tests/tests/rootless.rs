//! The demo is built by an ordinary user without any capability, in a network namespace without a route. `strace` sees
//! each system call that could ask for more: none is made, no other program is started, and the release is the same.
#![allow(clippy::unwrap_used)] // a test fails by it

use ashlar_tests::folders::{self, NOBODY, assert_same};
use ashlar_tests::tools::judge;
use ashlar_tests::{Built, Run, built, is_root, programs, skip};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use tempfile::TempDir;

/// System calls that an ordinary user's build never needs: mounts, namespaces, other identities, owners, devices, modules
/// of the kernel, servers on a network.
const FORBIDDEN: &[&str] = &[
    "mount",
    "umount2",
    "pivot_root",
    "chroot",
    "fsopen",
    "fsmount",
    "fsconfig",
    "fspick",
    "move_mount",
    "open_tree",
    "mount_setattr",
    "unshare",
    "setns",
    "setuid",
    "setgid",
    "setreuid",
    "setregid",
    "setresuid",
    "setresgid",
    "setgroups",
    "setfsuid",
    "setfsgid",
    "capset",
    "chown",
    "fchown",
    "lchown",
    "fchownat",
    "mknod",
    "mknodat",
    "init_module",
    "finit_module",
    "delete_module",
    "bpf",
    "ptrace",
    "swapon",
    "connect",
    "bind",
    "listen",
    "sendto",
    "sendmsg",
];
/// System calls that are looked at by their arguments.
const JUDGED: &[&str] =
    &["openat", "open", "execve", "execveat", "clone", "clone3", "fork", "vfork", "ioctl", "socket"];
/// The only devices that are opened.
const DEVICES: &[&str] = &["/dev/null", "/dev/urandom", "/dev/random", "/dev/tty"];
/// The only requests of ioctl(2): is this a terminal, how wide is it, share blocks of a file.
const REQUESTS: &[&str] = &["TCGETS", "TIOCGWINSZ", "FICLONE", "BTRFS_IOC_CLONE", "FIONREAD"];

/// An ordinary user's folder with all that the demo needs.
struct Workplace {
    folder: TempDir,
}

impl Workplace {
    fn new(built: &Built) -> Self {
        // Not below the target folder, which the other user may not be allowed to enter.
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let home = folder.path().join("home");
        folders::copy(&built.keys, &home.join("keys"));
        for room in ["debs", "unpacked"] {
            folders::copy(&built.cache.join(room), &home.join("cache").join(room));
        }
        folders::copy(&programs::folder(), &folder.path().join("programs"));
        std::fs::copy(&built.recipe, home.join("container-host.toml")).unwrap();
        std::fs::copy(&built.lock, home.join("container-host.lock")).unwrap();
        folders::give_to(&home, NOBODY);
        Self { folder }
    }

    fn home(&self) -> std::path::PathBuf {
        self.folder.path().join("home")
    }

    /// A command as an ordinary user without capabilities, who can get none, and without a network.
    fn confined(&self) -> Command {
        let mut command = Command::new("unshare");
        if is_root() {
            let user = NOBODY.to_string();
            command.args(["--net", "--", "setpriv", "--reuid", &user, "--regid", &user, "--clear-groups"]);
            command.args(["--bounding-set=-all"]);
        } else {
            command.args(["--user", "--map-current-user", "--net", "--", "setpriv"]);
        }
        command.args(["--inh-caps=-all", "--ambient-caps=-all", "--no-new-privs"]);
        command.current_dir(self.home()).env("HOME", self.home()).env("NO_COLOR", "1");
        command
    }

    /// The same with `strace`, which writes what is made of the calls that matter into the file `log`.
    fn traced(&self, log: &str) -> Option<Command> {
        let strace = judge("strace", "strace")?;
        let mut command = self.confined();
        // `?`: not every machine has each of them.
        let calls: Vec<String> = FORBIDDEN.iter().chain(JUDGED).map(|name| format!("?{name}")).collect();
        command.arg(strace.get_program()).args(["-f", "-qq", "--seccomp-bpf", "-s", "4096", "-o", log, "-e"]);
        command.arg(format!("trace={}", calls.join(",")));
        Some(command)
    }

    fn log(&self, name: &str) -> String {
        String::from_utf8_lossy(&std::fs::read(self.home().join(name)).unwrap()).into_owned()
    }
}

/// The calls of a log: name and arguments. A call that another thread interrupts has two lines, of which the first has the
/// arguments.
fn calls(log: &str) -> impl Iterator<Item = (&str, &str)> {
    log.lines().filter_map(|line| {
        let call = line.trim_start_matches(|c: char| c.is_ascii_digit()).trim_start();
        let (name, arguments) = call.split_once('(')?;
        name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_').then_some((name, arguments))
    })
}

/// The texts in quotes of a call's arguments.
fn quoted(arguments: &str) -> Option<&str> {
    arguments.split('"').nth(1)
}

/// What in a log an ordinary build does not do.
fn offences(log: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut programs = 0;
    for (name, arguments) in calls(log) {
        let path = quoted(arguments).unwrap_or("");
        let bad = match name {
            "openat" | "open" => {
                (path.starts_with("/dev/") && !DEVICES.contains(&path)) || path.starts_with("/sys/block")
            }
            "execve" | "execveat" => {
                programs += 1;
                programs > 1
            }
            "fork" | "vfork" => true,
            "clone" | "clone3" => arguments.contains("CLONE_NEW") || !arguments.contains("CLONE_THREAD"),
            "ioctl" => {
                let request = arguments.split(',').nth(1).unwrap_or("").trim();
                !request.split(" or ").any(|name| REQUESTS.contains(&name))
            }
            "socket" => !arguments.starts_with("AF_UNIX"),
            name => FORBIDDEN.contains(&name),
        };
        if bad {
            found.push(format!("{name}({arguments}"));
        }
    }
    found
}

#[test]
fn the_demo_is_built_without_rights_and_without_a_network() {
    let Some(built) = built() else { return };
    let place = Workplace::new(built);
    let show = "cat /proc/self/status /proc/self/net/dev";
    let run = Run::of(place.confined().args(["sh", "-c", show]));
    if run.code != Some(0) {
        return skip(&format!("a user without rights in a namespace without a network cannot be had: {run}"));
    }
    let value = |key: &str| run.stdout.lines().find_map(|line| line.strip_prefix(key)).unwrap().trim();
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
        assert_eq!(value(set), "0000000000000000", "{set} {run}");
    }
    assert_eq!(value("NoNewPrivs:"), "1");
    assert!(!value("Uid:").split_whitespace().any(|id| id == "0"), "{run}");
    let routes = Run::of(place.confined().args(["cat", "/proc/self/net/route"])).ok().stdout;
    assert!(routes.lines().all(|line| line.starts_with("Iface")), "{routes}");
    // The one interface is the loopback.
    let interfaces: Vec<&str> = run
        .stdout
        .lines()
        .skip_while(|l| !l.contains("bytes"))
        .skip(1)
        .filter_map(|l| l.split(':').next())
        .collect();
    assert_eq!(interfaces.iter().map(|name| name.trim()).collect::<Vec<_>>(), ["lo"], "{run}");

    let Some(mut command) = place.traced("log") else { return };
    command.arg(place.folder.path().join("programs/ashlar"));
    command.args(["build", "container-host.toml", "--offline", "--locked", "--keys", "keys"]);
    command.args(["--cache", "cache", "-o", "out"]);
    let _ = Run::of(&mut command).ok();
    let log = place.log("log");
    assert_eq!(offences(&log), Vec::<String>::new());
    // It is the build that was watched: its program, its input, its output.
    let opened = |part: &str, flag: &str| {
        calls(&log).any(|(name, arguments)| {
            name == "openat" && quoted(arguments).unwrap().contains(part) && arguments.contains(flag)
        })
    };
    assert!(calls(&log).any(|(name, arguments)| name == "execve" && arguments.contains("programs/ashlar")));
    assert!(opened("container-host.toml", "O_RDONLY") && opened("/unpacked/", "O_RDONLY"));
    for file in ["root.erofs", "uki.efi", "esp.img", "disk.raw", "release.json"] {
        assert!(opened(file, "O_CREAT"), "{file} is not in the log");
    }
    assert!(calls(&log).filter(|(name, _)| name.starts_with("clone")).count() > 1, "no thread was watched");
    assert_same(&built.out, &place.home().join("out"), "the release of an ordinary user");
}

/// The judge can fail: it sees what others do.
#[test]
fn what_needs_rights_is_seen() {
    let Some(built) = built() else { return };
    let place = Workplace::new(built);
    if Run::of(place.confined().arg("true")).code != Some(0) {
        return skip("a user without rights in a namespace without a network cannot be had");
    }
    let seen = |arguments: &[&str]| {
        let Some(mut command) = place.traced("seen") else { return Vec::new() };
        // Whether the kernel lets it happen does not matter.
        let _ = Run::of(command.args(arguments));
        offences(&place.log("seen"))
    };
    if judge("strace", "strace").is_none() {
        return;
    }
    for (arguments, call) in [
        (&["unshare", "--user", "true"][..], "unshare("),
        (&["chroot", "/", "true"], "chroot("),
        (&["mknod", "node", "c", "1", "3"], "mknod"),
        (&["chown", "0", "."], "fchownat("),
        (&["setpriv", "--reuid", "1", "true"], "setresuid("),
        (&["sh", "-c", "exec true"], "execve("),
        (&["sh", "-c", "true; (true)"], "clone("),
        (&["sh", "-c", ": < /dev/loop-control"], "/dev/loop-control"),
        (&["bash", "-c", ": < /dev/tcp/127.0.0.1/1"], "socket(AF_INET"),
    ] {
        let found = seen(arguments);
        assert!(found.iter().any(|offence| offence.contains(call)), "{call} is not in {found:?}");
    }
    assert_eq!(seen(&["cat", "/dev/null"]), Vec::<String>::new());
    assert!(offences("7 ioctl(3, LOOP_CTL_GET_FREE) = 0\n").len() == 1);
}
