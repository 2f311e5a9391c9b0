//! The disk image: a table and the slot's partitions.

use super::Difference;
use crate::CompareError;
use crate::folder::ReleaseFolder;
use crate::stream::first_difference_sparse;
use ashlar_formats::disk::DiskLayout;
use ashlar_image::layout::PARTITIONS;

/// One line for each part of the disk that differs. Holes are not read.
pub(super) fn compare(
    a: &ReleaseFolder,
    b: &ReleaseFolder,
    slot_differs: bool,
) -> Result<Vec<Difference>, CompareError> {
    let artifact = a.release().disk.file.clone();
    let exists = |folder: &ReleaseFolder| folder.path().join(&folder.release().disk.file).exists();
    match (exists(a), exists(b)) {
        (true, true) => {}
        (false, false) => return Ok(Vec::new()),
        (of_a, _) => {
            let which = if of_a { "first" } else { "second" };
            return Ok(vec![Difference::new(&artifact, "", format!("is only in the {which} release"))]);
        }
    }
    let ((file_a, size_a), (file_b, size_b)) = (a.file(&artifact)?, b.file(&b.release().disk.file)?);
    if size_a != size_b {
        let text = format!("has {size_a} bytes and {size_b} in the second release");
        return Ok(vec![Difference::new(&artifact, "size", text)]);
    }
    let layout = DiskLayout::new(&a.release().partition_sizes, [0; 16], [[0; 16]; 7]).ok();
    let mut found = Vec::new();
    let mut from = 0;
    loop {
        let fail = |source| CompareError::Read { path: b.path().join(&artifact), source };
        let Some(at) = first_difference_sparse(&file_a, &file_b, size_a, from).map_err(fail)? else {
            return Ok(found);
        };
        let partition = PARTITIONS.iter().find_map(|partition| {
            let (start, length) = layout.as_ref()?.partition(partition.number)?;
            (start..start.checked_add(length)?).contains(&at).then_some((partition.label, start, length))
        });
        let Some((label, start, length)) = partition else {
            let text = format!("partition table differs at byte {at}");
            found.push(Difference::new(&artifact, "partition table", text).at(at).byte(at));
            // The next partition behind it, or nothing more.
            let next = PARTITIONS
                .iter()
                .filter_map(|p| layout.as_ref()?.partition(p.number))
                .map(|(start, _)| start);
            match next.filter(|start| *start > at).min() {
                Some(start) => from = start,
                None => return Ok(found),
            }
            continue;
        };
        let follows = slot_differs && label.ends_with("-a");
        let text = format!("partition {label} differs at byte {} (byte {at} of the disk)", at - start);
        found.push(Difference::new(&artifact, label, text).at(at - start).byte(at).following(follows));
        from = start + length;
    }
}
