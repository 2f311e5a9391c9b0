//! The key folder: what is refused, and that OpenSSL reads all of it.

use crate::program::hello;
use crate::run::{output, stdout, succeeds, tool};
use crate::{key_file, keys, new_keys};
use ashlar_keys::{KeyError, KeyFolder, Role, authenticode};
use ashlar_measured_boot::efi::{Guid, parse_signature_lists};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use tempfile::TempDir;

const PRIVATE: [&str; 7] =
    ["PK.key", "KEK.key", "db.key", "pcr.key", "channel.key", "configuration.key", "recovery.key"];
const PUBLIC: [&str; 14] = [
    "PK.crt",
    "KEK.crt",
    "db.crt",
    "pcr.pub",
    "channel.pub",
    "configuration.pub",
    "owner.guid",
    "PK.esl",
    "KEK.esl",
    "db.esl",
    "PK.auth",
    "KEK.auth",
    "db.auth",
    "recovery.pub",
];

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// A copy of the key folder to spoil.
fn copy() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for name in PRIVATE.iter().chain(&PUBLIC) {
        fs::copy(key_file(name), dir.path().join(name)).unwrap();
    }
    dir
}

#[test]
fn a_new_folder_is_private_and_complete() {
    let mut found: Vec<_> =
        fs::read_dir(keys().path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    let mut wanted: Vec<_> = PRIVATE.iter().chain(&PUBLIC).map(ToString::to_string).collect();
    found.sort();
    wanted.sort();
    assert_eq!(found, wanted);
    assert_eq!(mode(keys().path()), 0o700);
    for name in PRIVATE {
        assert_eq!(mode(&key_file(name)), 0o600, "{name}");
    }
    assert_eq!(KeyFolder::open(keys().path()).unwrap().owner(), keys().owner());
}

#[test]
fn keys_are_never_overwritten_and_nothing_is_left_behind() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("keys");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("db.key"), "precious").unwrap();
    let error = KeyFolder::create(&dir, &new_keys()).unwrap_err();
    assert!(matches!(&error, KeyError::FolderInUse { entry, .. } if entry == "db.key"), "{error}");
    assert_eq!(fs::read(dir.join("db.key")).unwrap(), b"precious");

    let mut bad = new_keys();
    bad.owner_name = String::new();
    let error = KeyFolder::create(&parent.path().join("other"), &bad).unwrap_err();
    assert!(matches!(error, KeyError::OwnerName(_)), "{error}");
    let left: Vec<_> = fs::read_dir(parent.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["keys"]);
}

#[test]
fn an_empty_folder_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("keys");
    fs::create_dir(&folder).unwrap();
    KeyFolder::create(&folder, &new_keys()).unwrap();
    assert_eq!(mode(&folder), 0o700);
}

#[test]
fn a_spoiled_folder_is_refused_with_the_files_name() {
    let refused = |spoil: &dyn Fn(&Path)| {
        let dir = copy();
        let open = || KeyFolder::open(dir.path()).and_then(|keys| keys.require(&Role::ALL));
        open().unwrap();
        spoil(dir.path());
        let error = open().unwrap_err();
        error.to_string().replace(&format!("{}/", dir.path().display()), "")
    };
    // Nothing that signs needs the recovery key.
    for name in PRIVATE.into_iter().filter(|name| *name != "recovery.key") {
        let message = refused(&|dir| fs::remove_file(dir.join(name)).unwrap());
        assert!(message.contains("is not here") && message.contains(name), "{message}");
        for open in [0o640, 0o604, 0o660] {
            let message =
                refused(&|dir| fs::set_permissions(dir.join(name), Permissions::from_mode(open)).unwrap());
            assert!(message.contains(&format!("chmod 600 '{name}'")), "{message}");
        }
        let message = refused(&|dir| fs::write(dir.join(name), "no key\n").unwrap());
        assert!(message.contains(&format!("`{name}` is not")), "{message}");
    }
    for (to, from, private) in [
        ("PK.crt", "db.crt", "PK.key"),
        ("db.crt", "KEK.crt", "db.key"),
        ("channel.pub", "configuration.pub", "channel.key"),
    ] {
        let message = refused(&|dir| {
            fs::copy(dir.join(from), dir.join(to)).unwrap();
        });
        assert!(message.contains(&format!("`{private}` and `{to}` do not belong together")), "{message}");
    }
    for (name, content) in [("owner.guid", "nobody\n"), ("pcr.pub", "-----BEGIN\n"), ("KEK.crt", "")] {
        let message = refused(&|dir| fs::write(dir.join(name), content).unwrap());
        assert!(message.contains(&format!("`{name}` is not")), "{message}");
    }
}

