//! A device in memory that remembers what was done to it, to try what a power cut leaves. For tests and fuzzing.

use crate::device::{ReadAt, WriteAt};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;

/// Size of a page in bytes; only pages with something in them take memory.
const PAGE: usize = 4096;
/// What a disk writes as a whole or not at all, in bytes.
pub const SECTOR: usize = 512;

/// What was done.
#[derive(Debug, Clone)]
pub enum Event {
    /// A write.
    Write {
        /// Where, in bytes.
        offset: u64,
        /// What.
        data: Rc<[u8]>,
    },
    /// A flush.
    Flush,
}

/// A device in memory. Copies share their pages until one of them is written.
#[derive(Debug, Clone, Default)]
pub struct MemoryDevice {
    size: u64,
    pages: BTreeMap<u64, Rc<[u8; PAGE]>>,
    events: Vec<Event>,
    reads: RefCell<Vec<(u64, u64)>>,
}

impl MemoryDevice {
    /// A device of `size` bytes, all zero.
    pub fn new(size: u64) -> Self {
        Self { size, ..Self::default() }
    }

    /// A device of `size` bytes that begins with `start`.
    pub fn with(size: u64, start: &[u8]) -> Self {
        let mut device = Self::new(size);
        device.put(start, 0);
        device
    }

    /// What was written and flushed so far.
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// The places that were read, in the order of the readings: offset and length in bytes.
    pub fn reads(&self) -> Vec<(u64, u64)> {
        self.reads.borrow().clone()
    }

    /// A copy that remembers nothing of what was done.
    #[must_use]
    pub fn settled(&self) -> Self {
        Self { size: self.size, pages: self.pages.clone(), ..Self::default() }
    }

    /// Changes bytes as nobody should: it is no write and is not remembered. Bytes behind the end are left out.
    pub fn put(&mut self, data: &[u8], offset: u64) {
        let length = self.size.saturating_sub(offset).min(data.len() as u64) as usize;
        let mut rest = data.get(..length).unwrap_or_default();
        let mut at = offset;
        while !rest.is_empty() {
            let within = (at % PAGE as u64) as usize;
            let (now, later) = rest.split_at(rest.len().min(PAGE - within));
            let page = self.pages.entry(at / PAGE as u64).or_insert_with(|| Rc::new([0; PAGE]));
            crate::bytes::put(Rc::make_mut(page).as_mut_slice(), within, now);
            at = at.saturating_add(now.len() as u64);
            rest = later;
        }
    }

    /// The bytes at a place, zero behind the end; it is no reading and is not remembered.
    pub fn get(&self, offset: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        for (number, page) in self.pages.range(offset / PAGE as u64..) {
            let Some(start) = (number * PAGE as u64).checked_sub(offset) else {
                let within = (offset % PAGE as u64) as usize;
                crate::bytes::put(&mut bytes, 0, page.get(within..).unwrap_or_default());
                continue;
            };
            if start >= length as u64 {
                break;
            }
            crate::bytes::put(&mut bytes, start as usize, page.as_slice());
        }
        bytes
    }

    /// Writes it as a sparse file.
    pub fn save(&self, file: &std::fs::File) -> io::Result<()> {
        use std::os::unix::fs::FileExt as _;
        file.set_len(0)?;
        file.set_len(self.size)?;
        for (number, page) in &self.pages {
            let offset = number * PAGE as u64;
            let length = self.size.saturating_sub(offset).min(PAGE as u64) as usize;
            file.write_all_at(page.get(..length).unwrap_or_default(), offset)?;
        }
        Ok(())
    }

    /// Shows what the medium may hold after a power cut during what this device remembers, which began with `before`.
    ///
    /// A disk writes sectors of 512 bytes as a whole and in any order, and keeps everything before the last flush. For
    /// each stretch between two flushes these are tried: each number of whole writes; the next write in part, from the
    /// front and from the back; each write alone; and `samples` random choices among the stretch's sectors, drawn from
    /// `random`. Gives the number of states shown.
    pub fn after_power_cuts(
        &self,
        before: &Self,
        samples: usize,
        random: &mut dyn FnMut() -> u64,
        show: &mut dyn FnMut(&Self),
    ) -> usize {
        let mut base = before.settled();
        let mut shown = 0;
        for stretch in self.events.split(|event| matches!(event, Event::Flush)) {
            let writes: Vec<(u64, Rc<[u8]>)> = stretch
                .iter()
                .filter_map(|event| match event {
                    Event::Write { offset, data } => Some((*offset, Rc::clone(data))),
                    Event::Flush => None,
                })
                .collect();
            shown += stretch_states(&base, &writes, samples, random, show);
            for (offset, data) in &writes {
                base.put(data, *offset);
            }
        }
        show(&base);
        shown + 1
    }
}

