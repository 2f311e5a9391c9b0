//! Keys on tokens: SoftHSM as the token, pkcs11-tool of OpenSC and OpenSSL as judges. SoftHSM finds its tokens by
//! an environment variable, which is the whole process's: each test runs itself again in a process of its own.

use crate::program::hello;
use crate::run::{output, stdout, tool};
use crate::{TIME, key_file, keys, new_keys};
use ashlar_keys::pkcs11::{self, AnyTokenKey};
use ashlar_keys::places::{Place, TokenPlace, token_line};
use ashlar_keys::{
    Access, Home, Homes, KeyError, KeyFolder, Pkcs11Uri, Role, Secret, SecretSource, authenticode, pcr_policy,
};
use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

const PIN: &str = "987654";
/// The folder of the token, in the child process.
const FOLDER: &str = "ASHLAR_TEST_TOKEN";

fn module() -> Option<PathBuf> {
    let places = ["/usr/lib/softhsm/libsofthsm2.so", "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so"];
    let found = places.iter().map(PathBuf::from).find(|path| path.is_file());
    if found.is_none() {
        eprintln!("skipped: there is no libsofthsm2.so (package softhsm2)");
    }
    found
}

/// Runs `scenario` with a token `ashlar` of its own, in a process of its own. `configuration` is added to that
/// of SoftHSM.
fn with_token(test: &str, configuration: &str, scenario: impl Fn(&Path)) {
    if let Some(dir) = std::env::var_os(FOLDER) {
        scenario(Path::new(&dir));
        return;
    }
    let (Some(_), Some(_)) = (module(), tool("softhsm2-util", "softhsm2")) else { return };
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("tokens")).unwrap();
    let conf = dir.path().join("softhsm2.conf");
    let text =
        format!("directories.tokendir = {}/tokens\nlog.level = ERROR\n{configuration}", dir.path().display());
    fs::write(&conf, text).unwrap();
    init_token(&conf, "ashlar");
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", &format!("token::{test}"), "--nocapture", "--test-threads", "1"]);
    let run = output(child.env(FOLDER, dir.path()).env("SOFTHSM2_CONF", &conf));
    let text = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success(), "{text}\n{}", String::from_utf8_lossy(&run.stderr));
    assert!(text.contains("1 passed"), "the test did not run: {text}");
}

fn init_token(conf: &Path, label: &str) {
    let mut util = tool("softhsm2-util", "softhsm2").unwrap();
    util.env("SOFTHSM2_CONF", conf);
    stdout(util.args(["--init-token", "--free", "--so-pin", "12345678", "--pin", PIN, "--label", label]));
}

fn place(uri: &str, pin: &str) -> TokenPlace {
    TokenPlace {
        uri: uri.parse().unwrap(),
        module: module(),
        pin: SecretSource::Given(Secret::new(pin.into())),
    }
}

fn pkcs11_tool() -> Option<Command> {
    let mut tool = tool("pkcs11-tool", "opensc")?;
    tool.arg("--module").arg(module().unwrap()).args(["--token-label", "ashlar", "--login", "--pin", PIN]);
    Some(tool)
}

fn generate(role: Role) -> AnyTokenKey {
    pkcs11::generate(&place("pkcs11:token=ashlar", PIN), role, &Access::unattended()).unwrap().key
}

/// A folder with `keys.toml` and the public half of the common keys.
fn folder(dir: &Path, places: &str) -> PathBuf {
    let folder = dir.join("folder");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir(&folder).unwrap();
    for entry in fs::read_dir(keys().path()).unwrap() {
        let entry = entry.unwrap();
        if !entry.file_name().to_string_lossy().ends_with(".key") {
            fs::copy(entry.path(), folder.join(entry.file_name())).unwrap();
        }
    }
    fs::write(folder.join("keys.toml"), places).unwrap();
    fs::write(folder.join("pin"), format!("{PIN}\n")).unwrap();
    fs::set_permissions(folder.join("pin"), Permissions::from_mode(0o600)).unwrap();
    folder
}

