//! The signed machine configuration that an installer leaves at the start of the state partition, for the first boot.
//!
//! The magic, the length (32 bits, little-endian), the bytes, SHA-256 of the bytes. The checksum finds damage, no more:
//! who may configure the machine is decided by the signature inside.

use crate::bytes::{array, le32};
use sha2::{Digest as _, Sha256};

/// What a seed begins with.
pub const MAGIC: &[u8; 14] = b"ASHLAR-SEED-1\n";
/// Most bytes that a seed carries.
pub const MAX_CONTENT: usize = 1 << 20;
/// Length of the magic and the length field, in bytes.
const HEAD: usize = MAGIC.len() + 4;
/// Most bytes that a seed takes on the disk.
pub const MAX_SIZE: usize = HEAD + MAX_CONTENT + 32;

/// Why bytes are no seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SeedError {
    /// It does not begin with the magic.
    #[error("it has no seed")]
    None,
    /// Longer than a seed may be, or cut off.
    #[error("the seed that the installer left says it has {0} bytes, which is too long; install again")]
    Length(u32),
    /// The checksum differs.
    #[error("the seed that the installer left is damaged; install again")]
    Damaged,
}

/// The bytes of a seed that carries `content`; none when it is longer than [`MAX_CONTENT`].
pub fn seed(content: &[u8]) -> Option<Vec<u8>> {
    let length = u32::try_from(content.len()).ok().filter(|_| content.len() <= MAX_CONTENT)?;
    let mut bytes = MAGIC.to_vec();
    bytes.extend(length.to_le_bytes());
    bytes.extend(content);
    bytes.extend(Sha256::digest(content));
    Some(bytes)
}

/// How many bytes the seed takes whose first bytes these are.
pub fn length(start: &[u8]) -> Result<usize, SeedError> {
    if !start.starts_with(MAGIC) {
        return Err(SeedError::None);
    }
    let length = le32(start, MAGIC.len()).ok_or(SeedError::Length(0))?;
    let content = usize::try_from(length).ok().filter(|length| *length <= MAX_CONTENT);
    Ok(HEAD + content.ok_or(SeedError::Length(length))? + 32)
}

/// The content of the seed that `bytes` begin with.
pub fn parse(bytes: &[u8]) -> Result<&[u8], SeedError> {
    let end = length(bytes)? - 32;
    let content = bytes.get(HEAD..end).ok_or(SeedError::Damaged)?;
    let sum: [u8; 32] = array(bytes, end).ok_or(SeedError::Damaged)?;
    if Sha256::digest(content).as_slice() != sum {
        return Err(SeedError::Damaged);
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        for content in [Vec::new(), b"configuration".to_vec(), vec![9; MAX_CONTENT]] {
            let mut bytes = seed(&content).unwrap();
            assert_eq!(length(&bytes).unwrap(), bytes.len());
            assert!(bytes.len() <= MAX_SIZE);
            bytes.extend([1; 100]);
            assert_eq!(parse(&bytes).unwrap(), content);
        }
        assert_eq!(seed(&vec![0; MAX_CONTENT + 1]), None);
    }

    #[test]
    fn damage() {
        let bytes = seed(b"configuration").unwrap();
        assert_eq!(parse(b""), Err(SeedError::None));
        assert_eq!(parse(&[0; 100]), Err(SeedError::None));
        for length in MAGIC.len()..bytes.len() {
            assert!(parse(&bytes[..length]).is_err(), "{length}");
        }
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert!(parse(&changed).is_err(), "{at}");
        }
        let mut long = bytes;
        long[14..18].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(parse(&long), Err(SeedError::Length(u32::MAX)));
    }
}
