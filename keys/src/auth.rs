//! Authenticated EFI variables: what `SetVariable` takes with
//! `EFI_VARIABLE_TIME_BASED_AUTHENTICATED_WRITE_ACCESS` (UEFI Specification 2.10, section 8.2.2).

use crate::authenticode::WIN_CERT_REVISION;
use crate::purpose::{Base64, Purpose};
use crate::signer::CertifiedKey;
use crate::{KeyError, cms, time};
use ashlar_measured_boot::efi::Guid;

/// `EFI_VARIABLE_NON_VOLATILE`: the variable survives a restart.
pub const NON_VOLATILE: u32 = 0x01;
/// `EFI_VARIABLE_BOOTSERVICE_ACCESS`: EFI programs see it.
pub const BOOTSERVICE_ACCESS: u32 = 0x02;
/// `EFI_VARIABLE_RUNTIME_ACCESS`: the operating system sees it.
pub const RUNTIME_ACCESS: u32 = 0x04;
/// `EFI_VARIABLE_TIME_BASED_AUTHENTICATED_WRITE_ACCESS`: only who signs may write it.
pub const TIME_BASED_AUTHENTICATED: u32 = 0x20;
/// Attributes of PK, KEK, db and dbx.
pub const SECURE_BOOT_ATTRIBUTES: u32 =
    NON_VOLATILE | BOOTSERVICE_ACCESS | RUNTIME_ACCESS | TIME_BASED_AUTHENTICATED;

/// `WIN_CERT_TYPE_EFI_GUID`.
const WIN_CERT_TYPE_EFI_GUID: u16 = 0x0ef1;
/// Bytes of a `WIN_CERTIFICATE_UEFI_GUID` before its certificate.
const WIN_CERTIFICATE_UEFI_GUID: usize = 24;

/// The vendor of a Secure Boot variable; none for other names.
pub fn vendor(name: &str) -> Option<Guid> {
    match name {
        "PK" | "KEK" => Some(Guid::GLOBAL),
        "db" | "dbx" => Some(Guid::IMAGE_SECURITY),
        _ => None,
    }
}

/// A `.auth` file: `EFI_VARIABLE_AUTHENTICATION_2` and the payload behind it, which sets the Secure Boot
/// variable `name` (`PK`, `KEK`, `db`, `dbx`) to `payload`. `time` is in seconds since 1970; firmware refuses
/// one that is not later than that of the last write. PK and KEK are signed by PK, db and dbx by KEK (or PK).
pub fn variable(name: &str, payload: &[u8], time: i64, key: &CertifiedKey) -> Result<Vec<u8>, KeyError> {
    let vendor = vendor(name).ok_or_else(|| KeyError::VariableName(name.to_owned()))?;
    let purpose = Purpose::Variable { name: name.to_owned(), time, payload: Base64(payload.to_vec()) };
    let time = time::efi(time)?;
    let signed = signed_bytes(name, vendor, &time, payload);
    // The bare SignedData: all firmware takes it, only newer edk2 takes it in a ContentInfo.
    let pkcs7 = cms::sign_detached(&signed, &purpose, key)?;
    let length = u32::try_from(WIN_CERTIFICATE_UEFI_GUID + pkcs7.len())
        .map_err(|_| KeyError::Signature("it is larger than 4 GiB"))?;
    let mut auth = time.to_vec();
    auth.extend(length.to_le_bytes());
    auth.extend(WIN_CERT_REVISION.to_le_bytes());
    auth.extend(WIN_CERT_TYPE_EFI_GUID.to_le_bytes());
    auth.extend(Guid::CERT_TYPE_PKCS7.to_bytes());
    auth.extend(pkcs7);
    auth.extend(payload);
    Ok(auth)
}

/// The bytes that are signed for [`variable`].
pub(crate) fn message(name: &str, payload: &[u8], time: i64) -> Result<Vec<u8>, KeyError> {
    let vendor = vendor(name).ok_or_else(|| KeyError::VariableName(name.to_owned()))?;
    Ok(signed_bytes(name, vendor, &time::efi(time)?, payload))
}

/// What is signed: name without a NUL, vendor, attributes, time and payload.
fn signed_bytes(name: &str, vendor: Guid, time: &time::EfiTime, payload: &[u8]) -> Vec<u8> {
    let mut bytes: Vec<u8> = name.encode_utf16().flat_map(u16::to_le_bytes).collect();
    bytes.extend(vendor.to_bytes());
    bytes.extend(SECURE_BOOT_ATTRIBUTES.to_le_bytes());
    bytes.extend(time);
    bytes.extend(payload);
    bytes
}
