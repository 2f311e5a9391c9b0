//! The storage root key: the parent of everything sealed, and the key that authenticates the TPM.
//!
//! It is made once and persisted, because `TPM2_CreatePrimary` stops working as soon as the owner's hierarchy gets an
//! authorisation. Its name is noted where the sealed key is kept; a TPM with another name is another TPM.
//!
//! When the machine is enrolled there is no name to compare with: then the key is believed to be the TPM's, so what is
//! on the TPM's bus on that day must be trusted.

use crate::Error;
use crate::command::Entity;
use crate::crypto::Point;
use crate::public::{CURVE_P256, Kind, Name, Public, Symmetric, algorithm, attribute};
use crate::tpm::Tpm;
use crate::transport::Transport;
use crate::wire::WireError;

/// Attributes of a storage root key (TCG TPM v2.0 Provisioning Guidance, section 7.5.1).
const ATTRIBUTES: u32 = attribute::FIXED_TPM
    | attribute::FIXED_PARENT
    | attribute::SENSITIVE_DATA_ORIGIN
    | attribute::USER_WITH_AUTH
    | attribute::NO_DA
    | attribute::RESTRICTED
    | attribute::DECRYPT;
/// Bytes of a coordinate.
const COORDINATE: usize = 32;
/// The cipher under which the TPM keeps what belongs to the key.
const AES_128_CFB: Symmetric = Symmetric { algorithm: algorithm::AES, bits: 128, mode: algorithm::CFB };

/// A storage root key that is there and has the right form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Srk {
    handle: u32,
    name: Name,
    point: Point,
}

impl Srk {
    /// The key at the persistent handle `handle` (0x81000001 by convention), which is made when there is none.
    /// Needs the owner's authorisation to be empty then. One command when it is there, five when not.
    pub fn ensure<T: Transport>(tpm: &mut Tpm<T>, handle: u32) -> Result<Self, Error> {
        if let Some(found) = Self::find(tpm, handle)? {
            return Ok(found);
        }
        let template = template().to_bytes().map_err(malformed)?;
        let primary = tpm.create_primary(&template)?;
        let persisted = tpm.evict_control(primary, handle);
        // See `with_session`.
        let _ = tpm.flush(primary);
        persisted?;
        Self::find(tpm, handle)?.ok_or(Error::NoStorageKey { handle })
    }

    /// The key at `handle`, which must have this name: the one noted when something was sealed. One command.
    pub fn open<T: Transport>(tpm: &mut Tpm<T>, handle: u32, name: &Name) -> Result<Self, Error> {
        let found = Self::find(tpm, handle)?.ok_or(Error::NoStorageKey { handle })?;
        if found.name == *name {
            Ok(found)
        } else {
            Err(Error::OtherTpm { wanted: *name, found: found.name })
        }
    }

    /// The key at `handle`; none when there is no object at all.
    pub fn find<T: Transport>(tpm: &mut Tpm<T>, handle: u32) -> Result<Option<Self>, Error> {
        let Some((public, name)) = tpm.read_public(handle)? else { return Ok(None) };
        let point = point_of(&public).map_err(|why| Error::ForeignStorageKey { handle, why })?;
        Ok(Some(Self { handle, name, point }))
    }

    /// Where it is.
    pub const fn handle(&self) -> u32 {
        self.handle
    }

    /// Its name, which authenticates the TPM.
    pub const fn name(&self) -> &Name {
        &self.name
    }

    pub(crate) const fn point(&self) -> &Point {
        &self.point
    }

    pub(crate) fn entity(&self) -> Entity {
        Entity::named(self.handle, &self.name)
    }
}

/// What the key is made from. The coordinates of a template only make the key another one; TCG's has zeros.
fn template() -> Public {
    Public {
        attributes: ATTRIBUTES,
        policy: Vec::new(),
        kind: Kind::Ecc {
            symmetric: Some(AES_128_CFB),
            scheme: None,
            curve: CURVE_P256,
            kdf: None,
            x: vec![0; COORDINATE],
            y: vec![0; COORDINATE],
        },
    }
}

