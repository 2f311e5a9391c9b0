//! A release comes into the other slot.

use crate::channel::{MAX_INDEX, Opened};
use crate::error::UpdateError;
use crate::hardware::Hardware;
use ashlar_blocks::{
    BLOCK, BLOCK_SIZE, BlocksError, Download, Hashing, Index, Leaves, Plan, Retry, fetch_leaves, verity,
};
use ashlar_channel::release_target;
use ashlar_fetch::Backoff;
use ashlar_image::layout::{Role, Slot};
use ashlar_image::release::Release;
use ashlar_image::update::{PlanPart, UpdateProgress};
use ashlar_slots::swap::{Judges, SlotDisks, Swap, artifacts};
use ashlar_slots::{Enabled, Writing, entries};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

/// Most of a verity superblock's fields that are looked at, in bytes.
const SUPERBLOCK: usize = 512;

/// When a request is made again.
#[derive(Debug)]
pub struct Attempts {
    backoff: Backoff,
    random: AtomicU32,
}

impl Attempts {
    /// Six more attempts, from one second to half a minute apart; `random` is where randomness begins.
    pub fn new(random: u32) -> Self {
        let backoff =
            Backoff { first: Duration::from_secs(1), longest: Duration::from_secs(30), attempts: 6 };
        Self { backoff, random: AtomicU32::new(random) }
    }
}

impl Retry for Attempts {
    fn pause(&self, number: u32) -> Option<Duration> {
        // Enough to keep machines apart.
        let random = self.random.fetch_add(0x9E37_79B9, Ordering::Relaxed);
        self.backoff.pause(number, random)
    }
}

/// What a partition needs.
#[derive(Debug)]
struct Part {
    role: Role,
    index: Index,
    wanted: Leaves,
    plan: Plan,
    frames: String,
    fetched: u64,
}

/// What a release needs.
#[derive(Debug)]
pub struct Needs {
    parts: Vec<Part>,
    verity: Vec<u8>,
}

fn disk_error(error: &io::Error) -> UpdateError {
    UpdateError::Blocks(BlocksError::Running { block: 0, reason: error.to_string() })
}

/// The digests of the blocks of a slot's partition: up to `blocks` of them.
fn leaves_of(disks: &SlotDisks, role: Role, hashing: Hashing, blocks: u64) -> Result<Leaves, UpdateError> {
    let disk = disks.of(role);
    let blocks = blocks.min(disk.size() / BLOCK_SIZE);
    Ok(Leaves::of(hashing, blocks, |block, buffer| disk.read(block * BLOCK_SIZE, buffer))?)
}

/// The digests of the blocks of the root that runs: from its tree, if they were hashed as those of the new one.
fn running_leaves(disks: &SlotDisks, hashing: Hashing) -> Result<Leaves, UpdateError> {
    let mut block = vec![0; BLOCK];
    disks.verity.read(0, &mut block).map_err(|error| disk_error(&error))?;
    let word = block.get(72..80).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes);
    let blocks = word.min(disks.root.size() / BLOCK_SIZE);
    let salt = block.get(88..120).unwrap_or_default();
    let is_superblock = block.get(..SUPERBLOCK).is_some_and(|bytes| bytes.starts_with(b"verity\0\0"));
    if is_superblock && matches!(hashing, Hashing::Verity { salt: ours } if ours == salt) {
        let size = ashlar_image::verity::size(blocks);
        if size <= disks.verity.size() {
            let mut tree = vec![0; usize::try_from(size).unwrap_or(0)];
            disks.verity.read(0, &mut tree).map_err(|error| disk_error(&error))?;
            // What the tree says is verified with each block that is copied.
            if let Some(leaves) = verity::leaves(&tree, blocks) {
                return Ok(leaves);
            }
        }
    }
    leaves_of(disks, Role::Root, hashing, blocks)
}

impl Needs {
    /// Finds out what lies where. Small files are fetched: indices, and those leaves that no tree here has.
    pub fn find(
        channel: &mut Opened,
        release: &Release,
        hardware: &dyn Hardware,
    ) -> Result<Self, UpdateError> {
        let folder = release_target(&release.image_id, &release.image_version);
        let running = hardware.slot(hardware.running())?;
        let target = hardware.slot(hardware.running().other())?;
        let mut parts = Vec::new();
        let mut tree = Vec::new();
        for (role, name) in [(Role::Root, "root"), (Role::Esp, "esp")] {
            let bytes =
                channel.client.read_target(&*channel.source, &format!("{folder}/{name}.index"), MAX_INDEX)?;
            let index = Index::parse(&bytes)?;
            let size = artifacts(release)
                .into_iter()
                .find(|(other, _)| *other == role)
                .map_or(0, |(_, artifact)| artifact.size);
            if index.length() != size {
                return Err(UpdateError::Release(format!(
                    "its {name} has {size} bytes, and its index {}",
                    index.length()
                )));
            }
            let have = match role {
                Role::Root => running_leaves(&running, index.hashing)?,
                _ => leaves_of(&running, role, index.hashing, index.blocks)?,
            };
            let leaves_name = format!("{folder}/{name}.leaves");
            let leaves_target = channel.client.target(&*channel.source, &leaves_name)?;
            let path = channel.client.target_path(&leaves_name, &leaves_target)?;
            let (wanted, fetched) = fetch_leaves(&*channel.source, &path, &index, &[&have])?;
            if role == Role::Root {
                tree = verity::partition(index.hashing, index.uuid, &wanted, release.root_hash)?;
            }
            let there = leaves_of(&target, role, index.hashing, index.blocks)?;
            let plan = Plan::new(&index, &wanted, &have, &there);
            let frames_name = format!("{folder}/{name}.frames");
            let frames_target = channel.client.target(&*channel.source, &frames_name)?;
            if frames_target.length != index.frames_length() {
                return Err(UpdateError::Release(format!("its {name} does not fit its index")));
            }
            let frames = channel.client.target_path(&frames_name, &frames_target)?;
            parts.push(Part { role, index, wanted, plan, frames, fetched: fetched + bytes.len() as u64 });
        }
        Ok(Self { parts, verity: tree })
    }

