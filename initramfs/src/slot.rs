//! In which order the partitions of the boot disk are looked at. The order is a hint: only the hashes decide.

use crate::gpt::Partition;
use crate::guid::Guid;
use ashlar_image::layout::{PARTITIONS, Role, Slot, TYPE_ROOT, TYPE_ROOT_VERITY};

/// A verity partition and the root partitions that may belong to it, the likeliest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate<'a> {
    /// The partition with superblock and tree.
    pub tree: &'a Partition,
    /// Root partitions.
    pub data: Vec<&'a Partition>,
}

/// The slot of a partition, if the table has the layout of an Ashlar disk.
pub fn slot_of(partition: &Partition) -> Option<Slot> {
    PARTITIONS.iter().find(|entry| entry.number == partition.number).and_then(|entry| entry.slot)
}

fn has_type(partition: &Partition, text: &str) -> bool {
    text.parse::<Guid>() == Ok(partition.type_guid)
}

/// What to look at on a disk with `table` when the firmware started from the partition `esp`: first the slot of
/// that partition, because after an update to the same release both slots hold the same root.
pub fn candidates<'a>(table: &'a [Partition], esp: &Partition) -> Vec<Candidate<'a>> {
    let booted = PARTITIONS
        .iter()
        .find(|entry| entry.number == esp.number && entry.role == Role::Esp)
        .and_then(|entry| entry.slot);
    let mut trees: Vec<&Partition> = table.iter().filter(|p| has_type(p, TYPE_ROOT_VERITY)).collect();
    trees.sort_by_key(|tree| (booted.is_none() || slot_of(tree) != booted, tree.number));
    trees
        .into_iter()
        .map(|tree| {
            let mut data: Vec<&Partition> = table.iter().filter(|p| has_type(p, TYPE_ROOT)).collect();
            data.sort_by_key(|data| (slot_of(data) != slot_of(tree), data.number));
            Candidate { tree, data }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpt;

    fn labels(table: &[Partition], esp: usize) -> Vec<(String, Vec<String>)> {
        candidates(table, &table[esp])
            .into_iter()
            .map(|c| (c.tree.label.clone(), c.data.into_iter().map(|d| d.label.clone()).collect()))
            .collect()
    }

    #[test]
    fn the_booted_slot_comes_first() {
        let table = gpt::read(gpt::tests::disk().as_slice(), 512).unwrap();
        let a = ("verity-a".to_owned(), vec!["root-a".to_owned(), "root-b".to_owned()]);
        let b = ("verity-b".to_owned(), vec!["root-b".to_owned(), "root-a".to_owned()]);
        assert_eq!(labels(&table, 0), [a.clone(), b.clone()]);
        assert_eq!(labels(&table, 3), [b, a]);
    }

    #[test]
    fn other_tables_give_what_they_have() {
        let mut table = gpt::read(gpt::tests::disk().as_slice(), 512).unwrap();
        table.retain(|p| p.label != "verity-b" && p.label != "root-a");
        assert_eq!(labels(&table, 0), [("verity-a".to_owned(), vec!["root-b".to_owned()])]);
        table.retain(|p| p.label == "state");
        assert!(labels(&table, 0).is_empty());
    }
}
