//! The documents before tools of others: spdx-tools, cyclonedx-python-lib, packageurl-python, in-toto-attestation,
//! securesystemslib, license-expression.
//!
//! They are Python packages, looked for in the virtual environment that `ASHLAR_SBOM_JUDGES` names or else in the
//! target folder's `sbom-judges`.
#![allow(clippy::unwrap_used)] // a test fails by it

use ashlar_image::digest::Digest;
use ashlar_image::layout::Sizes;
use ashlar_image::release::{Artifact, DiskImage, Release, SlotArtifacts, Uki};
use ashlar_sbom::provenance::{self, Invocation, Material, Provenance};
use ashlar_sbom::{
    Bill, Container, DebianPackage, Origin, OtherSource, SourceKind, copyright, cyclonedx, dsse, spdx_json,
};
use ring::signature::KeyPair as _;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The interpreter of the virtual environment; none, with the reason said, when it is not there.
fn python() -> Option<PathBuf> {
    let beside =
        || Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap_or(Path::new(".")).join("sbom-judges");
    let folder = std::env::var_os("ASHLAR_SBOM_JUDGES").map_or_else(beside, PathBuf::from);
    let python = folder.join("bin/python3");
    if python.exists() {
        return Some(python);
    }
    let why = format!("`{}` is needed; `cargo xtask setup` makes it", python.display());
    skip(&why);
    None
}

/// Notes that a test cannot run here; fails with `ASHLAR_TESTS_NO_SKIP` set.
fn skip(why: &str) {
    let strict = std::env::var_os("ASHLAR_TESTS_NO_SKIP").is_some();
    assert!(!strict, "ASHLAR_TESTS_NO_SKIP is set, and this test cannot run: {why}");
    eprintln!("skipped: {why}");
}

/// Runs a judge over files; fails when it refuses or takes longer than two minutes.
fn judge(python: &Path, folder: &Path, arguments: &[&str]) -> String {
    let (out, errors) = (folder.join("judge.out"), folder.join("judge.err"));
    let mut child = Command::new(python)
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/judges.py"))
        .args(arguments)
        .current_dir(folder)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::null())
        .stdout(std::fs::File::create(&out).unwrap())
        .stderr(std::fs::File::create(&errors).unwrap())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(120);
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if Instant::now() > deadline {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("the judge {arguments:?} did not end within two minutes");
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let said = std::fs::read_to_string(out).unwrap();
    assert!(status.success(), "{arguments:?}: {said}\n{}", std::fs::read_to_string(errors).unwrap());
    said
}

fn release() -> Release {
    let artifact =
        |file: &str| Artifact { file: file.into(), size: 4096, sha256: Digest::of(file.as_bytes()) };
    Release {
        format: 1,
        image_id: "container-host".into(),
        image_version: "2".into(),
        architecture: None,
        security_version: 1,
        build_time: 1_795_252_544,
        kernel: "6.12.117+deb13-amd64".into(),
        partition_sizes: Sizes::default(),
        slot: SlotArtifacts {
            esp: artifact("esp.img"),
            root: artifact("root.erofs"),
            verity: artifact("root.verity"),
        },
        disk: DiskImage { file: "disk.raw".into(), size: 1 << 30 },
        root_hash: Digest::of(b"root"),
        uki: Uki {
            artifact: artifact("uki.efi"),
            authenticode: Digest::of(b"authenticode"),
            kernel_authenticode: Digest::of(b"kernel"),
            stub_version: "257.13-1~deb13u1".into(),
            cmdline: "quiet".into(),
            sections: BTreeMap::from([(".linux".into(), Digest::of(b"linux"))]),
        },
        pcrs: BTreeMap::new(),
        init: Digest::of(b"init"),
        control: None,
        update: None,
        state_policy: None,
        hardening: Vec::new(),
        packages: Vec::new(),
    }
}

const DEP5: &str = "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\nFiles: *\nLicense: \
                    GPL-2+\n\nFiles: a\nLicense: Apache-2.0 or LGPL-2.1+ and Expat\n\nFiles: b\nLicense: BSD-like\n Do \
                    as you like.\n\nFiles: c\nLicense: GPL-3+ with Autoconf exception\n\nFiles: d\nLicense: \
                    GFDL-NIV-1.3+ and/or Perl\n";

fn deb(part: &str, name: &str, version: &str, more: &str, file: &str) -> DebianPackage {
    let control = format!(
        "Package: {name}\nVersion: {version}\nArchitecture: amd64\nMaintainer: A \"B\" Team <team@lists.example.org>\n\
         Homepage: https://example.org/{name}\nDescription: Something of use\n more of it\n{more}"
    );
    let declared = copyright::parse(file);
    DebianPackage::from_control(part, &control, Digest::of(control.as_bytes()), declared).unwrap()
}

