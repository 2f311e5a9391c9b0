//! Signed machine configurations: only what the owner has signed, and nothing older. OpenSSL makes keys and judges.
#![allow(clippy::unwrap_used)] // a test fails by it

use ashlar_image::digest::Digest;
use ashlar_image::dsse;
use ashlar_image::machine::{
    ConfigError, MAX_ENVELOPE, MAX_TEXT, MachineConfig, PAYLOAD_TYPE, PublicKey, Serial, Verified, payload,
    sign, verify,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signer, SigningKey};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

const EXAMPLE: &str = include_str!("../../examples/machine.toml");

fn owner() -> SigningKey {
    SigningKey::from_bytes(&[7; 32])
}

fn public(key: &SigningKey) -> PublicKey {
    PublicKey(key.verifying_key().to_bytes())
}

fn signed_by(key: &SigningKey, text: &str) -> Vec<u8> {
    sign(text, &public(key), &key.sign(&payload(text)).to_bytes()).unwrap()
}

fn open(envelope: &[u8], current: Option<Serial>) -> Result<Verified<MachineConfig>, Vec<ConfigError>> {
    verify(envelope, &public(&owner()), current)
}

#[test]
fn what_the_owner_signed_is_opened() {
    let verified = open(&signed_by(&owner(), EXAMPLE), None).unwrap();
    assert_eq!(verified.text(), EXAMPLE);
    assert_eq!(verified.digest(), Digest::of(EXAMPLE));
    assert_eq!(verified.config(), &MachineConfig::parse(EXAMPLE).unwrap());
    assert_eq!(verified.serial(), Serial { serial: 1, digest: Digest::of(EXAMPLE) });
}

#[test]
fn a_text_of_the_image_needs_no_signature() {
    let verified = Verified::of_image(EXAMPLE).unwrap();
    assert_eq!((verified.text(), verified.digest()), (EXAMPLE, Digest::of(EXAMPLE)));
    assert!(Verified::of_image("serial = 0").is_err());
}

#[test]
fn another_key_another_type_another_text_are_refused() {
    let stranger = SigningKey::from_bytes(&[8; 32]);
    let by_owner = ConfigError::Signature { key: public(&owner()).fingerprint() };
    assert_eq!(open(&signed_by(&stranger, EXAMPLE), None), Err(vec![by_owner.clone()]));
    assert_eq!(by_owner.key(), "signature");
    assert!(by_owner.to_string().contains(&public(&owner()).fingerprint().to_string()), "{by_owner}");
    // Nothing of what a stranger has signed is parsed, wrong as it may be.
    assert_eq!(open(&signed_by(&stranger, "serial = "), None), Err(vec![by_owner.clone()]));
    // The signature is over the type too: one over the text alone, or over another type, is none.
    for message in
        [EXAMPLE.as_bytes().to_vec(), dsse::pae("application/vnd.in-toto+json", EXAMPLE.as_bytes())]
    {
        let signature = owner().sign(&message).to_bytes();
        let envelope = sign(EXAMPLE, &public(&owner()), &signature).unwrap();
        assert_eq!(open(&envelope, None), Err(vec![by_owner.clone()]));
    }
    let signature = owner().sign(&dsse::pae("text/plain", EXAMPLE.as_bytes())).to_bytes();
    let envelope = dsse::envelope("text/plain", EXAMPLE.as_bytes(), "", &signature).unwrap();
    let errors = open(&envelope, None).unwrap_err();
    assert!(errors[0].to_string().contains("it holds `text/plain`"), "{}", errors[0]);
    for text in [&b""[..], b"{}", b"[]", b"serial = 1", &[0xff; 64]] {
        assert!(matches!(open(text, None).unwrap_err().as_slice(), [ConfigError::Envelope(_)]));
    }
}

#[test]
fn no_changed_bit_is_accepted() {
    let text = "serial = 1\n";
    let good = signed_by(&owner(), text);
    let decoded = |bytes: &[u8]| {
        let value: serde_json::Value = serde_json::from_slice(bytes).ok()?;
        let signature = value["signatures"][0]["sig"].as_str()?;
        Some((STANDARD.decode(value["payload"].as_str()?).ok()?, STANDARD.decode(signature).ok()?))
    };
    let before = decoded(&good).unwrap();
    for place in 0..good.len() {
        for bit in 0..8 {
            let mut changed = good.clone();
            changed[place] ^= 1 << bit;
            if let Ok(verified) = open(&changed, None) {
                // The name of the key, space and the letters' case of an escape are not signed; what is, is the same.
                assert_eq!(verified.text(), text);
                assert_eq!(decoded(&changed).unwrap(), before, "byte {place}, bit {bit}");
            }
        }
        assert!(place > good.len() - 3 || open(&good[..place], None).is_err());
    }
}

/// L, the order of the group (RFC 8032, section 5.1), little-endian.
const ORDER: [u8; 32] = [
    0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
];

#[test]
fn weak_keys_and_second_forms_of_a_signature_are_refused() {
    // The identity as public key with R = identity and S = 0 passes the equation for any message.
    let mut identity = [0; 32];
    identity[0] = 1;
    let mut signature = [0; 64];
    signature[0] = 1;
    assert!(!PublicKey(identity).verifies(b"anything", &signature));
    // S + L instead of S (RFC 8032, section 5.1.7, wants S below L).
    let mut signature = owner().sign(b"message").to_bytes();
    assert!(public(&owner()).verifies(b"message", &signature));
    let mut carry = 0;
    for (byte, order) in signature[32..].iter_mut().zip(ORDER) {
        let sum = u16::from(*byte) + u16::from(order) + carry;
        *byte = sum.to_le_bytes()[0];
        carry = sum >> 8;
    }
    assert!(!public(&owner()).verifies(b"message", &signature));
    assert!(!public(&owner()).verifies(b"message", &signature[..63]));
    assert!(!PublicKey([0xff; 32]).verifies(b"message", &signature));
}

