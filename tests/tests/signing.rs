//! Signing where the keys are: elsewhere, on two machines, on a token, behind a passphrase. Whichever way a release was
//! signed, it is the same release.
#![allow(clippy::unwrap_used)] // a test fails by it

use ashlar_tests::folders::{self, assert_same};
use ashlar_tests::release::new_keys;
use ashlar_tests::tools::judge;
use ashlar_tests::{Built, Case, Run, built, skip};
use serde_json::Value;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Keys are missing or wrong.
const KEYS: i32 = 4;
/// The token's PIN.
const PIN: &str = "987654";

/// A copy of a folder of keys with the private halves of these roles only.
fn keys_with(case: &Case, from: &Path, name: &str, roles: &[&str]) -> PathBuf {
    let folder = case.path(name);
    folders::copy(from, &folder);
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let role = path.file_stem().unwrap().to_str().unwrap();
        if path.extension().is_some_and(|ending| ending == "key") && !roles.contains(&role) {
            std::fs::remove_file(path).unwrap();
        }
    }
    folder
}

/// An unsigned release in `unsigned`, from a machine that has no private key.
fn unsigned(built: &Built) -> Case {
    let mut case = Case::of(built);
    case.keys = keys_with(&case, &built.keys, "public", &[]);
    assert!(!folders::names(&case.keys).iter().any(|name| name.extension().is_some_and(|e| e == "key")));
    let mut build =
        case.ashlar(&["build", "recipe.toml", "--offline", "--locked", "--unsigned", "-o", "unsigned"]);
    let _ = Run::of(build.arg("--keys").arg(&case.keys)).ok();
    case
}

fn sign(case: &Case, keys: &Path, more: &[&str]) -> Run {
    Run::of(case.ashlar(&["sign", "unsigned", "--keys"]).arg(keys).args(more))
}

fn attach(case: &Case, signatures: &[&str]) -> Run {
    Run::of(case.ashlar(&["attach", "unsigned"]).args(signatures).args(["-o", "out"]))
}

#[test]
fn signed_elsewhere_it_is_the_same_release() {
    let Some(built) = built() else { return };
    let case = unsigned(built);
    // What is to be signed can be read before.
    let shown = sign(&case, &built.keys, &["--show"]).ok();
    assert!(shown.stdout.contains(&built.release.root_hash.to_string()), "{shown}");
    assert!(!case.path("unsigned/signatures.json").exists());
    let _ = sign(&case, &built.keys, &[]).ok();
    let _ = attach(&case, &[]).ok();
    assert_same(&built.out, &case.out(), "signed elsewhere");
    // Once more over what is there.
    let _ = attach(&case, &[]).ok();
    assert_same(&built.out, &case.out(), "attached again");
}

#[test]
fn two_machines_with_a_key_each() {
    let Some(built) = built() else { return };
    let case = unsigned(built);
    let (pcr, db) =
        (keys_with(&case, &built.keys, "pcr", &["pcr"]), keys_with(&case, &built.keys, "db", &["db"]));
    // Only what signing needs goes to the other machines: neither root nor disk.
    for name in ["root.erofs", "root.verity"] {
        std::fs::rename(case.path("unsigned").join(name), case.path(name)).unwrap();
    }
    let run = sign(&case, &db, &["--role", "db", "-o", "too-early.json"]);
    assert!(run.code == Some(0) || run.code == Some(KEYS), "{run}");
    let run = sign(&case, &pcr, &["--role", "pcr", "-o", "signatures.json"]).ok();
    assert!(run.stdout.contains("signed in part"), "{run}");
    let in_part = std::fs::read(case.path("signatures.json")).unwrap();
    let _ = sign(&case, &db, &["--role", "db", "-o", "signatures.json"]).ok();
    for name in ["root.erofs", "root.verity"] {
        std::fs::rename(case.path(name), case.path("unsigned").join(name)).unwrap();
    }
    // With one of the two, nothing is made.
    case.write("in-part.json", in_part);
    let run = attach(&case, &["in-part.json"]);
    assert_eq!(run.code, Some(KEYS), "{run}");
    assert!(run.error_text().contains("`db`"), "{run}");
    assert!(!case.out().exists());
    let _ = attach(&case, &["signatures.json"]).ok();
    assert_same(&built.out, &case.out(), "signed on two machines");
}