fn bill(release: &Release) -> Bill<'_> {
    let mut crun = deb("root", "crun", "1.21-1", "", DEP5);
    crun.depends_on = vec!["libc6".into(), "absent".into()];
    let libc = deb(
        "root",
        "libc6",
        "2.41-12+deb13u5",
        "Source: glibc\n",
        "Free as in /usr/share/common-licenses/GPL-2.\n",
    );
    let in_container = DebianPackage { part: "container hello".into(), ..libc.clone() };
    let mut rebuilt = in_container.clone();
    rebuilt.part = "container other".into();
    rebuilt.sha256 = Digest::of(b"built at home");
    let busybox =
        deb("container hello", "busybox-static", "1:1.37.0-6+b9", "Source: busybox (1:1.37.0-6)\n", "");
    let kernel = deb("kernel", "linux-image-6.12.117+deb13-amd64", "6.12.117-1", "", DEP5);
    Bill {
        release,
        release_digest: Digest::of(b"release.json"),
        distribution: Some("trixie".into()),
        builder_version: "0.1.0".into(),
        packages: vec![crun, libc, in_container, rebuilt, busybox, kernel],
        containers: vec![
            Container { name: "hello".into(), origin: Origin::Packages },
            Container { name: "other".into(), origin: Origin::Packages },
            Container {
                name: "web".into(),
                origin: Origin::Oci {
                    reference: Some("registry.example.org:5000/team/app:1.2".into()),
                    digest: Digest::of(b"manifest"),
                },
            },
        ],
        sources: vec![
            OtherSource {
                part: "root".into(),
                name: "files".into(),
                kind: SourceKind::Directory,
                digest: Digest::ZERO,
            },
            OtherSource {
                part: "container web".into(),
                name: "a b.tar".into(),
                kind: SourceKind::Tar,
                digest: Digest::ZERO,
            },
        ],
    }
}

fn json(bytes: &[u8]) -> serde_json::Value {
    serde_json::from_slice(bytes).unwrap()
}

#[test]
fn spdx_tools_accepts_the_spdx_document() {
    let release = release();
    let bytes = spdx_json::write(&bill(&release)).unwrap();
    assert_eq!(bytes, spdx_json::write(&bill(&release)).unwrap());
    let document = json(&bytes);
    let packages = document["packages"].as_array().unwrap();
    let of = |name: &str| packages.iter().find(|p| p["name"] == name).unwrap();
    assert_eq!(of("container-host")["SPDXID"], "SPDXRef-Image-container-host");
    assert_eq!(of("busybox-static")["licenseDeclared"], "NOASSERTION");
    assert_eq!(of("crun")["licenseConcluded"], "NOASSERTION");
    assert!(of("libc6")["licenseComments"].as_str().unwrap().contains("GPL-2.0"));
    let relations: Vec<String> = document["relationships"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| {
            ["spdxElementId", "relationshipType", "relatedSpdxElement"]
                .map(|key| r[key].as_str().unwrap().trim_start_matches("SPDXRef-"))
                .join(" ")
        })
        .collect();
    for wanted in [
        "DOCUMENT DESCRIBES Image-container-host",
        "Image-container-host CONTAINS File-esp.img",
        "File-esp.img CONTAINS File-uki.efi",
        "File-uki.efi CONTAINS Kernel-linux",
        "File-root.erofs CONTAINS Container-hello",
        "File-root.erofs CONTAINS Deb-libc6-2.41-12-deb13u5-amd64",
        "Container-hello CONTAINS Deb-libc6-2.41-12-deb13u5-amd64",
        "Container-other CONTAINS Deb-libc6-2.41-12-deb13u5-amd64-2",
        "Deb-crun-1.21-1-amd64 DEPENDS_ON Deb-libc6-2.41-12-deb13u5-amd64",
        "Container-web CONTAINS Source-a-b.tar",
    ] {
        // Which of the two equal versions gets the number depends on their hashes.
        let other = wanted.replace("amd64-2", "amd64");
        assert!(
            relations.iter().any(|r| r == wanted || *r == other || *r == format!("{wanted}-2")),
            "{wanted}: {relations:#?}"
        );
    }
    let Some(python) = python() else { return };
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("bill.spdx.json"), &bytes).unwrap();
    let said = judge(&python, folder.path(), &["spdx", "bill.spdx.json"]);
    assert_eq!(said.trim(), format!("{} packages {} relationships", packages.len(), relations.len()));
    // The judge judges.
    let broken = String::from_utf8(bytes).unwrap().replace("Apache-2.0", "Apache-9.9");
    std::fs::write(folder.path().join("broken.spdx.json"), broken).unwrap();
    let refused = Command::new(&python)
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/judges.py"))
        .args(["spdx", "broken.spdx.json"])
        .current_dir(folder.path())
        .output()
        .unwrap();
    assert!(!refused.status.success());
}

