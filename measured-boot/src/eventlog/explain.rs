//! What an event says of itself, and whether its digest covers that.

use super::{EventType, LogEvent, device_path};
use crate::efi::Guid;
use ashlar_image::digest::Digest;
use std::fmt;

/// Longest text that is taken from a log, in characters.
const MAX_TEXT: usize = 160;

/// What an event says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// For people; no control characters.
    pub text: String,
    /// Whether the SHA-256 digest that was extended covers what the text says. If not, whoever could write
    /// to the log could write this.
    pub proven: bool,
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)?;
        if self.proven { Ok(()) } else { f.write_str(" (so the log says; not covered by the digest)") }
    }
}

pub(super) fn explain(event: &LogEvent) -> Explanation {
    let data = event.data.as_slice();
    let covers = |bytes: &[u8]| event.sha256() == Some(Digest::of(bytes));
    let text = text(event.event_type, data);
    let proven = match event.event_type {
        // Only the content of the variable is measured, so its name is a mere claim.
        EventType::VARIABLE_BOOT => false,
        // systemd-stub measures the name of a section as ASCII with a NUL and logs it as UTF-16.
        EventType::IPL => covers(data) || text.as_deref().is_some_and(|name| covers(&nul_ended(name))),
        _ => covers(data),
    };
    match text {
        Some(text) if proven && event.event_type == EventType::IPL && event.pcr == 11 && !covers(data) => {
            Explanation { text: format!("name of the section {text}"), proven }
        }
        Some(text) => Explanation { text, proven },
        None => Explanation { text: format!("{}, {} bytes", event.event_type, data.len()), proven: false },
    }
}

fn nul_ended(text: &str) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    bytes.push(0);
    bytes
}

/// The text without a judgement.
fn text(event_type: EventType, data: &[u8]) -> Option<String> {
    match event_type {
        EventType::SEPARATOR => Some(match data {
            [0, 0, 0, 0] => "separator".into(),
            [1, 0, 0, 0] => "separator after an error of the firmware".into(),
            [0xff, 0xff, 0xff, 0xff] => "separator without a UEFI boot".into(),
            _ => return None,
        }),
        EventType::ACTION | EventType(5) => ascii(data),
        EventType::CRTM_VERSION => Some(match utf16(data) {
            Some(version) => format!("firmware version {version}"),
            None => "firmware version (empty)".into(),
        }),
        EventType::IPL => utf16(data).or_else(|| ascii(data)),
        EventType::EVENT_TAG => {
            let tag = u32_at(data, 0)?;
            let rest = data.get(8..)?;
            Some(format!("tag {tag:08x} {}", utf16(rest).or_else(|| ascii(rest)).unwrap_or_default()))
        }
        EventType::VARIABLE_DRIVER_CONFIG
        | EventType::VARIABLE_BOOT
        | EventType::VARIABLE_BOOT2
        | EventType::VARIABLE_AUTHORITY => variable(event_type, data),
        EventType::BOOT_SERVICES_APPLICATION
        | EventType::BOOT_SERVICES_DRIVER
        | EventType::RUNTIME_SERVICES_DRIVER => image(data),
        EventType::GPT_EVENT => Some(format!("partition table with {} partitions", u64_at(data, 92)?)),
        EventType::PLATFORM_FIRMWARE_BLOB => {
            Some(format!("firmware of {} bytes at 0x{:x}", u64_at(data, 8)?, u64_at(data, 0)?))
        }
        EventType::PLATFORM_FIRMWARE_BLOB2 => {
            let length = usize::from(*data.first()?);
            ascii(data.get(1..1 + length)?).map(|name| format!("firmware {name}"))
        }
        _ => None,
    }
}

/// `UEFI_VARIABLE_DATA`: vendor GUID, number of characters and bytes, name, content.
fn variable(event_type: EventType, data: &[u8]) -> Option<String> {
    let guid = Guid::from_bytes(data.get(0..16)?.try_into().ok()?);
    let name_end = usize::try_from(u64_at(data, 16)?).ok()?.checked_mul(2)?.checked_add(32)?;
    let content_length = usize::try_from(u64_at(data, 24)?).ok()?;
    let name = utf16(data.get(32..name_end)?)?;
    let content = data.get(name_end..)?;
    if content.len() != content_length {
        return None;
    }
    let known = guid == Guid::GLOBAL || guid == Guid::IMAGE_SECURITY;
    let name = if known { name } else { format!("{guid} {name}") };
    Some(match (event_type, content) {
        (EventType::VARIABLE_AUTHORITY, _) => {
            format!("an image was verified with an entry of {name} ({content_length} bytes)")
        }
        (_, []) => format!("variable {name} (empty)"),
        (_, [value]) => format!("variable {name} = {value}"),
        _ => format!("variable {name} ({content_length} bytes)"),
    })
}

/// `UEFI_IMAGE_LOAD_EVENT`: address, length, link-time address, length of the device path, device path.
fn image(data: &[u8]) -> Option<String> {
    let length = u64_at(data, 8)?;
    let path_length = usize::try_from(u64_at(data, 24)?).ok()?;
    let path = device_path::text(data.get(32..32usize.checked_add(path_length)?)?);
    Some(if path.is_empty() {
        format!("image of {length} bytes")
    } else {
        format!("image of {length} bytes: {path}")
    })
}

fn u32_at(data: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(data.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

fn u64_at(data: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(data.get(at..at.checked_add(8)?)?.try_into().ok()?))
}

/// Printable ASCII, to the first NUL.
fn ascii(data: &[u8]) -> Option<String> {
    let end = data.iter().position(|byte| *byte == 0).unwrap_or(data.len());
    let bytes = data.get(..end)?;
    let printable = !bytes.is_empty() && bytes.iter().all(|byte| (0x20..0x7f).contains(byte));
    printable.then(|| cut(&String::from_utf8_lossy(bytes)))
}

/// Printable ASCII as UTF-16LE, to the first NUL. Nothing else: pairs of ASCII bytes would pass as letters of
/// other scripts.
pub(super) fn utf16(data: &[u8]) -> Option<String> {
    if !data.len().is_multiple_of(2) {
        return None;
    }
    let units = data.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]]));
    let bytes = units.take_while(|unit| *unit != 0).map(u8::try_from).collect::<Result<Vec<_>, _>>().ok()?;
    ascii(&bytes)
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(MAX_TEXT) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}