/// Puts file keys on the token; the token then signs the very bytes that the files do.
fn imported_keys_sign_the_same_bytes(dir: &Path) {
    let access = Access::unattended();
    let mut places = String::new();
    for role in Role::ALL {
        let pkcs8 = keys().pkcs8(role).unwrap();
        let mut to = place("pkcs11:token=ashlar", PIN);
        let on_token = pkcs11::import(&to, role, &pkcs8, &access).unwrap();
        assert_eq!(on_token.uri.object.as_deref(), Some(role.name()));
        to = TokenPlace { pin: SecretSource::File("pin".into()), ..on_token };
        places.push_str(&token_line(role, &to));
        let error = pkcs11::import(&to_given(&to), role, &pkcs8, &access).unwrap_err();
        assert!(matches!(&error, KeyError::TokenInUse { object, .. } if object == role.name()), "{error}");
    }
    assert!(!places.contains(PIN), "{places}");
    let folder = folder(dir, &places);
    let on_token = KeyFolder::open(&folder).unwrap();
    on_token.require(&Role::ALL).unwrap();
    let program = hello();
    let signed = authenticode::sign(&program, on_token.db(), Some(TIME)).unwrap();
    assert_eq!(signed, authenticode::sign(&program, keys().db(), Some(TIME)).unwrap());
    if let Some(mut sbverify) = tool("sbverify", "sbsigntool") {
        fs::write(dir.join("signed.efi"), &signed).unwrap();
        stdout(sbverify.arg("--cert").arg(key_file("db.crt")).arg(dir.join("signed.efi")));
    }
    let values = [BTreeMap::from([(11, ashlar_image::digest::Digest::of("pcr"))])];
    let policy = pcr_policy::sign(on_token.pcr(), &values).unwrap();
    assert_eq!(policy, pcr_policy::sign(keys().pcr(), &values).unwrap());
    for message in [&b""[..], b"a release", &[7; 5000]] {
        assert_eq!(on_token.channel().sign(message).unwrap(), keys().channel().sign(message).unwrap());
    }
    assert!(!format!("{on_token:?}").contains(PIN));
}

fn to_given(place: &TokenPlace) -> TokenPlace {
    TokenPlace { pin: SecretSource::Given(Secret::new(PIN.into())), ..place.clone() }
}

#[test]
fn keys_put_on_a_token_sign_the_same_bytes() {
    with_token("keys_put_on_a_token_sign_the_same_bytes", "", imported_keys_sign_the_same_bytes);
}

/// A token that cannot hash is given the DigestInfo.
#[test]
fn a_token_without_hashing_signs_the_same_bytes() {
    with_token(
        "a_token_without_hashing_signs_the_same_bytes",
        "slots.mechanisms = -CKM_SHA256_RSA_PKCS\n",
        imported_keys_sign_the_same_bytes,
    );
}

