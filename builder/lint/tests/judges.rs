//! The lint against tools that we did not write: keys of OpenSSH and GnuPG, and `ldd`'s opinion of what a program
//! needs.
#![allow(clippy::unwrap_used)] // a test fails by it

use ashlar_lint::{Compression, HostFacts, Modules, Report, Subject, lint};
use ashlar_tree::{Content, Kind, Metadata, Node, Tree};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

fn report(tree: &Tree) -> Report {
    let subject = Subject {
        tree,
        containers: &[],
        os_release: "",
        kernel_config: None,
        kernel_version: "",
        modules: Modules::default(),
        cmdline: "",
        compression: Compression::None,
        sizes: None,
        host: HostFacts::default(),
        certificates: &[],
        own_files: &[],
        build_time: 0,
    };
    lint(&subject, &[]).unwrap()
}

fn paths<'r>(report: &'r Report, rule: &str) -> Vec<&'r str> {
    report.findings.iter().filter(|f| f.rule == rule).filter_map(|f| f.path.as_deref()).collect()
}

/// A file of the host, at `path` of the tree.
fn add(tree: &mut Tree, path: &str, host: &Path) {
    let len = std::fs::metadata(host).unwrap().len();
    let content = Content::Range { path: Arc::new(host.to_owned()), offset: 0, len };
    let node = Node { metadata: Metadata::root(0o755, 0), kind: Kind::File(content) };
    tree.insert(path.as_bytes(), node).unwrap();
}

fn run(program: &str, arguments: &[&str], home: &Path) -> Option<String> {
    let output = Command::new("timeout")
        .args(["30", program])
        .args(arguments)
        .env("GNUPGHOME", home)
        .env("LC_ALL", "C")
        .output()
        .ok()?;
    if !output.status.success() {
        eprintln!("{program}: {}", String::from_utf8_lossy(&output.stderr));
        return None;
    }
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn keys_of_openssh_are_found_and_their_public_halves_are_not() {
    let folder = tempfile::tempdir().unwrap();
    let mut tree = Tree::new(Metadata::root(0o755, 0));
    let mut expected = Vec::new();
    for (kind, form) in [("ed25519", "RFC4716"), ("ecdsa", "RFC4716"), ("rsa", "PEM"), ("ecdsa", "PKCS8")] {
        let name = format!("{kind}-{form}");
        let path = folder.path().join(&name);
        let file = path.to_str().unwrap();
        if run("ssh-keygen", &["-q", "-t", kind, "-m", form, "-N", "", "-f", file], folder.path()).is_none() {
            eprintln!("skipped: ssh-keygen is not installed");
            return;
        }
        add(&mut tree, &format!("/keys/{name}"), &path);
        add(&mut tree, &format!("/keys/{name}.pub"), &path.with_file_name(format!("{name}.pub")));
        expected.push(format!("/keys/{name}"));
    }
    expected.sort();
    assert_eq!(paths(&report(&tree), "private-key"), expected);
}

#[test]
fn keys_of_gnupg_are_found_and_their_public_halves_are_not() {
    let home = tempfile::tempdir().unwrap();
    let batch = ["--batch", "--pinentry-mode", "loopback", "--passphrase", ""];
    let gpg = |arguments: &[&str]| run("gpg", &[&batch[..], arguments].concat(), home.path());
    if gpg(&["--quick-generate-key", "Test <test@example.org>", "ed25519", "sign", "never"]).is_none() {
        eprintln!("skipped: gpg is not installed or cannot make keys here");
        return;
    }
    let mut tree = Tree::new(Metadata::root(0o755, 0));
    for (name, arguments) in [
        ("secret.gpg", &["--export-secret-keys"][..]),
        ("secret.asc", &["--armor", "--export-secret-keys"]),
        ("public.gpg", &["--export"]),
        ("public.asc", &["--armor", "--export"]),
    ] {
        let path = home.path().join(name);
        gpg(&[&["--output", path.to_str().unwrap()], arguments].concat()).unwrap();
        add(&mut tree, &format!("/{name}"), &path);
    }
    let stored =
        std::fs::read_dir(home.path().join("private-keys-v1.d")).unwrap().next().unwrap().unwrap().path();
    add(&mut tree, "/stored", &stored);
    run("gpgconf", &["--kill", "all"], home.path());
    assert_eq!(paths(&report(&tree), "private-key"), ["/secret.asc", "/secret.gpg", "/stored"]);
}

/// A program of this host with all that `ldd` says it needs starts; with one library less it is reported.
#[test]
fn what_ldd_says_a_program_needs_is_enough_and_necessary() {
    let program =
        ["/usr/bin/openssl", "/usr/bin/ssh-keygen", "/usr/bin/ls"].iter().map(Path::new).find(|p| p.exists());
    let Some((program, output)) =
        program.and_then(|p| Some((p, run("ldd", &[p.to_str()?], Path::new("/"))?)))
    else {
        eprintln!("skipped: no program to look at, or no ldd");
        return;
    };
    let libraries: Vec<PathBuf> = output
        .lines()
        .filter_map(|line| line.split_once(" => ").map_or(line, |(_, path)| path).split_whitespace().next())
        .filter(|word| word.starts_with('/'))
        .map(PathBuf::from)
        .collect();
    assert!(libraries.len() >= 2, "{output}");
    let mut tree = Tree::new(Metadata::root(0o755, 0));
    add(&mut tree, "/usr/bin/program", program);
    for library in &libraries {
        // Where the program asks for it, links resolved by the host.
        add(&mut tree, library.to_str().unwrap(), library);
    }
    let complete = report(&tree);
    assert!(paths(&complete, "missing-library").is_empty(), "{}", complete.text());
    assert!(paths(&complete, "missing-interpreter").is_empty(), "{}", complete.text());

    let loader = libraries.iter().find(|path| path.to_str().unwrap().contains("/ld-")).unwrap();
    let taken = tree.remove(loader.to_str().unwrap().as_bytes()).unwrap();
    assert!(paths(&report(&tree), "missing-interpreter").contains(&"/usr/bin/program"));
    tree.insert(loader.to_str().unwrap().as_bytes(), taken).unwrap();
    let libc = libraries.iter().find(|path| path.ends_with("libc.so.6")).unwrap();
    tree.remove(libc.to_str().unwrap().as_bytes()).unwrap();
    let report = report(&tree);
    assert!(paths(&report, "missing-library").contains(&"/usr/bin/program"), "{}", report.text());
}
