//! Judging programs as the firmware will: signed by sbsign and OpenSSL, in databases made by efitools.

#![allow(clippy::unwrap_used)]

use ashlar_slots::check::{Databases, Sealing, opens, starts};
use std::fs;
use std::path::Path;
use std::process::Command;
use tempfile::TempDir;

/// A program to sign: the distribution's boot loader.
const PROGRAM: &str = "/usr/lib/systemd/boot/efi/systemd-bootx64.efi";

fn skip(why: &str) {
    assert!(std::env::var_os("ASHLAR_TESTS_NO_SKIP").is_none(), "ASHLAR_TESTS_NO_SKIP is set, and {why}");
    eprintln!("skipped: {why}");
}

/// A folder with keys, certificates, databases and signed programs.
struct Desk(TempDir);

impl Desk {
    fn new() -> Option<Self> {
        for (program, package) in [
            ("/usr/bin/sbsign", "sbsigntool"),
            ("/usr/bin/cert-to-efi-sig-list", "efitools"),
            ("/usr/bin/openssl", "openssl"),
            (PROGRAM, "systemd-boot-efi"),
        ] {
            if !Path::new(program).exists() {
                skip(&format!("{program} is not installed (package {package})"));
                return None;
            }
        }
        let desk = Self(tempfile::tempdir().unwrap());
        for name in ["one", "two"] {
            desk.sh(&format!(
                "openssl req -x509 -newkey rsa:2048 -nodes -subj /CN={name} -keyout {name}.key -out {name}.crt -days 2 2>/dev/null; \
                 openssl x509 -in {name}.crt -outform DER -out {name}.der; \
                 cert-to-efi-sig-list -g 77fa9abd-0359-4d32-bd60-28f4e78f784b {name}.crt {name}.esl; \
                 sbsign --key {name}.key --cert {name}.crt --output {name}.efi {PROGRAM} 2>/dev/null"
            ));
        }
        desk.sh("sbsign --key two.key --cert two.crt --output both.efi one.efi 2>/dev/null");
        Some(desk)
    }

    fn sh(&self, line: &str) -> String {
        let output = Command::new("sh").args(["-ec", line]).current_dir(self.0.path()).output().unwrap();
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.0.path().join(name)).unwrap()
    }

    /// Whether sbverify takes a program with this certificate.
    fn sbverify(&self, program: &[u8], certificate: &str) -> bool {
        fs::write(self.0.path().join("judged.efi"), program).unwrap();
        let path = self.0.path();
        let verify = Command::new("sbverify")
            .arg("--cert")
            .arg(path.join(certificate))
            .arg(path.join("judged.efi"))
            .output();
        verify.unwrap().status.success()
    }
}

fn databases(db: &[Vec<u8>], dbx: &[Vec<u8>]) -> Databases {
    Databases { db: db.concat(), dbx: dbx.concat() }
}

#[track_caller]
fn refused(program: &[u8], databases: &Databases, words: &str) {
    let error = starts(program, databases).unwrap_err().to_string();
    assert!(error.contains(words), "`{words}` is not in `{error}`");
}

/// A list with one entry (UEFI Specification 2.10, section 32.4.1): type, sizes, owner, data.
fn list(kind: &str, data: &[u8]) -> Vec<u8> {
    let hex: String = kind.chars().filter(char::is_ascii_hexdigit).collect();
    let bytes: Vec<u8> =
        (0..16).map(|at| u8::from_str_radix(&hex[at * 2..at * 2 + 2], 16).unwrap()).collect();
    // The first three fields of a GUID are little-endian.
    let guid = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15].map(|at: usize| bytes[at]);
    let size = u32::try_from(16 + data.len()).unwrap();
    [&guid[..], &(28 + size).to_le_bytes(), &0u32.to_le_bytes(), &size.to_le_bytes(), &[7; 16], data].concat()
}

const SHA256: &str = "c1c41626-504c-4092-aca9-41f936934328";
const X509_SHA256: &str = "3bd2a492-96c0-4079-b420-fcf98ef103ed";

#[test]
fn signed_by_whom() {
    let Some(desk) = Desk::new() else { return };
    let (one, two) = (desk.read("one.esl"), desk.read("two.esl"));
    let unsigned = fs::read(PROGRAM).unwrap();
    for (name, signers) in [("one.efi", &["one"][..]), ("two.efi", &["two"]), ("both.efi", &["one", "two"])] {
        let program = desk.read(name);
        for key in ["one", "two"] {
            let good = starts(&program, &databases(&[desk.read(&format!("{key}.esl"))], &[])).is_ok();
            assert_eq!(good, signers.contains(&key), "{name} {key}");
            assert_eq!(good, desk.sbverify(&program, &format!("{key}.crt")), "{name} {key}: sbverify");
        }
        starts(&program, &databases(&[two.clone(), one.clone()], &[])).unwrap();
        refused(&program, &databases(&[], &[]), "it is not signed with a key in db");
    }
    refused(&unsigned, &databases(&[one, two], &[]), "its signature");
    refused(b"MZ no program", &databases(&[desk.read("one.esl")], &[]), "no EFI program");
    refused(&desk.read("one.efi"), &databases(&[vec![1; 30]], &[]), "its db cannot be understood");
    refused(
        &desk.read("one.efi"),
        &databases(&[desk.read("one.esl")], &[vec![1; 30]]),
        "its dbx cannot be understood",
    );
}

