//! Boot options of the firmware (UEFI Specification 2.10, sections 3.1.3 and 10.3).

use ashlar_measured_boot::efi::Guid;

/// `LOAD_OPTION_ACTIVE`.
const ACTIVE: u32 = 1;
/// Longest option that is read, in bytes.
const MAX: usize = 16 << 10;
/// The program of a slot.
pub const PROGRAM: &str = "\\EFI\\BOOT\\BOOTX64.EFI";

/// Where an ESP lies, as a hard drive node says it (section 10.3.5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Number of the partition, from 1.
    pub number: u32,
    /// First logical block.
    pub start: u64,
    /// Number of logical blocks.
    pub size: u64,
    /// GUID of the partition.
    pub guid: Guid,
}

/// A boot option.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadOption {
    /// Whether the firmware tries it by itself.
    pub active: bool,
    /// Its name.
    pub description: String,
    /// The partition; none if its device path is another.
    pub place: Option<Place>,
    /// The program on it.
    pub program: Option<String>,
}

fn utf16(text: &str, out: &mut Vec<u8>) {
    for unit in text.encode_utf16().chain([0]) {
        out.extend_from_slice(&unit.to_le_bytes());
    }
}

/// The option that starts [`PROGRAM`] from `place`.
pub fn option(description: &str, place: &Place) -> Vec<u8> {
    let mut path = vec![4, 1, 42, 0];
    path.extend_from_slice(&place.number.to_le_bytes());
    path.extend_from_slice(&place.start.to_le_bytes());
    path.extend_from_slice(&place.size.to_le_bytes());
    path.extend_from_slice(&place.guid.to_bytes());
    // GPT, and the signature is a GUID.
    path.extend_from_slice(&[2, 2]);
    let mut name = Vec::new();
    utf16(PROGRAM, &mut name);
    path.extend_from_slice(&[4, 4]);
    path.extend_from_slice(&(name.len() as u16 + 4).to_le_bytes());
    path.extend_from_slice(&name);
    path.extend_from_slice(&[0x7f, 0xff, 4, 0]);
    let mut out = ACTIVE.to_le_bytes().to_vec();
    out.extend_from_slice(&(path.len() as u16).to_le_bytes());
    utf16(description, &mut out);
    out.extend_from_slice(&path);
    out
}

/// Reads UTF-16 up to its NUL; gives the text and the bytes that it takes.
fn text(bytes: &[u8]) -> Option<(String, usize)> {
    let units: Vec<u16> = bytes
        .as_chunks::<2>()
        .0
        .iter()
        .map(|pair| u16::from_le_bytes(*pair))
        .take_while(|unit| *unit != 0)
        .collect();
    let length = units.len().checked_add(1)?.checked_mul(2)?;
    (length <= bytes.len()).then_some((String::from_utf16_lossy(&units), length))
}

/// Reads an option. None if it is malformed; device paths of other kinds are no error.
pub fn parse(bytes: &[u8]) -> Option<LoadOption> {
    if bytes.len() > MAX {
        return None;
    }
    let attributes = u32::from_le_bytes(bytes.get(..4)?.try_into().ok()?);
    let length = usize::from(u16::from_le_bytes(bytes.get(4..6)?.try_into().ok()?));
    let (description, taken) = text(bytes.get(6..)?)?;
    let mut rest = bytes.get(6usize.checked_add(taken)?..)?.get(..length)?;
    let mut option = LoadOption { active: attributes & ACTIVE != 0, description, place: None, program: None };
    while let Some(header) = rest.get(..4) {
        let size = usize::from(u16::from_le_bytes([*header.get(2)?, *header.get(3)?]));
        let node = rest.get(4..size)?;
        match (header.first()?, header.get(1)?) {
            (4, 1) if node.get(36..38) == Some(&[2, 2]) => {
                option.place = Some(Place {
                    number: u32::from_le_bytes(node.get(..4)?.try_into().ok()?),
                    start: u64::from_le_bytes(node.get(4..12)?.try_into().ok()?),
                    size: u64::from_le_bytes(node.get(12..20)?.try_into().ok()?),
                    guid: Guid::from_bytes(node.get(20..36)?.try_into().ok()?),
                });
            }
            (4, 4) => option.program = text(node).map(|(text, _)| text),
            (0x7f, _) => break,
            _ => {}
        }
        rest = rest.get(size..)?;
    }
    Some(option)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn place() -> Place {
        let guid = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b".parse().unwrap();
        Place { number: 4, start: 0x0012_3456, size: 0x0010_0000, guid }
    }

    #[test]
    fn an_option_byte_by_byte() {
        let bytes = option("Ashlar B", &place());
        assert_eq!(&bytes[..6], [1, 0, 0, 0, 94, 0]);
        assert_eq!(&bytes[6..10], [b'A', 0, b's', 0]);
        let path = &bytes[24..];
        assert_eq!(&path[..8], [4, 1, 42, 0, 4, 0, 0, 0]);
        assert_eq!(&path[40..48], [2, 2, 4, 4, 48, 0, b'\\', 0], "GPT, a GUID, then the program's name");
        assert_eq!(&path[90..], [0x7f, 0xff, 4, 0]);
        let read = parse(&bytes).unwrap();
        assert_eq!(read.description, "Ashlar B");
        assert_eq!((read.place, read.program.as_deref(), read.active), (Some(place()), Some(PROGRAM), true));
        for length in 0..bytes.len() {
            assert_eq!(parse(&bytes[..length]), None, "cut to {length}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..300), at in 0usize..120, flip in 1u8..) {
            let _ = parse(&bytes);
            let mut good = option("Ashlar A", &place());
            let at = at % good.len();
            good[at] ^= flip;
            let _ = parse(&good);
        }
    }
}
