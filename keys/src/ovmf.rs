//! The variable store of OVMF: an edk2 firmware volume with an authenticated variable store in it
//! (UEFI Platform Initialization Specification 1.8, volume 3, section 3.2.1; edk2,
//! `MdeModulePkg/Include/Guid/VariableFormat.h`).
//!
//! The owner's keys are written into it as the firmware itself would have, so that a virtual machine
//! enforces Secure Boot from its first start. dbx stays absent unless it has content: the firmware then
//! measures an empty one, and no tool's dummy entry gets into PCR 7.

use crate::auth::{BOOTSERVICE_ACCESS, NON_VOLATILE, SECURE_BOOT_ATTRIBUTES};
use crate::{KeyError, auth, time};
use ashlar_measured_boot::efi::{Guid, SecureBootVariables};
use std::ops::Range;

/// `EFI_SYSTEM_NV_DATA_FV_GUID`: the firmware volume holds variables.
const NV_DATA: Guid = Guid::new(0xfff1_2b8d, 0x7696, 0x4c8b, 0xa985_2747_075b_4f50);
/// `EFI_AUTHENTICATED_VARIABLE_GUID`: the store's variables have the long header.
const AUTHENTICATED_STORE: Guid = Guid::new(0xaaf3_2c78, 0x947b, 0x439a, 0xa180_2e14_4ec3_7792);
/// `EFI_SECURE_BOOT_ENABLE_DISABLE`: the vendor of `SecureBootEnable`.
const SECURE_BOOT_ENABLE: Guid = Guid::new(0xf0a3_0bc7, 0xaf08, 0x4556, 0x99c4_0010_09c9_3a44);
/// `EFI_CUSTOM_MODE_ENABLE_GUID`: the vendor of `CustomMode`.
const CUSTOM_MODE_ENABLE: Guid = Guid::new(0xc076_ec0c, 0x7028, 0x4399, 0xa072_71ee_5c44_8b9f);

/// Bytes of a `VARIABLE_STORE_HEADER`.
const STORE_HEADER: usize = 28;
/// Bytes of an `AUTHENTICATED_VARIABLE_HEADER`.
const VARIABLE_HEADER: usize = 60;
/// `VARIABLE_DATA`: begins each variable.
const START_ID: u16 = 0x55aa;
/// `VAR_ADDED`: header and data are written.
const ADDED: u8 = 0x3f;
/// `VAR_ADDED & VAR_IN_DELETED_TRANSITION`: valid until its successor is.
const IN_TRANSITION: u8 = 0x3e;
/// Longest name that is read, in bytes with its NUL.
const NAME_LIMIT: usize = 1024;

/// A variable of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variable {
    /// Vendor GUID.
    pub vendor: Guid,
    /// Name.
    pub name: String,
    /// Attributes (UEFI Specification, `EFI_VARIABLE_*`).
    pub attributes: u32,
    /// `EFI_TIME` of the last authenticated write; zeros for a variable that is not authenticated.
    pub timestamp: [u8; 16],
    /// Content.
    pub data: Vec<u8>,
}

impl Variable {
    /// A variable that is not authenticated.
    pub fn new(vendor: Guid, name: impl Into<String>, attributes: u32, data: impl Into<Vec<u8>>) -> Self {
        Self { vendor, name: name.into(), attributes, timestamp: [0; 16], data: data.into() }
    }

    fn is(&self, other: &Self) -> bool {
        self.vendor == other.vendor && self.name == other.name
    }
}

/// Writes the owner's keys into a copy of `template` (`OVMF_VARS_4M.fd`) and switches Secure Boot on. `time`,
/// seconds since 1970, becomes the time of the last authenticated write. `extra` variables are added.
/// Variables that the template has stay unless one of the same name and vendor is written.
///
/// The firmware computes `SetupMode` and `SecureBoot` itself from PK and `SecureBootEnable`.
pub fn enroll(
    template: &[u8],
    variables: &SecureBootVariables,
    time: i64,
    extra: &[Variable],
) -> Result<Vec<u8>, KeyError> {
    let area = area(template)?;
    let mut all = self::variables(template)?;
    let mut set = |new: Variable| {
        all.retain(|old| !old.is(&new));
        all.push(new);
    };
    let timestamp = time::efi(time)?;
    for (name, payload) in
        [("PK", &variables.pk), ("KEK", &variables.kek), ("db", &variables.db), ("dbx", &variables.dbx)]
    {
        let vendor = auth::vendor(name).ok_or_else(|| KeyError::VariableName(name.to_owned()))?;
        let variable =
            Variable { timestamp, ..Variable::new(vendor, name, SECURE_BOOT_ATTRIBUTES, payload.as_slice()) };
        set(variable);
    }
    let hidden = NON_VOLATILE | BOOTSERVICE_ACCESS;
    set(Variable::new(SECURE_BOOT_ENABLE, "SecureBootEnable", hidden, [1]));
    set(Variable::new(CUSTOM_MODE_ENABLE, "CustomMode", hidden, [0]));
    extra.iter().cloned().for_each(&mut set);
    // A variable without content does not exist.
    all.retain(|variable| !variable.data.is_empty());

    let mut written = Vec::new();
    for variable in &all {
        written.resize(written.len().next_multiple_of(4), 0xff);
        write(&mut written, variable)?;
    }
    let available = area.len();
    if written.len() > available {
        return Err(KeyError::StoreFull { needed: written.len(), available });
    }
    written.resize(available, 0xff);
    let mut store = template.to_vec();
    store.splice(area, written);
    Ok(store)
}

