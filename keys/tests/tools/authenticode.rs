//! Authenticode signatures, judged by sbverify, osslsigncode and OpenSSL; theirs, judged by us.

use crate::program::hello;
use crate::run::{file, output, stdout, tool};
use crate::{TIME, key_file, keys};
use ashlar_keys::{KeyError, authenticode};
use ashlar_measured_boot::pe::Pe;
use proptest::prelude::*;
use std::fs;

/// The test's own program, and the distribution's boot loader and stub where they are installed.
fn programs() -> Vec<(&'static str, Vec<u8>)> {
    let mut programs = vec![("made here", hello())];
    for path in
        ["/usr/lib/systemd/boot/efi/systemd-bootx64.efi", "/usr/lib/systemd/boot/efi/linuxx64.efi.stub"]
    {
        if let Some(found) = file(path, "systemd-boot-efi") {
            programs.push((path, fs::read(found).unwrap()));
        }
    }
    programs
}

fn sign(program: &[u8]) -> Vec<u8> {
    authenticode::sign(program, keys().db(), None).unwrap()
}

fn verify(program: &[u8]) -> Result<(), KeyError> {
    authenticode::verify(program, keys().db().certificate_der())
}

#[test]
fn sbverify_and_osslsigncode_accept_it_with_this_certificate_only() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("signed.efi");
    for (name, program) in programs() {
        for time in [None, Some(TIME)] {
            let signed = authenticode::sign(&program, keys().db(), time).unwrap();
            verify(&signed).unwrap();
            let sbverify = |certificate| {
                tool("sbverify", "sbsigntool")
                    .map(|mut tool| output(tool.arg("--cert").arg(key_file(certificate)).arg(&path)))
            };
            let osslsigncode = |certificate| {
                tool("osslsigncode", "osslsigncode").map(|mut tool| {
                    let in_time = (TIME + 60).to_string();
                    let tool = tool.args(["verify", "-time", &in_time]);
                    output(tool.arg("-CAfile").arg(key_file(certificate)).arg("-in").arg(&path))
                })
            };
            fs::write(&path, &signed).unwrap();
            for judge in [&sbverify as &dyn Fn(_) -> _, &osslsigncode] {
                if let (Some(good), Some(other)) = (judge("db.crt"), judge("KEK.crt")) {
                    assert!(good.status.success(), "{name}: {good:?}");
                    assert!(!other.status.success(), "{name}: {other:?}");
                }
            }
            // The checksum covers the signature; osslsigncode reports a wrong one without failing.
            let pe = Pe::parse(&signed).unwrap();
            let stored = &signed[pe.checksum_offset..pe.checksum_offset + 4];
            assert_eq!(stored, pe.checksum().to_le_bytes());
            // The last byte before the table is content: every judge notices its change.
            let mut changed = signed.clone();
            changed[pe.certificates.start - 1] ^= 1;
            fs::write(&path, &changed).unwrap();
            for judged in [sbverify("db.crt"), osslsigncode("db.crt")].into_iter().flatten() {
                assert!(!judged.status.success(), "{name}: {judged:?}");
            }
            assert!(matches!(verify(&changed), Err(KeyError::Changed)));
        }
    }
}

#[test]
fn signatures_of_others_are_accepted() {
    let dir = tempfile::tempdir().unwrap();
    let (plain, signed) = (dir.path().join("plain.efi"), dir.path().join("signed.efi"));
    fs::write(&plain, hello()).unwrap();
    if let Some(mut sbsign) = tool("sbsign", "sbsigntool") {
        stdout(
            sbsign
                .arg("--key")
                .arg(key_file("db.key"))
                .arg("--cert")
                .arg(key_file("db.crt"))
                .arg("--output")
                .arg(&signed)
                .arg(&plain),
        );
        let theirs = fs::read(&signed).unwrap();
        verify(&theirs).unwrap();
        assert!(matches!(
            authenticode::verify(&theirs, keys().kek().certificate_der()),
            Err(KeyError::OtherSigner)
        ));
        // Ours in place of theirs is as if theirs had never been.
        assert_eq!(sign(&theirs), sign(&hello()));
    }
    if let Some(mut osslsigncode) = tool("osslsigncode", "osslsigncode") {
        let _ = fs::remove_file(&signed);
        stdout(
            osslsigncode
                .args(["sign", "-h", "sha256", "-key"])
                .arg(key_file("db.key"))
                .arg("-certs")
                .arg(key_file("db.crt"))
                .arg("-in")
                .arg(&plain)
                .arg("-out")
                .arg(&signed),
        );
        verify(&fs::read(&signed).unwrap()).unwrap();
    }
}

