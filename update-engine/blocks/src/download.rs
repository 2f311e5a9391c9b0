//! Executing a plan.

use crate::frame::decode_frame;
use crate::index::Index;
use crate::leaves::Leaves;
use crate::plan::{Origin, Piece, Plan};
use crate::{BLOCK, BLOCK_SIZE, BlocksError};
use ashlar_fetch::{Body, FetchError, Range, Request, Source};
use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Blocks that may wait for the writer: 1 MiB.
const WAITING: usize = 256;

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Blocks that were written.
    pub written: u64,
    /// Bytes that have arrived.
    pub fetched: u64,
}

/// How often and when a request is made again.
pub trait Retry: Sync {
    /// How long to wait before attempt `number` (the first repetition is 1); none to give up.
    fn pause(&self, number: u32) -> Option<Duration>;
}

/// A download of one image.
pub struct Download<'a> {
    /// Where the frames are.
    pub source: &'a dyn Source,
    /// Path of the file of frames.
    pub path: &'a str,
    /// Its index.
    pub index: &'a Index,
    /// What is wanted.
    pub leaves: &'a Leaves,
    /// What to do.
    pub plan: &'a Plan,
    /// Connections at once; 1 at least.
    pub connections: usize,
    /// What to do about failures.
    pub retry: &'a dyn Retry,
    /// Set by whoever wants it to end.
    pub cancel: &'a AtomicBool,
}

impl std::fmt::Debug for Download<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Download")
            .field("path", &self.path)
            .field("connections", &self.connections)
            .finish_non_exhaustive()
    }
}

type Message = Result<(u64, Vec<u8>), BlocksError>;

/// What the threads share.
struct Shared<'a> {
    queue: Mutex<Vec<Vec<Piece>>>,
    fetched: &'a AtomicU64,
    /// One has failed, or the writer has.
    stop: AtomicBool,
}