#[test]
fn a_new_set_of_keys_is_made_on_the_token() {
    with_token("a_new_set_of_keys_is_made_on_the_token", "", |dir| {
        let home = Home::Token(Box::new(place("pkcs11:token=ashlar", PIN)));
        let homes = Homes::from(
            [Role::Db, Role::Pcr, Role::Channel, Role::Configuration].map(|role| (role, home.clone())),
        );
        let access = Access::asking(|question| {
            assert!(question.place.starts_with("ashlar (serial "), "{question}");
            Ok(Secret::new(PIN.into()))
        });
        // A failure leaves nothing on the token.
        let mut bad = new_keys();
        bad.owner_name = String::new();
        assert!(KeyFolder::create_in(&dir.join("bad"), &bad, &homes, &access).is_err());
        let folder = dir.join("keys");
        let keys = KeyFolder::create_in(&folder, &new_keys(), &homes, &access).unwrap();
        for (role, is_file) in
            [(Role::Pk, true), (Role::Kek, true), (Role::Db, false), (Role::Channel, false)]
        {
            assert_eq!(folder.join(format!("{role}.key")).exists(), is_file, "{role}");
        }
        keys.require(&Role::ALL).unwrap();
        let signed = authenticode::sign(&hello(), keys.db(), None).unwrap();
        authenticode::verify(&signed, keys.db().certificate_der()).unwrap();
        keys.channel().public_key().verify(b"a", &keys.channel().sign(b"a").unwrap()).unwrap();
        assert!(matches!(keys.pkcs8(Role::Db), Err(KeyError::NotAFile { role: Role::Db, .. })));
        let toml = fs::read_to_string(folder.join("keys.toml")).unwrap();
        assert_eq!(toml.lines().count(), 4);
        assert!(!toml.contains(PIN));
        if let (Some(mut judge), Some(mut openssl)) = (pkcs11_tool(), tool("openssl", "openssl")) {
            let listed = stdout(judge.arg("--list-objects"));
            assert_eq!(listed.matches("Private Key Object").count(), 4, "{listed}");
            for part in ["label:      db", "sensitive, always sensitive, never extractable"] {
                assert!(listed.contains(part), "{part}: {listed}");
            }
            // The token verifies by itself, and OpenSSL with the public key in the folder.
            let (message, signature) = (dir.join("message"), dir.join("signature"));
            fs::write(&message, "a policy").unwrap();
            // By its id: pkcs11-tool signs with any key if it is given a label.
            let Place::Pkcs11(of_pcr) = keys.place(Role::Pcr) else { panic!() };
            let id = hex::encode(of_pcr.uri.id.unwrap());
            let sign = pkcs11_tool().unwrap();
            stdout(
                { sign }
                    .args(["--sign", "-m", "SHA256-RSA-PKCS", "--id", &id, "-i"])
                    .arg(&message)
                    .arg("-o")
                    .arg(&signature),
            );
            assert_eq!(fs::read(&signature).unwrap(), keys.pcr().sign(b"a policy").unwrap());
            stdout(
                openssl
                    .args(["dgst", "-sha256", "-verify"])
                    .arg(folder.join("pcr.pub"))
                    .arg("-signature")
                    .arg(&signature)
                    .arg(&message),
            );
        }
        if let Some(mut openssl) = tool("openssl", "openssl") {
            let (message, signature) = (dir.join("message"), dir.join("signature"));
            fs::write(&message, "a release").unwrap();
            fs::write(&signature, keys.channel().sign(b"a release").unwrap()).unwrap();
            stdout(
                openssl
                    .args(["pkeyutl", "-verify", "-pubin", "-rawin", "-inkey"])
                    .arg(folder.join("channel.pub"))
                    .arg("-in")
                    .arg(&message)
                    .arg("-sigfile")
                    .arg(&signature),
            );
        }
    });
}

#[test]
fn a_pin_is_asked_for_once_and_a_wrong_one_is_told() {
    with_token("a_pin_is_asked_for_once_and_a_wrong_one_is_told", "", |_| {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let ask = move |text: &'static str| {
            let count = Arc::clone(&count);
            Access::asking(move |_| {
                count.fetch_add(1, Ordering::SeqCst);
                Ok(Secret::new(text.into()))
            })
        };
        let anybody = TokenPlace { pin: SecretSource::Ask, ..place("pkcs11:token=ashlar", "") };
        let refused = |access: &Access| pkcs11::generate(&anybody, Role::Db, access).err().unwrap();
        assert!(matches!(refused(&Access::unattended()), KeyError::Unattended(_)));
        let error = refused(&ask("1111"));
        let text = error.to_string();
        assert!(matches!(error, KeyError::WrongPin { .. }), "{text}");
        assert!(text.contains("ashlar (serial ") && text.contains("tries"), "{text}");
        assert!(!format!("{error:?}").contains("1111"));
        let access = ask(PIN);
        pkcs11::generate(&anybody, Role::Db, &access).unwrap();
        pkcs11::generate(&anybody, Role::Channel, &access).unwrap();
        assert_eq!(asked.load(Ordering::SeqCst), 2);
    });
}

#[test]
fn a_key_that_wants_the_pin_each_time() {
    with_token("a_key_that_wants_the_pin_each_time", "", |dir| {
        let Some(mut tool) = pkcs11_tool() else { return };
        stdout(tool.args([
            "--keypairgen",
            "--key-type",
            "rsa:2048",
            "--label",
            "db",
            "--id",
            "01",
            "--always-auth",
            "--usage-sign",
        ]));
        let mut read = pkcs11_tool().unwrap();
        let der = dir.join("public.der");
        stdout(read.args(["--read-object", "--type", "pubkey", "--id", "01", "-o"]).arg(&der));
        // The folder knows the key by its public half.
        let folder = folder(
            dir,
            &token_line(
                Role::Pcr,
                &TokenPlace { pin: SecretSource::File("pin".into()), ..place("pkcs11:object=db", PIN) },
            ),
        );
        let public = ashlar_keys::RsaPublicKey::from_spki_der(&fs::read(&der).unwrap()).unwrap();
        fs::write(folder.join("pcr.pub"), public.spki_pem().unwrap()).unwrap();
        let keys = KeyFolder::open(&folder).unwrap();
        for message in [b"one", b"two"] {
            public.verify(message, &keys.pcr().sign(message).unwrap()).unwrap();
        }
        // Another key than the folder's is noticed before it signs.
        fs::copy(key_file("pcr.pub"), folder.join("pcr.pub")).unwrap();
        let error = KeyFolder::open(&folder).unwrap().require(&[Role::Pcr]).unwrap_err();
        assert!(matches!(error, KeyError::Mismatch { .. }), "{error}");
    });
}

