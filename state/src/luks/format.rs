//! Making a volume, so that a power cut at any moment leaves something that is known.
//!
//! The order, with a flush after each step:
//!
//! 1. A seed is copied to a place that no keyslot uses ([`SEED_AT`]); on a blank partition that place is cleared.
//! 2. One sector that says "unfinished" goes where the header's second copy will be. Until here the partition is what it was.
//! 3. The keyslot is written. Until here the volume is unfinished and may be made again.
//! 4. The first copy of the header. With its last sector the volume is whole.
//! 5. The second copy, over the mark.
//!
//! A volume whose first copy is damaged later has its second copy and no mark, so it is never taken for an unfinished one.

use super::allow::{AREA_CONTENT, AREA_SIZE, SECTOR_SIZES, STRIPES};
use super::binary::{self, JSON_SIZE, LABEL_LENGTH};
use super::crypto::{self, Direction, KdfFailure};
use super::header::Current;
use super::json::{AntiForensic, Area, Config, Decimal, Digest, Kdf, Keyslot, MOST, Metadata, Segment};
use super::token::Token;
use super::{
    CIPHER, DATA_AT, Found, HEADER_SIZE, Header, KEYSLOTS_AT, KEYSLOTS_SIZE, LEAST_SIZE, START_SIZE, read,
};
use crate::device::{Random, ReadAt, WriteAt};
use crate::error::Error;
use crate::recovery::RecoveryKey;
use crate::uuid::Uuid;
use crate::{KEY_SIZE, VolumeKey, seed};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use std::collections::BTreeMap;
use zeroize::Zeroizing;

/// Where a seed is kept while the volume is made, in bytes: behind the areas of all 32 keyslots that there can be.
pub const SEED_AT: u64 = 8 << 20;
/// Cost of the recovery key's slot: passes, KiB and lanes of argon2id.
///
/// The recovery key has 256 random bits. No cost makes guessing it any less hopeless, so it is set low, for machines with
/// little memory; a passphrase that somebody adds with cryptsetup gets cryptsetup's own cost.
const COST: (u32, u32, u32) = (4, 32 * 1024, 1);
/// Iterations of the digest. The volume's key is random too; this is the format's least.
const ITERATIONS: u32 = 1000;
/// Length of salts in bytes.
const SALT: usize = 32;
/// How much is cleared at once, in bytes.
const CHUNK: usize = 1 << 20;

/// What a new volume is made of.
#[derive(Debug)]
pub struct Params<'a> {
    /// The key that encrypts the data: 64 random bytes.
    pub volume_key: &'a VolumeKey,
    /// What opens its one keyslot.
    pub recovery_key: &'a RecoveryKey,
    /// Its UUID.
    pub uuid: Uuid,
    /// Its label: up to 47 bytes of ASCII.
    pub label: &'a str,
    /// Size of an encrypted sector in bytes: 512 or 4096.
    pub sector_size: u32,
    /// Its tokens.
    pub tokens: Vec<Token>,
}

/// Makes a volume on a partition that is blank, has a seed, or has an unfinished volume; anything else is refused and
/// left alone. Gives the header as it reads back.
pub fn format(device: &mut impl WriteAt, params: &Params<'_>, random: Random<'_>) -> Result<Header, Error> {
    let size = device.size().map_err(Error::io("find the size of"))?;
    let prepared = prepare(params, size, random)?;
    match read(device)? {
        Found::Blank => write(device, &[0; 4096], SEED_AT)?,
        Found::Seed(content) => {
            let copy = seed::seed(&content).ok_or(Error::Parameter("its seed is too long"))?;
            write(device, &copy, SEED_AT)?;
        }
        Found::Unfinished => {}
        Found::Volume(_) => return Err(Error::NotEmpty("a state volume")),
        Found::Foreign(what) => return Err(Error::NotEmpty(what)),
    }
    flush(device)?;
    write(device, &binary::marker(), HEADER_SIZE as u64)?;
    flush(device)?;
    // With zeros over what a seed may have left.
    let mut keyslots = Zeroizing::new(vec![0; START_SIZE - KEYSLOTS_AT as usize]);
    crate::bytes::put(&mut keyslots, 0, &prepared.area);
    write(device, &keyslots, KEYSLOTS_AT)?;
    flush(device)?;
    let [first, second] = prepared.copies;
    write(device, first.as_slice(), 0)?;
    flush(device)?;
    write(device, second.as_slice(), HEADER_SIZE as u64)?;
    flush(device)?;
    match read(device)? {
        Found::Volume(header) if header.verify_volume_key(params.volume_key) && !header.needs_repair() => {
            Ok(*header)
        }
        _ => Err(Error::ReadBack),
    }
}

