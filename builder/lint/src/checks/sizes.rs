//! Whether the image fits where it has to go.

use super::Context;
use crate::report::Part;
use crate::report::Severity::{Error, Warning};
use crate::report::mebibytes;
use crate::subject::PartitionBytes;

pub(crate) fn check(context: &mut Context<'_, '_>) {
    let Some(sizes) = context.subject.sizes else { return };
    let places = [
        (Some(sizes.partitions), "the recipe's partition"),
        (sizes.smallest_in_field, "the smallest partition in the field"),
    ];
    for (name, part) in
        [("esp", (|p| p.esp) as fn(PartitionBytes) -> u64), ("root", |p| p.root), ("verity", |p| p.verity)]
    {
        let needed = part(sizes.needed);
        for (limit, what) in places {
            let Some(limit) = limit.map(part) else { continue };
            let numbers = format!("{:.1} of {:.1} MiB", mebibytes(needed), mebibytes(limit));
            if needed > limit {
                let message = format!("{name}: {numbers} of {what}: it does not fit");
                let help = "remove something or compress the root; installed machines keep their partitions for ever";
                context.add(("too-large-for-field", Error), &Part::Image, None, message, help);
            } else if needed > limit - limit / 10 {
                let message = format!("{name}: {numbers} of {what}: less than a tenth is left");
                let help = "make room before an update does not fit any more";
                context.add(("too-large-for-field", Warning), &Part::Image, None, message, help);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{of_rule, subject, tree};
    use crate::{PartitionBytes, Sizes, lint};

    #[test]
    fn limits() {
        let mib = 1u64 << 20;
        let slot =
            |esp, root, verity| PartitionBytes { esp: esp * mib, root: root * mib, verity: verity * mib };
        let tree = tree();
        let mut subject = subject(&tree);
        let found = |sizes| {
            subject.sizes = Some(sizes);
            of_rule(&lint(&subject, &[]).unwrap(), "too-large-for-field")
        };
        let mut found = found;
        let partitions = slot(100, 1000, 50);
        let fits = Sizes { needed: slot(90, 900, 45), partitions, smallest_in_field: None };
        assert!(found(fits).is_empty(), "nine tenths are fine");
        let smallest_in_field = Some(slot(80, 905, 50));
        assert_eq!(
            found(Sizes { smallest_in_field, ..fits }),
            [
                "image -: esp: 90.0 of 80.0 MiB of the smallest partition in the field: it does not fit",
                "image -: root: 900.0 of 905.0 MiB of the smallest partition in the field: less than a tenth is left",
            ]
        );
        let full = Sizes { needed: slot(1, 1, 50), partitions, smallest_in_field: None };
        let all = found(full);
        assert!(all.len() == 1 && all[0].contains("verity: 50.0 of 50.0 MiB"), "{all:?}");
    }
}
