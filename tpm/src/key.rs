//! The public key that PCR policies are signed with: an RSA key in PEM, as `.pcrpkey` of a unified kernel image holds it.

use crate::Error;
use crate::crypto::sha256;
use crate::public::{Kind, Name, Public, attribute};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// The longest text in bytes: a key of 4096 bits takes 800.
const MAX_TEXT: usize = 4096;
const BEGIN: &str = "-----BEGIN PUBLIC KEY-----";
const END: &str = "-----END PUBLIC KEY-----";

/// Tags of DER (X.690, section 8).
const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
/// `AlgorithmIdentifier` of rsaEncryption: the object identifier 1.2.840.113549.1.1.1 and NULL (RFC 8017, annex A.1).
const RSA_ENCRYPTION: [u8; 13] =
    [0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00];

/// An RSA public key.
#[derive(Clone, PartialEq, Eq)]
pub struct PcrKey {
    public: Vec<u8>,
    name: Name,
    fingerprint: [u8; 32],
    size: usize,
}

impl std::fmt::Debug for PcrKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PcrKey({})", hex::encode(self.fingerprint))
    }
}

impl PcrKey {
    /// Reads a `SubjectPublicKeyInfo` in PEM (RFC 7468, section 13). NUL bytes at the end, as a section of an image
    /// may have them, are no part of it.
    pub fn from_pem(text: &[u8]) -> Result<Self, Error> {
        if text.len() > MAX_TEXT {
            return Err(Error::Key("it is too long"));
        }
        let text = std::str::from_utf8(text).map_err(|_| Error::Key("it is no text"))?;
        let text = text.trim_end_matches('\0').trim();
        let body = text.strip_prefix(BEGIN).and_then(|rest| rest.strip_suffix(END));
        let body = body.ok_or(Error::Key("it is no PEM text of one public key"))?;
        let base64: String = body.split_ascii_whitespace().collect();
        let der = STANDARD.decode(base64).map_err(|_| Error::Key("its base64 is wrong"))?;
        Self::from_der(&der)
    }

    /// Reads a `SubjectPublicKeyInfo` in DER (RFC 5280, section 4.1).
    pub fn from_der(der: &[u8]) -> Result<Self, Error> {
        let bad = Error::Key("it is no SubjectPublicKeyInfo of RSA");
        Self::read(der).ok_or(bad)?
    }

    /// None when the form is wrong.
    fn read(der: &[u8]) -> Option<Result<Self, Error>> {
        let (information, []) = element(SEQUENCE, der)? else { return None };
        let (algorithm, rest) = element(SEQUENCE, information)?;
        let (bits, []) = element(BIT_STRING, rest)? else { return None };
        if algorithm != RSA_ENCRYPTION {
            return None;
        }
        // No unused bits in front of a PKCS#1 RSAPublicKey.
        let (0, key) = bits.split_first()? else { return None };
        let (numbers, []) = element(SEQUENCE, key)? else { return None };
        let (modulus, rest) = element(INTEGER, numbers)?;
        let (exponent, []) = element(INTEGER, rest)? else { return None };
        Some(Self::new(positive(modulus)?, positive(exponent)?, sha256(&[key])))
    }

    fn new(modulus: &[u8], exponent: &[u8], fingerprint: [u8; 32]) -> Result<Self, Error> {
        if !matches!(modulus.len(), 256 | 384 | 512) || modulus.first().is_none_or(|first| first & 0x80 == 0)
        {
            return Err(Error::Key("it has another size"));
        }
        if modulus.last().is_none_or(|last| last & 1 == 0) {
            return Err(Error::Key("its modulus is even"));
        }
        // TPMs take only this exponent for sure; it is what everybody uses.
        if exponent != [1, 0, 1] {
            return Err(Error::Key("its exponent is not 65537"));
        }
        // The template has to be systemd's: it makes the name, and the name the policy.
        let public = Public {
            attributes: attribute::USER_WITH_AUTH | attribute::DECRYPT | attribute::SIGN,
            policy: Vec::new(),
            kind: Kind::Rsa {
                symmetric: None,
                scheme: None,
                bits: u16::try_from(modulus.len() * 8).unwrap_or(u16::MAX),
                exponent: 0,
                modulus: modulus.to_vec(),
            },
        };
        let public = public.to_bytes().map_err(|_| Error::Key("it has another size"))?;
        Ok(Self { name: Name::of(&public), public, fingerprint, size: modulus.len() })
    }

    /// The name that the key has in a TPM.
    pub const fn name(&self) -> &Name {
        &self.name
    }

    /// SHA-256 of the PKCS#1 DER: `pkfp` in systemd's signed policies.
    pub const fn fingerprint(&self) -> &[u8; 32] {
        &self.fingerprint
    }

    /// Bytes of a signature.
    pub const fn signature_size(&self) -> usize {
        self.size
    }

    /// The public area (`TPMT_PUBLIC`).
    pub fn public(&self) -> &[u8] {
        &self.public
    }
}