#[test]
fn older_serials_are_refused_and_the_key_is_named() {
    let text = |serial: u64, name: &str| format!("# first line\nserial = {serial}\nhostname = '{name}'\n");
    let current = open(&signed_by(&owner(), &text(5, "a")), None).unwrap().serial();
    let offer = |text: &str| open(&signed_by(&owner(), text), Some(current));
    assert!(offer(&text(5, "a")).is_ok(), "the same once more, as after each start");
    assert!(offer(&text(6, "b")).is_ok());
    for (text, words) in [
        (text(4, "a"), "line 2, column 10: serial: 4 is older than 5, which is in force"),
        (text(5, "b"), "line 2, column 10: serial: 5 is in force with another text; raise the serial"),
    ] {
        let errors = offer(&text).unwrap_err();
        assert_eq!((errors.len(), errors[0].key()), (1, "serial"));
        assert!(errors[0].to_string().starts_with(words), "{}", errors[0]);
    }
}

#[test]
fn a_signed_text_is_checked_all_the_same() {
    let errors =
        open(&signed_by(&owner(), "serial = 1\nhostnaem = 'a'\n[log]\nsize = 1\n"), None).unwrap_err();
    assert_eq!(errors.iter().map(ConfigError::key).collect::<Vec<_>>(), ["hostnaem", "log.size"]);
    let large = format!("serial = 1\n#{}", "x".repeat(MAX_TEXT));
    assert_eq!(open(&signed_by(&owner(), &large), None), Err(vec![ConfigError::TooLarge(large.len())]));
    let largest = signed_by(&owner(), &large[..MAX_TEXT]);
    assert!(largest.len() < MAX_ENVELOPE);
    assert!(open(&largest, None).is_ok());
    let mut beyond = largest;
    beyond.resize(MAX_ENVELOPE + 1, b' ');
    assert!(matches!(open(&beyond, None).unwrap_err().as_slice(), [ConfigError::Envelope(_)]));
    let bytes = b"serial = 1 # \xff";
    let signature = owner().sign(&dsse::pae(PAYLOAD_TYPE, bytes)).to_bytes();
    let envelope = dsse::envelope(PAYLOAD_TYPE, bytes, "", &signature).unwrap();
    assert_eq!(open(&envelope, None), Err(vec![ConfigError::NotText(13)]));
}

/// Runs a program to its end, within a minute.
fn run(command: &mut Command) -> Output {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > deadline {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("{command:?} did not end");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    child.wait_with_output().unwrap()
}

fn openssl(folder: &Path, arguments: &[&str]) -> bool {
    let output = run(Command::new("openssl").args(arguments).current_dir(folder));
    output.status.success()
}

/// OpenSSL's key signs what we open, and OpenSSL verifies what ours has signed.
#[test]
fn openssl_signs_and_judges() {
    let there = Command::new("openssl").arg("version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if there.is_err() {
        assert!(std::env::var_os("ASHLAR_TESTS_NO_SKIP").is_none(), "openssl is needed (package openssl)");
        return println!("skipped: openssl is needed (package openssl)");
    }
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    // The encoding, by hand and not by our function.
    let message = format!("DSSEv1 {} {PAYLOAD_TYPE} {} {EXAMPLE}", PAYLOAD_TYPE.len(), EXAMPLE.len());
    std::fs::write(path("message"), &message).unwrap();
    assert!(openssl(folder.path(), &["genpkey", "-algorithm", "ed25519", "-out", "key"]));
    assert!(openssl(folder.path(), &["pkey", "-in", "key", "-pubout", "-out", "public"]));
    let sign_it = ["pkeyutl", "-sign", "-rawin", "-inkey", "key", "-in", "message", "-out", "signature"];
    assert!(openssl(folder.path(), &sign_it));
    let key = PublicKey::parse(&std::fs::read_to_string(path("public")).unwrap()).unwrap();
    let envelope = sign(EXAMPLE, &key, &std::fs::read(path("signature")).unwrap()).unwrap();
    assert_eq!(verify(&envelope, &key, None).unwrap().text(), EXAMPLE);

    // The other way round; the public key is in our words.
    let envelope: serde_json::Value = serde_json::from_slice(&signed_by(&owner(), EXAMPLE)).unwrap();
    assert_eq!(STANDARD.decode(envelope["payload"].as_str().unwrap()).unwrap(), EXAMPLE.as_bytes());
    let signature = STANDARD.decode(envelope["signatures"][0]["sig"].as_str().unwrap()).unwrap();
    std::fs::write(path("public"), public(&owner()).to_string()).unwrap();
    std::fs::write(path("signature"), &signature).unwrap();
    let judge = [
        "pkeyutl",
        "-verify",
        "-rawin",
        "-pubin",
        "-inkey",
        "public",
        "-in",
        "message",
        "-sigfile",
        "signature",
    ];
    assert!(openssl(folder.path(), &judge));
    std::fs::write(path("message"), message.replace("web-1", "web-2")).unwrap();
    assert!(!openssl(folder.path(), &judge));
}