/// What a build needs: PK and KEK lie in a safe.
#[test]
fn a_build_needs_no_private_half_of_pk_and_kek() {
    let dir = copy();
    for name in ["PK.key", "KEK.key", "channel.key", "configuration.key"] {
        fs::remove_file(dir.path().join(name)).unwrap();
    }
    let keys = KeyFolder::open(dir.path()).unwrap();
    keys.require(&Role::BUILD).unwrap();
    let signed = authenticode::sign(&hello(), keys.db(), None).unwrap();
    authenticode::verify(&signed, keys.db().certificate_der()).unwrap();
    assert_eq!(signed, authenticode::sign(&hello(), crate::keys().db(), None).unwrap());
    assert_eq!(keys.secure_boot(), crate::keys().secure_boot());
    let error = keys.kek().signer().sign(b"db").unwrap_err();
    assert!(matches!(error, KeyError::NoPrivateKey { role: Role::Kek, .. }));
    let text = error.to_string();
    for part in ["KEK.key", "ashlar build --unsigned", "ashlar sign", "ashlar attach", "keys.toml"] {
        assert!(text.contains(part), "{text}");
    }
    // Named offline, even if the file were there.
    fs::write(dir.path().join("keys.toml"), "db = \"offline\"\n").unwrap();
    let error = KeyFolder::open(dir.path()).unwrap().require(&Role::BUILD).unwrap_err();
    assert!(error.to_string().contains("looked for: offline"), "{error}");
    // Named elsewhere.
    fs::rename(dir.path().join("db.key"), dir.path().join("moved")).unwrap();
    fs::write(dir.path().join("keys.toml"), "db = { file = \"moved\" }\n").unwrap();
    KeyFolder::open(dir.path()).unwrap().require(&Role::BUILD).unwrap();
}

#[test]
fn nothing_private_is_printed() {
    let printed = format!("{:?}", keys());
    for name in PRIVATE {
        // The middle of the base64 text, and its bytes in decimal as Debug prints slices.
        let pem = fs::read_to_string(key_file(name)).unwrap();
        let lines: Vec<&str> = pem.lines().filter(|line| !line.starts_with('-')).collect();
        for line in lines {
            assert!(!printed.contains(line), "{name}");
        }
    }
    let Some(mut openssl) = tool("openssl", "openssl") else { return };
    let text = stdout(openssl.args(["pkey", "-noout", "-text", "-in"]).arg(key_file("db.key")));
    // OpenSSL prints numbers as `ab:cd`, after their names; ours would be `abcd`.
    let prime: String = text.split("prime1:").nth(1).unwrap().split("prime2:").next().unwrap().into();
    let prime: String = prime.chars().filter(char::is_ascii_hexdigit).collect();
    assert!(prime.len() > 200);
    assert!(!printed.to_lowercase().contains(&prime[2..66]));
}

#[test]
fn openssl_reads_keys_and_certificates() {
    for name in PRIVATE {
        let Some(mut openssl) = tool("openssl", "openssl") else { return };
        let text = stdout(openssl.args(["pkey", "-noout", "-check", "-text", "-in"]).arg(key_file(name)));
        let wanted = if name.starts_with('c') { "ED25519" } else { "Private-Key: (2048 bit" };
        assert!(text.contains(wanted), "{text}");
    }
    for name in ["PK", "KEK", "db"] {
        let certificate = key_file(&format!("{name}.crt"));
        let openssl = || tool("openssl", "openssl").unwrap();
        let text = stdout(openssl().args(["x509", "-noout", "-text", "-in"]).arg(&certificate));
        for part in [
            "Version: 3",
            "sha256WithRSAEncryption",
            "O = Ashlar test",
            "CA:FALSE",
            "Not Before: Jan  2 03:04:05 2026 GMT",
            "Not After : Jan  2",
        ] {
            assert!(text.contains(part), "{name}: {part}: {text}");
        }
        assert!(succeeds(
            openssl()
                .args(["verify", "-no_check_time", "-check_ss_sig", "-CAfile"])
                .arg(&certificate)
                .arg(&certificate)
        ));
        let other = key_file(if name == "PK" { "KEK.crt" } else { "PK.crt" });
        assert!(!succeeds(
            openssl().args(["verify", "-no_check_time", "-CAfile"]).arg(other).arg(&certificate)
        ));
    }
}

