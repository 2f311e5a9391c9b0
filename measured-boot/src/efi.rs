//! GUIDs, the payloads of the Secure Boot variables and the signature lists in them (UEFI Specification
//! 2.10, sections 2.3.1 and 32.4.1).

use std::fmt;
use std::str::FromStr;

/// Bytes of an `EFI_SIGNATURE_LIST` before its first signature, when it has no vendor header.
const LIST_HEADER: usize = 28;
/// Bytes of the owner in front of each signature.
const OWNER: usize = 16;

/// A GUID in the mixed-endian order that firmware stores: the first three groups little-endian.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Guid(pub [u8; 16]);

/// Why bytes or a text were refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum EfiError {
    /// The text is no GUID.
    #[error("`{0}` is not a GUID: 8-4-4-4-12 hexadecimal digits are wanted")]
    Guid(String),
    /// Fewer bytes than a list's header are left.
    #[error("the signature list at byte {0} ends inside its header")]
    ShortHeader(usize),
    /// `SignatureListSize` is smaller than the header or larger than what is left.
    #[error("the signature list at byte {offset} claims {claimed} bytes; 28 to {available} are possible")]
    ListSize {
        /// Offset of the list.
        offset: usize,
        /// `SignatureListSize`.
        claimed: u32,
        /// Bytes from the start of the list to the end.
        available: usize,
    },
    /// `SignatureHeaderSize` is not zero: no type that the specification defines has such a header.
    #[error("the signature list at byte {offset} has a vendor header of {size} bytes; no known type has one")]
    VendorHeader {
        /// Offset of the list.
        offset: usize,
        /// `SignatureHeaderSize`.
        size: u32,
    },
    /// `SignatureSize` is not one that the type can have, or does not divide the list.
    #[error("the signature list at byte {offset} has signatures of {size} bytes, which does not fit it")]
    SignatureSize {
        /// Offset of the list.
        offset: usize,
        /// `SignatureSize`.
        size: u32,
    },
    /// The list holds no signature.
    #[error("the signature list at byte {0} is empty")]
    Empty(usize),
}

impl Guid {
    /// `EFI_GLOBAL_VARIABLE`: the vendor of `PK`, `KEK`, `SecureBoot` and `Boot####`.
    pub const GLOBAL: Self = Self::new(0x8be4_df61, 0x93ca, 0x11d2, 0xaa0d_00e0_9803_2b8c);
    /// `EFI_IMAGE_SECURITY_DATABASE_GUID`: the vendor of `db`, `dbx` and `dbt`.
    pub const IMAGE_SECURITY: Self = Self::new(0xd719_b2cb, 0x3d3a, 0x4596, 0xa3bc_dad0_0e67_656f);
    /// `EFI_CERT_X509_GUID`: signatures are X.509 certificates in DER.
    pub const CERT_X509: Self = Self::new(0xa5c0_59a1, 0x94e4, 0x4aa7, 0x87b5_ab15_5c2b_f072);
    /// `EFI_CERT_SHA256_GUID`: signatures are SHA-256 hashes of 32 bytes.
    pub const CERT_SHA256: Self = Self::new(0xc1c4_1626, 0x504c, 0x4092, 0xaca9_41f9_3693_4328);
    /// `EFI_CERT_X509_SHA256_GUID`: SHA-256 of a certificate's to-be-signed part and a time of revocation.
    pub const CERT_X509_SHA256: Self = Self::new(0x3bd2_a492, 0x96c0, 0x4079, 0xb420_fcf9_8ef1_03ed);
    /// `EFI_CERT_TYPE_PKCS7_GUID`: the certificate of an authenticated variable is PKCS#7 `SignedData`.
    pub const CERT_TYPE_PKCS7: Self = Self::new(0x4aaf_d29d, 0x68df, 0x49ee, 0x8aa9_347d_3756_65a7);

    /// A GUID from its groups as they are written; `rest` holds the last two.
    pub const fn new(first: u32, second: u16, third: u16, rest: u64) -> Self {
        let (a, b, c, d) =
            (first.to_le_bytes(), second.to_le_bytes(), third.to_le_bytes(), rest.to_be_bytes());
        Self([a[0], a[1], a[2], a[3], b[0], b[1], c[0], c[1], d[0], d[1], d[2], d[3], d[4], d[5], d[6], d[7]])
    }

    /// A GUID from bytes as firmware stores them.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The bytes as firmware stores them.
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0
    }
}

/// From the order in which a GUID is written to the order in which it is stored, and back.
fn swap_groups(bytes: &mut [u8; 16]) {
    bytes[0..4].reverse();
    bytes[4..6].reverse();
    bytes[6..8].reverse();
}

impl fmt::Display for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = self.0;
        swap_groups(&mut bytes);
        let text = hex::encode(bytes);
        write!(f, "{}-{}-{}-{}-{}", &text[..8], &text[8..12], &text[12..16], &text[16..20], &text[20..])
    }
}

impl fmt::Debug for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Guid {
    type Err = EfiError;

