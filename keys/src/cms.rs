//! PKCS#7 `SignedData` with one signer, RSA and SHA-256: the form that firmware reads (PKCS#7 version 1.5,
//! RFC 2315, section 9).
//!
//! The types are here and not from a crate because Authenticode and authenticated variables use PKCS#7 1.5,
//! whose content is not the OCTET STRING of its successor, and because reading can then be strict.

use crate::purpose::Purpose;
use crate::signer::{CertifiedKey, RSA_ENCRYPTION, RsaPublicKey, rsa_encryption};
use crate::{KeyError, time};
use der::asn1::{Any, OctetString, SetOfVec};
use der::{Decode, Encode, Sequence, ValueOrd};
use ring::digest;
use x509_cert::Certificate;
use x509_cert::attr::Attribute;
use x509_cert::name::Name;
use x509_cert::serial_number::SerialNumber;
use x509_cert::spki::{AlgorithmIdentifierOwned, ObjectIdentifier};
use x509_cert::time::Time;

/// `signedData`.
const SIGNED_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.2");
/// `data`.
pub(crate) const DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.1");
pub(crate) const SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.1");
const SHA256_WITH_RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.11");
const CONTENT_TYPE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.3");
const MESSAGE_DIGEST: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.4");
const SIGNING_TIME: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.5");

/// `ContentInfo`: what is signed, or the signed data itself.
#[derive(Sequence)]
pub(crate) struct ContentInfo {
    pub content_type: ObjectIdentifier,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", optional = "true")]
    pub content: Option<Any>,
}

#[derive(Sequence)]
struct SignedData {
    version: u8,
    digest_algorithms: SetOfVec<AlgorithmIdentifierOwned>,
    content_info: ContentInfo,
    #[asn1(context_specific = "0", tag_mode = "IMPLICIT", optional = "true")]
    certificates: Option<SetOfVec<Any>>,
    signers: SetOfVec<SignerInfo>,
}

#[derive(Sequence, ValueOrd)]
struct IssuerAndSerialNumber {
    issuer: Name,
    serial_number: SerialNumber,
}

#[derive(Sequence, ValueOrd)]
struct SignerInfo {
    version: u8,
    signer: IssuerAndSerialNumber,
    digest_algorithm: AlgorithmIdentifierOwned,
    #[asn1(context_specific = "0", tag_mode = "IMPLICIT", optional = "true")]
    signed_attributes: Option<SetOfVec<Attribute>>,
    signature_algorithm: AlgorithmIdentifierOwned,
    signature: OctetString,
    #[asn1(context_specific = "1", tag_mode = "IMPLICIT", optional = "true")]
    unsigned_attributes: Option<SetOfVec<Attribute>>,
}

/// `sha256` with the NULL that firmware's comparison of bytes expects.
pub(crate) fn sha256_algorithm() -> AlgorithmIdentifierOwned {
    AlgorithmIdentifierOwned { oid: SHA256, parameters: Some(Any::null()) }
}

/// Signs `detached`, which does not become part of the result, without signed attributes. The result is
/// a bare `SignedData`.
pub(crate) fn sign_detached(
    detached: &[u8],
    purpose: &Purpose,
    key: &CertifiedKey,
) -> Result<Vec<u8>, KeyError> {
    let content = ContentInfo { content_type: DATA, content: None };
    Ok(signed_data(content, None, detached, purpose, key)?.to_der()?)
}

/// Signs `content`, with signed attributes; `at` becomes the signing time, seconds since 1970. The result
/// is a `ContentInfo` around the `SignedData`.
pub(crate) fn sign_content(
    content_type: ObjectIdentifier,
    content: Any,
    at: Option<i64>,
    purpose: &Purpose,
    key: &CertifiedKey,
) -> Result<Vec<u8>, KeyError> {
    let attributes = signed_attributes(content_type, &content, at)?;
    let message = attributes.to_der()?;
    let content = ContentInfo { content_type, content: Some(content) };
    let signed = signed_data(content, Some(attributes), &message, purpose, key)?;
    Ok(ContentInfo { content_type: SIGNED_DATA, content: Some(Any::encode_from(&signed)?) }.to_der()?)
}

fn signed_attributes(
    content_type: ObjectIdentifier,
    content: &Any,
    at: Option<i64>,
) -> Result<SetOfVec<Attribute>, KeyError> {
    // Tag and length of the content are not hashed (RFC 2315, section 9.3).
    let hash = digest::digest(&digest::SHA256, content.value());
    let mut attributes = vec![
        attribute(CONTENT_TYPE, &content_type)?,
        attribute(MESSAGE_DIGEST, &OctetString::new(hash.as_ref())?)?,
    ];
    if let Some(at) = at {
        attributes.push(attribute(SIGNING_TIME, &Time::from(time::civil(at)?))?);
    }
    Ok(SetOfVec::from_iter(attributes)?)
}