#[test]
fn signatures_of_others_and_forged_ones_are_refused() {
    let Some(built) = built() else { return };
    let case = unsigned(built);
    // Somebody else's keys sign nothing for this owner.
    let other = case.path("other");
    new_keys(&other, "Somebody else");
    let run = sign(&case, &other, &["-o", "foreign.json"]);
    if run.code == Some(0) {
        let run = attach(&case, &["foreign.json"]);
        assert_eq!(run.code, Some(KEYS), "{run}");
    } else {
        assert_eq!(run.code, Some(KEYS), "{run}");
    }
    assert!(!case.out().exists());
    let _ = sign(&case, &built.keys, &["-o", "good.json"]).ok();
    let good: Value = serde_json::from_slice(&std::fs::read(case.path("good.json")).unwrap()).unwrap();
    // One character of a signature; the signature of one key for another; the signature of another message.
    let forged = |change: &dyn Fn(&mut Value)| {
        let mut value = good.clone();
        change(&mut value);
        assert_ne!(value, good);
        case.write("forged.json", value.to_string());
        let run = attach(&case, &["forged.json"]);
        assert_eq!(run.code, Some(KEYS), "{run}");
        assert!(!case.out().exists(), "{run}");
        assert!(!run.stderr.contains("panicked"), "{run}");
    };
    let signatures = good["signatures"].as_array().unwrap();
    // The UKI's, that of PCR 11 alone, and those of the state volume for two generations.
    assert_eq!(signatures.len(), 4, "{good}");
    for at in 0..4 {
        forged(&|value| {
            let text = value["signatures"][at]["signature"].as_str().unwrap();
            let middle = text.len() / 2;
            let other = if &text[middle..=middle] == "A" { "B" } else { "A" };
            value["signatures"][at]["signature"] =
                Value::String(format!("{}{other}{}", &text[..middle], &text[middle + 1..]));
        });
        forged(&|value| {
            value["signatures"][at]["signature"] = signatures[(at + 1) % 4]["signature"].clone();
        });
        forged(&|value| {
            value["signatures"][at]["message"] = Value::String("00".repeat(32));
        });
    }
    // What was signed is what is attached: another root is refused.
    ashlar_tests::disk::flip(&case.path("unsigned/root.erofs"), 100_000);
    let run = attach(&case, &["good.json"]);
    assert_eq!(run.code, Some(2), "{run}");
    assert!(run.error_text().contains("root.erofs") && !case.out().exists(), "{run}");
    ashlar_tests::disk::flip(&case.path("unsigned/root.erofs"), 100_000);
    let _ = attach(&case, &["good.json"]).ok();
    assert_same(&built.out, &case.out(), "with the right signatures");
}

/// A new folder of keys made by the program with these further arguments.
fn make_keys(case: &Case, name: &str, arguments: &[&str]) -> Run {
    Run::of(case.ashlar(&["keys", "new", name]).args(arguments))
}

/// A file that only its owner can read.
fn secret(case: &Case, name: &str, text: &str) -> PathBuf {
    let path = case.write(name, format!("{text}\n"));
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
    path
}

/// Builds with `keys`; the release must be accepted by `sbverify` with the folder's certificate.
fn builds_and_verifies(case: &Case, keys: &str, environment: &[(&str, &Path)]) {
    let mut build =
        case.ashlar(&["build", "recipe.toml", "--offline", "--locked", "-o", "out", "--keys", keys]);
    let _ = Run::of(build.envs(environment.iter().copied())).ok();
    let Some(mut sbverify) = judge("sbverify", "sbsigntool") else { return };
    let certificate = case.path(keys).join("db.crt");
    let _ = Run::of(sbverify.arg("--cert").args([certificate, case.path("out/uki.efi")])).ok();
}

#[test]
fn keys_behind_a_passphrase() {
    let Some(built) = built() else { return };
    let case = Case::of(built);
    secret(&case, "passphrase", "correct horse battery staple");
    let _ = make_keys(&case, "locked", &["--passphrase-file", "passphrase"]).ok();
    let db = std::fs::read_to_string(case.path("locked/db.key")).unwrap();
    assert!(db.starts_with("-----BEGIN ENCRYPTED PRIVATE KEY-----"), "{db}");
    // Another program can read it with the passphrase, and not without.
    let open = |passphrase: &str| {
        let mut openssl = judge("openssl", "openssl")?;
        openssl.args(["pkey", "-noout", "-in", "locked/db.key", "-passin", passphrase]);
        Some(Run::of(openssl.current_dir(case.path(""))).code == Some(0))
    };
    if let Some(opened) = open("file:passphrase") {
        assert!(opened);
        assert_eq!(open("pass:wrong"), Some(false));
    }
    let places = |file: &str| {
        let role =
            |role: &str| format!("{role} = {{ file = \"{role}.key\", passphrase-file = \"{file}\" }}\n");
        secret(&case, "locked/keys.toml", &(role("db") + &role("pcr")));
    };
    let build = || {
        let mut build = case.ashlar(&["build", "recipe.toml", "--offline", "--locked", "-o", "out"]);
        Run::of(build.args(["--keys", "locked"]))
    };
    // Nobody can be asked here.
    let run = build();
    assert_eq!(run.code, Some(KEYS), "{run}");
    assert!(!case.out().exists());
    secret(&case, "wrong", "incorrect horse");
    places("../wrong");
    let run = build();
    assert_eq!(run.code, Some(KEYS), "{run}");
    assert!(run.error_text().contains("passphrase") && !case.out().exists(), "{run}");
    places("../passphrase");
    builds_and_verifies(&case, "locked", &[]);
}

