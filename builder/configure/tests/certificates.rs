//! `update-ca-certificates` and `openssl` judge the directory of certificates.

#![allow(clippy::unwrap_used)] // a test fails by it

mod common;

use ashlar_configure::{Options, Step, configure};
use ashlar_tree::Tree;
use common::{add_host, bytes, merged, put, run, succeed, tool, write_out};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

/// Names to targets of the links in a tree's directory of certificates.
fn links(tree: &Tree) -> BTreeMap<String, String> {
    let mut links = BTreeMap::new();
    tree.walk(|path, node| {
        if let (Some(name), ashlar_tree::Kind::Symlink(target)) =
            (path.strip_prefix(b"/etc/ssl/certs/"), &node.kind)
        {
            links.insert(
                String::from_utf8(name.to_vec()).unwrap(),
                String::from_utf8(target.clone()).unwrap(),
            );
        }
    });
    links
}

/// A self-signed certificate with this subject.
fn certificate(folder: &Path, name: &str, subject: &str, options: &[&str]) -> Option<String> {
    let openssl = tool("openssl")?;
    let file = folder.join(name);
    succeed(
        Command::new(openssl)
            .args([
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-nodes",
                "-days",
                "9",
            ])
            .args(["-utf8", "-subj", subject, "-keyout"])
            .arg(folder.join("key"))
            .arg("-out")
            .arg(&file)
            .args(options),
    );
    Some(std::fs::read_to_string(file).unwrap())
}

fn hosts_certificates(tree: &mut Tree) {
    let folder = Path::new("/usr/share/ca-certificates/mozilla");
    if !folder.is_dir() {
        eprintln!("this machine has no certificates of its own; only made ones are looked at");
    }
    add_host(tree, folder, "/usr/share/ca-certificates/mozilla");
}

#[test]
fn bundle_and_links_are_those_of_update_ca_certificates() {
    let Some(update) = tool("update-ca-certificates") else { return };
    let folder = tempfile::tempdir().unwrap();
    let mut tree = merged();
    hosts_certificates(&mut tree);
    let subjects = [
        ("plain.crt", "/C=XX/O=A  Plain   Name/CN= One ", "/usr/share/ca-certificates/own"),
        ("Odd (name), two.crt", "/O=Müller & Söhne/CN=ÄÖ", "/usr/local/share/ca-certificates"),
        ("multi.crt", "/C=XX/O=Two+CN=in one set", "/usr/local/share/ca-certificates"),
        // Two keys for one subject: the second link is `.1`.
        ("again.crt", "/C=xx/O=a plain name/CN=one", "/usr/local/share/ca-certificates"),
    ];
    for (name, subject, place) in subjects {
        let options: &[&str] = if subject.contains('+') { &["-multivalue-rdn"] } else { &[] };
        let Some(pem) = certificate(folder.path(), name, subject, options) else { return };
        let pem = if name == "multi.crt" { pem.trim_end() } else { &pem };
        put(&mut tree, &format!("{place}/{name}"), pem);
    }
    // One certificate under two names is linked once; a file with two is not linked.
    let plain = String::from_utf8(bytes(&tree, "/usr/share/ca-certificates/own/plain.crt")).unwrap();
    put(&mut tree, "/usr/local/share/ca-certificates/same.crt", &plain);
    put(&mut tree, "/usr/local/share/ca-certificates/zwei.crt", &format!("{plain}{plain}"));
    put(&mut tree, "/usr/share/ca-certificates/own/no.txt", "not a certificate");
    let list = if tree.get(b"/usr/share/ca-certificates/mozilla/ISRG_Root_X1.crt").is_some() {
        "# list\nmozilla/ISRG_Root_X1.crt\n!mozilla/ISRG_Root_X2.crt\nown/plain.crt\nown/missing.crt\n"
    } else {
        "own/plain.crt\n"
    };
    for list in [None, Some(list)] {
        let mut tree = tree.clone();
        if let Some(list) = list {
            put(&mut tree, "/etc/ca-certificates.conf", list);
        }
        let report = configure(&mut tree, &[], &Options::default()).unwrap();
        assert!(report.done.iter().any(|done| done.step == Step::Certificates));

        // The judge gets the tree without what we made, but for the list.
        let root = tempfile::tempdir().unwrap();
        let mut bare = tree.clone();
        bare.remove(b"/etc/ssl");
        write_out(&bare, root.path());
        let at = |path: &str| root.path().join(path);
        std::fs::create_dir_all(at("etc/ssl/certs")).unwrap();
        succeed(
            Command::new(&update)
                .arg("--certsconf")
                .arg(at("etc/ca-certificates.conf"))
                .arg("--certsdir")
                .arg(at("usr/share/ca-certificates"))
                .arg("--localcertsdir")
                .arg(at("usr/local/share/ca-certificates"))
                .arg("--etccertsdir")
                .arg(at("etc/ssl/certs"))
                .args(["--hooksdir", ""]),
        );
        let mut wanted = BTreeMap::new();
        for entry in std::fs::read_dir(at("etc/ssl/certs")).unwrap().flatten() {
            if let Ok(target) = std::fs::read_link(entry.path()) {
                let target = target.to_str().unwrap().replace(root.path().to_str().unwrap(), "");
                wanted.insert(entry.file_name().into_string().unwrap(), target);
            }
        }
        let ours = links(&tree);
        assert!(ours.len() > 6, "{ours:?}");
        assert_eq!(ours, wanted);
        let bundle = std::fs::read(at("etc/ssl/certs/ca-certificates.crt")).unwrap();
        assert!(bundle == bytes(&tree, "/etc/ssl/certs/ca-certificates.crt"), "the bundles differ");
    }
}

