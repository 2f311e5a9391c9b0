//! The scripts of this machine's packages as input, and `update-alternatives` as judge of alternatives.

#![allow(clippy::unwrap_used)] // a test fails by it

mod common;

use ashlar_configure::{Kind, Options, Scripts, State, Step, configure, parsers};
use common::{merged, put, run, target, text, tool, write_out};
use std::collections::BTreeMap;
use std::process::Command;

fn postinst<'a>(package: &'a str, script: &'a str) -> Scripts<'a> {
    Scripts { package, version: "1", files: BTreeMap::from([("postinst", script)]) }
}

/// Control files of the packages installed here, by package.
fn host_scripts() -> BTreeMap<String, BTreeMap<String, String>> {
    let mut packages: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    let Ok(entries) = std::fs::read_dir("/var/lib/dpkg/info") else { return packages };
    for entry in entries.flatten() {
        let Ok(name) = entry.file_name().into_string() else { continue };
        let Some((package, kind)) = name.rsplit_once('.') else { continue };
        if !["postinst", "preinst", "config", "triggers"].contains(&kind) {
            continue;
        }
        if let Ok(bytes) = std::fs::read(entry.path()) {
            let text = String::from_utf8_lossy(&bytes).into_owned();
            let package = package.split(':').next().unwrap_or(package).to_owned();
            packages.entry(package).or_default().insert(kind.to_owned(), text);
        }
    }
    packages
}

fn borrow(packages: &BTreeMap<String, BTreeMap<String, String>>) -> Vec<Scripts<'_>> {
    packages
        .iter()
        .map(|(package, files)| Scripts {
            package,
            version: "1",
            files: files.iter().map(|(kind, text)| (kind.as_str(), text.as_str())).collect(),
        })
        .collect()
}

#[test]
fn the_scripts_of_this_machine_are_understood() {
    let host = host_scripts();
    if host.is_empty() {
        return eprintln!("skipped: this machine has no scripts of packages");
    }
    let mut tree = merged();
    put(
        &mut tree,
        "/usr/share/base-passwd/passwd.master",
        "root:*:0:0:root:/root:/bin/bash\nman:*:6:12:man:/:/bin/sh\n",
    );
    put(
        &mut tree,
        "/usr/share/base-passwd/group.master",
        "root:*:0:\nman:*:12:\nnogroup:*:65534:\nutmp:*:43:\n",
    );
    let packages = borrow(&host);
    let mut other = packages.clone();
    other.reverse();
    let mut second = tree.clone();
    let report = configure(&mut tree, &packages, &Options::default()).unwrap();
    assert_eq!(
        report,
        configure(&mut second, &other, &Options::default()).unwrap(),
        "the order of packages matters"
    );
    assert_eq!(tree, second);

    let actions: Vec<_> = report.packages.iter().flat_map(|package| &package.actions).collect();
    let commands: usize = actions.iter().map(|action| action.commands).sum();
    let unknown: usize = actions.iter().filter(|a| a.kind == Kind::Unknown).map(|a| a.commands).sum();
    eprintln!("{} packages, {commands} commands, {unknown} of them unknown", report.packages.len());
    assert!(unknown * 3 < commands, "{unknown} of {commands} commands are unknown");
    let json = serde_json::to_string_pretty(&report).unwrap();
    if let Some(path) = std::env::var_os("ASHLAR_REPORT") {
        std::fs::write(path, &json).unwrap();
    }
    let has = |package: &str, kind: Kind, state: State, words: &str| {
        let Some(report) = report.packages.iter().find(|report| report.package == package) else {
            return eprintln!("{package} is not installed here");
        };
        let found =
            report.actions.iter().any(|a| a.kind == kind && a.state == state && a.detail.contains(words));
        assert!(found, "{package}: no {kind:?} {state:?} `{words}` in {report:#?}");
    };
    has("libc-bin", Kind::Ldconfig, State::Done, "ldconfig");
    has("tzdata", Kind::Debconf, State::LeftOut, "no questions are asked");
    has("tzdata", Kind::ConfigurationFiles, State::NotNeeded, "dh_installdeb");
    has("mawk", Kind::Alternatives, State::LeftOut, "is not in the tree");
    has("zlib1g", Kind::Ldconfig, State::Done, "activate-noawait ldconfig");
    has("ca-certificates", Kind::Certificates, State::Done, "update-ca-certificates");
    has("systemd", Kind::Tmpfiles, State::LeftOut, "by dh_installtmpfiles");
}

