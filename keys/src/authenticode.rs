//! Authenticode signatures of EFI programs (Microsoft, "Windows Authenticode Portable Executable Signature
//! Format", version 1.0; PE Format, "The Attribute Certificate Table").

use crate::purpose::Purpose;
use crate::signer::CertifiedKey;
use crate::{KeyError, cms};
use ashlar_image::digest::Digest;
use ashlar_measured_boot::authenticode;
use ashlar_measured_boot::pe::Pe;
use der::asn1::{Any, OctetString};
use der::{Decode, Sequence};
use x509_cert::Certificate;
use x509_cert::spki::{AlgorithmIdentifierOwned, ObjectIdentifier};

const SPC_INDIRECT_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.311.2.1.4");
const SPC_PE_IMAGE_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.311.2.1.15");

/// `SpcPeImageData` in DER, the same for every file: no flags, and as the name of the file the words
/// `<<<Obsolete>>>` in UTF-16, which the format demands.
const PE_IMAGE_DATA: &[u8] = b"\x30\x25\x03\x01\x00\xa0\x20\xa2\x1e\x80\x1c\
    \0<\0<\0<\0O\0b\0s\0o\0l\0e\0t\0e\0>\0>\0>";

/// `WIN_CERTIFICATE`: revision 2.0.
pub(crate) const WIN_CERT_REVISION: u16 = 0x0200;
/// `WIN_CERTIFICATE`: the certificate is PKCS#7 `SignedData`.
const WIN_CERT_TYPE_PKCS_SIGNED_DATA: u16 = 0x0002;
/// Bytes of a `WIN_CERTIFICATE` before its certificate.
const WIN_CERTIFICATE: usize = 8;
/// Largest certificate table that [`verify`] reads, in bytes.
const TABLE_LIMIT: usize = 1 << 20;

#[derive(Sequence)]
struct SpcAttribute {
    kind: ObjectIdentifier,
    value: Any,
}

#[derive(Sequence)]
struct DigestInfo {
    algorithm: AlgorithmIdentifierOwned,
    digest: OctetString,
}

/// What is signed: the hash of the program.
#[derive(Sequence)]
struct SpcIndirectData {
    data: SpcAttribute,
    digest: DigestInfo,
}

/// Signs an EFI program; a signature that it has is replaced. `time` becomes the signing time, seconds since
/// 1970; without it the signature has none. The same program, key and time give the same bytes.
pub fn sign(pe: &[u8], key: &CertifiedKey, time: Option<i64>) -> Result<Vec<u8>, KeyError> {
    let parsed = Pe::parse(pe)?;
    let entry = parsed
        .certificate_entry_offset
        .ok_or(KeyError::NotSignable("its header has no place for a certificate table"))?;
    let checksum_offset = parsed.checksum_offset;

    // What is hashed ends on a multiple of eight bytes: the table must begin there.
    let mut signed = pe.get(..parsed.certificates.start).unwrap_or(pe).to_vec();
    signed.resize(signed.len().next_multiple_of(8), 0);
    put(&mut signed, entry, &[0; 8]);
    let digest = authenticode::digest(&signed)?;

    let purpose = Purpose::EfiProgram { authenticode: digest, signing_time: time };
    let content = content(digest)?;
    let pkcs7 = cms::sign_content(SPC_INDIRECT_DATA, content, time, &purpose, key)?;

    let too_large = KeyError::NotSignable("it is larger than 4 GiB");
    let length = WIN_CERTIFICATE + pkcs7.len();
    let (Ok(start), Ok(length), Ok(padded)) =
        (u32::try_from(signed.len()), u32::try_from(length), u32::try_from(length.next_multiple_of(8)))
    else {
        return Err(too_large);
    };
    put(&mut signed, entry, &start.to_le_bytes());
    put(&mut signed, entry + 4, &padded.to_le_bytes());
    signed.extend(length.to_le_bytes());
    signed.extend(WIN_CERT_REVISION.to_le_bytes());
    signed.extend(WIN_CERT_TYPE_PKCS_SIGNED_DATA.to_le_bytes());
    signed.extend(pkcs7);
    signed.resize(signed.len().next_multiple_of(8), 0);
    let checksum = Pe::parse(&signed)?.checksum();
    put(&mut signed, checksum_offset, &checksum.to_le_bytes());
    Ok(signed)
}

/// The content that stands for a program with this hash.
fn content(digest: Digest) -> Result<Any, KeyError> {
    Ok(Any::encode_from(&SpcIndirectData {
        data: SpcAttribute { kind: SPC_PE_IMAGE_DATA, value: Any::from_der(PE_IMAGE_DATA)? },
        digest: DigestInfo {
            algorithm: cms::sha256_algorithm(),
            digest: OctetString::new(digest.0.as_slice())?,
        },
    })?)
}

/// The bytes that are signed for a program with this hash: the signed attributes.
pub(crate) fn message(digest: Digest, time: Option<i64>) -> Result<Vec<u8>, KeyError> {
    cms::message(SPC_INDIRECT_DATA, &content(digest)?, time)
}

/// Overwrites bytes of a header whose place `Pe::parse` has checked.
fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    if let Some(place) = bytes.get_mut(at..at + value.len()) {
        place.copy_from_slice(value);
    }
}

/// Checks that an EFI program is signed with the key of this certificate, as a firmware does that has the
/// certificate in db. Any one of several signatures will do.
pub fn verify(pe: &[u8], certificate_der: &[u8]) -> Result<(), KeyError> {
    let certificate = Certificate::from_der(certificate_der)
        .map_err(|_| KeyError::NotAKey("an X.509 certificate in DER"))?;
    let digest = authenticode::digest(pe)?;
    let mut last = KeyError::Unsigned;
    for pkcs7 in signatures(pe)? {
        let result = cms::verify_content(pkcs7, SPC_INDIRECT_DATA, &certificate).and_then(|content| {
            let signed = content
                .decode_as::<SpcIndirectData>()
                .map_err(|_| KeyError::Signature("what it signs is no hash of a program"))?
                .digest;
            if signed.algorithm.oid != cms::SHA256 {
                return Err(KeyError::Signature("it is not over a SHA-256 hash"));
            }
            if signed.digest.as_bytes() == digest.0 { Ok(()) } else { Err(KeyError::Changed) }
        });
        match result {
            Ok(()) => return Ok(()),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// The PKCS#7 signatures in the certificate table of an EFI program, at most 1 MiB of them.
pub fn signatures(pe: &[u8]) -> Result<Vec<&[u8]>, KeyError> {
    let malformed = || KeyError::Signature("the certificate table is cut off");
    let parsed = Pe::parse(pe)?;
    let mut rest = pe.get(parsed.certificates).unwrap_or_default();
    if rest.len() > TABLE_LIMIT {
        return Err(KeyError::Signature("the certificate table is larger than 1 MiB"));
    }
    let mut found = Vec::new();
    while !rest.is_empty() {
        let (header, _) = rest.split_first_chunk::<WIN_CERTIFICATE>().ok_or_else(malformed)?;
        let [l0, l1, l2, l3, r0, r1, t0, t1] = *header;
        let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
        let certificate = rest.get(WIN_CERTIFICATE..length).ok_or_else(malformed)?;
        if u16::from_le_bytes([r0, r1]) == WIN_CERT_REVISION
            && u16::from_le_bytes([t0, t1]) == WIN_CERT_TYPE_PKCS_SIGNED_DATA
        {
            found.push(certificate);
        }
        rest = rest.get(length.next_multiple_of(8)..).unwrap_or_default();
    }
    Ok(found)
}