#[test]
fn what_is_not_found_is_told_with_what_there_is() {
    with_token("what_is_not_found_is_told_with_what_there_is", "", |dir| {
        generate(Role::Db);
        let opened = |uri: &str| {
            let folder = folder(
                dir,
                &token_line(
                    Role::Db,
                    &TokenPlace { pin: SecretSource::File("pin".into()), ..place(uri, PIN) },
                ),
            );
            KeyFolder::open(&folder).unwrap().require(&[Role::Db]).unwrap_err()
        };
        let told = |error: KeyError, parts: &[&str]| {
            let text = error.to_string();
            assert!(parts.iter().all(|part| text.contains(part)), "{text}");
        };
        told(opened("pkcs11:token=other;object=db"), &["token=other", "`ashlar` (serial="]);
        told(opened("pkcs11:token=ashlar;slot-id=0;object=db"), &["slot-id=0"]);
        told(opened("pkcs11:token=ashlar;object=pcr"), &["object=pcr", "`db` (id=%"]);
        // The key is there, but it is not that of the certificate.
        assert!(matches!(opened("pkcs11:token=ashlar;object=db"), KeyError::Mismatch { .. }));
        // A second token, and a second key with the same label.
        let conf = PathBuf::from(std::env::var_os("SOFTHSM2_CONF").unwrap());
        let Some(mut tool) = pkcs11_tool() else { return };
        stdout(tool.args(["--keypairgen", "--key-type", "rsa:2048", "--label", "db", "--id", "02"]));
        told(opened("pkcs11:token=ashlar;object=db"), &["several private keys", "id=%02"]);
        init_token(&conf, "another");
        // Modules are asked anew by another program.
        let mut again = Command::new(std::env::current_exe().unwrap());
        again.args(["--exact", "token::two_tokens", "--ignored", "--nocapture"]);
        stdout(&mut again);
    });
}

/// Run by the test above, when there are two tokens.
#[test]
#[ignore = "is run by another test"]
fn two_tokens() {
    if std::env::var_os(FOLDER).is_some() {
        let place = place("pkcs11:", PIN);
        let error = pkcs11::generate(&place, Role::Db, &Access::unattended()).err().unwrap();
        let text = error.to_string();
        assert!(matches!(error, KeyError::SeveralTokens { .. }), "{text}");
        assert!(text.contains("`another`") && text.contains("`ashlar`"), "{text}");
    }
}

#[test]
fn modules_that_are_none() {
    let dir = tempfile::tempdir().unwrap();
    let not_one = dir.path().join("module.so");
    fs::write(&not_one, "no library").unwrap();
    let refused = |uri: &str, module: Option<PathBuf>| {
        let uri: Pkcs11Uri = uri.parse().unwrap();
        let place = TokenPlace { uri, module, pin: SecretSource::Ask };
        pkcs11::generate(&place, Role::Db, &Access::unattended()).err().unwrap().to_string()
    };
    assert!(refused("pkcs11:", None).contains("no PKCS#11 module is named"));
    assert!(refused("pkcs11:", Some(dir.path().join("absent.so"))).contains("no such file"));
    assert!(refused("pkcs11:", Some(not_one)).contains("cannot load the PKCS#11 module"));
    assert!(refused("pkcs11:?module-name=absent", None).contains("/usr/lib/softhsm"));
    let libc = PathBuf::from("/lib/x86_64-linux-gnu/libc.so.6");
    if libc.exists() {
        assert!(refused("pkcs11:", Some(libc)).contains("C_GetFunctionList"));
    }
}
