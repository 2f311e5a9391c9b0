//! Big-endian bytes, written and read with every length bounded.

use zeroize::Zeroizing;

/// Why bytes could not be read or written.
#[derive(Debug, thiserror::Error, PartialEq, Eq, Clone, Copy)]
pub enum WireError {
    /// The bytes end inside the named field.
    #[error("it ends inside {0}")]
    Ends(&'static str),
    /// A count or length is larger than the specification allows.
    #[error("{field} is {value}, more than {limit}")]
    TooLarge {
        /// The field.
        field: &'static str,
        /// Its value.
        value: u64,
        /// The largest allowed.
        limit: u64,
    },
    /// A field has a value that it cannot have here.
    #[error("{0} has an unexpected value")]
    Unexpected(&'static str),
    /// Bytes are left over.
    #[error("{0} bytes are left over")]
    Trailing(usize),
}

/// Reads fields from the front of a slice.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// A reader of `bytes`.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The next `length` bytes.
    pub fn take(&mut self, length: usize, field: &'static str) -> Result<&'a [u8], WireError> {
        let (head, tail) = self.0.split_at_checked(length).ok_or(WireError::Ends(field))?;
        self.0 = tail;
        Ok(head)
    }

    /// The next bytes as an array.
    pub fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], WireError> {
        let (head, tail) = self.0.split_first_chunk::<N>().ok_or(WireError::Ends(field))?;
        self.0 = tail;
        Ok(*head)
    }

    /// One byte.
    pub fn u8(&mut self, field: &'static str) -> Result<u8, WireError> {
        Ok(u8::from_be_bytes(self.array(field)?))
    }

    /// Two bytes.
    pub fn u16(&mut self, field: &'static str) -> Result<u16, WireError> {
        Ok(u16::from_be_bytes(self.array(field)?))
    }

    /// Four bytes.
    pub fn u32(&mut self, field: &'static str) -> Result<u32, WireError> {
        Ok(u32::from_be_bytes(self.array(field)?))
    }

    /// Eight bytes.
    pub fn u64(&mut self, field: &'static str) -> Result<u64, WireError> {
        Ok(u64::from_be_bytes(self.array(field)?))
    }

    /// A four-byte count that may not be more than `limit`.
    pub fn count(&mut self, limit: u32, field: &'static str) -> Result<u32, WireError> {
        let value = self.u32(field)?;
        if value > limit {
            return Err(WireError::TooLarge { field, value: value.into(), limit: limit.into() });
        }
        Ok(value)
    }

    /// A sized buffer (`TPM2B_*`) of at most `limit` bytes.
    pub fn sized(&mut self, limit: u16, field: &'static str) -> Result<&'a [u8], WireError> {
        let length = self.u16(field)?;
        if length > limit {
            return Err(WireError::TooLarge { field, value: length.into(), limit: limit.into() });
        }
        self.take(length.into(), field)
    }

    /// What has not been read yet.
    pub const fn rest(&self) -> &'a [u8] {
        self.0
    }

    /// Fails when bytes are left.
    pub const fn end(&self) -> Result<(), WireError> {
        if self.0.is_empty() { Ok(()) } else { Err(WireError::Trailing(self.0.len())) }
    }
}

/// Room that a [`Writer`] starts with, in bytes: what holds a secret (`TPM2_Create` with 128 bytes to seal) never
/// has to move, so that no copy of it stays behind.
const CAPACITY: usize = 512;

/// Builds parameters. The bytes are overwritten when it is dropped.
#[derive(Clone)]
pub struct Writer(Zeroizing<Vec<u8>>);

impl std::fmt::Debug for Writer {
    /// Only how much there is: the bytes may be secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Writer({} bytes)", self.0.len())
    }
}

impl Default for Writer {
    fn default() -> Self {
        Self(Zeroizing::new(Vec::with_capacity(CAPACITY)))
    }
}

impl Writer {
    /// An empty writer.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one byte.
    #[must_use]
    pub fn u8(mut self, value: u8) -> Self {
        self.0.push(value);
        self
    }

    /// Adds two bytes.
    #[must_use]
    pub fn u16(mut self, value: u16) -> Self {
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }

    /// Adds four bytes.
    #[must_use]
    pub fn u32(mut self, value: u32) -> Self {
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }

    /// Adds eight bytes.
    #[must_use]
    pub fn u64(mut self, value: u64) -> Self {
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }

    /// Adds bytes as they are.
    #[must_use]
    pub fn bytes(mut self, value: &[u8]) -> Self {
        self.0.extend_from_slice(value);
        self
    }

    /// Adds a sized buffer (`TPM2B_*`).
    pub fn sized(self, value: &[u8]) -> Result<Self, WireError> {
        let length = u16::try_from(value.len()).map_err(|_| WireError::TooLarge {
            field: "the size of a buffer",
            value: value.len() as u64,
            limit: u16::MAX.into(),
        })?;
        Ok(self.u16(length).bytes(value))
    }

    /// The bytes so far.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The bytes so far, to be encrypted where they are.
    pub fn as_mut_bytes(&mut self) -> &mut [u8] {
        &mut self.0
    }

    /// The bytes.
    pub fn into_bytes(mut self) -> Vec<u8> {
        std::mem::take(&mut *self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_bounded() {
        let mut reader = Reader::new(&[0, 5, 1, 2]);
        assert_eq!(reader.sized(4, "a"), Err(WireError::TooLarge { field: "a", value: 5, limit: 4 }));
        assert_eq!(Reader::new(&[0, 5, 1, 2]).sized(9, "a"), Err(WireError::Ends("a")));
        assert_eq!(Reader::new(&[0, 2, 1, 2]).sized(9, "a"), Ok(&[1, 2][..]));
        assert_eq!(Reader::new(&[0, 0, 1]).u32("b"), Err(WireError::Ends("b")));
        assert_eq!(Reader::new(&[0]).end(), Err(WireError::Trailing(1)));
        assert!(Writer::new().sized(&vec![0; 65536]).is_err());
    }
}
