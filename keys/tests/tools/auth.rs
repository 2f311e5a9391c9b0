//! Authenticated variables: byte for byte what sign-efi-sig-list makes, and verified by OpenSSL. That the
//! firmware takes them is shown in `firmware.rs`.

use crate::run::{stdout, succeeds, tool};
use crate::{TIME, key_file, keys};
use ashlar_keys::{KeyError, auth};
use std::fs;

/// What is signed by: the variable, its vendor as stored, the key that signs.
const VARIABLES: [(&str, &str, &str); 3] = [
    ("PK", "61dfe48bca93d211aa0d00e098032b8c", "PK"),
    ("KEK", "61dfe48bca93d211aa0d00e098032b8c", "PK"),
    ("db", "cbb219d73a3d9645a3bcdad00e67656f", "KEK"),
];

/// 2026-01-02 03:04:05 UTC as `EFI_TIME`.
const EFI_TIME: &[u8; 16] = b"\xea\x07\x01\x02\x03\x04\x05\0\0\0\0\0\0\0\0\0";

#[test]
fn sign_efi_sig_list_makes_the_same_file() {
    let dir = tempfile::tempdir().unwrap();
    for (name, _, signer) in VARIABLES {
        let Some(mut tool) = tool("sign-efi-sig-list", "efitools") else { return };
        let out = dir.path().join(name);
        stdout(
            tool.env("TZ", "UTC")
                .args(["-t", "2026-01-02 03:04:05", "-k"])
                .arg(key_file(&format!("{signer}.key")))
                .arg("-c")
                .arg(key_file(&format!("{signer}.crt")))
                .arg(name)
                .arg(key_file(&format!("{name}.esl")))
                .arg(&out),
        );
        assert_eq!(fs::read(key_file(&format!("{name}.auth"))).unwrap(), fs::read(out).unwrap(), "{name}");
    }
}

#[test]
fn openssl_verifies_the_signature_over_the_right_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let (cms, content) = (dir.path().join("cms"), dir.path().join("content"));
    for (name, vendor, signer) in VARIABLES {
        let Some(mut openssl) = tool("openssl", "openssl") else { return };
        let auth = fs::read(key_file(&format!("{name}.auth"))).unwrap();
        let payload = fs::read(key_file(&format!("{name}.esl"))).unwrap();
        assert_eq!(auth[..16], EFI_TIME[..]);
        assert_eq!(auth[20..24], [0x00, 0x02, 0xf1, 0x0e]);
        let length = u32::from_le_bytes(auth[16..20].try_into().unwrap()) as usize;
        assert_eq!(auth[16 + length..], payload);
        // OpenSSL reads SignedData in a ContentInfo only: SEQUENCE { signedData, [0] { .. } }.
        let signed_data = &auth[40..16 + length];
        let oid = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x02";
        let mut wrapped = b"\x30\x82".to_vec();
        wrapped.extend((signed_data.len() as u16 + 4 + oid.len() as u16).to_be_bytes());
        wrapped.extend(oid);
        wrapped.extend(b"\xa0\x82");
        wrapped.extend((signed_data.len() as u16).to_be_bytes());
        wrapped.extend(signed_data);
        fs::write(&cms, &wrapped).unwrap();
        let mut signed: Vec<u8> = name.bytes().flat_map(|byte| [byte, 0]).collect();
        signed.extend(hex::decode(vendor).unwrap());
        signed.extend([0x27, 0, 0, 0]);
        signed.extend(EFI_TIME);
        signed.extend(&payload);
        let verify = openssl
            .args(["cms", "-verify", "-binary", "-inform", "DER", "-no_check_time", "-purpose", "any", "-in"])
            .arg(&cms)
            .arg("-content")
            .arg(&content)
            .arg("-CAfile")
            .arg(key_file(&format!("{signer}.crt")))
            .args(["-out", "/dev/null"]);
        fs::write(&content, &signed).unwrap();
        stdout(verify);
        signed[0] ^= 1;
        fs::write(&content, &signed).unwrap();
        assert!(!succeeds(verify));
    }
}

#[test]
fn only_secure_boot_variables_are_signed() {
    let error = auth::variable("BootOrder", b"", TIME, keys().pk()).unwrap_err();
    assert!(matches!(error, KeyError::VariableName(name) if name == "BootOrder"));
    assert!(matches!(auth::variable("db", b"", -1, keys().kek()), Err(KeyError::Time(-1))));
}
