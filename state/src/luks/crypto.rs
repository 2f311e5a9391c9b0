//! The cryptography of keyslots and digests: argon2id, the anti-forensic splitter, aes-xts-plain64, pbkdf2.

use super::allow::{AREA_CONTENT, STRIPES};
use super::json::{Digest, Kdf};
use crate::device::Random;
use crate::{KEY_SIZE, VolumeKey};
use aes::Aes256;
use aes::cipher::{Array, BlockCipherDecrypt as _, BlockCipherEncrypt as _, KeyInit as _};
use argon2::{Algorithm, Argon2, Block, Version};
use sha2::{Digest as _, Sha256};
use std::io;
use zeroize::{Zeroize as _, Zeroizing};

/// Size of a sector of a keyslot's area in bytes; its number is the initialization vector.
const SECTOR: usize = 512;
/// Size of a block of the cipher in bytes.
const BLOCK: usize = 16;

/// Why a key was not derived.
#[derive(Debug, PartialEq, Eq)]
pub enum KdfFailure {
    /// Not enough memory.
    Memory,
    /// Parameters that the allow list should have refused.
    Parameters,
}

/// The key of a keyslot's area, by argon2id (RFC 9106).
pub fn derive(kdf: &Kdf, salt: &[u8], passphrase: &[u8]) -> Result<VolumeKey, KdfFailure> {
    let params = argon2::Params::new(kdf.memory, kdf.time, kdf.cpus, Some(KEY_SIZE));
    let argon = Argon2::new(Algorithm::Argon2id, Version::V0x13, params.map_err(|_| KdfFailure::Parameters)?);
    let blocks = argon.params().block_count();
    let mut memory: Vec<Block> = Vec::new();
    memory.try_reserve_exact(blocks).map_err(|_| KdfFailure::Memory)?;
    memory.resize(blocks, Block::new());
    let mut key = VolumeKey::new([0; KEY_SIZE]);
    let result = argon.hash_password_into_with_memory(passphrase, salt, &mut *key, &mut memory);
    memory.iter_mut().for_each(zeroize::Zeroize::zeroize);
    result.map(|()| key).map_err(|_| KdfFailure::Parameters)
}

/// The digest of a volume's key.
pub fn digest(key: &[u8; KEY_SIZE], salt: &[u8], iterations: u32) -> [u8; 32] {
    let mut digest = [0; 32];
    pbkdf2::pbkdf2_hmac::<Sha256>(key, salt, iterations, &mut digest);
    digest
}

/// Whether the digest is that of `key`. Takes the same time wherever they differ.
pub fn verify(known: &Digest, key: &[u8; KEY_SIZE]) -> bool {
    let (Some(salt), Some(expected)) =
        (super::allow::salt(&known.salt), super::allow::digest_bytes(&known.digest))
    else {
        return false;
    };
    let found = digest(key, &salt, known.iterations);
    found.iter().zip(expected).fold(0, |differences, (one, other)| differences | (one ^ other)) == 0
}

/// Spreads what is in `block` over all of it: SHA-256 of each 32 bytes after their number (section 3.2.2).
fn diffuse(block: &mut [u8; KEY_SIZE]) {
    for (number, part) in (0u32..).zip(block.chunks_mut(32)) {
        let mut hash = Sha256::new();
        hash.update(number.to_be_bytes());
        hash.update(&*part);
        part.copy_from_slice(&hash.finalize());
    }
}

fn xor(block: &mut [u8], other: &[u8]) {
    for (byte, other) in block.iter_mut().zip(other) {
        *byte ^= other;
    }
}

/// Splits a key into stripes, all of which are needed to get it back.
pub fn split(key: &[u8; KEY_SIZE], random: Random<'_>) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut stripes = Zeroizing::new(vec![0; AREA_CONTENT as usize]);
    let mut carry = Zeroizing::new([0; KEY_SIZE]);
    let (free, last) = stripes.split_at_mut(KEY_SIZE * (STRIPES as usize - 1));
    random(free)?;
    for stripe in free.chunks_exact(KEY_SIZE) {
        xor(&mut *carry, stripe);
        diffuse(&mut carry);
    }
    xor(last, key);
    xor(last, &*carry);
    Ok(stripes)
}

