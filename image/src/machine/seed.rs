//! A signed configuration for a machine that has never started, at the beginning of its state partition.
//!
//! The partition is blank until the first start makes the encrypted volume on it. Before that it may hold a seed:
//! [`MAGIC`], the length of the signed configuration in bytes (4 bytes, little-endian), the configuration, and its
//! SHA-256. All else in the first [`AREA`] bytes is zero. The first start reads it, then makes the volume over it; the
//! checksum is against damage only, as the signature tells whose it is.

use super::MAX_ENVELOPE;
use crate::digest::Digest;

/// What a seed begins with.
pub const MAGIC: &[u8; 14] = b"ASHLAR-SEED-1\n";
/// How many bytes at the beginning of the partition belong to the seed.
pub const AREA: usize = 1 << 20;

/// Why the beginning of a partition holds no seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SeedError {
    /// Something else lies there.
    #[error("the state partition is in use: it begins neither with zeros nor with a seed")]
    InUse,
    /// The length is none that a seed has.
    #[error("the seed on the state partition is damaged: its length of {0} bytes is impossible")]
    Length(u32),
    /// The checksum is not that of the content.
    #[error("the seed on the state partition is damaged: its checksum is wrong")]
    Checksum,
    /// More than fits.
    #[error("the signed configuration has {0} bytes; a seed may have {MAX_ENVELOPE}")]
    TooLarge(usize),
}

/// The bytes of a seed, at most [`AREA`].
///
/// # Errors
/// [`SeedError::TooLarge`].
pub fn encode(envelope: &[u8]) -> Result<Vec<u8>, SeedError> {
    let too_large = SeedError::TooLarge(envelope.len());
    let length = u32::try_from(envelope.len()).map_err(|_| too_large)?;
    if envelope.len() > MAX_ENVELOPE {
        return Err(too_large);
    }
    Ok([MAGIC.as_slice(), &length.to_le_bytes(), envelope, &Digest::of(envelope).0].concat())
}

/// The signed configuration in the first [`AREA`] bytes of a partition; none when they are all zero.
///
/// # Errors
/// [`SeedError`], when there is something else.
pub fn decode(area: &[u8]) -> Result<Option<&[u8]>, SeedError> {
    let blank = |bytes: &[u8]| bytes.iter().all(|byte| *byte == 0);
    let Some(rest) = area.strip_prefix(MAGIC) else {
        return if blank(area) { Ok(None) } else { Err(SeedError::InUse) };
    };
    let (length, rest) = rest.split_first_chunk::<4>().ok_or(SeedError::Length(0))?;
    let length = u32::from_le_bytes(*length);
    let wrong = SeedError::Length(length);
    let wanted = usize::try_from(length).ok().filter(|length| *length <= MAX_ENVELOPE).ok_or(wrong)?;
    let (envelope, rest) = rest.split_at_checked(wanted).ok_or(wrong)?;
    let (checksum, rest) = rest.split_first_chunk::<32>().ok_or(wrong)?;
    if Digest::of(envelope).0 != *checksum {
        return Err(SeedError::Checksum);
    }
    if blank(rest) { Ok(Some(envelope)) } else { Err(SeedError::InUse) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_read_as_it_was_written() {
        for envelope in [b"".as_slice(), b"{}", &vec![7; MAX_ENVELOPE]] {
            let mut area = encode(envelope).unwrap();
            area.resize(AREA, 0);
            assert_eq!(decode(&area), Ok(Some(envelope)));
            *area.last_mut().unwrap() = 1;
            assert_eq!(decode(&area), Err(SeedError::InUse));
        }
        assert_eq!(encode(&vec![0; MAX_ENVELOPE + 1]), Err(SeedError::TooLarge(MAX_ENVELOPE + 1)));
        assert_eq!(decode(&vec![0; AREA]), Ok(None));
        // The form is fixed: installers of others may write it.
        let bytes = encode(b"{}").unwrap();
        assert_eq!(&bytes[..20], b"ASHLAR-SEED-1\n\x02\0\0\0{}");
        let digest = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";
        assert_eq!(hex::encode(&bytes[20..]), digest);
    }

    #[test]
    fn no_damaged_byte_goes_unseen() {
        let mut area = encode(b"{\"payload\":\"\"}").unwrap();
        let length = area.len();
        area.resize(length + 100, 0);
        for place in 0..area.len() {
            for bit in 0..8 {
                area[place] ^= 1 << bit;
                assert!(decode(&area).is_err(), "byte {place}, bit {bit}");
                area[place] ^= 1 << bit;
            }
        }
        for end in 1..length {
            assert!(decode(&area[..end]).is_err(), "{end} bytes");
        }
        assert_eq!(decode(b"LUKS\xba\xbe"), Err(SeedError::InUse));
    }
}
