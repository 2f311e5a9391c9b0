//! LUKS2 (LUKS2 On-Disk Format Specification, version 1.1) as far as the state volume uses it.
//!
//! The start of the partition is read once, into memory. What is decided, is decided about that copy, and the mapping
//! is made from it: a disk that answers differently the second time changes nothing. The metadata are held against an
//! allow list ([`allow`]); whatever is not on it is refused by name.

pub mod allow;
mod binary;
mod crypto;
mod foreign;
mod format;
mod header;
mod json;
pub mod token;

pub use format::{Params, SEED_AT, erase, forget_seed, format, kept_seed};
pub use header::{CryptTable, Header, RECOVERY_MEMORY};

use crate::device::ReadAt;
use crate::error::{Error, Refusal, shown};
use crate::seed;
use crate::uuid::Uuid;
use binary::State;

/// Size of one copy of the header in bytes: 4096 in binary form, the rest JSON (section 2.1).
pub const HEADER_SIZE: usize = 16 * 1024;
/// Where the keyslots begin, in bytes.
pub const KEYSLOTS_AT: u64 = 2 * HEADER_SIZE as u64;
/// Where the data begin, in bytes.
pub const DATA_AT: u64 = 16 << 20;
/// Size of the area of keyslots in bytes: all up to the data, as cryptsetup has it.
pub const KEYSLOTS_SIZE: u64 = DATA_AT - KEYSLOTS_AT;
/// Smallest partition that a volume is made on, in bytes: with the least file system of 64 MiB.
pub const LEAST_SIZE: u64 = DATA_AT + (64 << 20);
/// How much of the partition's start is read, in bytes: the largest seed, which is more than the headers.
pub const START_SIZE: usize = (1 << 20) + 4096;
/// Bytes at the start that are all zero on a blank partition.
const BLANK_SIZE: usize = 1 << 20;
/// The cipher, of the data and of keyslots.
pub const CIPHER: &str = "aes-xts-plain64";

/// What is in the marker's sector when a volume is being made: where the header's second copy will lie.
const MARKER: &[u8; 34] = b"ashlar: this volume is unfinished\n";

/// What the state partition holds.
#[derive(Debug)]
pub enum Found {
    /// Nothing: its first MiB is zero.
    Blank,
    /// A signed machine configuration that the installer left, for the first boot.
    Seed(Vec<u8>),
    /// A volume whose making was cut short, before anything was in it. It may be made again; a seed that was there is
    /// given by [`kept_seed`].
    Unfinished,
    /// A volume that is on the allow list. Whether it is this machine's is shown by its key.
    Volume(Box<Header>),
    /// Something else; what it looks like.
    Foreign(&'static str),
}

/// Reads the start of the partition, each byte once, and says what it holds.
pub fn read(device: &impl ReadAt) -> Result<Found, Error> {
    let size = device.size().map_err(Error::io("find the size of"))?;
    // At most START_SIZE.
    let mut start = vec![0; size.min(START_SIZE as u64) as usize];
    device.read_at(&mut start, 0).map_err(Error::io("read"))?;
    match parse(&start, size) {
        // The mark of an unfinished volume lies within a long seed. A disk that does not write even a sector as a whole may
        // have lost both in a power cut; the kept copy shows it.
        Err(Error::Seed(_)) if matches!(kept_seed(device), Ok(Some(_))) => Ok(Found::Unfinished),
        found => found,
    }
}

/// Says what a partition of `size` bytes holds that starts with `start`.
pub fn parse(start: &[u8], size: u64) -> Result<Found, Error> {
    let (first, rest) = start.split_at_checked(HEADER_SIZE).unwrap_or((start, &[]));
    let second = rest.get(..HEADER_SIZE).unwrap_or(rest);
    let primary = binary::parse(first, false);
    let secondary = binary::parse(second, true);
    if let Some(found) = choose(&primary, &secondary, size)? {
        let headers = start.get(..2 * HEADER_SIZE).unwrap_or(start);
        return Ok(Found::Volume(Box::new(found.with_fingerprint(headers))));
    }
    // A marker says that no volume was finished: the first copy is written when all else is, and the second one over the
    // marker after that.
    if second.starts_with(MARKER) && second.get(..512).is_some_and(|sector| binary::marker() == sector) {
        return Ok(Found::Unfinished);
    }
    match (&primary, &secondary) {
        (State::OtherSize(size), _) | (_, State::OtherSize(size)) => {
            return Err(Refusal::HeaderSize(*size).into());
        }
        (State::OtherChecksum(name), _) | (_, State::OtherChecksum(name)) => {
            return Err(Refusal::ChecksumAlgorithm(shown(name)).into());
        }
        (State::Absent, State::Absent) => {}
        (primary, secondary) => {
            return Err(Error::Damaged { primary: primary.fault(), secondary: secondary.fault() });
        }
    }
    if start.starts_with(seed::MAGIC) {
        return Ok(Found::Seed(seed::parse(start)?.to_vec()));
    }
    if start.len() >= BLANK_SIZE && start.iter().take(BLANK_SIZE).all(|byte| *byte == 0) {
        return Ok(Found::Blank);
    }
    Ok(Found::Foreign(foreign::looks_like(start)))
}

/// The header of the better copy; none when neither is whole.
fn choose(primary: &State<'_>, secondary: &State<'_>, size: u64) -> Result<Option<Header>, Error> {
    let (better, other, first_is_better) = match (primary, secondary) {
        (State::Good(one), State::Good(two)) => {
            if one.uuid != two.uuid {
                return Err(Refusal::Copies(shown(one.uuid), shown(two.uuid)).into());
            }
            let first = one.sequence >= two.sequence;
            if first { (one, Some(two), true) } else { (two, Some(one), false) }
        }
        (State::Good(one), _) => (one, None, true),
        (_, State::Good(two)) => (two, None, false),
        _ => return Ok(None),
    };
    let uuid: Uuid = better.uuid.parse().map_err(|_| Refusal::Uuid(shown(better.uuid)))?;
    let metadata = allow::check(better.json, size)?;
    let same = other.is_some_and(|other| other.sequence == better.sequence && other.json == better.json);
    Ok(Some(Header::new(
        better,
        uuid,
        metadata,
        size,
        header::Current { first: first_is_better || same, second: !first_is_better || same },
    )))
}