#[test]
fn cyclonedx_and_packageurl_accept_the_other() {
    let release = release();
    let bytes = cyclonedx::write(&bill(&release)).unwrap();
    assert_eq!(bytes, cyclonedx::write(&bill(&release)).unwrap());
    let document = json(&bytes);
    assert_eq!(document["metadata"]["timestamp"], "2026-11-21T09:15:44Z");
    let components = document["components"].as_array().unwrap();
    let crun = components.iter().find(|c| c["name"] == "crun").unwrap();
    assert_eq!(crun["bom-ref"], crun["purl"]);
    // Both documents name the same packages.
    let spdx = json(&spdx_json::write(&bill(&release)).unwrap());
    assert_eq!(spdx["packages"].as_array().unwrap().len(), components.len() + 1);
    let Some(python) = python() else { return };
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("bill.cdx.json"), &bytes).unwrap();
    let said = judge(&python, folder.path(), &["cyclonedx", "bill.cdx.json"]);
    assert_eq!(said.trim(), format!("{} components", components.len()));
    let said = judge(&python, folder.path(), &["purls", "bill.cdx.json"]);
    assert!(said.contains("deb debian busybox-static 1:1.37.0-6+b9"), "{said}");
    assert!(said.contains("('upstream', 'busybox@1:1.37.0-6')"), "{said}");
    assert!(said.contains("('repository_url', 'registry.example.org:5000/team/app')"), "{said}");
}

fn provenance(bill: &Bill<'_>, invocation: Option<Invocation>) -> Provenance {
    let material =
        |name: &str| Material { name: name.into(), uri: String::new(), sha256: Digest::of(name.as_bytes()) };
    let mut materials = provenance::materials(bill).unwrap();
    materials.push(provenance::index("trixie", Digest::of(b"InRelease")));
    Provenance {
        subjects: provenance::subjects(bill.release, bill.release_digest),
        recipe: material("image.toml"),
        profile: Some("debug".into()),
        options: BTreeMap::from([("output".into(), "raw".into())]),
        materials,
        builder_id: "https://ci.example.org/ashlar".into(),
        builder_version: "0.1.0".into(),
        invocation,
    }
}

#[test]
fn in_toto_accepts_the_statement_and_securesystemslib_the_envelope() {
    let release = release();
    let bill = bill(&release);
    let statement = provenance::statement(&provenance(&bill, None)).unwrap();
    let value = json(&statement);
    assert_eq!(value["subject"].as_array().unwrap().len(), 5);
    assert_eq!(value["predicate"]["runDetails"].get("metadata"), None);
    // libc6 of two parts is one; the one built at home is another.
    let dependencies = value["predicate"]["buildDefinition"]["resolvedDependencies"].as_array().unwrap();
    assert_eq!(dependencies.iter().filter(|d| d["name"] == "libc6").count(), 2);
    assert!(dependencies.iter().any(|d| d["name"] == "suite trixie: InRelease"));

    let pkcs8 = ring::signature::Ed25519KeyPair::generate_pkcs8(&ring::rand::SystemRandom::new()).unwrap();
    let key = ring::signature::Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap();
    let envelope =
        dsse::sign(dsse::IN_TOTO, &statement, "channel", &|bytes| Ok(key.sign(bytes).as_ref().to_vec()))
            .unwrap();
    let public = ring::signature::UnparsedPublicKey::new(&ring::signature::ED25519, key.public_key());
    let opened =
        dsse::open(&envelope, dsse::IN_TOTO, &|bytes, signature| public.verify(bytes, signature).is_ok());
    assert_eq!(opened.unwrap(), statement);

    let Some(python) = python() else { return };
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes).unwrap();
    write("statement.json", &statement);
    assert_eq!(judge(&python, folder.path(), &["statement", "statement.json"]).trim(), "5 subjects");
    let run = Invocation { id: "https://ci.example.org/1".into(), started: Some(1), finished: Some(2) };
    write("run.json", &provenance::statement(&provenance(&bill, Some(run))).unwrap());
    judge(&python, folder.path(), &["statement", "run.json"]);
    write("envelope.json", &envelope);
    write("key", key.public_key().as_ref());
    assert_eq!(
        judge(&python, folder.path(), &["envelope", "envelope.json", "key", "channel"]).trim(),
        "signed by channel"
    );
}

#[test]
fn license_expression_accepts_what_the_machine_s_own_packages_declare() {
    let mut lines = String::new();
    let mut read = 0;
    for folder in std::fs::read_dir("/usr/share/doc").into_iter().flatten().flatten() {
        let Ok(bytes) = std::fs::read(folder.path().join("copyright")) else { continue };
        let declared = copyright::parse(&String::from_utf8_lossy(&bytes));
        read += 1;
        if let Some(expression) = declared.expression {
            lines.push_str(&expression);
            lines.push('\n');
        }
    }
    if read == 0 {
        skip("this machine has no copyright files in /usr/share/doc");
        return;
    }
    let Some(python) = python() else { return };
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("expressions"), lines).unwrap();
    judge(&python, folder.path(), &["expressions", "expressions"]);
}
