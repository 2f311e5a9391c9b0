//! Recovery keys of state volumes: machines encrypt them to `recovery.pub` (RSAES-OAEP with SHA-256 and an empty label,
//! RFC 8017, section 7.1), the owner decrypts them with `recovery.key`.

use crate::access::Secret;
use crate::keyfile::KeyFile;
use crate::{KeyError, files};
use getrandom::SysRng;
use rsa::pkcs8::DecodePrivateKey as _;
use sha2::Sha256;
use std::path::Path;
use zeroize::Zeroizing;

/// Decrypts what a machine encrypted to the owner. `passphrase` is asked when the key file is encrypted, with its path.
pub fn decrypt(
    key: &Path,
    ciphertext: &[u8],
    passphrase: impl FnOnce(&Path) -> Result<Secret, KeyError>,
) -> Result<Zeroizing<String>, KeyError> {
    let content = files::read(key, true)?;
    let wanted = "a private RSA key in PKCS#8 PEM";
    let malformed = || KeyError::Malformed { path: key.to_owned(), wanted };
    let pkcs8 = match std::str::from_utf8(&content).map_err(|_| malformed()).and_then(KeyFile::parse)? {
        KeyFile::Plain(pkcs8) => pkcs8,
        KeyFile::Encrypted(encrypted) => {
            encrypted.decrypt(&passphrase(key)?).ok_or(KeyError::Encryption("the passphrase is wrong"))?
        }
    };
    let private = rsa::PrivateKey::from_pkcs8_der(&pkcs8).map_err(|_| malformed())?;
    let plain = private
        .oaep_decrypt_with_rng::<Sha256, _>(&mut SysRng, ciphertext)
        .map_err(|_| KeyError::NotForThisKey(key.to_owned()))?;
    String::from_utf8(plain).map(Zeroizing::new).map_err(|_| KeyError::NotForThisKey(key.to_owned()))
}
