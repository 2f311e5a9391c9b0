//! The EFI system partition.

use super::Difference;
use super::hints::Hints;
use super::uki::images;
use crate::CompareError;
use crate::folder::ReleaseFolder;
use crate::stream::first_difference;
use ashlar_formats::esp::{UKI_PATH, read_uki};
use std::io::{Seek, SeekFrom};

/// Fields of the boot sector (Microsoft, "FAT", section 3): offset, length, name.
const BOOT_SECTOR: [(u64, u64, &str); 5] = [
    (11, 25, "geometry"),
    (36, 28, "sizes of FAT32"),
    (67, 4, "serial number"),
    (71, 11, "label"),
    (82, 8, "type"),
];
/// Bytes in a sector; what is before the first table is reserved sectors.
const SECTOR: u64 = 512;

pub(super) fn compare(
    a: &ReleaseFolder,
    b: &ReleaseFolder,
    uki_differs: bool,
) -> Result<Vec<Difference>, CompareError> {
    let artifact = a.release().slot.esp.file.clone();
    let ((mut file_a, _), (mut file_b, _)) = (a.file(&artifact)?, b.file(&b.release().slot.esp.file)?);
    let fail = |source| CompareError::Read { path: b.path().join(&artifact), source };
    let first = first_difference(&mut file_a, &mut file_b).map_err(fail)?;
    let Some(first) = first else { return Ok(Vec::new()) };
    let (uki_a, uki_b) = match (read_uki(&mut file_a), read_uki(&mut file_b)) {
        (Ok(a), Ok(b)) => (a, b),
        (Err(error), _) | (_, Err(error)) => {
            let text = format!("{} differs at byte {first}; {error}", field(first));
            return Ok(vec![Difference::new(&artifact, field(first), text).at(first).byte(first)]);
        }
    };
    let mut found = Vec::new();
    if uki_a != uki_b {
        let own = a.uki()? == uki_a && b.uki()? == uki_b;
        if own && uki_differs {
            let text = format!("{UKI_PATH} is the UKI, which differs");
            found.push(Difference::new(&artifact, UKI_PATH, text).byte(first).following(true));
        } else {
            // It is not the file beside it in one of the releases.
            for mut difference in images(&artifact, &uki_a, &uki_b, false, &mut Hints::default()) {
                // Bytes are those of the UKI, not of the partition.
                difference.byte = None;
                difference.place = format!("{UKI_PATH} {}", difference.place);
                difference.text =
                    format!("{UKI_PATH}: {}, and it is not the release's own UKI", difference.text);
                found.push(difference);
            }
        }
    }
    // What lies before the files' clusters, of which the UKI's place is a part.
    file_a.seek(SeekFrom::Start(0)).and_then(|_| file_b.seek(SeekFrom::Start(0))).map_err(fail)?;
    let place = field(first);
    if found.is_empty() || place.starts_with("boot sector") {
        let text = format!("{place} differs at byte {first}");
        found.push(Difference::new(&artifact, place, text).at(first).byte(first));
    }
    Ok(found)
}

/// What of the file system a byte belongs to.
fn field(byte: u64) -> String {
    if byte < SECTOR {
        let name = BOOT_SECTOR.iter().find(|(start, length, _)| (*start..start + length).contains(&byte));
        return format!("boot sector: {}", name.map_or("code", |(_, _, name)| name));
    }
    "file system (tables, folders or the time and place of a file)".into()
}