/// A SoftHSM token `ashlar` in the folder of a case; none, with the reason said, when it is not installed.
fn token(case: &Case) -> Option<(PathBuf, PathBuf)> {
    let module = ["/usr/lib/softhsm/libsofthsm2.so", "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so"]
        .map(PathBuf::from)
        .into_iter()
        .find(|path| path.is_file());
    let (Some(module), Some(mut util)) = (module, judge("softhsm2-util", "softhsm2")) else {
        skip("libsofthsm2.so is needed (package softhsm2)");
        return None;
    };
    std::fs::create_dir(case.path("tokens")).unwrap();
    let text = format!("directories.tokendir = {}\nlog.level = ERROR\n", case.path("tokens").display());
    let configuration = case.write("softhsm2.conf", text);
    util.env("SOFTHSM2_CONF", &configuration);
    util.args(["--init-token", "--free", "--so-pin", "12345678", "--pin", PIN, "--label", "ashlar"]);
    let _ = Run::of(&mut util).ok();
    secret(case, "pin", PIN);
    Some((module, configuration))
}

#[test]
fn keys_that_never_leave_a_token() {
    let Some(built) = built() else { return };
    let case = Case::of(built);
    let Some((module, configuration)) = token(&case) else { return };
    let mut new = case.ashlar(&["keys", "new", "on-token", "--pkcs11", "pkcs11:token=ashlar"]);
    new.arg("--module")
        .arg(&module)
        .arg("--pin-file")
        .arg(case.path("pin"))
        .env("SOFTHSM2_CONF", &configuration);
    let _ = Run::of(&mut new).ok();
    let files = folders::names(&case.path("on-token"));
    // All but the one that decrypts, which tokens need not be able to.
    let private: Vec<_> =
        files.iter().filter(|name| name.extension().is_some_and(|ending| ending == "key")).collect();
    assert_eq!(private, ["recovery.key"], "{files:?}");
    let mut show = case.ashlar(&["keys", "show", "on-token", "--json"]);
    let shown: Value =
        serde_json::from_str(&Run::of(show.env("SOFTHSM2_CONF", &configuration)).ok().stdout).unwrap();
    for role in ["PK", "KEK", "db", "pcr", "channel", "configuration"] {
        let private = shown["keys"][role]["private"].as_str().unwrap();
        assert!(private.starts_with("pkcs11:") && !private.contains(PIN), "{shown}");
    }
    let environment = [("SOFTHSM2_CONF", configuration.as_path())];
    builds_and_verifies(&case, "on-token", &environment);
    let first = case.path("first");
    std::fs::rename(case.out(), &first).unwrap();
    builds_and_verifies(&case, "on-token", &environment);
    assert_same(&first, &case.out(), "signed by the token again");
    // A wrong PIN is said once, and not tried until the token locks itself.
    secret(&case, "pin", "111111");
    let mut build =
        case.ashlar(&["build", "recipe.toml", "--offline", "--locked", "-o", "none", "--keys", "on-token"]);
    let run = Run::of(build.env("SOFTHSM2_CONF", &configuration));
    assert_eq!(run.code, Some(KEYS), "{run}");
    assert!(run.error_text().contains("PIN") && !run.stderr.contains("111111"), "{run}");
    assert!(!case.path("none").exists());
}

/// A key that was a file moves to a token: releases stay the same, byte for byte.
#[test]
fn a_key_that_moved_to_a_token() {
    let Some(built) = built() else { return };
    let case = Case::of(built);
    let Some((module, configuration)) = token(&case) else { return };
    folders::copy(&built.keys, &case.path("moved"));
    let mut lines = String::new();
    for role in ["db", "pcr"] {
        let mut import = case.ashlar(&["keys", "import", "moved", role, "--pkcs11", "pkcs11:token=ashlar"]);
        import.arg("--module").arg(&module).arg("--pin-file").arg(case.path("pin"));
        let run = Run::of(import.env("SOFTHSM2_CONF", &configuration)).ok();
        let line = run.stdout.lines().find(|line| line.starts_with(&format!("{role} = "))).unwrap();
        lines.push_str(line);
        lines.push('\n');
        std::fs::remove_file(case.path(format!("moved/{role}.key"))).unwrap();
    }
    secret(&case, "moved/keys.toml", &lines);
    builds_and_verifies(&case, "moved", &[("SOFTHSM2_CONF", &configuration)]);
    assert_same(&built.out, &case.out(), "signed by a token");
}
