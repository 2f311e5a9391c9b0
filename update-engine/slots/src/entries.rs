//! The boot entries "Ashlar A" and "Ashlar B", and which of them starts. Entries of others are never touched.

use crate::error::SlotsError;
use crate::load_option::{LoadOption, Place, option, parse};
use crate::variables::{Name, Variables};
use ashlar_image::layout::Slot;
use ashlar_measured_boot::efi::Guid;

/// Most entries of `BootOrder` that are looked at.
const MAX_ORDER: usize = 4096;

/// The name of a slot's entry.
pub const fn description(slot: Slot) -> &'static str {
    match slot {
        Slot::A => "Ashlar A",
        Slot::B => "Ashlar B",
    }
}

/// What the firmware starts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Entries {
    /// Our entries: number, slot, option. One slot may have several.
    pub ours: Vec<(u16, Slot, LoadOption)>,
    /// `BootOrder`.
    pub order: Vec<u16>,
    /// `BootNext`.
    pub next: Option<u16>,
    /// `BootCurrent`.
    pub current: Option<u16>,
}

fn numbers(bytes: &[u8]) -> Vec<u16> {
    bytes.as_chunks::<2>().0.iter().map(|pair| u16::from_le_bytes(*pair)).take(MAX_ORDER).collect()
}

fn number(name: &str) -> Option<u16> {
    let digits = name.strip_prefix("Boot")?;
    let upper = digits.len() == 4
        && digits.bytes().all(|byte| byte.is_ascii_digit() || (b'A'..=b'F').contains(&byte));
    upper.then(|| u16::from_str_radix(digits, 16).ok())?
}

fn entry(number: u16) -> Name {
    Name::global(format!("Boot{number:04X}"))
}

impl Entries {
    /// Reads them.
    pub fn read(variables: &dyn Variables) -> Result<Self, SlotsError> {
        let mut ours = Vec::new();
        for number in variables.list(Guid::GLOBAL)?.iter().filter_map(|name| number(name)) {
            let Some(option) = variables.get(&entry(number))?.as_deref().and_then(parse) else { continue };
            let slot = [Slot::A, Slot::B].into_iter().find(|slot| option.description == description(*slot));
            if let Some(slot) = slot {
                ours.push((number, slot, option));
            }
        }
        let one = |name: &str| -> Result<Option<u16>, SlotsError> {
            Ok(variables.get(&Name::global(name))?.and_then(|bytes| numbers(&bytes).first().copied()))
        };
        let order =
            variables.get(&Name::global("BootOrder"))?.map(|bytes| numbers(&bytes)).unwrap_or_default();
        Ok(Self { ours, order, next: one("BootNext")?, current: one("BootCurrent")? })
    }

    /// The slot of an entry, if it is one of ours.
    pub fn slot_of(&self, number: u16) -> Option<Slot> {
        self.ours.iter().find(|(other, ..)| *other == number).map(|(_, slot, _)| *slot)
    }

    /// The slot that starts when nothing else is said: the first of ours in `BootOrder`.
    pub fn first(&self) -> Option<Slot> {
        self.order.iter().find_map(|number| self.slot_of(*number))
    }

    /// Whether the boot that runs is a trial: it was started by an entry of ours that is not the first.
    pub fn is_trial(&self) -> bool {
        let current = self.current.and_then(|number| self.slot_of(number));
        current.is_some() && self.first().is_some() && current != self.first()
    }
}

