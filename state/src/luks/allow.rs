//! What a state volume's metadata may say. Everything else is refused, each thing by its name.
//!
//! The header is not authenticated: whoever has the disk can write it. So it may only say what the machine itself would
//! have written, up to what an owner may do with cryptsetup: more keyslots with argon2id, another sector size. An
//! attacker's header with a null cipher or a second, plain segment would make the machine write its secrets in the clear
//! (CVE-2021-4122 and its kind).

use super::binary::JSON_SIZE;
use super::json::{Area, Config, Digest, Document, Keyslot, Metadata, Numbered, Segment, decimal};
use super::token::Token;
use super::{CIPHER, DATA_AT, KEYSLOTS_AT, KEYSLOTS_SIZE};
use crate::KEY_SIZE;
use crate::error::{Refusal, shown};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Stripes of the anti-forensic splitter (section 3.2.2).
pub const STRIPES: u32 = 4000;
/// Bytes of a keyslot's area that carry its content: 500 sectors of 512 bytes.
pub const AREA_CONTENT: u64 = KEY_SIZE as u64 * STRIPES as u64;
/// The same in whole pages: what an area has at least.
pub const AREA_SIZE: u64 = AREA_CONTENT.next_multiple_of(4096);
/// Most passes of argon2id.
const MAX_TIME: u32 = 64;
/// Most memory of argon2id in KiB: what cryptsetup uses at most.
const MAX_MEMORY: u32 = 1 << 20;
/// Most lanes of argon2id.
const MAX_LANES: u32 = 8;
/// Iterations of a digest: cryptsetup's least, and more than it takes in 125 ms on any machine.
const ITERATIONS: std::ops::RangeInclusive<u32> = 1000..=4_000_000;
/// Sector sizes in bytes.
pub const SECTOR_SIZES: [u32; 2] = [512, 4096];

/// Reads the metadata of a volume on a device of `device` bytes, or says the first thing that is not allowed.
pub fn check(json: &str, device: u64) -> Result<Metadata, Refusal> {
    let document: Document = serde_json::from_str(json).map_err(|error| metadata(&error))?;
    flags(&document.config)?;
    let segment = segment(document.segments, device)?;
    sizes(&document.config)?;
    let keyslots = keyslots(document.keyslots, &document.config)?;
    let (digest_number, digest) = digest(document.digests, &keyslots)?;
    let tokens = document.tokens.0.into_iter();
    let tokens = tokens.map(|(number, value)| Ok((number, Token::from_value(number, value)?)));
    let tokens = tokens.collect::<Result<_, Refusal>>()?;
    Ok(Metadata { keyslots, tokens, segment, digest, digest_number, config: document.config })
}

fn metadata(error: &serde_json::Error) -> Refusal {
    Refusal::Metadata(error.to_string().escape_debug().take(200).collect())
}

/// The value of `type`.
fn kind(value: &Value) -> Result<&str, Refusal> {
    let text = value.get("type").and_then(Value::as_str);
    text.ok_or_else(|| Refusal::Metadata("an object has no type".to_owned()))
}

fn typed<T: DeserializeOwned>(value: Value) -> Result<T, Refusal> {
    serde_json::from_value(value).map_err(|error| metadata(&error))
}

/// The bytes of a salt.
pub fn salt(text: &str) -> Option<Vec<u8>> {
    BASE64_STANDARD.decode(text).ok().filter(|salt| (8..=64).contains(&salt.len()))
}

/// The bytes of a digest: SHA-256's.
pub fn digest_bytes(text: &str) -> Option<[u8; 32]> {
    BASE64_STANDARD.decode(text).ok()?.try_into().ok()
}

fn flags(config: &Config) -> Result<(), Refusal> {
    if let Some(requirements) = &config.requirements {
        return Err(Refusal::Requirements(shown(&requirements.to_string())));
    }
    if let Some(flags) = &config.flags {
        return Err(Refusal::Flags(shown(&flags.to_string())));
    }
    Ok(())
}

fn sizes(config: &Config) -> Result<(), Refusal> {
    let keyslots = config.keyslots_size.0;
    let fits = keyslots.is_multiple_of(4096) && (AREA_SIZE..=KEYSLOTS_SIZE).contains(&keyslots);
    if config.json_size.0 != JSON_SIZE as u64 || !fits {
        return Err(Refusal::ConfigSizes);
    }
    Ok(())
}

fn segment(segments: Numbered<Value>, device: u64) -> Result<Segment, Refusal> {
    let count = segments.0.len();
    let mut entries = segments.0.into_iter();
    let (Some((0, value)), None) = (entries.next(), entries.next()) else {
        return Err(Refusal::Segments(count));
    };
    let kind = kind(&value)?;
    if kind != "crypt" {
        return Err(Refusal::SegmentType(shown(kind)));
    }
    let segment: Segment = typed(value)?;
    if segment.integrity.is_some() {
        return Err(Refusal::Integrity);
    }
    if let Some(flags) = &segment.flags {
        return Err(Refusal::Flags(shown(&flags.to_string())));
    }
    if segment.encryption != CIPHER {
        let null = segment.encryption.contains("null");
        let name = shown(&segment.encryption);
        return Err(if null { Refusal::NullCipher(name) } else { Refusal::Cipher(name) });
    }
    if segment.offset.0 != DATA_AT {
        return Err(Refusal::DataOffset(segment.offset.0));
    }
    if segment.iv_tweak.0 != 0 {
        return Err(Refusal::IvTweak(segment.iv_tweak.0));
    }
    if !SECTOR_SIZES.contains(&segment.sector_size) {
        return Err(Refusal::SectorSize(segment.sector_size));
    }
    if data_size(&segment, device).is_none() {
        return Err(Refusal::DataSize { size: shown(&segment.size), device });
    }
    Ok(segment)
}