#[test]
fn a_changed_program_does_not_start() {
    let Some(desk) = Desk::new() else { return };
    let (program, db) = (desk.read("one.efi"), databases(&[desk.read("one.esl")], &[]));
    starts(&program, &db).unwrap();
    let table = u32::from_le_bytes({
        let header = u32::from_le_bytes(program[0x3c..0x40].try_into().unwrap()) as usize;
        // PE32+: the fifth of the data directories is the certificate table.
        program[header + 24 + 112 + 32..][..4].try_into().unwrap()
    }) as usize;
    let mut judged = 0;
    // In headers, sections and certificate table.
    for at in
        [0x60, 0x180, 0x1000, table / 2, table - 1, table + 60, program.len() - 300, program.len() - 100]
    {
        let mut changed = program.clone();
        changed[at] ^= 1;
        let ours = starts(&changed, &db).is_ok();
        let theirs = desk.sbverify(&changed, "one.crt");
        assert!(!ours || theirs, "at {at:#x} we start what sbverify refuses");
        judged += u32::from(!ours);
    }
    assert!(judged >= 7, "{judged}");
    // Cut off anywhere, and lengths that are none: an error, never more.
    for length in [0, 1, 0x40, 0x100, 0x400, table, table + 1, table + 8, program.len() - 9] {
        assert!(starts(&program[..length], &db).is_err(), "{length}");
    }
    for value in [0, 7, 9, 0xffff_ffff_u32, 0x7fff_ffff] {
        let mut changed = program.clone();
        changed[table..table + 4].copy_from_slice(&value.to_le_bytes());
        assert!(starts(&changed, &db).is_err(), "{value:#x}");
    }
}

#[test]
fn what_was_revoked_does_not_start() {
    let Some(desk) = Desk::new() else { return };
    let (program, both) = (desk.read("one.efi"), desk.read("both.efi"));
    let db = || vec![desk.read("one.esl"), desk.read("two.esl")];
    starts(&program, &databases(&db(), &[desk.read("two.esl")])).unwrap();
    refused(&program, &databases(&db(), &[desk.read("one.esl")]), "it was revoked");
    // One revoked signature ends it, whatever the other is worth.
    refused(&both, &databases(&db(), &[desk.read("one.esl")]), "it was revoked");
    refused(&both, &databases(&db(), &[desk.read("two.esl")]), "it was revoked");
    // By the hash of the program, as efitools computes it.
    desk.sh("hash-to-efi-sig-list one.efi hash.esl >/dev/null");
    refused(&program, &databases(&db(), &[desk.read("hash.esl")]), "is in dbx");
    // The same hash in db starts it without any signature; its hash is that of the unsigned program.
    let hash = desk.read("hash.esl");
    starts(&program, &databases(std::slice::from_ref(&hash), &[])).unwrap();
    assert_eq!(hash[16 + 12 + 16..].len(), 32);
    assert_eq!(list(SHA256, &hash[44..])[28 + 16..], hash[44..], "our lists are as efitools makes them");
    refused(&program, &databases(std::slice::from_ref(&hash), std::slice::from_ref(&hash)), "is in dbx");
    // By the hash of the certificate's signed part, with a time behind it.
    let tbs = desk
        .sh("openssl asn1parse -in one.crt -strparse 4 -noout -out one.tbs; openssl dgst -sha256 -r one.tbs");
    let mut entry: Vec<u8> =
        (0..32).map(|at| u8::from_str_radix(&tbs[at * 2..at * 2 + 2], 16).unwrap()).collect();
    entry.extend([0; 16]);
    refused(&program, &databases(&db(), &[list(X509_SHA256, &entry)]), "it was revoked");
    entry[0] ^= 1;
    starts(&program, &databases(&db(), &[list(X509_SHA256, &entry)])).unwrap();
}

#[test]
fn what_is_no_uki_opens_nothing() {
    let Some(desk) = Desk::new() else { return };
    let key = desk.sh("openssl rsa -in one.key -pubout 2>/dev/null");
    let sealing = Sealing { pcr7: ashlar_image::digest::Digest::ZERO, floor: 1, key: key.into_bytes() };
    for (program, words) in [(desk.read("one.efi"), "no section `.linux`"), (b"x".to_vec(), "cannot be read")]
    {
        let error = opens(&program, &sealing).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
}
