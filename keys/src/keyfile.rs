//! Private keys in files: PKCS#8 in PEM, plain (RFC 5958) or encrypted (PBES2, RFC 8018, section 6.2).
//!
//! Encrypted keys that are written use scrypt (RFC 7914) and AES-256-CBC. Read are PBES2 with scrypt or
//! PBKDF2 and any AES: what OpenSSL writes. Older schemes (PBES1, DES, SHA-1) are refused.

use crate::KeyError;
use crate::access::Secret;
use crate::signer::to_pem;
use der::{Decode as _, SecretDocument};
use pkcs8::pkcs5::pbes2::{Kdf, Parameters};
use pkcs8::pkcs5::scrypt;
use pkcs8::{EncryptedPrivateKeyInfoOwned, PrivateKeyInfoRef};
use zeroize::Zeroizing;

const PLAIN_LABEL: &str = "PRIVATE KEY";
const ENCRYPTED_LABEL: &str = "ENCRYPTED PRIVATE KEY";

/// scrypt as OWASP's password storage advice has it for 16 MiB: OpenSSL takes no more than 32 MiB of memory, so
/// the parallelization carries the cost.
const SCRYPT_LOG_N: u8 = 14;
const SCRYPT_R: u32 = 8;
const SCRYPT_P: u32 = 5;

/// What a file may ask for, so that it cannot occupy the machine: memory of scrypt in bytes, its
/// parallelization, iterations of PBKDF2.
const SCRYPT_MEMORY_LIMIT: u64 = 256 << 20;
const SCRYPT_P_LIMIT: u16 = 16;
const PBKDF2_LIMIT: u32 = 10_000_000;

/// A private key as a file holds it.
pub enum KeyFile {
    /// PKCS#8 in DER.
    Plain(Zeroizing<Vec<u8>>),
    /// PKCS#8 in DER, encrypted.
    Encrypted(Encrypted),
}

/// An encrypted private key whose parameters are bearable.
pub struct Encrypted {
    parameters: Parameters,
    data: Vec<u8>,
}

impl KeyFile {
    /// Reads the text of a key file. Nothing is decrypted yet.
    pub fn parse(pem: &str) -> Result<Self, KeyError> {
        let wrong = || KeyError::NotAKey("a private key in PKCS#8 PEM");
        let (label, document) = SecretDocument::from_pem(pem).map_err(|_| wrong())?;
        if label == PLAIN_LABEL {
            PrivateKeyInfoRef::from_der(document.as_bytes()).map_err(|_| wrong())?;
            return Ok(Self::Plain(document.to_bytes()));
        }
        if label != ENCRYPTED_LABEL {
            return Err(wrong());
        }
        let encrypted = EncryptedPrivateKeyInfoOwned::from_der(document.as_bytes())
            .map_err(|_| KeyError::Encryption("PBES2 with scrypt or PBKDF2 and AES is wanted"))?;
        let parameters = encrypted
            .encryption_algorithm
            .pbes2()
            .ok_or(KeyError::Encryption("it is PBES1, which is too weak"))?
            .clone();
        bearable(&parameters.kdf)?;
        Ok(Self::Encrypted(Encrypted { parameters, data: encrypted.encrypted_data.into_bytes().into_vec() }))
    }
}

fn bearable(kdf: &Kdf) -> Result<(), KeyError> {
    let fine = match kdf {
        Kdf::Scrypt(scrypt) => {
            let memory = scrypt.cost_parameter.checked_mul(u64::from(scrypt.block_size) * 128);
            memory.is_some_and(|memory| memory <= SCRYPT_MEMORY_LIMIT)
                && scrypt.parallelization <= SCRYPT_P_LIMIT
        }
        Kdf::Pbkdf2(pbkdf2) => pbkdf2.iteration_count <= PBKDF2_LIMIT,
        _ => return Err(KeyError::Encryption("its passphrase is hashed with neither scrypt nor PBKDF2")),
    };
    if fine {
        Ok(())
    } else {
        Err(KeyError::Encryption("hashing its passphrase would take minutes or gigabytes"))
    }
}

impl Encrypted {
    /// The PKCS#8 in DER, or none if the passphrase is another.
    pub fn decrypt(&self, passphrase: &Secret) -> Option<Zeroizing<Vec<u8>>> {
        let mut buffer = Zeroizing::new(self.data.clone());
        let plain = self.parameters.decrypt_in_place(passphrase.expose(), &mut buffer).ok()?;
        // One wrong passphrase in 256 leaves what looks like padding.
        PrivateKeyInfoRef::from_der(plain).ok()?;
        Some(Zeroizing::new(plain.to_vec()))
    }
}

/// PEM of a PKCS#8 in DER; encrypted if there is a passphrase.
pub fn write(pkcs8: &[u8], passphrase: Option<&Secret>) -> Result<Zeroizing<String>, KeyError> {
    let Some(passphrase) = passphrase else { return Ok(Zeroizing::new(to_pem(PLAIN_LABEL, pkcs8)?)) };
    if passphrase.expose().is_empty() {
        return Err(KeyError::EmptyPassphrase);
    }
    let failed = |_| KeyError::Encryption("the parameters are refused");
    let scrypt = scrypt::Params::new(SCRYPT_LOG_N, SCRYPT_R, SCRYPT_P)
        .map_err(|_| KeyError::Encryption("the parameters of scrypt are refused"))?;
    let (mut salt, mut iv) = ([0; 16], [0; 16]);
    getrandom::fill(&mut salt).and_then(|()| getrandom::fill(&mut iv)).map_err(KeyError::Random)?;
    let parameters = Parameters::generate_scrypt_aes256cbc(scrypt, &salt, iv).map_err(failed)?;
    let encrypted = PrivateKeyInfoRef::from_der(pkcs8)
        .map_err(KeyError::Asn1)?
        .encrypt_with_params(parameters, passphrase.expose())
        .map_err(|_| KeyError::Encryption("it cannot be encrypted"))?;
    Ok(Zeroizing::new(to_pem(ENCRYPTED_LABEL, encrypted.as_bytes())?))
}