    fn from_str(text: &str) -> Result<Self, EfiError> {
        let bad = || EfiError::Guid(text.to_owned());
        let groups: Vec<&str> = text.split('-').collect();
        let lengths: Vec<usize> = groups.iter().map(|group| group.len()).collect();
        if lengths != [8, 4, 4, 4, 12] {
            return Err(bad());
        }
        let mut bytes = [0; 16];
        hex::decode_to_slice(groups.concat(), &mut bytes).map_err(|_| bad())?;
        swap_groups(&mut bytes);
        Ok(Self(bytes))
    }
}

/// The payloads of the Secure Boot variables: complete `EFI_SIGNATURE_LIST` sequences as the firmware
/// stores and measures them, without attributes and without an authentication header. An empty payload
/// stands for an absent variable.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SecureBootVariables {
    /// Platform key.
    pub pk: Vec<u8>,
    /// Key exchange keys.
    pub kek: Vec<u8>,
    /// What may run.
    pub db: Vec<u8>,
    /// What may not run.
    pub dbx: Vec<u8>,
}

/// One signature of a list: a certificate or a hash, and who put it there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    /// Who put it there.
    pub owner: Guid,
    /// What the type of the list says: a certificate in DER, a hash.
    pub data: Vec<u8>,
}

impl Signature {
    /// The `EFI_SIGNATURE_DATA`, which is what the firmware measures as the authority of an image.
    pub fn to_bytes(&self) -> Vec<u8> {
        signature_data(self.owner, &self.data)
    }
}

/// An `EFI_SIGNATURE_LIST`: signatures of one type and size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignatureList {
    /// What its signatures are: [`Guid::CERT_X509`], [`Guid::CERT_SHA256`] or another.
    pub signature_type: Guid,
    /// The signatures in order; at least one, all of one size.
    pub signatures: Vec<Signature>,
}

/// An `EFI_SIGNATURE_DATA`: owner and certificate (or hash).
pub fn signature_data(owner: Guid, certificate_der: &[u8]) -> Vec<u8> {
    [&owner.0[..], certificate_der].concat()
}

/// An `EFI_SIGNATURE_LIST` with one X.509 certificate. Certificates differ in length, so each has a list
/// of its own.
pub fn x509_signature_list(owner: Guid, certificate_der: &[u8]) -> Vec<u8> {
    let signature = signature_data(owner, certificate_der);
    // A certificate comes nowhere near 4 GiB.
    let size = signature.len() as u32;
    let mut list = Vec::with_capacity(LIST_HEADER + signature.len());
    list.extend(Guid::CERT_X509.0);
    list.extend((LIST_HEADER as u32 + size).to_le_bytes());
    list.extend(0u32.to_le_bytes());
    list.extend(size.to_le_bytes());
    list.extend(signature);
    list
}

/// Reads the payload of a Secure Boot variable. Strict: every byte belongs to a signature of a list, no
/// list has a vendor header. Needs memory in proportion to `bytes`, whatever the sizes in them say.
pub fn parse_signature_lists(bytes: &[u8]) -> Result<Vec<SignatureList>, EfiError> {
    let mut lists = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let (list, after) = signature_list(rest, bytes.len() - rest.len())?;
        lists.push(list);
        rest = after;
    }
    Ok(lists)
}