/// Size of the data in bytes, in whole sectors; none when they do not fit on a device of `device` bytes.
pub fn data_size(segment: &Segment, device: u64) -> Option<u64> {
    let room = device.checked_sub(DATA_AT)?;
    let sector = u64::from(segment.sector_size);
    let size = if segment.size == "dynamic" {
        room - room.checked_rem(sector)?
    } else {
        decimal(&segment.size).filter(|size| *size <= room && size.is_multiple_of(sector))?
    };
    Some(size).filter(|size| *size != 0)
}

fn keyslots(slots: Numbered<Value>, config: &Config) -> Result<BTreeMap<u8, Keyslot>, Refusal> {
    let end = KEYSLOTS_AT.saturating_add(config.keyslots_size.0);
    let mut keyslots = BTreeMap::new();
    let mut areas = Vec::new();
    for (number, value) in slots.0 {
        let kind = kind(&value)?;
        if kind != "luks2" {
            return Err(Refusal::KeyslotType(number, shown(kind)));
        }
        let derivation = value.get("kdf").map_or(Ok(""), self::kind)?;
        if derivation != "argon2id" {
            return Err(Refusal::Kdf(number, shown(derivation)));
        }
        let slot: Keyslot = typed(value)?;
        if slot.key_size as usize != KEY_SIZE {
            return Err(Refusal::KeySize(number, slot.key_size));
        }
        let (time, memory, cpus) = (slot.kdf.time, slot.kdf.memory, slot.kdf.cpus);
        // Argon2 wants eight blocks for each lane (RFC 9106, section 3.1).
        let bounds = (1..=MAX_TIME).contains(&time) && (1..=MAX_LANES).contains(&cpus);
        if !bounds || !(8 * cpus..=MAX_MEMORY).contains(&memory) {
            return Err(Refusal::KdfCost { keyslot: number, time, memory, cpus });
        }
        if salt(&slot.kdf.salt).is_none() {
            return Err(Refusal::Salt(format!("keyslot {number}")));
        }
        if slot.af.r#type != "luks1" || slot.af.stripes != STRIPES || slot.af.hash != "sha256" {
            return Err(Refusal::AntiForensic(number));
        }
        if slot.priority.is_some_and(|priority| priority > 2) {
            return Err(Refusal::Metadata(format!("keyslot {number} has a priority above 2")));
        }
        areas.push(area(&slot.area, end).ok_or(Refusal::Area(number))?);
        if areas.iter().rev().skip(1).any(|other| overlap(areas.last(), *other)) {
            return Err(Refusal::Area(number));
        }
        keyslots.insert(number, slot);
    }
    Ok(keyslots)
}

/// Where an area begins and ends, when it is as it should be.
fn area(area: &Area, limit: u64) -> Option<(u64, u64)> {
    let form = area.r#type == "raw" && area.encryption == CIPHER && area.key_size as usize == KEY_SIZE;
    let start = area.offset.0;
    let end = start.checked_add(area.size.0)?;
    let place = start >= KEYSLOTS_AT && start.is_multiple_of(4096) && end <= limit;
    (form && place && area.size.0 >= AREA_CONTENT).then_some((start, end))
}

fn overlap(one: Option<&(u64, u64)>, other: (u64, u64)) -> bool {
    one.is_some_and(|one| one.0 < other.1 && other.0 < one.1)
}

fn digest(digests: Numbered<Value>, keyslots: &BTreeMap<u8, Keyslot>) -> Result<(u8, Digest), Refusal> {
    let count = digests.0.len();
    let mut entries = digests.0.into_iter();
    let (Some((number, value)), None) = (entries.next(), entries.next()) else {
        return Err(Refusal::Digests(count));
    };
    if kind(&value)? != "pbkdf2" {
        return Err(Refusal::Digest);
    }
    let digest: Digest = typed(value)?;
    if digest.hash != "sha256"
        || !ITERATIONS.contains(&digest.iterations)
        || digest_bytes(&digest.digest).is_none()
    {
        return Err(Refusal::Digest);
    }
    if salt(&digest.salt).is_none() {
        return Err(Refusal::Salt("the key digest".to_owned()));
    }
    let named: BTreeSet<&str> = digest.keyslots.iter().map(String::as_str).collect();
    let slots: BTreeSet<String> = keyslots.keys().map(u8::to_string).collect();
    let all =
        named.len() == digest.keyslots.len() && named.iter().copied().eq(slots.iter().map(String::as_str));
    if !all || digest.segments != ["0"] {
        return Err(Refusal::DigestLinks);
    }
    Ok((number, digest))
}
