//! A volume's header in memory.

use super::allow::{AREA_CONTENT, data_size, salt};
use super::binary::{self, Copy, JSON_SIZE, LABEL_LENGTH};
use super::crypto::{self, Direction, KdfFailure};
use super::json::{MOST, Metadata};
use super::token::{Filesystem, RecoveryToken, StateToken, Token, Tpm2Token};
use super::{CIPHER, DATA_AT, HEADER_SIZE};
use crate::device::{Random, ReadAt, WriteAt};
use crate::error::Error;
use crate::recovery::RecoveryKey;
use crate::uuid::Uuid;
use crate::{KEY_SIZE, VolumeKey};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

/// Most memory of a keyslot that the recovery key is tried on, in KiB: twice what [`super::format()`] gives it.
pub const RECOVERY_MEMORY: u32 = 64 * 1024;

/// Which copies on the disk are whole and newest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Current {
    pub first: bool,
    pub second: bool,
}

/// A header that is on the allow list. What it says is said by nobody yet: whether the volume is this machine's is shown by
/// a key that [`Header::verify_volume_key`] accepts.
#[derive(Debug, Clone, PartialEq)]
pub struct Header {
    sequence: u64,
    uuid: Uuid,
    label: [u8; LABEL_LENGTH],
    subsystem: [u8; LABEL_LENGTH],
    metadata: Metadata,
    device_size: u64,
    current: Current,
    /// SHA-256 of both copies as they were read.
    fingerprint: [u8; 32],
}

/// What dm-crypt needs to map the data (Linux, `Documentation/admin-guide/device-mapper/dm-crypt.rst`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CryptTable {
    /// Length in sectors of 512 bytes.
    pub sectors: u64,
    /// The cipher.
    pub cipher: &'static str,
    /// Size of the key in bytes.
    pub key_size: usize,
    /// Initialization vector of the first sector.
    pub iv_offset: u64,
    /// Where the data begin on the device, in sectors of 512 bytes.
    pub offset: u64,
    /// Size of an encrypted sector in bytes.
    pub sector_size: u32,
}

impl CryptTable {
    /// The target's parameters. `key` is as dm-crypt takes it: hexadecimal, or `:64:logon:NAME` for a key of the kernel's
    /// keyring. `device` is `MAJOR:MINOR`. With `discards` the disk is told what is no longer used.
    pub fn parameters(&self, key: &str, device: &str, discards: bool) -> String {
        let optional = match (discards, self.sector_size) {
            (false, 512) => String::new(),
            (true, 512) => " 1 allow_discards".to_owned(),
            (false, size) => format!(" 1 sector_size:{size}"),
            (true, size) => format!(" 2 allow_discards sector_size:{size}"),
        };
        format!("{} {key} {} {device} {}{optional}", self.cipher, self.iv_offset, self.offset)
    }
}

impl Header {
    pub(super) fn new(
        copy: &Copy<'_>,
        uuid: Uuid,
        metadata: Metadata,
        device_size: u64,
        current: Current,
    ) -> Self {
        Self {
            sequence: copy.sequence,
            uuid,
            label: copy.label,
            subsystem: copy.subsystem,
            metadata,
            device_size,
            current,
            fingerprint: [0; 32],
        }
    }

    pub(super) fn with_fingerprint(mut self, copies: &[u8]) -> Self {
        self.fingerprint = Sha256::digest(copies).into();
        self
    }

    /// The volume's UUID.
    pub const fn uuid(&self) -> Uuid {
        self.uuid
    }

    /// Its label; bytes that are no UTF-8 are replaced.
    pub fn label(&self) -> String {
        String::from_utf8_lossy(crate::bytes::text(&self.label)).into_owned()
    }

    /// How many times the header was written.
    pub const fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Whether one of the two copies on the disk is damaged or old: a power cut may leave that. [`Header::write_update`]
    /// puts both right; until then a second fault loses the volume.
    pub const fn needs_repair(&self) -> bool {
        !(self.current.first && self.current.second)
    }

    /// Numbers of the keyslots.
    pub fn keyslots(&self) -> Vec<u8> {
        self.metadata.keyslots.keys().copied().collect()
    }

    /// The tokens, in the order of their numbers.
    pub fn tokens(&self) -> Vec<Token> {
        self.metadata.tokens.values().cloned().collect()
    }

    /// The sealed keys, in the order of their numbers.
    pub fn tpm2(&self) -> impl Iterator<Item = &Tpm2Token> {
        self.metadata.tokens.values().filter_map(|token| match token {
            Token::Tpm2(token) => Some(token),
            _ => None,
        })
    }

    /// The escrowed recovery key.
    pub fn recovery(&self) -> Option<&RecoveryToken> {
        self.metadata.tokens.values().find_map(|token| match token {
            Token::Recovery(token) => Some(token),
            _ => None,
        })
    }

    /// Whether the volume has its file system. Without a token that says so nobody knows, and making one would destroy
    /// what is there: so it counts as ready.
    pub fn filesystem(&self) -> Filesystem {
        let mut states = self.metadata.tokens.values().filter_map(|token| match token {
            Token::State(StateToken { filesystem }) => Some(*filesystem),
            _ => None,
        });
        states.next().filter(|first| states.all(|state| state == *first)).unwrap_or(Filesystem::Ready)
    }

    /// Whether this is the volume's key.
    pub fn verify_volume_key(&self, key: &[u8; KEY_SIZE]) -> bool {
        crypto::verify(&self.metadata.digest, key)
    }