#[test]
fn ed25519_signatures_are_accepted_by_openssl() {
    let Some(mut openssl) = tool("openssl", "openssl") else { return };
    let dir = tempfile::tempdir().unwrap();
    let (message, signature) = (dir.path().join("message"), dir.path().join("signature"));
    fs::write(&message, "a release").unwrap();
    fs::write(&signature, keys().channel().sign(b"a release").unwrap()).unwrap();
    let verify = openssl
        .args(["pkeyutl", "-verify", "-pubin", "-rawin", "-inkey"])
        .arg(key_file("channel.pub"))
        .arg("-in")
        .arg(&message)
        .arg("-sigfile")
        .arg(&signature);
    assert!(succeeds(verify), "{:?}", output(verify));
    fs::write(&message, "another release").unwrap();
    assert!(!succeeds(verify));
    let key = keys().channel().public_key();
    key.verify(b"a release", &keys().channel().sign(b"a release").unwrap()).unwrap();
    assert!(key.verify(b"a release", &keys().configuration().sign(b"a release").unwrap()).is_err());
}

#[test]
fn the_variables_hold_the_certificates() {
    let variables = keys().secure_boot();
    for (payload, key, file) in [
        (&variables.pk, keys().pk(), "PK.esl"),
        (&variables.kek, keys().kek(), "KEK.esl"),
        (&variables.db, keys().db(), "db.esl"),
    ] {
        assert_eq!(*payload, fs::read(key_file(file)).unwrap());
        let lists = parse_signature_lists(payload).unwrap();
        assert_eq!(lists.len(), 1);
        assert_eq!(lists[0].signature_type, Guid::CERT_X509);
        assert_eq!(lists[0].signatures[0].owner, keys().owner());
        assert_eq!(lists[0].signatures[0].data, key.certificate_der());
    }
    assert_eq!(keys().db_authority(), variables.db[28..]);
    assert!(variables.dbx.is_empty());
    let Some(mut tool) = tool("sig-list-to-certs", "efitools") else { return };
    let dir = tempfile::tempdir().unwrap();
    let printed = stdout(tool.arg(key_file("db.esl")).arg("cert").current_dir(dir.path()));
    assert!(printed.to_lowercase().contains(&keys().owner().to_string()), "{printed}");
    assert_eq!(fs::read(dir.path().join("cert-0.der")).unwrap(), keys().db().certificate_der());
}

/// While keys change, db holds the old certificate beside the new one.
#[test]
fn an_old_certificate_stays_in_db() {
    let dir = copy();
    fs::copy(dir.path().join("KEK.crt"), dir.path().join("db-2025.crt")).unwrap();
    let keys = KeyFolder::open(dir.path()).unwrap();
    let db = keys.secure_boot().db;
    let lists = parse_signature_lists(&db).unwrap();
    let certificates: Vec<_> = lists.iter().map(|list| list.signatures[0].data.clone()).collect();
    assert_eq!(certificates, [keys.db().certificate_der(), keys.kek().certificate_der()]);
    assert_eq!(keys.db_authority(), crate::keys().db_authority());
    assert_eq!(keys.signed_variable(Role::Db).unwrap(), fs::read(key_file("db.auth")).unwrap());
    assert!(keys.renewed_db(crate::TIME + 1).unwrap().ends_with(&db));
    fs::write(dir.path().join("db-2024.crt"), "none").unwrap();
    assert!(KeyFolder::open(dir.path()).unwrap_err().to_string().contains("db-2024.crt"));
}