/// The bytes that [`sign_content`] has signed.
pub(crate) fn message(
    content_type: ObjectIdentifier,
    content: &Any,
    at: Option<i64>,
) -> Result<Vec<u8>, KeyError> {
    Ok(signed_attributes(content_type, content, at)?.to_der()?)
}

fn attribute(oid: ObjectIdentifier, value: &impl Encode) -> Result<Attribute, KeyError> {
    let value = Any::from_der(&value.to_der()?)?;
    Ok(Attribute { oid, values: SetOfVec::from_iter([value])? })
}

fn signed_data(
    content_info: ContentInfo,
    signed_attributes: Option<SetOfVec<Attribute>>,
    message: &[u8],
    purpose: &Purpose,
    key: &CertifiedKey,
) -> Result<SignedData, KeyError> {
    let certificate = key.certificate().tbs_certificate();
    let signer = SignerInfo {
        version: 1,
        signer: IssuerAndSerialNumber {
            issuer: certificate.issuer().clone(),
            serial_number: certificate.serial_number().clone(),
        },
        digest_algorithm: sha256_algorithm(),
        signed_attributes,
        signature_algorithm: rsa_encryption(),
        signature: OctetString::new(key.signer().sign_as(purpose, message)?)?,
        unsigned_attributes: None,
    };
    Ok(SignedData {
        version: 1,
        digest_algorithms: SetOfVec::from_iter([sha256_algorithm()])?,
        content_info,
        certificates: Some(SetOfVec::from_iter([Any::from_der(key.certificate_der())?])?),
        signers: SetOfVec::from_iter([signer])?,
    })
}

/// Checks a `ContentInfo` with `SignedData` that [`sign_content`] or another tool made, and gives its
/// content: one signer, who is the owner of `certificate`; SHA-256; signed attributes. Up to seven zero
/// bytes may follow it, as padding.
pub(crate) fn verify_content(
    bytes: &[u8],
    content_type: ObjectIdentifier,
    certificate: &Certificate,
) -> Result<Any, KeyError> {
    let malformed = KeyError::Signature;
    let (outer, padding) =
        ContentInfo::from_der_partial(bytes).map_err(|_| malformed("it is not PKCS#7 in DER"))?;
    if padding.len() > 7 || padding.iter().any(|byte| *byte != 0) {
        return Err(malformed("something follows it"));
    }
    let signed = match outer.content {
        Some(content) if outer.content_type == SIGNED_DATA => content
            .decode_as::<SignedData>()
            .map_err(|_| malformed("its SignedData does not have the form that Authenticode asks for"))?,
        _ => return Err(malformed("it is not PKCS#7 SignedData")),
    };
    let content = match signed.content_info.content {
        Some(content) if signed.content_info.content_type == content_type => content,
        _ => return Err(malformed("it signs something else than an EFI program")),
    };
    let mut signers = signed.signers.iter();
    let (Some(signer), None) = (signers.next(), signers.next()) else {
        return Err(malformed("it has not exactly one signer"));
    };
    let tbs = certificate.tbs_certificate();
    if signer.signer.issuer != *tbs.issuer() || signer.signer.serial_number != *tbs.serial_number() {
        return Err(KeyError::OtherSigner);
    }
    if signer.digest_algorithm.oid != SHA256
        || ![RSA_ENCRYPTION, SHA256_WITH_RSA].contains(&signer.signature_algorithm.oid)
    {
        return Err(malformed("it is not made with RSA and SHA-256"));
    }
    let attributes = signer.signed_attributes.as_ref().ok_or(malformed("it has no signed attributes"))?;
    let value = |oid| single(attributes, oid);
    if value(CONTENT_TYPE).and_then(|v| v.decode_as().ok()) != Some(content_type) {
        return Err(malformed("its signed content type is another"));
    }
    let hash = digest::digest(&digest::SHA256, content.value());
    if value(MESSAGE_DIGEST).is_none_or(|v| v.value() != hash.as_ref()) {
        return Err(malformed("its message digest is another"));
    }
    RsaPublicKey::from_spki(tbs.subject_public_key_info())?
        .verify(&attributes.to_der()?, signer.signature.as_bytes())?;
    Ok(content)
}

/// The value of the attribute that occurs once and has one value.
fn single(attributes: &SetOfVec<Attribute>, oid: ObjectIdentifier) -> Option<&Any> {
    let mut values = attributes.iter().filter(|a| a.oid == oid).flat_map(|a| a.values.iter());
    values.next().filter(|_| values.next().is_none())
}