/// The contents of the DER element with this tag at the front of `bytes`, and what comes behind it. Lengths have their
/// shortest form (X.690, section 10.1).
fn element(tag: u8, bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (first, rest) = bytes.split_first()?;
    if *first != tag {
        return None;
    }
    let (length, rest) = rest.split_first()?;
    let (length, rest) = match *length {
        short @ 0..=0x7f => (usize::from(short), rest),
        0x81 => {
            let (length, rest) = rest.split_first()?;
            (usize::from(*length).checked_sub(0x80)?.checked_add(0x80)?, rest)
        }
        0x82 => {
            let (length, rest) = rest.split_first_chunk::<2>()?;
            let length = u16::from_be_bytes(*length);
            (usize::from(length).checked_sub(0x100)?.checked_add(0x100)?, rest)
        }
        _ => return None,
    };
    rest.split_at_checked(length)
}

/// The bytes of a positive integer in their shortest form, without the zero that keeps it positive.
fn positive(bytes: &[u8]) -> Option<&[u8]> {
    match bytes {
        [0, rest @ ..] if rest.first().is_some_and(|second| second & 0x80 != 0) => Some(rest),
        [first, ..] if *first != 0 && first & 0x80 == 0 => Some(bytes),
        _ => None,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A key by openssl, of which tpm2-tools say what a TPM makes of it.
    pub const PEM: &str = "\
-----BEGIN PUBLIC KEY-----
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAnsph/8unuJOPImsGgAtY
1GTP4zNzpp/r6YcTJeGF86/zKbK5taNRaq0fvRxbi7uFnoEkgE0pSGVekt5GFCzw
Fp/cOZm48Hr6g0MJ26TOFa5pysEm3bmKQaqdKjUVZdaOM0pfDhwJRf/7CqzXfTGc
/8MKyqOceRW6QlcpVM52laa0cJav3zLYi9fJZSRjW354IMRJRfmWAylWHF5VVrss
cAnT/xEZ3vmb4/nuNb3Rvol/Vy4ty3iDycg8xXP+lbV1ul/05R6g6Qfm/Pe1neRk
qEHb93tAq+dHteUTM4+IrGaSwBOxCV2o+RzwEwCQiTsxaOPQf0wmGNgGrd1ecCiY
NQIDAQAB
-----END PUBLIC KEY-----\n";

    #[test]
    fn a_key_has_the_name_and_the_fingerprint_that_others_find() {
        let key = PcrKey::from_pem(PEM.as_bytes()).unwrap();
        // tpm2_loadexternal with systemd's template: exponent 0.
        let name = "000bc89384067a0f8df6723d279fd0c898e280c739a64c8a639e3a0172fe7fbcc4fd";
        assert_eq!(key.name().to_string(), name);
        // openssl rsa -RSAPublicKey_out -outform DER | sha256sum
        let fingerprint = "8b7a8a07ccb3e4ddc7386ec1a9e674b5e345507f2bea2abb0602bba227f51b94";
        assert_eq!(hex::encode(key.fingerprint()), fingerprint);
        assert_eq!(key.signature_size(), 256);
        assert_eq!(PcrKey::from_pem(format!("{PEM}\0\0").as_bytes()).unwrap(), key);
    }

    #[test]
    fn other_texts_are_no_key() {
        let error = |text: &str| PcrKey::from_pem(text.as_bytes()).unwrap_err().to_string();
        assert!(error(&format!("{PEM}{PEM}")).contains("base64"));
        assert!(error(&PEM.replace("PUBLIC", "RSA PUBLIC")).contains("no PEM text"));
        assert!(error(&PEM.replace("MIIB", "MIIC")).contains("no SubjectPublicKeyInfo"));
        // Another exponent, and a modulus that is even.
        assert!(error(&PEM.replace("NQIDAQAB", "NQIDAQAD")).contains("exponent"));
        assert!(error(&PEM.replace("NQIDAQAB", "NAIDAQAB")).contains("even"));
        assert!(error(&PEM.replace("NQIDAQAB", "")).contains("cannot be used"));
        assert!(error(&"x".repeat(MAX_TEXT + 1)).contains("too long"));
    }

    #[test]
    fn lengths_have_their_shortest_form() {
        assert_eq!(element(2, &[2, 1, 5, 6]), Some((&[5][..], &[6][..])));
        assert_eq!(element(2, &[2, 0x81, 1, 5]), None);
        assert_eq!(element(2, &[2, 0x82, 0, 1, 5]), None);
        assert_eq!(element(2, &[2, 0x80]), None);
        assert_eq!(element(2, &[2, 2, 5]), None);
        assert_eq!(element(3, &[2, 1, 5]), None);
        let long = [&[2, 0x81, 0x80][..], &[7; 128]].concat();
        assert_eq!(element(2, &long).unwrap().0.len(), 128);
        assert_eq!(positive(&[0, 0x80]), Some(&[0x80][..]));
        assert_eq!(
            (positive(&[0, 1]), positive(&[0x80]), positive(&[]), positive(&[0])),
            (None, None, None, None)
        );
    }

    proptest! {
        #[test]
        fn no_bytes_are_taken_for_a_key(bytes: Vec<u8>) {
            prop_assert!(PcrKey::from_der(&bytes).is_err());
            prop_assert!(PcrKey::from_pem(&bytes).is_err());
        }
    }
}