/// The key that was split into these stripes.
pub fn merge(stripes: &[u8]) -> VolumeKey {
    let mut key = VolumeKey::new([0; KEY_SIZE]);
    let mut stripes = stripes.chunks_exact(KEY_SIZE).peekable();
    while let Some(stripe) = stripes.next() {
        xor(&mut *key, stripe);
        if stripes.peek().is_some() {
            diffuse(&mut key);
        }
    }
    key
}

/// What to do to data.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From plain to secret.
    Encrypt,
    /// From secret to plain.
    Decrypt,
}

/// AES-256 in XTS mode (IEEE 1619) over sectors of 512 bytes whose numbers begin with 0: aes-xts-plain64.
pub fn xts(key: &[u8; KEY_SIZE], data: &mut [u8], direction: Direction) {
    let (data_key, tweak_key) = key.split_at(KEY_SIZE / 2);
    // Two halves of 32 bytes are keys of AES-256.
    let (Ok(cipher), Ok(tweaks)) = (Aes256::new_from_slice(data_key), Aes256::new_from_slice(tweak_key))
    else {
        return;
    };
    for (number, sector) in (0u64..).zip(data.chunks_exact_mut(SECTOR)) {
        let mut tweak = Array::from([0; BLOCK]);
        crate::bytes::put(&mut tweak, 0, &number.to_le_bytes());
        tweaks.encrypt_block(&mut tweak);
        let mut tweak = u128::from_le_bytes(tweak.into());
        for part in sector.chunks_exact_mut(BLOCK) {
            let mut block = Array::from([0; BLOCK]);
            block.copy_from_slice(part);
            xor(&mut block, &tweak.to_le_bytes());
            match direction {
                Direction::Encrypt => cipher.encrypt_block(&mut block),
                Direction::Decrypt => cipher.decrypt_block(&mut block),
            }
            xor(&mut block, &tweak.to_le_bytes());
            part.copy_from_slice(&block);
            block.as_mut_slice().zeroize();
            // Times x modulo x^128 + x^7 + x^2 + x + 1.
            tweak = tweak << 1 ^ if tweak >> 127 == 1 { 0x87 } else { 0 };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn xts_as_ieee_1619_has_it() {
        // Vector 10 of IEEE 1619-2007, whose data unit is number 0xff; the sector before it is our way there.
        let key: [u8; 64] = hex::decode(concat!(
            "2718281828459045235360287471352662497757247093699959574966967627",
            "3141592653589793238462643383279502884197169399375105820974944592"
        ))
        .unwrap()
        .try_into()
        .unwrap();
        let plain: Vec<u8> = (0..512u32).map(|byte| byte as u8).collect();
        let mut data = vec![0; 512 * 255];
        data.extend(&plain);
        xts(&key, &mut data, Direction::Encrypt);
        assert_eq!(
            hex::encode(&data[512 * 255..][..32]),
            "1c3b3a102f770386e4836c99e370cf9bea00803f5e482357a4ae12d414a3e63b"
        );
        xts(&key, &mut data, Direction::Decrypt);
        assert_eq!(data[512 * 255..], plain);
    }

    #[test]
    fn stripes() {
        let key = std::array::from_fn(|index| index as u8);
        let mut next = 0u8;
        let mut random = |buffer: &mut [u8]| {
            for byte in buffer {
                next = next.wrapping_mul(5).wrapping_add(13);
                *byte = next;
            }
            Ok(())
        };
        let mut stripes = split(&key, &mut random).unwrap();
        assert_eq!(stripes.len(), 256_000);
        assert_eq!(*merge(&stripes), key);
        // A bit of the second half of a stripe, which SHA-256 spreads over that half.
        stripes[64 * 15 + 40] ^= 1;
        let other = merge(&stripes);
        let differences = |range: std::ops::Range<usize>| range.filter(|at| other[*at] != key[*at]).count();
        assert_eq!(differences(0..32), 0);
        assert!(differences(32..64) > 24);
    }
}
