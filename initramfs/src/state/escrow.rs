//! The recovery key for the owner's eyes only: encrypted to a public key of the image (RSAES-OAEP with SHA-256, RFC 8017,
//! section 7.1), so that `openssl pkeyutl -decrypt` reads it.

use getrandom::SysRng;
use rsa::PublicKey;
use rsa::pkcs8::DecodePublicKey as _;
use rsa::traits::PublicKeyParts as _;
use sha2::Sha256;

/// Encrypts `text` to the public key `pem` (`SubjectPublicKeyInfo`). None when the key is not RSA of 2048 to 8192 bits.
pub fn encrypt(pem: &str, text: &str) -> Option<Vec<u8>> {
    let key = PublicKey::from_public_key_pem(pem).ok()?;
    if !(256..=1024).contains(&key.size()) {
        return None;
    }
    key.oaep_encrypt_with_rng::<Sha256, _>(&mut SysRng, text.as_bytes()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn openssl_decrypts_it() {
        let folder = tempfile::tempdir().unwrap();
        let run = |arguments: &str| {
            let output = Command::new("openssl")
                .args(arguments.split_ascii_whitespace())
                .current_dir(folder.path())
                .output();
            match output {
                Ok(output) => {
                    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
                    Some(output.stdout)
                }
                Err(_) if std::env::var_os("ASHLAR_TESTS_NO_SKIP").is_none() => {
                    eprintln!("skipped: openssl is not installed");
                    None
                }
                Err(error) => panic!("openssl: {error}"),
            }
        };
        if run("genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out key.pem").is_none() {
            return;
        }
        let public = run("pkey -in key.pem -pubout").unwrap();
        let encrypted = encrypt(std::str::from_utf8(&public).unwrap(), "the recovery key").unwrap();
        std::fs::write(folder.path().join("encrypted"), &encrypted).unwrap();
        let opened = run("pkeyutl -decrypt -inkey key.pem -in encrypted -pkeyopt rsa_padding_mode:oaep \
                          -pkeyopt rsa_oaep_md:sha256");
        assert_eq!(opened.unwrap(), b"the recovery key");
        assert_ne!(encrypt(std::str::from_utf8(&public).unwrap(), "the recovery key").unwrap(), encrypted);
        assert_eq!(encrypt("no key", "x"), None);
    }
}