#[test]
fn openssl_prints_the_detached_signature() {
    let (Some(mut sbattach), Some(mut openssl)) =
        (tool("sbattach", "sbsigntool"), tool("openssl", "openssl"))
    else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let (path, detached) = (dir.path().join("signed.efi"), dir.path().join("pkcs7"));
    let signed = authenticode::sign(&hello(), keys().db(), Some(TIME)).unwrap();
    fs::write(&path, &signed).unwrap();
    stdout(sbattach.arg("--detach").arg(&detached).arg(&path));
    let pkcs7 = fs::read(&detached).unwrap();
    assert!(pkcs7.starts_with(authenticode::signatures(&signed).unwrap()[0]));
    let text = stdout(openssl.args(["pkcs7", "-inform", "der", "-noout", "-print", "-in"]).arg(&detached));
    for part in ["pkcs7-signedData", "1.3.6.1.4.1.311.2.1.4", "Jan  2 03:04:05 2026 GMT", "messageDigest"] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn the_same_input_gives_the_same_bytes_and_signing_twice_changes_nothing() {
    for (name, program) in programs() {
        let signed = sign(&program);
        assert_eq!(signed, sign(&program), "{name}");
        assert_eq!(signed, sign(&signed), "{name}");
        // A length that is no multiple of eight is padded before it is hashed.
        let mut odd = program;
        odd.extend([1, 2, 3]);
        let signed = sign(&odd);
        assert_eq!(signed.len() % 8, 0);
        verify(&signed).unwrap();
        assert_eq!(signed, sign(&signed), "{name}");
    }
}

#[test]
fn what_is_not_signed_by_this_key_is_refused() {
    assert!(matches!(verify(&hello()), Err(KeyError::Unsigned)));
    let foreign = authenticode::sign(&hello(), keys().kek(), None).unwrap();
    assert!(matches!(verify(&foreign), Err(KeyError::OtherSigner)));
    // The signature is the last field: its last byte is the last of the PKCS#7.
    let mut forged = sign(&hello());
    let start = Pe::parse(&forged).unwrap().certificates.start;
    let length = u32::from_le_bytes(forged[start..start + 4].try_into().unwrap()) as usize;
    forged[start + length - 1] ^= 1;
    assert!(matches!(verify(&forged), Err(KeyError::BadSignature)));
    assert!(matches!(verify(b"MZ"), Err(KeyError::Pe(_))));
    assert!(authenticode::verify(&sign(&hello()), b"no certificate").is_err());
}

/// Every byte of the signature that is changed makes it invalid, or is not part of what is checked: the
/// certificate inside, which `verify` does not use, the padding, and ASN.1 that is not signed.
#[test]
fn no_changed_byte_lets_another_program_through() {
    let signed = sign(&hello());
    let table = Pe::parse(&signed).unwrap().certificates;
    for at in 0..signed.len() {
        let mut changed = signed.clone();
        changed[at] ^= 0x41;
        let accepted = verify(&changed).is_ok();
        // The checksum and the entry for the table are not hashed.
        let unhashed = (0x58 + 64..0x58 + 68).contains(&at) || at >= table.start;
        assert!(!accepted || unhashed, "byte {at:#x}");
    }
    for length in table.start..signed.len() {
        assert!(verify(&signed[..length]).is_err());
    }
}

proptest! {
    /// Whatever stands in the certificate table, reading it ends without a panic.
    #[test]
    fn any_certificate_table_is_survived(changes in prop::collection::vec((0usize..2000, any::<u8>()), 1..8)) {
        let mut signed = sign(&hello());
        let start = Pe::parse(&signed).unwrap().certificates.start;
        let length = signed.len() - start;
        for (at, value) in changes {
            signed[start + at % length] = value;
        }
        let _ = authenticode::signatures(&signed);
        let _ = verify(&signed);
    }
}