#[test]
fn openssl_finds_a_certificate_by_our_links() {
    let Some(openssl) = tool("openssl") else { return };
    let folder = tempfile::tempdir().unwrap();
    let Some(pem) = certificate(folder.path(), "ca.pem", "/O=Test  CA/CN=Root", &[]) else { return };
    let mut tree = merged();
    put(&mut tree, "/usr/local/share/ca-certificates/ca.crt", &pem);
    configure(&mut tree, &[], &Options::default()).unwrap();
    let root = tempfile::tempdir().unwrap();
    write_out(&tree, root.path());
    // The links are absolute in the image.
    let certs = root.path().join("etc/ssl/certs");
    std::fs::remove_file(certs.join("ca.pem")).unwrap();
    std::fs::copy(root.path().join("usr/local/share/ca-certificates/ca.crt"), certs.join("ca.pem")).unwrap();
    let verify = |path: &Path| {
        run(Command::new(&openssl)
            .arg("verify")
            .arg("-no-CAfile")
            .arg("-CApath")
            .arg(path)
            .arg(folder.path().join("ca.pem")))
    };
    assert!(verify(&certs).status.success());
    let empty = tempfile::tempdir().unwrap();
    assert!(!verify(empty.path()).status.success());
}

#[test]
fn damaged_certificates_do_no_harm() {
    use ashlar_configure::parsers::{pem_certificates, subject_hash};
    let folder = tempfile::tempdir().unwrap();
    let Some(pem) = certificate(folder.path(), "a", "/O=X/CN=Y", &[]) else { return };
    let der = pem_certificates(pem.as_bytes()).pop().unwrap();
    assert!(subject_hash(&der).is_some());
    for len in 0..der.len() {
        assert_eq!(subject_hash(&der[..len]), None);
    }
    for at in 0..der.len() {
        for value in [0, 0x30, 0x7f, 0x80, 0x84, 0xff] {
            let mut bad = der.clone();
            bad[at] = value;
            subject_hash(&bad);
        }
    }
    for at in 0..pem.len() {
        pem_certificates(&pem.as_bytes()[..at]);
    }
}