    /// Opens a keyslot with the recovery key as somebody typed it.
    ///
    /// Keyslots that cost more than [`RECOVERY_MEMORY`] are passphrases that somebody added with cryptsetup; they are left
    /// out, so that PID 1 of a small machine is not asked for a gigabyte.
    pub fn open_with_recovery_key(&self, device: &impl ReadAt, text: &str) -> Result<VolumeKey, Error> {
        let key = RecoveryKey::parse(text)?;
        self.open_up_to(device, key.text().as_bytes(), RECOVERY_MEMORY)
    }

    /// Opens a keyslot with a passphrase. Tries one after the other; each takes its time, and its memory of up to 1 GiB.
    pub fn open_with_passphrase(&self, device: &impl ReadAt, passphrase: &[u8]) -> Result<VolumeKey, Error> {
        self.open_up_to(device, passphrase, u32::MAX)
    }

    fn open_up_to(&self, device: &impl ReadAt, passphrase: &[u8], memory: u32) -> Result<VolumeKey, Error> {
        let affordable = || self.metadata.keyslots.iter().filter(|(_, slot)| slot.kdf.memory <= memory);
        for (number, slot) in affordable() {
            // The allow list has seen the salt and the costs.
            let Some(salt) = salt(&slot.kdf.salt) else { continue };
            let area_key = match crypto::derive(&slot.kdf, &salt, passphrase) {
                Ok(key) => key,
                Err(KdfFailure::Memory) => {
                    return Err(Error::Memory { keyslot: *number, kib: slot.kdf.memory });
                }
                Err(KdfFailure::Parameters) => continue,
            };
            let mut area = Zeroizing::new(vec![0; AREA_CONTENT as usize]);
            device.read_at(&mut area, slot.area.offset.0).map_err(Error::io("read a keyslot of"))?;
            crypto::xts(&area_key, &mut area, Direction::Decrypt);
            let key = crypto::merge(&area);
            if self.verify_volume_key(&key) {
                return Ok(key);
            }
        }
        Err(Error::WrongKey { keyslots: affordable().count() })
    }

    /// What the mapping is made of.
    pub fn crypt_table(&self) -> CryptTable {
        let segment = &self.metadata.segment;
        CryptTable {
            // The allow list has seen that there is a size.
            sectors: data_size(segment, self.device_size).unwrap_or_default() / 512,
            cipher: CIPHER,
            key_size: KEY_SIZE,
            iv_offset: 0,
            offset: DATA_AT / 512,
            sector_size: segment.sector_size,
        }
    }

    /// The same header with these tokens, to be written.
    pub fn with_tokens(&self, tokens: Vec<Token>) -> Result<Self, Error> {
        let count = tokens.len();
        if count > usize::from(MOST) {
            return Err(Error::TooManyTokens(count));
        }
        let mut header = self.clone();
        header.metadata.tokens = (0..).zip(tokens).collect();
        header.json()?;
        Ok(header)
    }

    fn json(&self) -> Result<String, Error> {
        let json = self.metadata.to_json().map_err(|error| Error::io("describe")(error.into()))?;
        if json.len() < JSON_SIZE {
            Ok(json)
        } else {
            Err(Error::TokensTooLarge { size: json.len(), most: JSON_SIZE - 1 })
        }
    }

    /// Writes the header as the next one in the sequence, and gives it as it is on the disk then.
    ///
    /// A power cut leaves at least one whole copy: the old header or the new one. The copy that is not whole or old is
    /// written first. Nothing is written when somebody else wrote the header since it was read.
    pub fn write_update(&self, device: &mut impl WriteAt, random: Random<'_>) -> Result<Self, Error> {
        let mut copies = Zeroizing::new(vec![0; 2 * HEADER_SIZE]);
        device.read_at(&mut copies, 0).map_err(Error::io("read"))?;
        if Sha256::digest(&*copies).as_slice() != self.fingerprint {
            return Err(Error::Changed);
        }
        let mut next = self.clone();
        // The end of the sequence is not reached: one update a nanosecond takes 500 years.
        next.sequence = self.sequence.saturating_add(1);
        next.current = Current { first: true, second: true };
        let [first, second] = next.copies(random)?;
        let mut order = [(&first, 0), (&second, HEADER_SIZE as u64)];
        if !self.current.second {
            order.reverse();
        }
        for (copy, place) in order {
            device.write_at(copy.as_slice(), place).map_err(Error::io("write the header of"))?;
            device.flush().map_err(Error::io("write the header of"))?;
        }
        Ok(next.with_fingerprint(&[first.as_slice(), second.as_slice()].concat()))
    }

    /// Both copies in bytes.
    pub(super) fn copies(&self, random: Random<'_>) -> Result<[Box<[u8; HEADER_SIZE]>; 2], Error> {
        let json = self.json()?;
        let uuid = self.uuid.to_string();
        let copy = Copy {
            sequence: self.sequence,
            label: self.label,
            subsystem: self.subsystem,
            uuid: &uuid,
            json: &json,
        };
        let mut salts = [[0; 64]; 2];
        for salt in &mut salts {
            random(salt).map_err(Error::io("get random numbers for"))?;
        }
        let [first, second] = salts;
        let size = json.len();
        let too_large = || Error::TokensTooLarge { size, most: JSON_SIZE - 1 };
        Ok([
            binary::write(&copy, false, &first).ok_or_else(too_large)?,
            binary::write(&copy, true, &second).ok_or_else(too_large)?,
        ])
    }
}
