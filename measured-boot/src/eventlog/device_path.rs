//! Device paths as far as people need them: which partition, which file (UEFI Specification 2.10, chapter 10).

use super::explain::utf16;
use crate::efi::Guid;

/// Nodes that are looked at; a real path has about six.
const MAX_NODES: usize = 32;

/// A text for a device path: partition and file where it has them, `(type,subtype)` for other nodes.
pub(super) fn text(mut path: &[u8]) -> String {
    let mut parts = Vec::new();
    for _ in 0..MAX_NODES {
        let [kind, subtype, low, high, ..] = *path else { break };
        let length = usize::from(u16::from_le_bytes([low, high]));
        let Some((node, rest)) = path.split_at_checked(length) else { break };
        let Some(data) = node.get(4..) else { break };
        path = rest;
        let named = |what: &str| guid(data, 0).map_or(what.to_owned(), |guid| format!("{what} {guid}"));
        parts.push(match (kind, subtype) {
            (0x7f, _) => break,
            // The root of the ACPI tree begins every path.
            (2, 1) => continue,
            (1, 1) => match data {
                [function, device] => format!("PCI {device:02x}.{function:x}"),
                _ => "PCI".to_owned(),
            },
            (4, 1) => partition(data).unwrap_or_else(|| "partition".to_owned()),
            (4, 3) => named("vendor media"),
            (4, 4) => utf16(data).unwrap_or_else(|| "file".to_owned()),
            (4, 6) => named("firmware file"),
            (4, 7) => named("firmware volume"),
            _ => format!("({kind},{subtype})"),
        });
    }
    parts.join(" / ")
}

/// `HARDDRIVE_DEVICE_PATH` with a GUID: number u32, start u64, size u64, signature, format, type 2.
fn partition(data: &[u8]) -> Option<String> {
    let number = u32::from_le_bytes(data.get(0..4)?.try_into().ok()?);
    match data.get(37)? {
        2 => Some(format!("partition {number} {}", guid(data, 20)?)),
        _ => Some(format!("partition {number}")),
    }
}

fn guid(data: &[u8], at: usize) -> Option<Guid> {
    data.get(at..at.checked_add(16)?)?.try_into().ok().map(Guid::from_bytes)
}
