//! Public areas of objects and their names (part 2, sections 10.5.3 and 12.2; part 1, section 16).

use crate::crypto::sha256;
use crate::wire::{Reader, WireError, Writer};
use std::fmt;

/// `TPM_ALG_*` (part 2, section 6.3).
pub mod algorithm {
    /// RSA.
    pub const RSA: u16 = 0x0001;
    /// AES.
    pub const AES: u16 = 0x0006;
    /// Data, or a key for an HMAC.
    pub const KEYED_HASH: u16 = 0x0008;
    /// SHA-256.
    pub const SHA256: u16 = 0x000b;
    /// None.
    pub const NULL: u16 = 0x0010;
    /// RSASSA-PKCS1-v1_5.
    pub const RSASSA: u16 = 0x0014;
    /// Elliptic curves.
    pub const ECC: u16 = 0x0023;
    /// The CFB mode.
    pub const CFB: u16 = 0x0043;
}

/// `TPMA_OBJECT` (part 2, section 8.3).
pub mod attribute {
    /// Never leaves the TPM.
    pub const FIXED_TPM: u32 = 1 << 1;
    /// Never leaves its parent.
    pub const FIXED_PARENT: u32 = 1 << 4;
    /// The TPM made the secret part.
    pub const SENSITIVE_DATA_ORIGIN: u32 = 1 << 5;
    /// The authorisation value allows use.
    pub const USER_WITH_AUTH: u32 = 1 << 6;
    /// Only a policy allows administration.
    pub const ADMIN_WITH_POLICY: u32 = 1 << 7;
    /// Wrong authorisations do not count for the dictionary lockout, and the lockout does not touch it.
    pub const NO_DA: u32 = 1 << 10;
    /// Works only on what has the TPM's structure.
    pub const RESTRICTED: u32 = 1 << 16;
    /// Decrypts.
    pub const DECRYPT: u32 = 1 << 17;
    /// Signs or encrypts.
    pub const SIGN: u32 = 1 << 18;
}

/// `TPM_ECC_NIST_P256` (part 2, section 6.4).
pub const CURVE_P256: u16 = 0x0003;
/// The largest public area in bytes: an RSA key of 4096 bits has 600.
const MAX_PUBLIC: u16 = 1024;
/// The largest modulus in bytes: 4096 bits.
const MAX_MODULUS: u16 = 512;
/// The largest digest in bytes: SHA-512.
const MAX_DIGEST: u16 = 64;
/// The largest coordinate in bytes: P-521.
const MAX_COORDINATE: u16 = 66;

/// The name of an object or NV index: the algorithm, here always SHA-256, and the digest of the public area.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name([u8; Name::SIZE]);

impl Name {
    /// Its size in bytes.
    pub const SIZE: usize = 34;

    /// The name of the public area with these bytes.
    pub fn of(public: &[u8]) -> Self {
        let mut name = [0; Self::SIZE];
        let (head, digest) = name.split_at_mut(2);
        head.copy_from_slice(&algorithm::SHA256.to_be_bytes());
        digest.copy_from_slice(&sha256(&[public]));
        Self(name)
    }

    /// The name in its bytes; none for one of another algorithm.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let name: [u8; Self::SIZE] = bytes.try_into().ok()?;
        name.starts_with(&algorithm::SHA256.to_be_bytes()).then_some(Self(name))
    }

    /// The bytes.
    pub const fn as_bytes(&self) -> &[u8; Self::SIZE] {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A symmetric cipher of a parent (`TPMT_SYM_DEF_OBJECT`, part 2, section 11.1.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Symmetric {
    /// The cipher.
    pub algorithm: u16,
    /// Bits of its key.
    pub bits: u16,
    /// Its mode.
    pub mode: u16,
}

/// A scheme with its hash; none for `TPM_ALG_NULL`.
pub type Scheme = Option<(u16, u16)>;

/// What depends on the kind of object (`TPMU_PUBLIC_PARMS` and `TPMU_PUBLIC_ID`, part 2, section 12.2.3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A key on an elliptic curve.
    Ecc {
        /// The cipher of a parent.
        symmetric: Option<Symmetric>,
        /// How it signs.
        scheme: Scheme,
        /// `TPM_ECC_*`.
        curve: u16,
        /// The derivation.
        kdf: Scheme,
        /// The x coordinate.
        x: Vec<u8>,
        /// The y coordinate.
        y: Vec<u8>,
    },
    /// An RSA key.
    Rsa {
        /// The cipher of a parent.
        symmetric: Option<Symmetric>,
        /// How it signs.
        scheme: Scheme,
        /// Bits of the modulus.
        bits: u16,
        /// The exponent; 0 stands for 65537.
        exponent: u32,
        /// The modulus.
        modulus: Vec<u8>,
    },
    /// Sealed data, without a scheme.
    Data {
        /// A digest over what is sealed, with a secret number.
        unique: Vec<u8>,
    },
}

/// A public area (`TPMT_PUBLIC`, part 2, section 12.2.4) whose name is made with SHA-256.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Public {
    /// [`attribute`]s.
    pub attributes: u32,
    /// The policy's digest; empty for none.
    pub policy: Vec<u8>,
    /// The rest.
    pub kind: Kind,
}

