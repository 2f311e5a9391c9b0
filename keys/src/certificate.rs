//! Self-signed X.509 v3 certificates for PK, KEK and db (RFC 5280).

use crate::signer::{Signer, to_pem};
use crate::{KeyError, time};
use der::asn1::{Any, BitString, Int, OctetString, SetOfVec, Utf8StringRef};
use der::{Encode, Sequence};
use ring::digest;
use x509_cert::attr::AttributeTypeAndValue;
use x509_cert::ext::Extension;
use x509_cert::spki::{AlgorithmIdentifierOwned, ObjectIdentifier, SubjectPublicKeyInfoOwned};
use x509_cert::time::{Time, Validity};

const ORGANIZATION: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.10");
const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");
const SHA256_WITH_RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.11");
const BASIC_CONSTRAINTS: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.19");
const SUBJECT_KEY_IDENTIFIER: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.14");

/// Seconds of the mean Gregorian year.
const YEAR: i64 = 31_556_952;

#[derive(Sequence)]
struct TbsCertificate {
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT")]
    version: u8,
    serial_number: Int,
    signature: AlgorithmIdentifierOwned,
    issuer: Any,
    validity: Validity,
    subject: Any,
    subject_public_key_info: SubjectPublicKeyInfoOwned,
    #[asn1(context_specific = "3", tag_mode = "EXPLICIT")]
    extensions: Vec<Extension>,
}

#[derive(Sequence)]
struct SignedCertificate {
    tbs: TbsCertificate,
    algorithm: AlgorithmIdentifierOwned,
    signature: BitString,
}

/// What a certificate says besides its key.
#[derive(Debug, Clone)]
pub struct Subject<'a> {
    /// Organization: whose key it is. 1 to 64 characters.
    pub organization: &'a str,
    /// Common name: what the key is for.
    pub common_name: &'a str,
    /// Start of validity, seconds since 1970. Firmware has no trusted clock and does not look at it.
    pub not_before: i64,
    /// Length of validity in years.
    pub years: u32,
    /// Serial number: 16 bytes that should be random.
    pub serial: [u8; 16],
}

/// A certificate of the signer's key by itself, in DER.
///
/// It is no certification authority and has no key usage: what the firmware is to trust is this one key,
/// and OpenSSL, which firmware and sbverify verify with, takes a certificate with a key usage for
/// self-signed only if it may sign certificates.
pub fn self_signed(signer: &dyn Signer, subject: &Subject<'_>) -> Result<Vec<u8>, KeyError> {
    let length = subject.organization.chars().count();
    if !(1..=64).contains(&length) || subject.organization.chars().any(char::is_control) {
        return Err(KeyError::OwnerName(subject.organization.to_owned()));
    }
    let not_after = i64::from(subject.years)
        .checked_mul(YEAR)
        .and_then(|validity| subject.not_before.checked_add(validity))
        .ok_or(KeyError::Time(i64::MAX))?;
    let name = name(&[(ORGANIZATION, subject.organization), (COMMON_NAME, subject.common_name)])?;
    let algorithm = AlgorithmIdentifierOwned { oid: SHA256_WITH_RSA, parameters: Some(Any::null()) };
    let public = signer.public_key();
    let tbs = TbsCertificate {
        version: 2,
        serial_number: Int::new(&positive(subject.serial))?,
        signature: algorithm.clone(),
        issuer: name.clone(),
        validity: Validity::new(
            Time::from(time::civil(subject.not_before)?),
            Time::from(time::civil(not_after)?),
        ),
        subject: name,
        subject_public_key_info: public.spki()?,
        extensions: vec![
            Extension {
                extn_id: BASIC_CONSTRAINTS,
                critical: true,
                // An empty sequence: `cA` has its default, false.
                extn_value: OctetString::new([0x30, 0x00])?,
            },
            Extension {
                extn_id: SUBJECT_KEY_IDENTIFIER,
                critical: false,
                extn_value: OctetString::new(key_identifier(&public.pkcs1_der()?)?)?,
            },
        ],
    };
    let signature = BitString::from_bytes(&signer.sign(&tbs.to_der()?)?)?;
    Ok(SignedCertificate { tbs, algorithm, signature }.to_der()?)
}

/// The certificate in PEM.
pub fn pem(certificate_der: &[u8]) -> Result<String, KeyError> {
    to_pem("CERTIFICATE", certificate_der)
}

/// A serial number that is positive and has no leading zeros, as DER wants it.
const fn positive(mut serial: [u8; 16]) -> [u8; 16] {
    serial[0] = serial[0] & 0x7f | 0x40;
    serial
}

/// The leftmost 160 bits of the SHA-256 of the key, as an OCTET STRING (RFC 7093, section 2, method 1).
fn key_identifier(pkcs1_der: &[u8]) -> Result<Vec<u8>, KeyError> {
    let hash = digest::digest(&digest::SHA256, pkcs1_der);
    let identifier: Vec<u8> = hash.as_ref().iter().copied().take(20).collect();
    Ok(OctetString::new(identifier)?.to_der()?)
}

fn name(attributes: &[(ObjectIdentifier, &str)]) -> Result<Any, KeyError> {
    let mut names = Vec::new();
    for (oid, text) in attributes {
        let value = Any::encode_from(&Utf8StringRef::new(text)?)?;
        names.push(SetOfVec::from_iter([AttributeTypeAndValue { oid: *oid, value }])?);
    }
    Ok(Any::encode_from(&names)?)
}
