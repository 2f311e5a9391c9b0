//! The steps of a swap. Each is a type, so that none can be taken before the one before it.

use crate::check::{self, Databases, Sealing};
use crate::disk::Disk;
use crate::entries;
use crate::error::{SlotsError, role_name};
use crate::load_option::Place;
use crate::variables::Variables;
use ashlar_image::digest::Digest;
use ashlar_image::layout::{Role, Slot};
use ashlar_image::release::{Artifact, Release};
use ring::digest::{Context, SHA256};
use std::io::{self, Read, Seek, SeekFrom, Write};

/// Size of a block in bytes.
pub const BLOCK: u64 = 4096;
/// How much is read back at once, in bytes.
const STEP: usize = 1 << 20;

/// The three partitions of a slot.
#[derive(Debug)]
pub struct SlotDisks {
    /// Which slot.
    pub slot: Slot,
    /// Where its ESP lies.
    pub place: Place,
    /// ESP.
    pub esp: Box<dyn Disk>,
    /// Root.
    pub root: Box<dyn Disk>,
    /// Verity.
    pub verity: Box<dyn Disk>,
}

impl SlotDisks {
    /// The partition of a role; the state partition is none of a slot.
    pub fn of(&self, role: Role) -> &dyn Disk {
        match role {
            Role::Esp | Role::State => &*self.esp,
            Role::Root => &*self.root,
            Role::Verity => &*self.verity,
        }
    }

    fn of_mut(&mut self, role: Role) -> &mut dyn Disk {
        match role {
            Role::Esp | Role::State => &mut *self.esp,
            Role::Root => &mut *self.root,
            Role::Verity => &mut *self.verity,
        }
    }

    fn fail(&self, what: &'static str, role: Role) -> impl FnOnce(io::Error) -> SlotsError + use<> {
        let slot = self.slot.letter();
        move |source| SlotsError::Disk { what, role: role_name(role), slot, source }
    }

    /// Whether the artefacts of a release fit.
    pub fn fits(&self, release: &Release) -> Result<(), SlotsError> {
        for (role, artifact) in artifacts(release) {
            let room = self.of(role).size();
            if artifact.size > room {
                let (role, slot) = (role_name(role), self.slot.letter());
                return Err(SlotsError::TooLarge { role, slot, size: artifact.size, room });
            }
        }
        Ok(())
    }

    /// SHA-256 of the first `size` bytes of a partition, past the cache.
    fn hash(
        &self,
        role: Role,
        size: u64,
        first: Option<&[u8]>,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Digest, SlotsError> {
        let mut context = Context::new(&SHA256);
        let mut buffer = vec![0; STEP];
        let mut at = 0;
        while at < size {
            let take = usize::try_from(size - at).unwrap_or(usize::MAX).min(STEP);
            // Whole blocks are read; what is behind the end does not count.
            let whole = take.next_multiple_of(BLOCK as usize).min(STEP);
            let part = buffer.get_mut(..whole).unwrap_or_default();
            self.of(role).read_back(at, part).map_err(self.fail("read back", role))?;
            if let (0, Some(first)) = (at, first) {
                let length = first.len().min(part.len());
                part.get_mut(..length)
                    .unwrap_or_default()
                    .copy_from_slice(first.get(..length).unwrap_or_default());
            }
            context.update(part.get(..take).unwrap_or_default());
            at += take as u64;
            progress(take as u64);
        }
        let mut digest = Digest::ZERO;
        digest.0.copy_from_slice(context.finish().as_ref());
        Ok(digest)
    }

    /// Compares every byte with the release. `first` stands for the first block of the ESP.
    fn compare(
        &self,
        release: &Release,
        first: Option<&[u8]>,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(), SlotsError> {
        for (role, artifact) in artifacts(release) {
            let overlay = first.filter(|_| role == Role::Esp);
            let found = self.hash(role, artifact.size, overlay, progress)?;
            if found != artifact.sha256 {
                let (role, slot) = (role_name(role), self.slot.letter());
                return Err(SlotsError::ReadBack { role, slot, found, wanted: artifact.sha256 });
            }
        }
        Ok(())
    }

    /// The UKI that lies in the slot, as far as there is one.
    pub fn uki(&self) -> Result<Vec<u8>, SlotsError> {
        check::read_uki(Window { disk: &*self.esp, at: 0, first: None })
    }
}

/// The three artefacts with their roles, the ESP last.
pub fn artifacts(release: &Release) -> [(Role, &Artifact); 3] {
    [(Role::Root, &release.slot.root), (Role::Verity, &release.slot.verity), (Role::Esp, &release.slot.esp)]
}

/// Reads a disk like a file; writes nothing.
struct Window<'a> {
    disk: &'a dyn Disk,
    at: u64,
    first: Option<&'a [u8]>,
}

impl Read for Window<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.disk.size().saturating_sub(self.at);
        // Block by block, so that the first one can be another.
        let most = (BLOCK - self.at % BLOCK).min(left);
        let take = usize::try_from(most).unwrap_or(0).min(buffer.len());
        let part = buffer.get_mut(..take).unwrap_or_default();
        let start = usize::try_from(self.at).unwrap_or(usize::MAX);
        match self.first.and_then(|first| first.get(start..start.checked_add(take)?)) {
            Some(first) => part.copy_from_slice(first),
            None => self.disk.read(self.at, part)?,
        }
        self.at += take as u64;
        Ok(take)
    }
}

impl Seek for Window<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
            SeekFrom::End(by) => self.disk.size().checked_add_signed(by),
        };
        self.at = at.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}

impl Write for Window<'_> {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The beginning of a swap.
#[derive(Debug)]
pub struct Swap {
    disks: SlotDisks,
}