impl Public {
    /// Reads a whole public area.
    pub fn parse(bytes: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(bytes);
        let kind = reader.u16("the object's type")?;
        if reader.u16("the algorithm of the name")? != algorithm::SHA256 {
            return Err(WireError::Unexpected("the algorithm of the name"));
        }
        let attributes = reader.u32("the object's attributes")?;
        let policy = reader.sized(MAX_DIGEST, "the object's policy")?.to_vec();
        let kind = match kind {
            algorithm::ECC => Kind::Ecc {
                symmetric: read_symmetric(&mut reader)?,
                scheme: read_scheme(&mut reader)?,
                curve: reader.u16("the curve")?,
                kdf: read_scheme(&mut reader)?,
                x: reader.sized(MAX_COORDINATE, "the x coordinate")?.to_vec(),
                y: reader.sized(MAX_COORDINATE, "the y coordinate")?.to_vec(),
            },
            algorithm::RSA => Kind::Rsa {
                symmetric: read_symmetric(&mut reader)?,
                scheme: read_scheme(&mut reader)?,
                bits: reader.u16("the bits of the key")?,
                exponent: reader.u32("the exponent")?,
                modulus: reader.sized(MAX_MODULUS, "the modulus")?.to_vec(),
            },
            algorithm::KEYED_HASH if reader.u16("the scheme")? == algorithm::NULL => {
                Kind::Data { unique: reader.sized(MAX_DIGEST, "the unique value")?.to_vec() }
            }
            algorithm::KEYED_HASH => return Err(WireError::Unexpected("the scheme")),
            _ => return Err(WireError::Unexpected("the object's type")),
        };
        reader.end()?;
        Ok(Self { attributes, policy, kind })
    }

    /// The bytes.
    pub fn to_bytes(&self) -> Result<Vec<u8>, WireError> {
        let kind = match self.kind {
            Kind::Ecc { .. } => algorithm::ECC,
            Kind::Rsa { .. } => algorithm::RSA,
            Kind::Data { .. } => algorithm::KEYED_HASH,
        };
        let to = Writer::new().u16(kind).u16(algorithm::SHA256).u32(self.attributes).sized(&self.policy)?;
        let to = match &self.kind {
            Kind::Ecc { symmetric, scheme, curve, kdf, x, y } => {
                let to = write_scheme(write_symmetric(to, *symmetric), *scheme).u16(*curve);
                write_scheme(to, *kdf).sized(x)?.sized(y)?
            }
            Kind::Rsa { symmetric, scheme, bits, exponent, modulus } => {
                let to = write_scheme(write_symmetric(to, *symmetric), *scheme);
                to.u16(*bits).u32(*exponent).sized(modulus)?
            }
            Kind::Data { unique } => to.u16(algorithm::NULL).sized(unique)?,
        };
        Ok(to.into_bytes())
    }
}

/// `TPM2B_PUBLIC`: the bytes of the public area, not looked into.
pub fn read_public<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], WireError> {
    reader.sized(MAX_PUBLIC, "the public area")
}

/// `TPM2B_NAME` of an object whose name is made with SHA-256.
pub fn read_name(reader: &mut Reader<'_>) -> Result<Name, WireError> {
    Name::from_bytes(reader.sized(68, "the name")?).ok_or(WireError::Unexpected("the name"))
}

fn read_symmetric(reader: &mut Reader<'_>) -> Result<Option<Symmetric>, WireError> {
    let algorithm = reader.u16("the cipher")?;
    if algorithm == algorithm::NULL {
        return Ok(None);
    }
    let (bits, mode) = (reader.u16("the cipher's bits")?, reader.u16("the cipher's mode")?);
    Ok(Some(Symmetric { algorithm, bits, mode }))
}

fn write_symmetric(to: Writer, symmetric: Option<Symmetric>) -> Writer {
    match symmetric {
        None => to.u16(algorithm::NULL),
        Some(Symmetric { algorithm, bits, mode }) => to.u16(algorithm).u16(bits).u16(mode),
    }
}

fn read_scheme(reader: &mut Reader<'_>) -> Result<Scheme, WireError> {
    match reader.u16("the scheme")? {
        algorithm::NULL => Ok(None),
        // RSAES has no hash, ECDAA a count too: neither is used here.
        0x0015 | 0x001a => Err(WireError::Unexpected("the scheme")),
        scheme => Ok(Some((scheme, reader.u16("the scheme's hash")?))),
    }
}

fn write_scheme(to: Writer, scheme: Scheme) -> Writer {
    match scheme {
        None => to.u16(algorithm::NULL),
        Some((scheme, hash)) => to.u16(scheme).u16(hash),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cipher() -> impl Strategy<Value = Option<Symmetric>> {
        let some = (0..0x10u16, any::<u16>(), any::<u16>());
        proptest::option::of(some.prop_map(|(algorithm, bits, mode)| Symmetric { algorithm, bits, mode }))
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            attributes: u32,
            policy in proptest::collection::vec(any::<u8>(), 0..64),
            symmetric in cipher(),
            scheme in proptest::option::of((0x16..0x1au16, any::<u16>())),
            number: u16,
            bytes in proptest::collection::vec(any::<u8>(), 0..64),
        ) {
            let (x, y) = (bytes.clone(), policy.clone());
            for kind in [
                Kind::Ecc { symmetric, scheme, curve: number, kdf: scheme, x, y },
                Kind::Rsa { symmetric, scheme, bits: number, exponent: attributes, modulus: bytes.clone() },
                Kind::Data { unique: bytes.clone() },
            ] {
                let public = Public { attributes, policy: policy.clone(), kind };
                let written = public.to_bytes().unwrap();
                prop_assert_eq!(Public::parse(&written), Ok(public));
                prop_assert!(Public::parse(&written[..written.len() - 1]).is_err());
            }
        }
    }

    #[test]
    fn names_know_their_algorithm() {
        let name = Name::of(b"public");
        assert_eq!(Name::from_bytes(name.as_bytes()), Some(name));
        assert_eq!(name.to_string().len(), 68);
        assert!(name.to_string().starts_with("000b"));
        let mut sha1 = *name.as_bytes();
        sha1[1] = 4;
        assert_eq!(Name::from_bytes(&sha1), None);
        assert_eq!(Name::from_bytes(&sha1[..22]), None);
    }
}