#[test]
fn guards_of_upgrades_and_other_interpreters_are_seen() {
    let mut tree = merged();
    let shell = "#!/bin/sh\nif dpkg --compare-versions \"$2\" lt-nl 2; then\n  frob --old\nfi\nsetcap cap_net_raw+ep /bin/ping\nfrob --new\nfrob --more\n";
    let perl = "#!/usr/bin/perl\nsystem('adduser x');\n";
    let report =
        configure(&mut tree, &[postinst("sh", shell), postinst("perl", perl)], &Options::default()).unwrap();
    let by_name = |name: &str| report.packages.iter().find(|package| package.package == name).unwrap();
    let seen: Vec<_> = by_name("sh").actions.iter().map(|a| (a.line, a.kind, a.state, a.commands)).collect();
    assert_eq!(
        seen,
        [
            (3, Kind::Unknown, State::NotNeeded, 1),
            (5, Kind::Capabilities, State::LeftOut, 1),
            (6, Kind::Unknown, State::LeftOut, 2)
        ]
    );
    assert!(by_name("perl").actions[0].detail.contains("which is no shell"));
}

#[test]
fn alternatives_are_those_of_update_alternatives() {
    let Some(judge) = tool("update-alternatives") else { return };
    let installs: [&[&str]; 5] = [
        &[
            "/usr/bin/pager",
            "pager",
            "/usr/bin/more",
            "50",
            "--slave",
            "/usr/share/man/man1/pager.1",
            "pager.1",
            "/usr/share/man/man1/more.1",
        ],
        &[
            "/usr/bin/pager",
            "pager",
            "/usr/bin/less",
            "77",
            "--slave",
            "/usr/share/man/man1/pager.1",
            "pager.1",
            "/usr/share/man/man1/less.1",
        ],
        &[
            "/usr/bin/editor",
            "editor",
            "/usr/bin/ed",
            "-100",
            "--slave",
            "/usr/share/man/man1/editor.1",
            "editor.1",
            "/usr/share/man/man1/absent.1",
        ],
        &["/usr/bin/awk", "awk", "/usr/bin/mawk", "5", "--slave", "/usr/bin/nawk", "nawk", "/usr/bin/mawk"],
        &["/usr/bin/awk", "awk", "/usr/bin/gawk", "10"],
    ];
    let mut tree = merged();
    for path in [
        "/usr/bin/more",
        "/usr/bin/less",
        "/usr/bin/ed",
        "/usr/bin/mawk",
        "/usr/bin/gawk",
        "/usr/share/man/man1/more.1",
        "/usr/share/man/man1/less.1",
    ] {
        put(&mut tree, path, path);
    }
    let root = tempfile::tempdir().unwrap();
    write_out(&tree, root.path());
    for folder in ["etc/alternatives", "var/lib/dpkg/alternatives", "var/log"] {
        std::fs::create_dir_all(root.path().join(folder)).unwrap();
    }
    for install in installs {
        let output = run(Command::new(&judge).arg("--root").arg(root.path()).arg("--install").args(install));
        if !output.status.success() {
            return eprintln!(
                "skipped: update-alternatives has no --root: {}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
    }
    let scripts: Vec<String> = installs
        .iter()
        .map(|install| format!("#!/bin/sh\nupdate-alternatives --install {}\n", install.join(" ")))
        .collect();
    let names = ["a", "b", "c", "d", "e"];
    let packages: Vec<_> =
        names.iter().zip(&scripts).rev().map(|(name, script)| postinst(name, script)).collect();
    let options = Options {
        keep_package_database: Some(vec!["Package: x\nVersion: 1\nArchitecture: all\n"]),
        ..Options::default()
    };
    let report = configure(&mut tree, &packages, &options).unwrap();
    assert_eq!(report.done.iter().filter(|done| done.step == Step::Alternative).count(), 4);
    assert_eq!(target(&tree, "/usr/bin/pager").unwrap(), "/etc/alternatives/pager");
    assert_eq!(target(&tree, "/etc/alternatives/awk").unwrap(), "/usr/bin/gawk");
    for folder in ["etc/alternatives", "usr/bin", "usr/share/man/man1"] {
        let mut theirs = BTreeMap::new();
        for entry in std::fs::read_dir(root.path().join(folder)).unwrap().flatten() {
            if let Ok(target) = std::fs::read_link(entry.path()) {
                theirs.insert(entry.file_name().into_string().unwrap(), target.to_str().unwrap().to_owned());
            }
        }
        let mut ours = BTreeMap::new();
        let (_, node) = tree.get_followed(format!("/{folder}").as_bytes()).unwrap();
        for name in node.entries().unwrap().keys() {
            let name = String::from_utf8(name.clone()).unwrap();
            if let Some(target) = target(&tree, &format!("/{folder}/{name}")) {
                ours.insert(name, target);
            }
        }
        assert_eq!(ours, theirs, "{folder}");
    }
    for name in ["pager", "editor", "awk"] {
        let path = format!("var/lib/dpkg/alternatives/{name}");
        let theirs = std::fs::read_to_string(root.path().join(&path)).unwrap();
        assert_eq!(text(&tree, &format!("/{path}")), theirs, "{name}");
    }
    let status = "Package: x\nStatus: install ok installed\nVersion: 1\nArchitecture: all\n\n";
    assert_eq!(text(&tree, "/var/lib/dpkg/status"), status);
    if let Some(query) = tool("dpkg-query") {
        write_out_status(root.path(), status);
        let said = run(Command::new(query).arg("--admindir").arg(root.path().join("var/lib/dpkg")).args([
            "-W",
            "-f",
            "${Package} ${Status}",
        ]));
        assert_eq!(String::from_utf8_lossy(&said.stdout), "x install ok installed");
    }
}

fn write_out_status(root: &std::path::Path, status: &str) {
    let folder = root.join("var/lib/dpkg");
    std::fs::create_dir_all(folder.join("updates")).unwrap();
    std::fs::create_dir_all(folder.join("info")).unwrap();
    std::fs::write(folder.join("status"), status).unwrap();
}

#[test]
fn base_files_are_made_where_their_packages_are() {
    let mut tree = merged();
    for (path, text) in [
        ("/usr/share/base-files/profile", "profile"),
        ("/usr/share/libc-bin/nsswitch.conf", "passwd: files\n"),
        ("/usr/share/zoneinfo/Etc/UTC", "TZif"),
        ("/usr/share/zoneinfo/Europe/Berlin", "TZif"),
        ("/usr/share/debianutils/shells", "# shells\n/bin/sh\n"),
        ("/usr/share/debianutils/shells.d/bash", "/bin/bash\n/bin/rbash\n"),
        ("/usr/bin/bash", ""),
        ("/usr/bin/systemd-machine-id-setup", ""),
        ("/etc/machine-id", "0123456789abcdef0123456789abcdef\n"),
        ("/usr/lib/tmpfiles.d/x.conf", "d /var/lib/x 0755 - - -\nL /var/y - - - - z\n"),
    ] {
        put(&mut tree, path, text);
    }
    let bare = tree.clone();
    let report = configure(&mut tree, &[], &Options::default()).unwrap();
    assert_eq!(text(&tree, "/etc/profile"), "profile");
    assert_eq!(text(&tree, "/etc/nsswitch.conf"), "passwd: files\n");
    assert_eq!(target(&tree, "/etc/localtime").unwrap(), "/usr/share/zoneinfo/Etc/UTC");
    assert_eq!(text(&tree, "/etc/timezone"), "Etc/UTC\n");
    assert_eq!(text(&tree, "/etc/shells"), "# shells\n/bin/sh\n/bin/bash\n/usr/bin/bash\n");
    assert_eq!(text(&tree, "/etc/machine-id"), "");
    assert_eq!(target(&tree, "/var/run").unwrap(), "/run");
    assert!(report.left_out.iter().any(|left| left.what == "/usr/lib/tmpfiles.d/x.conf: /var/lib/x"));
    let zone = |name: &str| {
        let mut tree = bare.clone();
        let options = Options { time_zone: Some(name.into()), ..Options::default() };
        configure(&mut tree, &[], &options).map(|_| target(&tree, "/etc/localtime").unwrap())
    };
    assert_eq!(zone("Europe/Berlin").unwrap(), "/usr/share/zoneinfo/Europe/Berlin");
    assert!(zone("Mars/Olympus").unwrap_err().to_string().contains("tzdata"));
    assert!(zone("../../../etc/profile").is_err());
}

#[test]
fn ucf_puts_missing_configuration_files_in_place() {
    let mut tree = merged();
    put(&mut tree, "/usr/share/a/a.conf", "default\n");
    put(&mut tree, "/etc/kept.conf", "mine\n");
    let script = "#!/bin/sh\nucf --three-way --sum-file /usr/share/a/sums /usr/share/a/a.conf /etc/a/a.conf\n\
        ucf /usr/share/a/a.conf /etc/kept.conf\nucf $NEW /etc/b.conf\nucf /usr/share/none /etc/c.conf\n";
    let report = configure(&mut tree, &[postinst("a", script)], &Options::default()).unwrap();
    assert_eq!(
        (text(&tree, "/etc/a/a.conf"), text(&tree, "/etc/kept.conf")),
        ("default\n".into(), "mine\n".into())
    );
    let states: Vec<State> = report.packages[0].actions.iter().map(|action| action.state).collect();
    assert_eq!(states, [State::Done, State::NotNeeded, State::LeftOut, State::LeftOut]);
}

/// Scripts cut anywhere, and with any byte changed, are read to their end.
#[test]
fn damaged_scripts_do_no_harm() {
    let script = "#!/bin/sh\ncase \"$1\" in configure|x) if [ -n \"$2\" ]; then a `b` $(c \"d\" 'e') ${f:-\"g\"}; fi;; esac\ncat <<-'EOF' >h 2>&1\n\ti\n\tEOF\nj () { k \\\n l; }\nfor m in *; do n && o || p & done # q\n";
    for at in 0..script.len() {
        parsers::commands(&script[..at]);
        for byte in *b"\"'`$({<\\;)#\n&| \0" {
            let mut bad = script.as_bytes().to_vec();
            bad[at] = byte;
            parsers::commands(&String::from_utf8(bad).unwrap());
        }
    }
    assert!(parsers::commands(&"a;".repeat(600_000)).is_empty(), "a script beyond the bound is not read");
}
