//! The binary part of a header (section 2.1, table 1): one of two copies, each with its own checksum.

use super::{HEADER_SIZE, MARKER};
use crate::bytes::{array, be16, be64, is_zero, put, text};
use sha2::{Digest as _, Sha256};

/// What the first copy begins with.
const MAGIC: &[u8; 6] = b"LUKS\xba\xbe";
/// What the second copy begins with.
const MAGIC_SECOND: &[u8; 6] = b"SKUL\xba\xbe";
/// Size of the binary part in bytes.
const BINARY: usize = 4096;
/// Size of the JSON area in bytes.
pub const JSON_SIZE: usize = HEADER_SIZE - BINARY;
/// Places and lengths of fields in bytes.
const LABEL: usize = 24;
const ALGORITHM: usize = 72;
const SALT: usize = 104;
const UUID: usize = 168;
const SUBSYSTEM: usize = 208;
const OFFSET: usize = 256;
const SUM: usize = 448;
const SUM_LENGTH: usize = 64;
/// Length of the fields for the label and the subsystem.
pub const LABEL_LENGTH: usize = 48;

/// A copy whose checksum is right.
#[derive(Debug)]
pub struct Copy<'a> {
    /// Counts the updates.
    pub sequence: u64,
    /// With its padding.
    pub label: [u8; LABEL_LENGTH],
    /// With its padding.
    pub subsystem: [u8; LABEL_LENGTH],
    /// As text.
    pub uuid: &'a str,
    /// Without its padding.
    pub json: &'a str,
}

/// What one copy is like.
#[derive(Debug)]
pub enum State<'a> {
    /// It does not begin with the magic.
    Absent,
    /// It begins like a header, and is damaged.
    Damaged(&'static str),
    /// A header of another size, which is not read.
    OtherSize(u64),
    /// A header with another checksum, which is not checked.
    OtherChecksum(String),
    /// A whole one.
    Good(Copy<'a>),
}

impl State<'_> {
    /// What is wrong.
    pub const fn fault(&self) -> &'static str {
        match self {
            Self::Absent => "it is not there",
            Self::Damaged(what) => what,
            Self::OtherSize(_) => "its size",
            Self::OtherChecksum(_) => "its checksum's kind",
            Self::Good(_) => "nothing",
        }
    }
}

/// Reads one copy.
pub fn parse(bytes: &[u8], second: bool) -> State<'_> {
    let magic = if second { MAGIC_SECOND } else { MAGIC };
    if !bytes.starts_with(magic) {
        return State::Absent;
    }
    match be16(bytes, 6) {
        // LUKS1 has the same magic, and no second copy.
        Some(1) if !second => return State::Absent,
        Some(2) => {}
        _ => return State::Damaged("its version"),
    }
    match be64(bytes, 8) {
        Some(size) if size == HEADER_SIZE as u64 => {}
        Some(
            size @ (0x8000 | 0x1_0000 | 0x2_0000 | 0x4_0000 | 0x8_0000 | 0x10_0000 | 0x20_0000 | 0x40_0000),
        ) => {
            return State::OtherSize(size);
        }
        _ => return State::Damaged("its size"),
    }
    let Some(bytes) = bytes.first_chunk::<HEADER_SIZE>() else {
        return State::Damaged("it is cut off");
    };
    let algorithm = text(bytes.get(ALGORITHM..SALT).unwrap_or_default());
    if algorithm != b"sha256" {
        return match std::str::from_utf8(algorithm) {
            Ok(name) if name.starts_with("sha") || name == "whirlpool" => {
                State::OtherChecksum(name.to_owned())
            }
            _ => State::Damaged("its checksum's kind"),
        };
    }
    let sum: [u8; SUM_LENGTH] = array(bytes, SUM).unwrap_or([0; SUM_LENGTH]);
    let (found, padding) = sum.split_at(32);
    if found != checksum(bytes) || !is_zero(padding) {
        return State::Damaged("its checksum");
    }
    match copy(bytes, second) {
        Ok(copy) => State::Good(copy),
        Err(what) => State::Damaged(what),
    }
}

fn copy(bytes: &[u8; HEADER_SIZE], second: bool) -> Result<Copy<'_>, &'static str> {
    let place = if second { HEADER_SIZE as u64 } else { 0 };
    if be64(bytes, OFFSET) != Some(place) {
        return Err("its place");
    }
    let uuid = bytes.get(UUID..SUBSYSTEM).map(text).unwrap_or_default();
    let area = bytes.get(BINARY..).unwrap_or_default();
    let json = text(area);
    if json.len() == area.len() {
        return Err("its JSON has no end");
    }
    if !is_zero(area.get(json.len()..).unwrap_or_default()) {
        return Err("something lies behind its JSON");
    }
    Ok(Copy {
        sequence: be64(bytes, 16).unwrap_or_default(),
        label: array(bytes, LABEL).unwrap_or([0; LABEL_LENGTH]),
        subsystem: array(bytes, SUBSYSTEM).unwrap_or([0; LABEL_LENGTH]),
        uuid: std::str::from_utf8(uuid).map_err(|_| "its UUID")?,
        json: std::str::from_utf8(json).map_err(|_| "its JSON is no text")?,
    })
}

/// SHA-256 over the whole copy with the sum's field zero.
fn checksum(bytes: &[u8; HEADER_SIZE]) -> [u8; 32] {
    let (before, rest) = bytes.split_at(SUM);
    let after = rest.get(SUM_LENGTH..).unwrap_or_default();
    let mut hash = Sha256::new();
    hash.update(before);
    hash.update([0; SUM_LENGTH]);
    hash.update(after);
    hash.finalize().into()
}

/// One copy in bytes, with a fresh salt; none when the JSON does not fit.
pub fn write(copy: &Copy<'_>, second: bool, salt: &[u8; 64]) -> Option<Box<[u8; HEADER_SIZE]>> {
    // A NUL ends the JSON.
    if copy.json.len() >= JSON_SIZE {
        return None;
    }
    let mut bytes = Box::new([0; HEADER_SIZE]);
    put(&mut *bytes, 0, if second { MAGIC_SECOND } else { MAGIC });
    put(&mut *bytes, 6, &2u16.to_be_bytes());
    put(&mut *bytes, 8, &(HEADER_SIZE as u64).to_be_bytes());
    put(&mut *bytes, 16, &copy.sequence.to_be_bytes());
    put(&mut *bytes, LABEL, &copy.label);
    put(&mut *bytes, ALGORITHM, b"sha256");
    put(&mut *bytes, SALT, salt);
    put(&mut *bytes, UUID, copy.uuid.as_bytes());
    put(&mut *bytes, SUBSYSTEM, &copy.subsystem);
    put(&mut *bytes, OFFSET, &if second { HEADER_SIZE as u64 } else { 0 }.to_be_bytes());
    put(&mut *bytes, BINARY, copy.json.as_bytes());
    reseal(&mut bytes);
    Some(bytes)
}

/// Puts the checksum right.
fn reseal(bytes: &mut [u8; HEADER_SIZE]) {
    let sum = checksum(bytes);
    put(bytes, SUM, &[0; SUM_LENGTH]);
    put(bytes, SUM, &sum);
}

/// The sector that marks a volume as unfinished. One sector, because a disk writes that as a whole or not at all.
pub fn marker() -> [u8; 512] {
    let mut sector = [0; 512];
    put(&mut sector, 0, MARKER);
    let sum = Sha256::digest(MARKER);
    put(&mut sector, 64, &sum);
    sector
}