    /// What each partition needs.
    pub fn parts(&self) -> Vec<PlanPart> {
        let part = |part: &Part| PlanPart {
            part: if part.role == Role::Root { "root" } else { "esp" }.into(),
            keep: part.plan.keep,
            copy: part.plan.copy,
            zero: part.plan.zero,
            fetch: part.plan.fetch,
            bytes: part.plan.bytes,
        };
        self.parts.iter().map(part).collect()
    }

    /// Bytes that must be fetched for blocks.
    pub fn fetch_bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.plan.bytes).sum()
    }

    /// Bytes that were fetched to find out.
    pub fn fetched(&self) -> u64 {
        self.parts.iter().map(|part| part.fetched).sum()
    }

    /// Requests for blocks.
    pub fn requests(&self) -> u64 {
        self.parts.iter().map(|part| part.plan.requests()).sum()
    }

    /// Bytes that are written.
    fn writes(&self) -> u64 {
        self.parts.iter().map(|part| part.plan.writes() * BLOCK_SIZE).sum::<u64>() + self.verity.len() as u64
    }
}

/// Settings of a download.
#[derive(Debug)]
pub struct Settings<'a> {
    /// Connections at once.
    pub connections: usize,
    /// Set by whoever wants it to end.
    pub cancel: &'a AtomicBool,
    /// What to do about failures.
    pub attempts: &'a Attempts,
    /// Whether the slot can start afterwards.
    pub enable: bool,
}

/// Writes a release to the slot that does not run, reads it back and judges it. Only then can the slot start, if it is to.
pub fn stage(
    channel: &mut Opened,
    release: &Release,
    hardware: &dyn Hardware,
    judges: &Judges,
    settings: &Settings<'_>,
    progress: &mut dyn FnMut(UpdateProgress),
) -> Result<Option<Enabled>, UpdateError> {
    let running = hardware.running();
    let old = hardware.slot(running)?;
    let target = hardware.slot(running.other())?;
    target.fits(release)?;
    let mut variables = hardware.variables();
    // What runs is what starts, before another slot can.
    entries::commit(&mut *variables, running, &old.place)?;
    let mut writing = Swap::new(target).begin(&mut *variables)?;
    // After the slot has lost its first block, so that this one is written too.
    let needs = Needs::find(channel, release, hardware)?;
    let read_back: u64 = artifacts(release).iter().map(|(_, artifact)| artifact.size).sum();
    let mut at = UpdateProgress {
        to_fetch: needs.fetch_bytes(),
        to_do: needs.writes() + read_back,
        ..UpdateProgress::default()
    };
    progress(at);
    for part in &needs.parts {
        write_part(channel, part, &old, &mut writing, settings, &mut at, progress)?;
    }
    for (block, bytes) in (0u64..).zip(needs.verity.chunks(BLOCK)) {
        let mut there = vec![0; BLOCK];
        let same = writing.disks().verity.read(block * BLOCK_SIZE, &mut there).is_ok() && there == bytes;
        if !same {
            writing
                .write(Role::Verity, block, bytes)
                .map_err(|source| BlocksError::Write { block, source })?;
        }
        at.done += BLOCK_SIZE;
    }
    progress(at);
    let verified = writing.finish()?.verify(release, judges, &mut |bytes| {
        at.done += bytes;
        progress(at);
    })?;
    if settings.cancel.load(Ordering::Relaxed) {
        return Err(UpdateError::Cancelled);
    }
    if !settings.enable {
        return Ok(None);
    }
    Ok(Some(verified.enable(&mut *variables)?))
}

fn write_part(
    channel: &Opened,
    part: &Part,
    old: &SlotDisks,
    writing: &mut Writing,
    settings: &Settings<'_>,
    at: &mut UpdateProgress,
    progress: &mut dyn FnMut(UpdateProgress),
) -> Result<(), UpdateError> {
    let download = Download {
        source: &*channel.source,
        path: &part.frames,
        index: &part.index,
        leaves: &part.wanted,
        plan: &part.plan,
        connections: settings.connections,
        retry: settings.attempts,
        cancel: settings.cancel,
    };
    let before = *at;
    let mut told = 0;
    let done = download.run(
        |block, buffer| old.of(part.role).read(block * BLOCK_SIZE, buffer),
        |block, bytes| writing.write(part.role, block, bytes),
        |now| {
            at.fetched = before.fetched + now.fetched;
            at.done = before.done + now.written * BLOCK_SIZE;
            // Not for each of a hundred thousand blocks.
            if at.done >= told + (1 << 20) {
                told = at.done;
                progress(*at);
            }
        },
    );
    match done {
        Err(BlocksError::Cancelled) => Err(UpdateError::Cancelled),
        other => other.map(|_| ()).map_err(UpdateError::from),
    }
}

/// The slot by its letter.
pub const fn slot(letter: char) -> Option<Slot> {
    match letter {
        'a' => Some(Slot::A),
        'b' => Some(Slot::B),
        _ => None,
    }
}
