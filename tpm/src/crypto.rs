//! The primitives that sessions and names are made of: SHA-256, HMAC, the two key derivations, AES-128 in CFB mode and
//! the key agreement on P-256 (part 1, sections 11.4 and B.6, annex C.6.1).

use crate::Error;
use aes::Aes128;
use aes::cipher::{BlockCipherEncrypt, KeyInit as _};
use hmac::{Hmac, Mac};
use sha2::{Digest as _, Sha256};
use zeroize::{Zeroize as _, Zeroizing};

/// A secret of the size of a SHA-256 digest.
pub type Secret = Zeroizing<[u8; 32]>;

/// Bytes of a block of AES.
const BLOCK: usize = 16;

/// SHA-256 over the parts, one behind the other.
pub fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    parts.iter().fold(Sha256::new(), Sha256::chain_update).finalize().into()
}

fn mac(key: &[u8; 32], parts: &[&[u8]]) -> Hmac<Sha256> {
    // HMAC fills a shorter key up with zeros, to a block of 64 bytes.
    let mut block = Zeroizing::new([0; 64]);
    block.iter_mut().zip(key).for_each(|(to, from)| *to = *from);
    let mut mac = Hmac::<Sha256>::new((&*block).into());
    for part in parts {
        mac.update(part);
    }
    mac
}

/// HMAC-SHA-256 over the parts.
pub fn hmac(key: &[u8; 32], parts: &[&[u8]]) -> [u8; 32] {
    mac(key, parts).finalize().into_bytes().into()
}

/// Whether `tag` is the HMAC-SHA-256 over the parts, compared in constant time.
pub fn hmac_is(key: &[u8; 32], parts: &[&[u8]], tag: &[u8]) -> bool {
    mac(key, parts).verify_slice(tag).is_ok()
}

/// `KDFa` for 256 bits with SHA-256: one block of the counter mode of SP 800-108 (part 1, section 11.4.10.2).
pub fn kdfa(key: &[u8; 32], label: &str, context_u: &[u8], context_v: &[u8]) -> Secret {
    let one = 1u32.to_be_bytes();
    let bits = 256u32.to_be_bytes();
    Zeroizing::new(hmac(key, &[&one, label.as_bytes(), &[0], context_u, context_v, &bits]))
}

/// `KDFe` for 256 bits with SHA-256: one block of the one-step derivation of SP 800-56A (part 1, section 11.4.10.3).
pub fn kdfe(z: &[u8], label: &str, party_u: &[u8], party_v: &[u8]) -> Secret {
    Zeroizing::new(sha256(&[&1u32.to_be_bytes(), z, label.as_bytes(), &[0], party_u, party_v]))
}

/// Which way [`cfb`] goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From clear to encrypted.
    Encrypt,
    /// From encrypted to clear.
    Decrypt,
}

/// AES-128 in CFB mode with full blocks, in place (SP 800-38A, section 6.3). `material` is the key, then the first
/// block: what [`kdfa`] gives for a parameter (part 1, section 21.3).
pub fn cfb(direction: Direction, material: &Secret, data: &mut [u8]) {
    let (key, start) = material.split_at(BLOCK);
    let (Ok(key), Ok(start)) = (<[u8; BLOCK]>::try_from(key), <[u8; BLOCK]>::try_from(start)) else { return };
    let key = Zeroizing::new(key);
    let cipher = Aes128::new((&*key).into());
    let mut last = start;
    for chunk in data.chunks_mut(BLOCK) {
        let mut pad = last.into();
        cipher.encrypt_block(&mut pad);
        for ((byte, pad), last) in chunk.iter_mut().zip(pad).zip(&mut last) {
            let other = *byte ^ pad;
            *last = if direction == Direction::Encrypt { other } else { *byte };
            *byte = other;
        }
        pad.as_mut_slice().zeroize();
    }
}

/// Random bytes from the kernel. Before its generator is ready this waits for it: the kernel then gathers entropy
/// from the processor's timing by itself, which takes about a second.
pub fn random(bytes: &mut [u8]) -> Result<(), Error> {
    let mut rest = bytes;
    while !rest.is_empty() {
        match rustix::rand::getrandom(&mut *rest, rustix::rand::GetRandomFlags::empty()) {
            Ok(length) => rest = rest.get_mut(length..).unwrap_or_default(),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(Error::Random(error.into())),
        }
    }
    Ok(())
}