/// The list that `bytes` begin with, and what follows it. `offset` says where it lies, for errors.
fn signature_list(bytes: &[u8], offset: usize) -> Result<(SignatureList, &[u8]), EfiError> {
    let short = EfiError::ShortHeader(offset);
    let Some((signature_type, rest)) = bytes.split_first_chunk::<16>() else { return Err(short) };
    let Some((list_size, rest)) = rest.split_first_chunk::<4>() else { return Err(short) };
    let Some((header_size, rest)) = rest.split_first_chunk::<4>() else { return Err(short) };
    let Some((signature_size, rest)) = rest.split_first_chunk::<4>() else { return Err(short) };
    let signature_type = Guid(*signature_type);
    let claimed = u32::from_le_bytes(*list_size);
    let header_size = u32::from_le_bytes(*header_size);
    let size = u32::from_le_bytes(*signature_size);

    let (signatures, after) = (claimed as usize)
        .checked_sub(LIST_HEADER)
        .and_then(|length| rest.split_at_checked(length))
        .ok_or(EfiError::ListSize { offset, claimed, available: bytes.len() })?;
    if header_size != 0 {
        return Err(EfiError::VendorHeader { offset, size: header_size });
    }
    let length = size as usize;
    let wanted = match signature_type {
        Guid::CERT_SHA256 => Some(OWNER + 32),
        Guid::CERT_X509_SHA256 => Some(OWNER + 32 + 16),
        _ => None,
    };
    if length <= OWNER
        || wanted.is_some_and(|wanted| wanted != length)
        || !signatures.len().is_multiple_of(length)
    {
        return Err(EfiError::SignatureSize { offset, size });
    }
    if signatures.is_empty() {
        return Err(EfiError::Empty(offset));
    }
    let signatures = signatures
        .chunks_exact(length)
        .filter_map(|signature| signature.split_first_chunk::<OWNER>())
        .map(|(owner, data)| Signature { owner: Guid(*owner), data: data.to_vec() })
        .collect();
    Ok((SignatureList { signature_type, signatures }, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOMEBODY: Guid = Guid::new(0x0011_2233, 0x4455, 0x6677, 0x8899_aabb_ccdd_eeff);

    fn hash_list(hashes: usize) -> Vec<u8> {
        let mut list = Guid::CERT_SHA256.0.to_vec();
        list.extend((28 + hashes as u32 * 48).to_le_bytes());
        list.extend(0u32.to_le_bytes());
        list.extend(48u32.to_le_bytes());
        list.extend((0..hashes).flat_map(|i| signature_data(SOMEBODY, &[i as u8; 32])));
        list
    }

    fn put(bytes: &[u8], at: usize, value: u32) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
        bytes
    }

    #[test]
    fn guids_are_stored_mixed_endian() {
        assert_eq!(SOMEBODY.0[..10], [0x33, 0x22, 0x11, 0x00, 0x55, 0x44, 0x77, 0x66, 0x88, 0x99]);
        let text = "00112233-4455-6677-8899-aabbccddeeff";
        assert_eq!(SOMEBODY.to_string(), text);
        assert_eq!(text.to_uppercase().parse(), Ok(SOMEBODY));
        assert_eq!(Guid::GLOBAL.to_string(), "8be4df61-93ca-11d2-aa0d-00e098032b8c");
        for bad in ["", "0011223344556677-8899-aabbccddeeff", "00112233-4455-6677-8899-aabbccddeefg"] {
            assert_eq!(bad.parse::<Guid>(), Err(EfiError::Guid(bad.into())));
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let mut payload = x509_signature_list(SOMEBODY, b"certificate");
        payload.extend(hash_list(3));
        let lists = parse_signature_lists(&payload).unwrap();
        assert_eq!(lists.len(), 2);
        assert_eq!(lists[0].signature_type, Guid::CERT_X509);
        assert_eq!(lists[0].signatures[0].to_bytes(), signature_data(SOMEBODY, b"certificate"));
        assert_eq!(lists[1].signatures.len(), 3);
        assert_eq!(lists[1].signatures[2].data, [2; 32]);
        assert_eq!(parse_signature_lists(&[]), Ok(vec![]));
    }

    /// The classes of faults that event log parsers had: a size that underflows when the header is taken
    /// off, sizes beyond the data, a vendor header taken for hashes.
    #[test]
    fn sizes_that_do_not_fit_are_named() {
        let list = hash_list(2);
        let size = list.len() as u32;
        let refused = |bytes: &[u8]| parse_signature_lists(bytes).unwrap_err();
        for claimed in [0, 27, size + 1, u32::MAX] {
            let available = list.len();
            assert_eq!(
                refused(&put(&list, 16, claimed)),
                EfiError::ListSize { offset: 0, claimed, available }
            );
        }
        for size in [1, 48, u32::MAX] {
            assert_eq!(refused(&put(&list, 20, size)), EfiError::VendorHeader { offset: 0, size });
        }
        for size in [0, 16, 32, 47, 96, u32::MAX] {
            assert_eq!(refused(&put(&list, 24, size)), EfiError::SignatureSize { offset: 0, size });
        }
        assert_eq!(refused(&put(&list, 16, 28)[..28]), EfiError::Empty(0));
        let two = [list.clone(), list[..20].to_vec()].concat();
        assert_eq!(refused(&two), EfiError::ShortHeader(list.len()));
    }

    #[test]
    fn every_truncation_is_refused_and_every_changed_byte_survived() {
        let good = [x509_signature_list(SOMEBODY, &[7; 40]), hash_list(2)].concat();
        let first = x509_signature_list(SOMEBODY, &[7; 40]).len();
        for length in (1..good.len()).filter(|length| *length != first) {
            assert!(parse_signature_lists(&good[..length]).is_err(), "{length}");
        }
        for at in 0..good.len() {
            for value in 0..=255 {
                let mut changed = good.clone();
                changed[at] = value;
                if let Ok(lists) = parse_signature_lists(&changed) {
                    let data: usize = lists.iter().flat_map(|l| &l.signatures).map(|s| s.data.len()).sum();
                    assert!(data < good.len());
                }
            }
        }
    }

    #[test]
    fn the_malformed_lists_of_others_are_refused() {
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/testdata/measured-boot/malformed");
        let Ok(entries) = std::fs::read_dir(dir) else {
            eprintln!("skipped: no collection of malformed inputs at {dir}");
            return;
        };
        let lists: Vec<_> = entries
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("siglist"))
            .collect();
        assert!(!lists.is_empty());
        for path in lists {
            let bytes = std::fs::read(&path).unwrap();
            assert!(parse_signature_lists(&bytes).is_err(), "{}", path.display());
        }
    }
}