fn bytes(numbers: &[u16]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

/// Sees to it that there is exactly one entry for a slot, and that it says where the slot is. Gives its number. It is
/// appended to `BootOrder` if it is not in there.
pub fn ensure(variables: &mut dyn Variables, slot: Slot, place: &Place) -> Result<u16, SlotsError> {
    let entries = Entries::read(variables)?;
    let wanted = option(description(slot), place);
    let mine: Vec<u16> =
        entries.ours.iter().filter(|(_, other, _)| *other == slot).map(|(number, ..)| *number).collect();
    // The one that counts now, so that the order stays; else any.
    let kept = entries.order.iter().chain(&mine).find(|number| mine.contains(number)).copied();
    let number = match kept {
        Some(number) => number,
        None => free(variables, &entries)?,
    };
    if variables.get(&entry(number))?.as_deref() != Some(&wanted) {
        variables.set(&entry(number), &wanted)?;
    }
    let mut order: Vec<u16> =
        entries.order.iter().copied().filter(|other| *other == number || !mine.contains(other)).collect();
    if !order.contains(&number) {
        order.push(number);
    }
    if order != entries.order {
        variables.set(&Name::global("BootOrder"), &bytes(&order))?;
    }
    for other in mine.into_iter().filter(|other| *other != number) {
        variables.remove(&entry(other))?;
    }
    Ok(number)
}

fn free(variables: &dyn Variables, entries: &Entries) -> Result<u16, SlotsError> {
    let taken: Vec<u16> = variables.list(Guid::GLOBAL)?.iter().filter_map(|name| number(name)).collect();
    (0..=u16::MAX).find(|n| !taken.contains(n) && !entries.order.contains(n)).ok_or(SlotsError::NoNumber)
}

/// Has a slot start from now on: its entry is the first, then that of the other slot, then those of others as they were.
/// A `BootNext` of ours goes.
pub fn commit(variables: &mut dyn Variables, slot: Slot, place: &Place) -> Result<(), SlotsError> {
    let number = ensure(variables, slot, place)?;
    let entries = Entries::read(variables)?;
    let mut order = vec![number];
    order.extend(entries.order.iter().copied().filter(|n| *n != number && entries.slot_of(*n).is_some()));
    order.extend(entries.order.iter().copied().filter(|n| entries.slot_of(*n).is_none()));
    if order != entries.order {
        variables.set(&Name::global("BootOrder"), &bytes(&order))?;
    }
    cancel(variables)
}

/// Takes back a `BootNext` of ours; one of somebody else stays.
pub fn cancel(variables: &mut dyn Variables) -> Result<(), SlotsError> {
    let entries = Entries::read(variables)?;
    if entries.next.and_then(|number| entries.slot_of(number)).is_some() {
        variables.remove(&Name::global("BootNext"))?;
    }
    Ok(())
}

/// Has a slot start once.
pub fn try_next(variables: &mut dyn Variables, slot: Slot, place: &Place) -> Result<(), SlotsError> {
    let number = ensure(variables, slot, place)?;
    variables.set(&Name::global("BootNext"), &bytes(&[number]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::variables::MemoryVariables;

    fn place(number: u32) -> Place {
        Place { number, start: 2048, size: 4096, guid: Guid::from_bytes([u8::try_from(number).unwrap(); 16]) }
    }

    fn state(variables: &MemoryVariables) -> (Vec<u16>, Option<u16>) {
        let entries = Entries::read(variables).unwrap();
        (entries.order, entries.next)
    }

    #[test]
    fn from_a_machine_without_entries_to_a_committed_update() {
        let mut variables = MemoryVariables::default();
        let foreign = option("UEFI Misc Device", &place(1));
        variables.set(&entry(0), &foreign).unwrap();
        variables.set(&Name::global("BootOrder"), &bytes(&[0])).unwrap();
        variables.set(&Name::global("BootCurrent"), &bytes(&[0])).unwrap();
        assert!(!Entries::read(&variables).unwrap().is_trial());
        commit(&mut variables, Slot::A, &place(1)).unwrap();
        assert_eq!(state(&variables), (vec![1, 0], None));
        try_next(&mut variables, Slot::B, &place(4)).unwrap();
        assert_eq!(state(&variables), (vec![1, 0, 2], Some(2)));
        variables.set(&Name::global("BootCurrent"), &bytes(&[2])).unwrap();
        let entries = Entries::read(&variables).unwrap();
        assert!(entries.is_trial());
        assert_eq!(entries.first(), Some(Slot::A));
        commit(&mut variables, Slot::B, &place(4)).unwrap();
        assert_eq!(state(&variables), (vec![2, 1, 0], None));
        assert!(!Entries::read(&variables).unwrap().is_trial());
        assert_eq!(variables.get(&entry(0)).unwrap().unwrap(), foreign, "entries of others stay");
    }

    #[test]
    fn damaged_and_double_entries_are_mended() {
        let mut variables = MemoryVariables::default();
        commit(&mut variables, Slot::A, &place(1)).unwrap();
        let good = variables.clone();
        ensure(&mut variables, Slot::A, &place(1)).unwrap();
        assert_eq!(variables, good, "nothing is written without need");
        variables.set(&entry(7), &option("Ashlar A", &place(9))).unwrap();
        variables.set(&entry(8), b"nonsense").unwrap();
        variables.set(&Name::global("BootOrder"), &bytes(&[7, 8, 0])).unwrap();
        assert_eq!(ensure(&mut variables, Slot::A, &place(1)).unwrap(), 7, "the one that counts");
        assert_eq!(state(&variables).0, [7, 8]);
        assert_eq!(variables.get(&entry(0)).unwrap(), None);
        assert_eq!(parse(&variables.get(&entry(7)).unwrap().unwrap()).unwrap().place, Some(place(1)));
        assert_eq!(variables.get(&entry(8)).unwrap().unwrap(), b"nonsense");
        variables.set(&Name::global("BootNext"), &bytes(&[8])).unwrap();
        cancel(&mut variables).unwrap();
        assert_eq!(state(&variables).1, Some(8), "a wish of somebody else stays");
        assert_eq!(
            ["Boot0010", "Boot001a", "BootOrder", "Boot123", "Boot00FF"].map(number),
            [Some(16), None, None, None, Some(255)]
        );
    }
}