/// The point of a public area that is as [`template`] makes it; else what is different.
fn point_of(public: &[u8]) -> Result<Point, &'static str> {
    let public = Public::parse(public).map_err(|_| "it is of a kind that is not used here")?;
    let Kind::Ecc { symmetric, scheme, curve, kdf, x, y } = &public.kind else {
        return Err("it is not on an elliptic curve");
    };
    if *curve != CURVE_P256 {
        return Err("it is on another curve");
    }
    if public.attributes != ATTRIBUTES {
        return Err("its attributes are different");
    }
    if !public.policy.is_empty() {
        return Err("it has a policy");
    }
    if *symmetric != Some(AES_128_CFB) || scheme.is_some() || kdf.is_some() {
        return Err("its algorithms are different");
    }
    match (coordinate(x), coordinate(y)) {
        (Some(x), Some(y)) => Point::new(&x, &y).ok_or("its point is not on the curve"),
        _ => Err("its point is not on the curve"),
    }
}

/// A coordinate in full length: some TPMs leave zeros in front out.
fn coordinate(bytes: &[u8]) -> Option<[u8; COORDINATE]> {
    let mut whole = [0; COORDINATE];
    let start = COORDINATE.checked_sub(bytes.len())?;
    whole.get_mut(start..)?.copy_from_slice(bytes);
    Some(whole)
}

const fn malformed(what: WireError) -> Error {
    Error::Malformed { command: crate::command::Code::CreatePrimary.name(), what }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The base point of P-256 (SP 800-186, section 3.2.1.3).
    const X: &str = "6b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296";
    const Y: &str = "4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5";

    fn with(change: impl FnOnce(&mut Public)) -> Result<Point, &'static str> {
        let mut public = template();
        if let Kind::Ecc { x, y, .. } = &mut public.kind {
            (*x, *y) = (hex::decode(X).unwrap(), hex::decode(Y).unwrap());
        }
        change(&mut public);
        point_of(&public.to_bytes().unwrap())
    }

    #[test]
    fn only_a_storage_root_key_is_taken() {
        assert!(with(|_| ()).is_ok());
        assert_eq!(template().attributes, 0x0003_0472);
        for attribute in [attribute::FIXED_TPM, attribute::RESTRICTED, attribute::NO_DA, attribute::SIGN] {
            assert_eq!(with(|public| public.attributes ^= attribute), Err("its attributes are different"));
        }
        assert_eq!(with(|public| public.policy = vec![1; 32]), Err("it has a policy"));
        assert_eq!(
            with(|public| public.kind = Kind::Data { unique: Vec::new() }),
            Err("it is not on an elliptic curve")
        );
        let ecc = |change: fn(&mut Kind)| with(move |public| change(&mut public.kind));
        let another = |kind: &mut Kind| {
            if let Kind::Ecc { curve, .. } = kind {
                *curve = 4;
            }
        };
        assert_eq!(ecc(another), Err("it is on another curve"));
        let off = |kind: &mut Kind| {
            if let Kind::Ecc { y, .. } = kind {
                y[31] ^= 1;
            }
        };
        assert_eq!(ecc(off), Err("its point is not on the curve"));
        let long = |kind: &mut Kind| {
            if let Kind::Ecc { y, .. } = kind {
                y.push(0);
            }
        };
        assert_eq!(ecc(long), Err("its point is not on the curve"));
        let cipher = |kind: &mut Kind| {
            if let Kind::Ecc { symmetric, .. } = kind {
                *symmetric = None;
            }
        };
        assert_eq!(ecc(cipher), Err("its algorithms are different"));
    }

    #[test]
    fn coordinates_are_filled_up() {
        assert_eq!(coordinate(&[1; 33]), None);
        assert_eq!(coordinate(&[1; 32]), Some([1; 32]));
        let whole = coordinate(&[1; 31]).unwrap();
        assert_eq!((whole[0], whole[1]), (0, 1));
    }
}
