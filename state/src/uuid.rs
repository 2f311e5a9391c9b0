//! UUIDs (RFC 9562) as LUKS2 and ext4 hold them.

use std::fmt;
use std::str::FromStr;

/// Where the hyphens are.
const HYPHENS: [usize; 4] = [8, 13, 18, 23];

/// A UUID. Its text has 36 characters in lower case.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uuid(pub [u8; 16]);

impl Uuid {
    /// A UUID of version 4 made from random bytes (RFC 9562, section 5.4).
    pub const fn from_random(mut bytes: [u8; 16]) -> Self {
        bytes[6] = bytes[6] & 0x0f | 0x40;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        Self(bytes)
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            if matches!(index, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is no UUID.
#[derive(Debug, thiserror::Error)]
#[error("this is no UUID: 8-4-4-4-12 digits from 0 to 9 and a to f are expected")]
pub struct NoUuid;

impl FromStr for Uuid {
    type Err = NoUuid;

    /// Reads the one form that this crate writes; others are refused.
    fn from_str(text: &str) -> Result<Self, NoUuid> {
        let bytes: &[u8; 36] = text.as_bytes().try_into().map_err(|_| NoUuid)?;
        let mut digits = [0; 32];
        let mut filled = digits.iter_mut();
        for (index, byte) in bytes.iter().enumerate() {
            if HYPHENS.contains(&index) {
                if *byte != b'-' {
                    return Err(NoUuid);
                }
                continue;
            }
            let digit = match byte {
                b'0'..=b'9' => byte - b'0',
                b'a'..=b'f' => byte - b'a' + 10,
                _ => return Err(NoUuid),
            };
            *filled.next().ok_or(NoUuid)? = digit;
        }
        let mut uuid = [0; 16];
        for (byte, pair) in uuid.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = pair.iter().fold(0, |byte, digit| byte << 4 | digit);
        }
        Ok(Self(uuid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        let uuid = Uuid::from_random([0xff; 16]);
        assert_eq!(uuid.to_string(), "ffffffff-ffff-4fff-bfff-ffffffffffff");
        assert_eq!(uuid.to_string().parse::<Uuid>().unwrap(), uuid);
        let text = "0123abcd-4567-89ab-cdef-0123456789ab";
        assert_eq!(text.parse::<Uuid>().unwrap().to_string(), text);
        for wrong in
            ["", "0123ABCD-4567-89ab-cdef-0123456789ab", "0123abcd04567-89ab-cdef-0123456789ab", &text[1..]]
        {
            assert!(wrong.parse::<Uuid>().is_err(), "{wrong}");
        }
    }
}
