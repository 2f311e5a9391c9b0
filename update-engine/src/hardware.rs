//! The disk and the firmware of the machine.

use crate::error::UpdateError;
use ashlar_image::layout::{Role, Slot};
use ashlar_slots::check::Databases;
use ashlar_slots::discover::{BootDisk, find, root_device};
use ashlar_slots::variables::{EFIVARFS, Name};
use ashlar_slots::{Disk, Efivarfs, Partition, SlotDisks, SlotsError, Variables};
use std::fmt::Debug;
use std::path::Path;

/// What the engine has under its hands.
pub trait Hardware: Debug + Send {
    /// The slot that runs.
    fn running(&self) -> Slot;

    /// The partitions of a slot; for writing only those of the slot that does not run.
    fn slot(&self, slot: Slot) -> Result<SlotDisks, UpdateError>;

    /// The firmware's variables.
    fn variables(&self) -> Box<dyn Variables>;

    /// What the firmware checks programs with.
    fn databases(&self) -> Result<Databases, UpdateError> {
        let variables = self.variables();
        let read = |name: &str| -> Result<Vec<u8>, SlotsError> {
            Ok(variables.get(&Name::security(name))?.unwrap_or_default())
        };
        Ok(Databases { db: read("db")?, dbx: read("dbx")? })
    }
}

/// The machine that this runs on.
#[derive(Debug)]
pub struct Real {
    disk: BootDisk,
}

impl Real {
    /// Finds the disk under the root.
    pub fn find() -> Result<Self, UpdateError> {
        Ok(Self { disk: find(root_device()?, Path::new("/sys"), Path::new("/dev"))? })
    }
}

impl Hardware for Real {
    fn running(&self) -> Slot {
        self.disk.running
    }

    fn slot(&self, slot: Slot) -> Result<SlotDisks, UpdateError> {
        let write = slot != self.disk.running;
        let open = |role: Role| -> Result<Box<dyn Disk>, UpdateError> {
            let missing =
                || UpdateError::Slots(SlotsError::Discover("a partition of the slot is missing".into()));
            let path = self.disk.partition(slot, role).ok_or_else(missing)?;
            let partition = Partition::open(path, write).map_err(|error| {
                UpdateError::Slots(SlotsError::Discover(format!("`{}`: {error}", path.display())))
            })?;
            Ok(Box::new(partition))
        };
        let place = self.disk.esps.get(&slot).copied();
        let place =
            place.ok_or_else(|| UpdateError::Slots(SlotsError::Discover("the slot has no ESP".into())))?;
        Ok(SlotDisks {
            slot,
            place,
            esp: open(Role::Esp)?,
            root: open(Role::Root)?,
            verity: open(Role::Verity)?,
        })
    }

    fn variables(&self) -> Box<dyn Variables> {
        Box::new(Efivarfs::new(Path::new(EFIVARFS)))
    }
}