/// A salt that only the holder of a P-256 key can know.
pub struct Salt {
    /// The public point that the holder makes the salt from: x and y.
    pub point: ([u8; 32], [u8; 32]),
    /// The salt.
    pub secret: Secret,
}

/// A point of P-256, checked to be one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Point(p256::PublicKey);

impl Point {
    /// The point with these coordinates; none when it is not on the curve.
    pub fn new(x: &[u8; 32], y: &[u8; 32]) -> Option<Self> {
        let bytes = [&[4][..], x, y].concat();
        p256::PublicKey::from_sec1_bytes(&bytes).ok().map(Self)
    }

    /// Both coordinates.
    fn coordinates(&self) -> Option<([u8; 32], [u8; 32])> {
        use p256::elliptic_curve::sec1::ToSec1Point as _;
        let encoded = self.0.to_sec1_point(false);
        Some((encoded.x()?.as_slice().try_into().ok()?, encoded.y()?.as_slice().try_into().ok()?))
    }

    /// A new salt for the key with this point (part 1, annex C.6.1): a key pair for once, the x coordinate that both
    /// sides get, and `KDFe` over it with the label "SECRET".
    pub fn salt(&self) -> Result<Salt, Error> {
        let key = loop {
            let mut bytes = Zeroizing::new([0; 32]);
            random(&mut *bytes)?;
            // All but one in 2^32 are scalars.
            if let Ok(key) = p256::SecretKey::from_slice(&*bytes) {
                break key;
            }
        };
        let shared = key.diffie_hellman(&self.0);
        let ours = Self(key.public_key()).coordinates();
        let (Some(point), Some((x, _))) = (ours, self.coordinates()) else {
            return Err(Error::Random(std::io::Error::other("the point at infinity")));
        };
        let secret = kdfe(shared.raw_secret_bytes().as_slice(), "SECRET", &point.0, &x);
        Ok(Salt { point, secret })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cfb_is_that_of_sp_800_38a() {
        // Appendix F.3.13, CFB128-AES128.
        let bytes = |text: &str| hex::decode(text).unwrap();
        let material = bytes("2b7e151628aed2a6abf7158809cf4f3c000102030405060708090a0b0c0d0e0f");
        let material = Zeroizing::new(material.try_into().unwrap());
        let clear = bytes(
            "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51\
             30c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710",
        );
        let encrypted = bytes(
            "3b3fd92eb72dad20333449f8e83cfb4ac8a64537a0b3a93fcde3cdad9f1ce58b\
             26751f67a3cbb140b1808cf187a4f4dfc04b05357c5d1c0eeac4c66f9ff7f2e6",
        );
        for length in [0, 1, 15, 16, 17, 40, 64] {
            let mut data = clear[..length].to_vec();
            cfb(Direction::Encrypt, &material, &mut data);
            assert_eq!(data, encrypted[..length]);
            cfb(Direction::Decrypt, &material, &mut data);
            assert_eq!(data, clear[..length]);
        }
    }

    #[test]
    fn hmacs_are_those_of_rfc_4231() {
        // Test case 2.
        let wanted = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        let mut key = [0; 32];
        key[..4].copy_from_slice(b"Jefe");
        assert_eq!(hex::encode(hmac(&key, &[b"what do ya want ", b"for nothing?"])), wanted);
        let wanted = hex::decode(wanted).unwrap();
        assert!(hmac_is(&key, &[b"what do ya want for nothing?"], &wanted));
        assert!(!hmac_is(&key, &[b"what do ya want for nothing?"], &wanted[..31]));
        assert!(!hmac_is(&key, &[b"what do ya want for nothing"], &wanted));
    }

    #[test]
    fn both_sides_get_the_same_salt() {
        let mut bytes = [0; 32];
        random(&mut bytes).unwrap();
        let key = p256::SecretKey::from_slice(&bytes).unwrap();
        let (x, y) = Point(key.public_key()).coordinates().unwrap();
        let salt = Point::new(&x, &y).unwrap().salt().unwrap();
        let theirs = Point::new(&salt.point.0, &salt.point.1).unwrap();
        let shared = key.diffie_hellman(&theirs.0);
        assert_eq!(salt.secret, kdfe(shared.raw_secret_bytes().as_slice(), "SECRET", &salt.point.0, &x));
        assert!(Point::new(&x, &x).is_none());
        assert!(Point::new(&[0; 32], &[0; 32]).is_none());
    }
}