fn write(out: &mut Vec<u8>, variable: &Variable) -> Result<(), KeyError> {
    let bad_name = || KeyError::VariableName(variable.name.clone());
    if variable.name.is_empty() || variable.name.contains('\0') {
        return Err(bad_name());
    }
    let mut name: Vec<u8> = variable.name.encode_utf16().flat_map(u16::to_le_bytes).collect();
    name.extend([0, 0]);
    if name.len() > NAME_LIMIT {
        return Err(bad_name());
    }
    let full = |needed| KeyError::StoreFull { needed, available: 0 };
    let data_size = u32::try_from(variable.data.len()).map_err(|_| full(variable.data.len()))?;
    out.extend(START_ID.to_le_bytes());
    out.extend([ADDED, 0]);
    out.extend(variable.attributes.to_le_bytes());
    // MonotonicCount, for a kind of authentication that the specification has withdrawn.
    out.extend(0u64.to_le_bytes());
    out.extend(variable.timestamp);
    // PubKeyIndex, likewise.
    out.extend(0u32.to_le_bytes());
    out.extend((name.len() as u32).to_le_bytes());
    out.extend(data_size.to_le_bytes());
    out.extend(variable.vendor.to_bytes());
    out.extend(name);
    out.extend(&variable.data);
    Ok(())
}

/// The variables that a firmware would find in the store. Every length is checked against the store.
pub fn variables(store: &[u8]) -> Result<Vec<Variable>, KeyError> {
    let area = store.get(area(store)?).unwrap_or_default();
    let mut live = Vec::new();
    let mut replaced = Vec::new();
    let mut at = 0;
    while let Some(header) = area.get(at..).and_then(|rest| rest.first_chunk::<VARIABLE_HEADER>()) {
        match u16_at(header, 0) {
            START_ID => {}
            0xffff => break,
            _ => return Err(KeyError::Store("what follows a variable is neither another nor free")),
        }
        let state = header[2];
        let (name_size, data_size) = (u32_at(header, 36), u32_at(header, 40));
        // A header that was not written to its end has no sizes yet: the firmware takes them for zero.
        let unwritten = state == 0xff || name_size == u32::MAX || data_size == u32::MAX;
        let (name_size, data_size) =
            if unwritten { (0, 0) } else { (name_size as usize, data_size as usize) };
        let content = at + VARIABLE_HEADER;
        let cut_off = || KeyError::Store("a variable reaches beyond its end");
        let name_end = content.checked_add(name_size).ok_or_else(cut_off)?;
        let end = name_end.checked_add(data_size).filter(|end| *end <= area.len()).ok_or_else(cut_off)?;
        if state == ADDED || state == IN_TRANSITION {
            let variable = Variable {
                vendor: Guid::from_bytes(array_at(header, 44)),
                name: name(area.get(content..name_end).unwrap_or_default())?,
                attributes: u32_at(header, 4),
                timestamp: array_at(header, 16),
                data: area.get(name_end..end).unwrap_or_default().to_vec(),
            };
            if state == ADDED { &mut live } else { &mut replaced }.push(variable);
        }
        at = end.next_multiple_of(4);
    }
    // Power went while a variable was written anew: the old one counts if the new one is not complete.
    for old in replaced {
        if !live.iter().any(|new: &Variable| new.is(&old)) {
            live.push(old);
        }
    }
    Ok(live)
}

fn name(bytes: &[u8]) -> Result<String, KeyError> {
    let wrong = || KeyError::Store("a variable's name is malformed");
    if bytes.len() > NAME_LIMIT || !bytes.len().is_multiple_of(2) {
        return Err(wrong());
    }
    let units: Vec<u16> = bytes.chunks_exact(2).map(|pair| u16_at(pair, 0)).collect();
    let (terminator, name) = units.split_last().ok_or_else(wrong)?;
    if *terminator != 0 || name.is_empty() || name.contains(&0) {
        return Err(wrong());
    }
    String::from_utf16(name).map_err(|_| wrong())
}

/// Where variables lie in the file: behind the headers of volume and store, up to the store's end.
fn area(bytes: &[u8]) -> Result<Range<usize>, KeyError> {
    let store = KeyError::Store;
    let volume = bytes.get(..56).ok_or(store("it is cut off"))?;
    if volume[40..44] != *b"_FVH" || volume[16..32] != NV_DATA.to_bytes() {
        return Err(store("it begins with no firmware volume for variables"));
    }
    let length = usize::try_from(u64::from_le_bytes(array_at(volume, 32))).ok();
    let volume_end = length.filter(|length| *length <= bytes.len()).ok_or(store("it is cut off"))?;
    let header_length = usize::from(u16_at(volume, 48));
    let header =
        bytes.get(..header_length).filter(|header| header.len() >= 56 && header.len().is_multiple_of(4));
    let header = header.ok_or(store("its volume header has no sane length"))?;
    let sum = header.chunks_exact(2).fold(0u16, |sum, pair| sum.wrapping_add(u16_at(pair, 0)));
    if sum != 0 {
        return Err(store("the checksum of its volume header is wrong"));
    }
    let begin = header_length + STORE_HEADER;
    let head = bytes.get(header_length..begin).ok_or(store("it is cut off"))?;
    if head[..16] != AUTHENTICATED_STORE.to_bytes() {
        return Err(store("it is not for authenticated variables"));
    }
    // Formatted and healthy.
    if head[20..22] != [0x5a, 0xfe] {
        return Err(store("the firmware has not formatted it"));
    }
    let end = header_length.checked_add(u32_at(head, 16) as usize);
    end.filter(|end| (begin..=volume_end).contains(end))
        .map(|end| begin..end)
        .ok_or(store("its size is larger than its volume"))
}

/// `N` bytes at an offset that lies inside; zeros otherwise.
fn array_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).copied().unwrap_or([0; N])
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(array_at(bytes, at))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array_at(bytes, at))
}
