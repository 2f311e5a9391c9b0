//! What a machine would do, were the power to go: a record of all writes, and a model of the firmware that starts from what
//! a disk may hold then. Tests of whole updates run on it.

use crate::check::read_uki;
use crate::disk::Disk;
use crate::entries::Entries;
use crate::error::SlotsError;
use crate::variables::{MemoryVariables, Name, Variables};
use ashlar_image::digest::Digest;
use ashlar_image::layout::{Role, Slot};
use ashlar_measured_boot::efi::Guid;
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Size of a sector in bytes: what a device writes whole.
pub const SECTOR: usize = 512;

/// Which partition.
pub type Place = (Slot, Role);

/// Something that was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Bytes were written.
    Write {
        /// Where.
        place: Place,
        /// Offset in bytes.
        offset: u64,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// All writes to a partition were made durable.
    Flush(Place),
    /// A variable was set, or removed.
    Variable(Name, Option<Vec<u8>>),
}

/// A machine: the partitions of both slots, and the variables.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Machine {
    /// Contents.
    pub disks: BTreeMap<Place, Vec<u8>>,
    /// Variables.
    pub variables: MemoryVariables,
}

impl Machine {
    /// Does a step; flushes change nothing.
    pub fn apply(&mut self, step: &Step) {
        match step {
            Step::Write { place, offset, bytes } => {
                let at = usize::try_from(*offset).unwrap_or(usize::MAX);
                let disk = self.disks.entry(*place).or_default();
                if let Some(to) = at.checked_add(bytes.len()).and_then(|end| disk.get_mut(at..end)) {
                    to.copy_from_slice(bytes);
                }
            }
            Step::Flush(_) => {}
            Step::Variable(name, Some(value)) => {
                self.variables.values.insert(name.clone(), value.clone());
            }
            Step::Variable(name, None) => {
                self.variables.values.remove(name);
            }
        }
    }

    /// Which slot the firmware starts now, by `BootNext`, `BootOrder` or the fallback path; `BootNext` is used up by it.
    /// `signed` are the UKIs that it takes.
    pub fn start(&mut self, signed: &[Digest]) -> Option<Slot> {
        let entries = Entries::read(&self.variables).ok()?;
        if entries.next.is_some() {
            self.variables.values.remove(&Name::global("BootNext"));
        }
        for number in entries.next.iter().chain(&entries.order) {
            let Some(slot) = entries.slot_of(*number) else { continue };
            if self.loads(slot, signed) {
                let value = number.to_le_bytes().to_vec();
                self.variables.values.insert(Name::global("BootCurrent"), value);
                return Some(slot);
            }
        }
        [Slot::A, Slot::B].into_iter().find(|slot| self.loads(*slot, signed))
    }

    /// Whether the firmware finds a UKI in a slot and takes it.
    pub fn loads(&self, slot: Slot, signed: &[Digest]) -> bool {
        let Some(esp) = self.disks.get(&(slot, Role::Esp)) else { return false };
        read_uki(io::Cursor::new(esp.clone())).is_ok_and(|uki| signed.contains(&Digest::of(&uki)))
    }
}

/// A machine whose every step is recorded.
#[derive(Debug, Clone, Default)]
pub struct Recorder(Arc<Mutex<(Machine, Vec<Step>)>>);

impl Recorder {
    /// Records what is done to `machine`.
    pub fn new(machine: Machine) -> Self {
        Self(Arc::new(Mutex::new((machine, Vec::new()))))
    }

    fn lock(&self) -> MutexGuard<'_, (Machine, Vec<Step>)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A partition.
    pub fn disk(&self, place: Place) -> RecordedDisk {
        RecordedDisk { recorder: self.clone(), place }
    }

    /// The variables.
    pub fn variables(&self) -> RecordedVariables {
        RecordedVariables(self.clone())
    }

    /// What was done so far.
    pub fn steps(&self) -> Vec<Step> {
        self.lock().1.clone()
    }

    /// The machine as it is seen while it runs.
    pub fn machine(&self) -> Machine {
        self.lock().0.clone()
    }

    fn record(&self, step: Step) {
        let mut inner = self.lock();
        inner.0.apply(&step);
        inner.1.push(step);
    }
}

/// A partition whose writes are recorded.
#[derive(Debug, Clone)]
pub struct RecordedDisk {
    recorder: Recorder,
    place: Place,
}

impl Disk for RecordedDisk {
    fn size(&self) -> u64 {
        self.recorder.lock().0.disks.get(&self.place).map_or(0, |disk| disk.len() as u64)
    }

    fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let inner = self.recorder.lock();
        let at = usize::try_from(offset).map_err(io::Error::other)?;
        let disk = inner.0.disks.get(&self.place).ok_or(io::ErrorKind::NotFound)?;
        let bytes = at
            .checked_add(buffer.len())
            .and_then(|end| disk.get(at..end))
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(bytes);
        Ok(())
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if offset.checked_add(bytes.len() as u64).is_none_or(|end| end > self.size()) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.recorder.record(Step::Write { place: self.place, offset, bytes: bytes.to_vec() });
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.recorder.record(Step::Flush(self.place));
        Ok(())
    }

    fn read_back(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.read(offset, buffer)
    }
}

/// Variables whose changes are recorded.
#[derive(Debug, Clone)]
pub struct RecordedVariables(Recorder);

impl Variables for RecordedVariables {
    fn get(&self, name: &Name) -> Result<Option<Vec<u8>>, SlotsError> {
        self.0.lock().0.variables.get(name)
    }

    fn set(&mut self, name: &Name, value: &[u8]) -> Result<(), SlotsError> {
        self.0.record(Step::Variable(name.clone(), Some(value.to_vec())));
        Ok(())
    }

    fn remove(&mut self, name: &Name) -> Result<(), SlotsError> {
        self.0.record(Step::Variable(name.clone(), None));
        Ok(())
    }

    fn list(&self, vendor: Guid) -> Result<Vec<String>, SlotsError> {
        self.0.lock().0.variables.list(vendor)
    }
}

/// Numbers that look random; the same for the same seed.
#[derive(Debug, Clone)]
pub struct Random(pub u64);

impl Random {
    /// The next one (xorshift64*).
    pub fn next_number(&mut self) -> u64 {
        let mut x = self.0 | 1;
        x ^= x >> 12;
        x ^= x << 25;
        x ^= x >> 27;
        self.0 = x;
        x.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }
}

/// Calls `judge` for every state that the power's going may leave, were `steps` done from `before` on: after each step, with
/// those writes that no flush has made durable there, not there, or in part. Up to six such writes all subsets are tried, of
/// more `samples` at random, torn between sectors. Variables are changed at once and in order. Gives the number of states.
pub fn power_cuts(
    before: &Machine,
    steps: &[Step],
    samples: usize,
    seed: u64,
    mut judge: impl FnMut(usize, &Machine),
) -> usize {
    let mut random = Random(seed);
    let mut durable = before.clone();
    let mut pending: Vec<&Step> = Vec::new();
    let mut states = 0;
    for (number, step) in std::iter::once(None).chain(steps.iter().map(Some)).enumerate() {
        match step {
            Some(Step::Flush(place)) => {
                pending.retain(|pending| {
                    let done = matches!(pending, Step::Write { place: other, .. } if other == place);
                    if done {
                        durable.apply(pending);
                    }
                    !done
                });
            }
            Some(step @ Step::Variable(..)) => durable.apply(step),
            Some(step) => pending.push(step),
            None => {}
        }
        let subsets: Vec<u64> = if pending.len() <= 6 {
            (0..1 << pending.len()).collect()
        } else {
            [0, u64::MAX].into_iter().chain((0..samples).map(|_| random.next_number())).collect()
        };
        for subset in subsets {
            let mut state = durable.clone();
            let mut chosen: Vec<&&Step> = pending
                .iter()
                .enumerate()
                .filter(|(n, _)| subset >> (n % 64) & 1 == 1)
                .map(|(_, step)| step)
                .collect();
            if pending.len() > 6 {
                // In any order, and the last of them in part.
                for at in (1..chosen.len()).rev() {
                    chosen.swap(at, usize::try_from(random.next_number()).unwrap_or(0) % (at + 1));
                }
            }
            for step in &chosen {
                state.apply(step);
            }
            judge(number, &state);
            states += 1;
            if let Some(Step::Write { place, offset, bytes }) = chosen.last() {
                let sectors = bytes.len() / SECTOR;
                let cut = usize::try_from(random.next_number()).unwrap_or(0) % sectors.max(1) * SECTOR;
                let mut torn = durable.clone();
                for step in chosen.iter().rev().skip(1) {
                    torn.apply(step);
                }
                let bytes = bytes.get(..cut).unwrap_or_default().to_vec();
                torn.apply(&Step::Write { place: *place, offset: *offset, bytes });
                judge(number, &torn);
                states += 1;
            }
        }
    }
    states
}