struct Prepared {
    area: Zeroizing<Vec<u8>>,
    copies: [Box<[u8; HEADER_SIZE]>; 2],
}

/// All that is written, before anything is.
fn prepare(params: &Params<'_>, size: u64, random: Random<'_>) -> Result<Prepared, Error> {
    let sector_size = params.sector_size;
    if !SECTOR_SIZES.contains(&sector_size) {
        return Err(Error::Parameter("sectors of 512 or 4096 bytes are possible"));
    }
    if size < LEAST_SIZE || !size.is_multiple_of(sector_size.into()) {
        return Err(Error::Size { size, least: LEAST_SIZE, sector_size });
    }
    if params.label.len() >= LABEL_LENGTH || !params.label.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Error::Parameter("a label has at most 47 characters of ASCII"));
    }
    let count = params.tokens.len();
    if count > usize::from(MOST) {
        return Err(Error::TooManyTokens(count));
    }
    let mut salt = || {
        let mut salt = [0; SALT];
        random(&mut salt).map(|()| salt).map_err(Error::io("get random numbers for"))
    };
    let (kdf_salt, digest_salt) = (salt()?, salt()?);
    let (time, memory, cpus) = COST;
    let kdf =
        Kdf { r#type: "argon2id".to_owned(), time, memory, cpus, salt: BASE64_STANDARD.encode(kdf_salt) };
    let derived = crypto::derive(&kdf, &kdf_salt, params.recovery_key.text().as_bytes());
    let area_key = derived.map_err(|failure| match failure {
        KdfFailure::Memory => Error::Memory { keyslot: 0, kib: memory },
        KdfFailure::Parameters => Error::Parameter("the cost of its keyslot"),
    })?;
    let mut area = crypto::split(params.volume_key, random).map_err(Error::io("get random numbers for"))?;
    debug_assert_eq!(area.len() as u64, AREA_CONTENT);
    crypto::xts(&area_key, &mut area, Direction::Encrypt);
    let digest = Digest {
        r#type: "pbkdf2".to_owned(),
        keyslots: vec!["0".to_owned()],
        segments: vec!["0".to_owned()],
        hash: "sha256".to_owned(),
        iterations: ITERATIONS,
        salt: BASE64_STANDARD.encode(digest_salt),
        digest: BASE64_STANDARD.encode(crypto::digest(params.volume_key, &digest_salt, ITERATIONS)),
    };
    let metadata = Metadata {
        keyslots: BTreeMap::from([(0, keyslot(kdf))]),
        tokens: (0..).zip(params.tokens.iter().cloned()).collect(),
        segment: Segment {
            r#type: "crypt".to_owned(),
            offset: Decimal(DATA_AT),
            size: "dynamic".to_owned(),
            iv_tweak: Decimal(0),
            encryption: CIPHER.to_owned(),
            sector_size,
            integrity: None,
            flags: None,
        },
        digest,
        digest_number: 0,
        config: Config {
            json_size: Decimal(JSON_SIZE as u64),
            keyslots_size: Decimal(KEYSLOTS_SIZE),
            flags: None,
            requirements: None,
        },
    };
    let mut label = [0; LABEL_LENGTH];
    crate::bytes::put(&mut label, 0, params.label.as_bytes());
    let copy = binary::Copy { sequence: 1, label, subsystem: [0; LABEL_LENGTH], uuid: "", json: "" };
    let header = Header::new(&copy, params.uuid, metadata, size, Current { first: false, second: false });
    Ok(Prepared { area, copies: header.copies(random)? })
}

