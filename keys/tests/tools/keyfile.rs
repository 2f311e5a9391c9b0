//! Encrypted key files: OpenSSL reads ours, we read OpenSSL's, and nothing that is malformed or too costly.

use crate::run::{output, stdout, tool};
use crate::{key_file, new_keys};
use ashlar_keys::keyfile::{self, KeyFile};
use ashlar_keys::{Access, Home, Homes, KeyError, KeyFolder, Role, Secret};
use proptest::prelude::*;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

const PASSPHRASE: &str = "correct horse ä";

fn secret(text: &str) -> Secret {
    Secret::new(text.into())
}

/// The plain PKCS#8 of the channel key: the smallest.
fn pkcs8() -> Vec<u8> {
    let text = fs::read_to_string(key_file("channel.key")).unwrap();
    let KeyFile::Plain(pkcs8) = KeyFile::parse(&text).unwrap() else { panic!() };
    pkcs8.to_vec()
}

fn encrypted() -> String {
    keyfile::write(&pkcs8(), Some(&secret(PASSPHRASE))).unwrap().to_string()
}

#[test]
fn openssl_reads_what_we_encrypt() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("key");
    for name in ["db.key", "channel.key"] {
        let Some(mut openssl) = tool("openssl", "openssl") else { return };
        let plain = fs::read_to_string(key_file(name)).unwrap();
        let KeyFile::Plain(pkcs8) = KeyFile::parse(&plain).unwrap() else { panic!() };
        fs::write(&path, &*keyfile::write(&pkcs8, Some(&secret(PASSPHRASE))).unwrap()).unwrap();
        let read = openssl.args(["pkey", "-passin", &format!("pass:{PASSPHRASE}"), "-in"]).arg(&path);
        assert_eq!(stdout(read), plain, "{name}");
        let mut openssl = tool("openssl", "openssl").unwrap();
        assert!(!output(openssl.args(["pkey", "-passin", "pass:wrong", "-in"]).arg(&path)).status.success());
    }
}

#[test]
fn what_openssl_encrypts_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("key");
    for options in [
        &["-v2", "aes-256-cbc"][..],
        &["-v2", "aes-128-cbc", "-v2prf", "hmacWithSHA512", "-iter", "10000"],
        &["-v2", "aes-256-cbc", "-scrypt"],
    ] {
        let Some(mut openssl) = tool("openssl", "openssl") else { return };
        stdout(
            openssl
                .args(["pkcs8", "-topk8", "-passout", &format!("pass:{PASSPHRASE}"), "-in"])
                .arg(key_file("channel.key"))
                .arg("-out")
                .arg(&path)
                .args(options),
        );
        let KeyFile::Encrypted(key) = KeyFile::parse(&fs::read_to_string(&path).unwrap()).unwrap() else {
            panic!("{options:?}")
        };
        assert_eq!(*key.decrypt(&secret(PASSPHRASE)).unwrap(), pkcs8(), "{options:?}");
        assert!(key.decrypt(&secret("wrong")).is_none());
    }
    // Too weak, or made to take hours.
    for (options, why) in [
        (&["-v1", "PBE-SHA1-3DES"][..], "PBES2"),
        (&["-v2", "des3"], "PBES2"),
        (&["-v2", "aes-256-cbc", "-iter", "10000001"], "minutes or gigabytes"),
    ] {
        let mut openssl = tool("openssl", "openssl").unwrap();
        let _ = fs::remove_file(&path);
        let made = output(
            openssl
                .args(["pkcs8", "-topk8", "-passout", "pass:a", "-in"])
                .arg(key_file("channel.key"))
                .arg("-out")
                .arg(&path)
                .args(options),
        );
        assert!(made.status.success(), "{made:?}");
        let error = KeyFile::parse(&fs::read_to_string(&path).unwrap()).err().unwrap().to_string();
        assert!(error.contains(why), "{options:?}: {error}");
    }
}

#[test]
fn an_encrypted_folder_asks_once_and_names_the_file() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("keys");
    let home = Home::File { passphrase: Some(secret(PASSPHRASE)) };
    let homes = Homes::from([Role::Db, Role::Pcr, Role::Channel].map(|role| (role, home.clone())));
    KeyFolder::create_in(&dir, &new_keys(), &homes, &Access::unattended()).unwrap();
    for (name, label) in
        [("db.key", "-----BEGIN ENCRYPTED PRIVATE KEY"), ("PK.key", "-----BEGIN PRIVATE KEY")]
    {
        assert!(fs::read_to_string(dir.join(name)).unwrap().starts_with(label), "{name}");
        assert_eq!(fs::metadata(dir.join(name)).unwrap().permissions().mode() & 0o777, 0o600);
    }
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let access = Access::asking(move |question| {
        count.fetch_add(1, Ordering::SeqCst);
        assert!(question.place.ends_with("db.key"), "{question}");
        Ok(secret(PASSPHRASE))
    });
    let keys = KeyFolder::open_with(&dir, &access).unwrap();
    keys.require(&[Role::Db, Role::Pcr, Role::Channel]).unwrap();
    keys.pcr().sign(b"a policy").unwrap();
    assert_eq!(asked.load(Ordering::SeqCst), 1);

    let error = KeyFolder::open(&dir).unwrap().require(&Role::BUILD).unwrap_err();
    assert!(matches!(error, KeyError::Unattended(_)), "{error}");
    let wrong = Access::asking(|_| Ok(secret("guess")));
    let error = KeyFolder::open_with(&dir, &wrong).unwrap().require(&Role::BUILD).unwrap_err();
    assert!(matches!(&error, KeyError::Passphrase(path) if path.ends_with("db.key")), "{error}");
    assert!(!format!("{error} {error:?}").contains("guess"));

    // Unattended, the passphrase is in a file.
    fs::write(dir.join("keys.toml"), "db = { file = \"db.key\", passphrase-file = \"pass\" }\n").unwrap();
    fs::write(dir.join("pass"), format!("{PASSPHRASE}\n")).unwrap();
    fs::set_permissions(dir.join("pass"), Permissions::from_mode(0o600)).unwrap();
    KeyFolder::open(&dir).unwrap().require(&Role::BUILD).unwrap();
    assert!(matches!(keyfile::write(&pkcs8(), Some(&secret(""))), Err(KeyError::EmptyPassphrase)));
}

#[test]
fn a_cut_off_key_file_is_refused() {
    let text = encrypted();
    for length in 0..text.trim_end().len() {
        assert!(KeyFile::parse(&text[..length]).is_err(), "{length}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(
        std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(12)
    ))]

    /// Hashing a passphrase takes time, so few cases: the fuzzer does more.
    /// A changed file is refused or opens to the same key or none; it never panics.
    #[test]
    fn changed_key_files_are_survived(at in 0usize..300, value in "[A-Za-z0-9+/]") {
        static TEXT: OnceLock<String> = OnceLock::new();
        let mut text = TEXT.get_or_init(encrypted).clone();
        let at = at % text.len();
        prop_assume!(text.as_bytes()[at] != b'\n');
        text.replace_range(at..=at, &value);
        if let Ok(KeyFile::Encrypted(key)) = KeyFile::parse(&text)
            && let Some(opened) = key.decrypt(&secret(PASSPHRASE))
        {
            // CBC without a checksum: a bit that is changed in the IV changes the first block.
            prop_assert_eq!(opened.len(), pkcs8().len());
        }
    }
}