fn stretch_states(
    base: &MemoryDevice,
    writes: &[(u64, Rc<[u8]>)],
    samples: usize,
    random: &mut dyn FnMut() -> u64,
    show: &mut dyn FnMut(&MemoryDevice),
) -> usize {
    let mut shown = 0;
    let mut prefix = base.clone();
    for (offset, data) in writes {
        show(&prefix);
        shown += 1;
        let sectors = data.len().div_ceil(SECTOR);
        for cut in [1, sectors / 2, sectors.saturating_sub(1)] {
            let (front, back) = data.split_at((cut * SECTOR).min(data.len()));
            for (part, at) in [(front, *offset), (back, *offset + front.len() as u64)] {
                let mut torn = prefix.clone();
                torn.put(part, at);
                show(&torn);
                shown += 1;
            }
        }
        let mut alone = base.clone();
        alone.put(data, *offset);
        show(&alone);
        shown += 1;
        prefix.put(data, *offset);
    }
    for _ in 0..if writes.is_empty() { 0 } else { samples } {
        let mut some = base.clone();
        for (offset, data) in writes {
            for (index, sector) in data.chunks(SECTOR).enumerate() {
                if random() & 1 == 1 {
                    some.put(sector, offset + (index * SECTOR) as u64);
                }
            }
        }
        show(&some);
        shown += 1;
    }
    shown
}

impl ReadAt for MemoryDevice {
    fn size(&self) -> io::Result<u64> {
        Ok(self.size)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let end = offset.checked_add(buffer.len() as u64).filter(|end| *end <= self.size);
        end.ok_or(io::ErrorKind::UnexpectedEof)?;
        self.reads.borrow_mut().push((offset, buffer.len() as u64));
        buffer.copy_from_slice(&self.get(offset, buffer.len()));
        Ok(())
    }
}

impl WriteAt for MemoryDevice {
    fn write_at(&mut self, data: &[u8], offset: u64) -> io::Result<()> {
        let end = offset.checked_add(data.len() as u64).filter(|end| *end <= self.size);
        end.ok_or(io::ErrorKind::WriteZero)?;
        self.events.push(Event::Write { offset, data: data.into() });
        self.put(data, offset);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.events.push(Event::Flush);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_and_ends() {
        let mut device = MemoryDevice::new(3 * 4096 + 100);
        device.write_at(&[7; 5000], 4000).unwrap();
        assert_eq!(device.get(3999, 3), [0, 7, 7]);
        assert_eq!(device.get(8999, 2), [7, 0]);
        let mut buffer = [0; 100];
        device.read_at(&mut buffer, 3 * 4096).unwrap();
        assert!(device.read_at(&mut buffer, 3 * 4096 + 1).is_err());
        assert!(device.write_at(&[1], 3 * 4096 + 100).is_err());
        assert!(device.write_at(&[1], u64::MAX).is_err());
        let copy = device.settled();
        device.put(&[1], 4000);
        assert_eq!(copy.get(4000, 1), [7], "copies do not change with the original");
    }

    #[test]
    fn power_cuts_respect_flushes() {
        let before = MemoryDevice::new(8192);
        let mut device = before.settled();
        device.write_at(&[1; 1024], 0).unwrap();
        device.flush().unwrap();
        device.write_at(&[2; 1024], 1024).unwrap();
        device.write_at(&[3; 512], 4096).unwrap();
        let mut seen = std::collections::BTreeSet::new();
        let mut next = 1u64;
        let mut random = || {
            next = next.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            next >> 33
        };
        let count = device.after_power_cuts(&before, 20, &mut random, &mut |state| {
            let sector = |at| state.get(at, 1)[0];
            seen.insert([sector(0), sector(512), sector(1024), sector(1536), sector(4096)]);
        });
        assert!(count > 20);
        assert!(seen.contains(&[0, 1, 0, 0, 0]) && seen.contains(&[1, 0, 0, 0, 0]), "torn writes");
        assert!(seen.contains(&[1, 1, 0, 0, 3]), "writes out of their order");
        assert!(seen.contains(&[1, 1, 2, 2, 3]), "all of it");
        assert!(seen.iter().all(|state| state[2..] == [0; 3] || state[..2] == [1; 2]), "a flush is a flush");
    }
}