fn keyslot(kdf: Kdf) -> Keyslot {
    Keyslot {
        r#type: "luks2".to_owned(),
        key_size: KEY_SIZE as u32,
        af: AntiForensic { r#type: "luks1".to_owned(), stripes: STRIPES, hash: "sha256".to_owned() },
        area: Area {
            r#type: "raw".to_owned(),
            offset: Decimal(KEYSLOTS_AT),
            size: Decimal(AREA_SIZE),
            encryption: CIPHER.to_owned(),
            key_size: KEY_SIZE as u32,
        },
        kdf,
        priority: None,
    }
}

/// The seed that was on the partition when the volume was made, until [`forget_seed`]. It is there from the first step of
/// making the volume on, so that no power cut loses it.
pub fn kept_seed(device: &impl ReadAt) -> Result<Option<Vec<u8>>, Error> {
    let Some(length) = kept_length(device)? else { return Ok(None) };
    // At most seed::MAX_SIZE.
    let mut bytes = vec![0; length];
    device.read_at(&mut bytes, SEED_AT).map_err(Error::io("read the seed on"))?;
    Ok(Some(seed::parse(&bytes)?.to_vec()))
}

fn kept_length(device: &impl ReadAt) -> Result<Option<usize>, Error> {
    let mut start = [0; 32];
    device.read_at(&mut start, SEED_AT).map_err(Error::io("read the seed on"))?;
    if start.starts_with(seed::MAGIC) { Ok(Some(seed::length(&start)?)) } else { Ok(None) }
}

/// Clears the kept seed: when its configuration is stored in the volume, or refused for good.
pub fn forget_seed(device: &mut impl WriteAt) -> Result<(), Error> {
    // A damaged length is cleared to the most.
    let length = match kept_length(device) {
        Ok(None) => return Ok(()),
        Ok(Some(length)) => length,
        Err(Error::Seed(_)) => seed::MAX_SIZE,
        Err(error) => return Err(error),
    };
    write(device, &vec![0; length.next_multiple_of(4096)], SEED_AT)?;
    flush(device)
}

/// Destroys whatever the partition holds, at an operator's command: both headers, all keyslots, a kept seed. What was
/// encrypted can be read by nobody then. A volume can be made afterwards. A power cut leaves the old volume, damaged
/// though usable, or an unfinished one.
pub fn erase(device: &mut impl WriteAt) -> Result<(), Error> {
    let size = device.size().map_err(Error::io("find the size of"))?;
    if size < LEAST_SIZE {
        return Err(Error::Size { size, least: LEAST_SIZE, sector_size: 512 });
    }
    let marker = binary::marker();
    write(device, &marker, HEADER_SIZE as u64)?;
    flush(device)?;
    write(device, &[0; HEADER_SIZE], 0)?;
    flush(device)?;
    let mut at = HEADER_SIZE as u64 + marker.len() as u64;
    let zeros = vec![0; CHUNK];
    while at < DATA_AT {
        let length = (DATA_AT - at).min(CHUNK as u64);
        write(device, zeros.get(..length as usize).unwrap_or_default(), at)?;
        at += length;
    }
    flush(device)
}

fn write(device: &mut impl WriteAt, data: &[u8], offset: u64) -> Result<(), Error> {
    device.write_at(data, offset).map_err(Error::io("write"))
}

fn flush(device: &mut impl WriteAt) -> Result<(), Error> {
    device.flush().map_err(Error::io("flush what was written to"))
}