impl Download<'_> {
    /// Writes every block that is not in its place: first what can be copied, then what must be fetched. `running` reads a
    /// block of the running slot, `write` writes one to the target. Blocks come in any order, each once, verified.
    pub fn run(
        &self,
        mut running: impl FnMut(u64, &mut [u8]) -> io::Result<()>,
        mut write: impl FnMut(u64, &[u8]) -> io::Result<()>,
        mut progress: impl FnMut(Progress),
    ) -> Result<Progress, BlocksError> {
        let fetched = AtomicU64::new(0);
        let mut done = Progress::default();
        let mut buffer = vec![0; BLOCK];
        for block in 0..self.plan.blocks() {
            self.check_cancelled()?;
            match self.plan.origin(block) {
                Some(Origin::Zero) => buffer.fill(0),
                Some(Origin::Copy(from)) => {
                    running(from, &mut buffer)
                        .map_err(|e| BlocksError::Running { block: from, reason: e.to_string() })?;
                    if !self.fits(block, &buffer) {
                        let reason = "its bytes are not those of its digest".into();
                        return Err(BlocksError::Running { block: from, reason });
                    }
                }
                _ => continue,
            }
            write(block, &buffer).map_err(|source| BlocksError::Write { block, source })?;
            done.written += 1;
            progress(done);
        }
        if self.plan.requests.is_empty() {
            return Ok(done);
        }
        // The last request tells whether the server knows ranges: only there can it not be the beginning by chance.
        let shared = Shared {
            queue: Mutex::new(self.plan.requests.clone()),
            fetched: &fetched,
            stop: AtomicBool::new(false),
        };
        let (sender, receiver) = sync_channel(WAITING);
        std::thread::scope(|scope| {
            let probe = self.ranges_are_known(&shared);
            let threads = match probe {
                Ok(true) => self.connections.clamp(1, 64),
                Ok(false) => {
                    // One pass over the whole file.
                    let mut queue = lock(&shared.queue);
                    let all = std::mem::take(&mut *queue).concat();
                    queue.push(all);
                    1
                }
                Err(error) => return Err(error),
            };
            for _ in 0..threads {
                let sender = sender.clone();
                let shared = &shared;
                scope.spawn(move || self.work(shared, &sender));
            }
            drop(sender);
            let result = self.take(&receiver, &shared, &mut done, &mut write, &mut progress);
            // Threads that wait to send see that nobody receives.
            shared.stop.store(true, Ordering::Relaxed);
            drop(receiver);
            result
        })?;
        done.fetched = fetched.load(Ordering::Relaxed);
        Ok(done)
    }

    fn take(
        &self,
        receiver: &Receiver<Message>,
        shared: &Shared<'_>,
        done: &mut Progress,
        write: &mut dyn FnMut(u64, &[u8]) -> io::Result<()>,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<(), BlocksError> {
        for message in receiver {
            self.check_cancelled()?;
            let (block, bytes) = message?;
            write(block, &bytes).map_err(|source| BlocksError::Write { block, source })?;
            done.written += 1;
            done.fetched = shared.fetched.load(Ordering::Relaxed);
            progress(*done);
        }
        self.check_cancelled()
    }

    fn check_cancelled(&self) -> Result<(), BlocksError> {
        if self.cancel.load(Ordering::Relaxed) { Err(BlocksError::Cancelled) } else { Ok(()) }
    }

    fn fits(&self, block: u64, bytes: &[u8]) -> bool {
        self.leaves.get(block).is_some_and(|leaf| *leaf == self.index.hashing.of(bytes))
    }

    /// Asks for one byte that is not the first one.
    fn ranges_are_known(&self, shared: &Shared<'_>) -> Result<bool, BlocksError> {
        let last = lock(&shared.queue).last().and_then(|request| request.last().copied());
        let Some(start) = last.map(|piece| piece.offset + piece.length - 1).filter(|start| *start > 0) else {
            return Ok(false);
        };
        let mut attempt = 0;
        loop {
            let range = Some(Range { start, length: 1 });
            let request = Request { path: self.path.to_owned(), range, max: self.index.frames_length() };
            match self.source.open(&request) {
                Ok(body) => return Ok(body.start == start),
                Err(error) => self.pause(&mut attempt, error.into())?,
            }
        }
    }

    /// Waits before the next attempt, or gives the error back.
    fn pause(&self, attempt: &mut u32, error: BlocksError) -> Result<(), BlocksError> {
        *attempt = attempt.saturating_add(1);
        let missing = matches!(error, BlocksError::Fetch(FetchError::NotFound(_)));
        let Some(mut left) = self.retry.pause(*attempt).filter(|_| !missing) else { return Err(error) };
        while !left.is_zero() {
            self.check_cancelled()?;
            let step = left.min(Duration::from_millis(100));
            std::thread::sleep(step);
            left = left.saturating_sub(step);
        }
        Ok(())
    }

    fn work(&self, shared: &Shared<'_>, sender: &SyncSender<Message>) {
        while !shared.stop.load(Ordering::Relaxed) {
            let Some(pieces) = lock(&shared.queue).pop() else { return };
            if let Err(error) = self.fetch(&pieces, shared, sender) {
                shared.stop.store(true, Ordering::Relaxed);
                // Nobody listens when the writer has failed before.
                let _ = sender.send(Err(error));
                return;
            }
        }
    }

    /// Fetches pieces, as often as need be; what has arrived is not asked for again.
    fn fetch(
        &self,
        pieces: &[Piece],
        shared: &Shared<'_>,
        sender: &SyncSender<Message>,
    ) -> Result<(), BlocksError> {
        let (mut at, mut attempt) = (0, 0);
        while let (Some(first), Some(last)) = (pieces.get(at), pieces.last()) {
            let before = at;
            let range = Range { start: first.offset, length: last.offset + last.length - first.offset };
            let request =
                Request { path: self.path.to_owned(), range: Some(range), max: self.index.frames_length() };
            let result = self
                .source
                .open(&request)
                .map_err(BlocksError::from)
                .and_then(|body| self.read(body, pieces, &mut at, shared, sender));
            match result {
                Ok(()) => return Ok(()),
                Err(BlocksError::Cancelled) => return Err(BlocksError::Cancelled),
                Err(error) => {
                    // Some progress: the count begins anew. A damaged block gets one more try only.
                    if at > before {
                        attempt = 0;
                    }
                    if matches!(error, BlocksError::Block { .. }) && attempt > 0 {
                        return Err(error);
                    }
                    self.pause(&mut attempt, error)?;
                }
            }
        }
        Ok(())
    }

    fn read(
        &self,
        mut body: Body,
        pieces: &[Piece],
        at: &mut usize,
        shared: &Shared<'_>,
        sender: &SyncSender<Message>,
    ) -> Result<(), BlocksError> {
        let failed = |reason: String| FetchError::Failed { path: self.path.to_owned(), reason };
        let mut position = body.start;
        let mut buffer = Vec::new();
        while let Some(piece) = pieces.get(*at) {
            if shared.stop.load(Ordering::Relaxed) {
                return Err(BlocksError::Cancelled);
            }
            let gap =
                piece.offset.checked_sub(position).ok_or_else(|| failed("another range came".into()))?;
            let skipped = io::copy(&mut (&mut body.reader).take(gap), &mut io::sink());
            let skipped = skipped.map_err(|error| failed(error.to_string()))?;
            if skipped != gap {
                return Err(failed("the file is shorter than its index says".into()).into());
            }
            buffer.clear();
            let read = (&mut body.reader).take(piece.length).read_to_end(&mut buffer);
            read.map_err(|error| failed(error.to_string()))?;
            if buffer.len() as u64 != piece.length {
                return Err(failed("the connection ended too early".into()).into());
            }
            shared.fetched.fetch_add(gap + piece.length, Ordering::Relaxed);
            position = piece.offset + piece.length;
            self.give(piece, &buffer, sender)?;
            *at += 1;
        }
        Ok(())
    }

    /// Verifies the blocks of a piece that are wanted and hands them on.
    fn give(&self, piece: &Piece, bytes: &[u8], sender: &SyncSender<Message>) -> Result<(), BlocksError> {
        let bad = |block| BlocksError::Block { path: self.path.to_owned(), block, from: self.source.name() };
        let unpacked;
        let blocks = if piece.packed {
            let count = self.index.blocks_of(piece.block / crate::FRAME_BLOCKS);
            unpacked = decode_frame(bytes, count).ok_or_else(|| bad(piece.block))?;
            &unpacked
        } else {
            bytes
        };
        // All of them first: a piece is taken as a whole or not at all.
        let wanted = || {
            (piece.block..)
                .zip(blocks.chunks(BLOCK_SIZE as usize))
                .filter(|(block, _)| self.plan.origin(*block) == Some(Origin::Fetch))
        };
        if let Some((block, _)) = wanted().find(|(block, bytes)| !self.fits(*block, bytes)) {
            return Err(bad(block));
        }
        for (block, bytes) in wanted() {
            sender.send(Ok((block, bytes.to_vec()))).map_err(|_| BlocksError::Cancelled)?;
        }
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