/// The slot does not start and is being written.
#[derive(Debug)]
pub struct Writing {
    disks: SlotDisks,
    /// The first block of the ESP, which is written last.
    first: Option<Vec<u8>>,
}

/// Everything but the first block of the ESP is on the disk.
#[derive(Debug)]
pub struct Written {
    disks: SlotDisks,
    first: Vec<u8>,
}

/// It is the release, and firmware and TPM will take it.
#[derive(Debug)]
pub struct Verified {
    disks: SlotDisks,
    first: Vec<u8>,
    release: Release,
}

/// The slot can start.
#[derive(Debug)]
pub struct Enabled {
    disks: SlotDisks,
}

/// How a slot is judged before it may start.
#[derive(Debug, Clone, Default)]
pub struct Judges {
    /// The firmware's databases; none where Secure Boot is off, and then the firmware judges nothing.
    pub databases: Option<Databases>,
    /// What the state volume is sealed to; none where there is no sealed volume.
    pub sealing: Option<Sealing>,
}

impl Swap {
    /// A swap of this slot, which must not be the one that runs.
    pub fn new(disks: SlotDisks) -> Self {
        Self { disks }
    }

    /// The slot's partitions.
    pub fn disks(&self) -> &SlotDisks {
        &self.disks
    }

    /// Undoes the slot's bootability: nothing of what follows can be started before it is whole.
    pub fn begin(mut self, variables: &mut dyn Variables) -> Result<Writing, SlotsError> {
        let now = entries::Entries::read(variables)?;
        if now.next.and_then(|number| now.slot_of(number)) == Some(self.disks.slot) {
            entries::cancel(variables)?;
        }
        let mut block = vec![0; BLOCK as usize];
        self.disks.esp.read_back(0, &mut block).map_err(self.disks.fail("read", Role::Esp))?;
        if block.iter().any(|byte| *byte != 0) {
            block.fill(0);
            self.disks.esp.write(0, &block).map_err(self.disks.fail("write", Role::Esp))?;
        }
        // Also when it was zero already: an earlier one may not have come to its flush.
        self.disks.esp.flush().map_err(self.disks.fail("flush", Role::Esp))?;
        Ok(Writing { disks: self.disks, first: None })
    }
}

impl Writing {
    /// The slot's partitions.
    pub fn disks(&self) -> &SlotDisks {
        &self.disks
    }

    /// Writes a block of 4096 bytes.
    pub fn write(&mut self, role: Role, block: u64, bytes: &[u8]) -> io::Result<()> {
        if role == Role::Esp && block == 0 {
            self.first = Some(bytes.to_vec());
            return Ok(());
        }
        let offset = block.checked_mul(BLOCK).ok_or(io::ErrorKind::InvalidInput)?;
        self.disks.of_mut(role).write(offset, bytes)
    }

    /// Flushes.
    pub fn finish(mut self) -> Result<Written, SlotsError> {
        for role in [Role::Root, Role::Verity, Role::Esp] {
            let fail = self.disks.fail("flush", role);
            self.disks.of_mut(role).flush().map_err(fail)?;
        }
        let first = self.first.ok_or(SlotsError::NoFirstBlock)?;
        Ok(Written { disks: self.disks, first })
    }
}

impl Written {
    /// Reads the whole slot back and judges it. `progress` is told of bytes that were read.
    pub fn verify(
        self,
        release: &Release,
        judges: &Judges,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Verified, SlotsError> {
        self.disks.compare(release, Some(&self.first), progress)?;
        let esp = Window { disk: &*self.disks.esp, at: 0, first: Some(&self.first) };
        judge(&check::read_uki(esp)?, release, judges)?;
        Ok(Verified { disks: self.disks, first: self.first, release: release.clone() })
    }
}

fn judge(uki: &[u8], release: &Release, judges: &Judges) -> Result<(), SlotsError> {
    let found = Digest::of(uki);
    if found != release.uki.artifact.sha256 {
        return Err(SlotsError::NoUki(format!(
            "its SHA-256 is {found}, not {}",
            release.uki.artifact.sha256
        )));
    }
    if let Some(databases) = &judges.databases {
        check::starts(uki, databases)?;
    }
    if let Some(sealing) = &judges.sealing {
        check::opens(uki, sealing)?;
    }
    Ok(())
}

impl Verified {
    /// Makes the slot one that starts, if somebody asks for it.
    pub fn enable(mut self, variables: &mut dyn Variables) -> Result<Enabled, SlotsError> {
        self.disks.esp.write(0, &self.first).map_err(self.disks.fail("write", Role::Esp))?;
        self.disks.esp.flush().map_err(self.disks.fail("flush", Role::Esp))?;
        let artifact = &self.release.slot.esp;
        let found = self.disks.hash(Role::Esp, artifact.size, None, &mut |_| {})?;
        if found != artifact.sha256 {
            let (role, slot) = (role_name(Role::Esp), self.disks.slot.letter());
            return Err(SlotsError::ReadBack { role, slot, found, wanted: artifact.sha256 });
        }
        entries::ensure(variables, self.disks.slot, &self.disks.place)?;
        Ok(Enabled { disks: self.disks })
    }
}

impl Enabled {
    /// A slot that was enabled before: read whole and judged again, because a disk may fail while it lies there.
    pub fn again(
        disks: SlotDisks,
        release: &Release,
        judges: &Judges,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Self, SlotsError> {
        disks.compare(release, None, progress)?;
        judge(&disks.uki()?, release, judges)?;
        Ok(Self { disks })
    }

    /// Has the slot start at the next start of the machine, once.
    pub fn try_next(&self, variables: &mut dyn Variables) -> Result<(), SlotsError> {
        entries::try_next(variables, self.disks.slot, &self.disks.place)
    }
}
